//! The way in which this node enters the group: it creates it, is invited, or joins it while it runs.

use crate::id::NodeId;
use crate::machine::creation::Creation;
use crate::machine::join::Joining;

/// The way in which this node enters the group.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It creates the group.
    Creates(Creation),
    /// Another node invites it, before the first view.
    Invited { has_accepted: bool },
    /// It joins a running group. An observer keeps joining.
    Joins(Joining),
    /// Its process was restarted, and joins the group again.
    Resumes(Joining),
    /// It has entered, or takes no place on the ring.
    There,
}

impl Arrival {
    pub(super) fn creation(&self) -> Option<&Creation> {
        if let Self::Creates(creation) = self { Some(creation) } else { None }
    }

    pub(super) fn creation_mut(&mut self) -> Option<&mut Creation> {
        if let Self::Creates(creation) = self { Some(creation) } else { None }
    }

    /// Whether this node creates the group and has invited `node`.
    pub(super) fn has_invited(&self, node: NodeId) -> bool {
        self.creation().is_some_and(|creation| creation.has_invited(node))
    }

    pub(super) fn joining(&self) -> Option<&Joining> {
        if let Self::Joins(joining) | Self::Resumes(joining) = self { Some(joining) } else { None }
    }

    pub(super) fn joining_mut(&mut self) -> Option<&mut Joining> {
        if let Self::Joins(joining) | Self::Resumes(joining) = self { Some(joining) } else { None }
    }

    /// Whether this node joins a running group, or observes it.
    pub(super) fn is_joining(&self) -> bool {
        self.joining().is_some()
    }

    /// Whether this node observes a running group, without a place on its ring.
    pub(super) fn observes(&self) -> bool {
        self.joining().is_some_and(Joining::observes)
    }

    /// Whether this node joins the ring of a running group.
    pub(super) fn joins_ring(&self) -> bool {
        self.joining().is_some_and(|joining| !joining.observes())
    }

    /// Notes that this node accepts an invitation.
    pub(super) fn on_accepted(&mut self) {
        match self {
            Self::Invited { has_accepted } => *has_accepted = true,
            Self::Joins(joining) | Self::Resumes(joining) => joining.on_accepted(),
            Self::Creates(_) | Self::There => {}
        }
    }

    /// Whether this node has accepted an invitation.
    pub(super) fn has_accepted(&self) -> bool {
        match self {
            Self::Invited { has_accepted } => *has_accepted,
            Self::Joins(joining) | Self::Resumes(joining) => joining.has_accepted(),
            Self::Creates(_) | Self::There => false,
        }
    }

    /// Notes that this node is on the ring, or stays off it for good. The creator's invitations stay.
    pub(super) fn finish(&mut self) {
        if self.creation().is_none() {
            *self = Self::There;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::machine::join::Aim;

    const NODE: NodeId = NodeId([1; 32]);

    #[test]
    fn only_a_joiner_joins_and_only_until_it_has_arrived() {
        let joiner = || Joining::new(NODE, Aim::Member);
        for mut arrival in [Arrival::Joins(joiner()), Arrival::Resumes(joiner())] {
            assert!(arrival.joins_ring() && !arrival.observes());
            arrival.finish();
            assert!(matches!(arrival, Arrival::There) && !arrival.is_joining());
        }
        let observer = Arrival::Joins(Joining::new(NODE, Aim::Observer { from: None }));
        assert!(observer.is_joining() && observer.observes() && !observer.joins_ring());
    }

    #[test]
    fn an_acceptance_is_remembered_by_a_node_that_can_be_invited() {
        let joins = Arrival::Joins(Joining::new(NODE, Aim::Member));
        for mut arrival in [Arrival::Invited { has_accepted: false }, joins] {
            assert!(!arrival.has_accepted());
            arrival.on_accepted();
            assert!(arrival.has_accepted());
        }
    }

    #[test]
    fn a_creator_stays_one() {
        let mut arrival = Arrival::Creates(Creation::new(true, Parameters::default()));
        arrival.on_accepted();
        arrival.finish();
        assert!(arrival.creation().is_some() && !arrival.has_accepted());
    }
}
