//! What the control log says so far: the same at everybody who has read as far.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{Command, InstallView, SessionPlan};
use crate::id::{Incarnation, LogIndex, NodeId, Round, ViewId};
use crate::view::{Origin, View};

/// The state that the log's commands build up.
#[derive(Debug, Default)]
pub(crate) struct ControlState {
    applied: LogIndex,
    incarnations: BTreeMap<NodeId, Incarnation>,
    view: Option<Arc<View>>,
}

/// What a command changed.
#[derive(Clone, Debug)]
pub(crate) enum Applied {
    /// A run of a node began.
    Incarnated { node: NodeId, incarnation: Incarnation },
    /// A view is in force; the view before ended at the cut.
    Installed { view: Arc<View>, before: Option<Arc<View>>, cut: Vec<Round> },
    /// SEND has begun.
    Kickstarted(SessionPlan),
    /// GRACE has begun.
    Grace,
    /// The group is over.
    Closed,
    /// Nothing: another command was faster.
    Nothing,
}

impl ControlState {
    /// The position that is applied next.
    pub(crate) fn next(&self) -> LogIndex {
        self.applied.next()
    }

    pub(crate) fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// The latest run of a node.
    pub(crate) fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.incarnations.get(&node).copied()
    }

    /// Applies the next command.
    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        self.applied = self.applied.next();
        match command {
            Command::Incarnate { node } => {
                let incarnation = Incarnation(self.applied.0);
                self.incarnations.insert(node, incarnation);
                Applied::Incarnated { node, incarnation }
            }
            Command::InstallView(install) => self.install(install),
            Command::Kickstart(plan) => Applied::Kickstarted(plan),
            Command::Grace => Applied::Grace,
            Command::Close => Applied::Closed,
        }
    }

    fn install(&mut self, install: InstallView) -> Applied {
        let latest = self.view.as_ref().map_or(ViewId(0), |view| view.id);
        let ended = self.view.as_ref().is_some_and(|view| view.last);
        let joiners = install.ring.iter().filter(|member| member.origin == Origin::Joiner);
        let stale = joiners.clone().any(|joiner| self.incarnation(joiner.node) != Some(joiner.incarnation));
        if install.from != latest || ended || stale {
            return Applied::Nothing;
        }
        let view = Arc::new(View {
            id: install.from.next(),
            ring: install.ring,
            parameters: install.parameters,
            last: install.last,
        });
        let before = self.view.replace(Arc::clone(&view));
        Applied::Installed { view, before, cut: install.cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::view::RingMember;

    fn install(from: u64, incarnation: u64, last: bool) -> Command {
        let ring = vec![RingMember {
            node: NodeId([1; 32]),
            incarnation: Incarnation(incarnation),
            origin: Origin::Joiner,
            addresses: vec![],
        }];
        Command::InstallView(InstallView {
            from: ViewId(from),
            ring,
            parameters: Parameters::default(),
            cut: vec![],
            last,
        })
    }

    #[test]
    fn a_view_follows_the_latest_only_and_joiners_are_their_nodes_latest_run() {
        let mut state = ControlState::default();
        assert!(matches!(state.apply(install(0, 1, false)), Applied::Nothing), "an unknown run");
        state.apply(Command::Incarnate { node: NodeId([1; 32]) });
        assert!(matches!(state.apply(install(0, 1, false)), Applied::Nothing), "a run that was never assigned");
        assert!(matches!(state.apply(install(0, 2, false)), Applied::Installed { .. }));
        assert!(matches!(state.apply(install(0, 2, false)), Applied::Nothing), "not from the latest view");
        assert!(matches!(state.apply(install(1, 2, true)), Applied::Installed { .. }));
        assert!(matches!(state.apply(install(2, 2, false)), Applied::Nothing), "after the last view");
        assert_eq!(state.next(), LogIndex(8), "what changes nothing has its position too");
    }
}
