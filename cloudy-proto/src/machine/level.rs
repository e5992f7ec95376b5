//! The feature level of the group (`protocol.md` §6.10): raised by the coordinator, obeyed by every node.

use core::time::Duration;
use std::collections::BTreeSet;

use crate::command::Command;
use crate::id::NodeId;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::identity::Identity;
use crate::time::Time;

/// The time for which the level waits for a member that was evicted.
const ABSENCE_MAX: Duration = Duration::from_secs(10 * 60);

/// Raises the feature level, at the coordinator.
pub(super) struct LevelHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) coordinating: &'a mut Option<Coordinating>,
    pub(super) now: Time,
}

impl LevelHandler<'_> {
    /// Coordinator: raises the feature level once every member and every voter supports a higher one, and no member was
    /// evicted in the last minutes: it may return with the release before. True if that was proposed.
    pub(super) fn raise(&mut self) -> bool {
        let (me, own, level) = (self.identity.me, self.identity.level_max, self.log.level());
        if own <= level {
            return false;
        }
        let Some(coordinating) = self.coordinating else { return false };
        let Some(view) = self.log.state().view().filter(|view| !view.last) else { return false };
        let log = self.log.state();
        let is_former = |node: &NodeId| view.rank_of(*node).is_none() && !log.has_left(*node);
        let former: BTreeSet<NodeId> = log.members().filter(is_former).collect();
        if coordinating.misses(&former, self.now, ABSENCE_MAX) {
            return false;
        }
        let members = view.ring.iter().map(|member| member.node);
        let voters = self.log.state().electors().map(|(_, node, _)| node);
        let supported = |node: NodeId| if node == me { Some(own) } else { coordinating.level_of(node) };
        // None while a node has not reported its level in this term.
        let common = members.chain(voters).try_fold(own, |least, node| Some(least.min(supported(node)?)));
        let Some(common) = common.filter(|common| *common > level && coordinating.propose_level(*common)) else {
            return false;
        };
        self.log.propose(&Command::Level { level: common });
        #[cfg(feature = "next-version")]
        self.log.propose(&Command::Next);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Dropped, InstallView};
    use crate::config::Parameters;
    use crate::digest::Checkpoint;
    use crate::id::{ConsensusId, Incarnation, LogIndex, Round};
    use crate::io::{Event, Frame, Input, Output};
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, JOINER, MEMBER, drain, pair};
    use crate::time::Time;
    use crate::view::{Origin, RingMember};
    use crate::wire::{CommandError, ControlFrame, Stream, WIRE_VERSION};

    const NEXT: u16 = WIRE_VERSION + 1;

    fn hear(machine: &mut Machine, from: crate::NodeId, frame: ControlFrame) -> Vec<Output> {
        let (now, incarnation) = (machine.timers.now(), Incarnation(0));
        machine.handle(now, Input::Frame { from, incarnation, stream: Stream::Control, frame: Frame::Control(frame) });
        drain(machine)
    }

    /// The frames that the coordinator sends to a node.
    fn sent(outputs: Vec<Output>, node: crate::NodeId) -> Vec<ControlFrame> {
        let sent = outputs.into_iter().filter_map(|output| match output {
            Output::Send { to, frame: Frame::Control(frame), .. } if to == node => Some(frame),
            _ => None,
        });
        sent.collect()
    }

    fn raise(machine: &mut Machine) {
        if machine.level().raise() {
            machine.run_consensus();
        }
    }

    /// A coordinator that supports the next level, after its member has named the level that it supports.
    fn coordinator(of_member: u16) -> (Machine, Machine) {
        let (mut coordinator, member) = pair(Parameters::default());
        coordinator.identity.level_max = NEXT;
        let next = coordinator.log.state().next();
        hear(&mut coordinator, MEMBER, ControlFrame::Follow { next, voter: ConsensusId(0), level: of_member });
        raise(&mut coordinator);
        (coordinator, member)
    }

    #[test]
    fn the_level_rises_once_every_member_supports_it_and_never_falls() {
        let (mut coordinator, _) = coordinator(WIRE_VERSION);
        assert_eq!(coordinator.log.level(), WIRE_VERSION);
        let next = coordinator.log.state().next();
        let mut follow = |level| {
            hear(&mut coordinator, MEMBER, ControlFrame::Follow { next, voter: ConsensusId(0), level });
            raise(&mut coordinator);
            coordinator.log.level()
        };
        assert_eq!([NEXT, WIRE_VERSION].map(&mut follow), [NEXT, NEXT]);
    }

    #[test]
    fn the_level_waits_for_an_evicted_member_and_not_for_ever() {
        let (mut coordinator, _) = pair(Parameters::default());
        coordinator.identity.level_max = NEXT;
        let view = coordinator.log.state().view().expect("a view").clone();
        let ring = view.ring.iter().filter(|member| member.node == COORDINATOR);
        coordinator.log.propose(&Command::InstallView(InstallView {
            from: view.id,
            ring: ring.map(|member| RingMember { origin: Origin::Survivor, ..member.clone() }).collect(),
            parameters: view.parameters.clone(),
            cut: vec![Round(0); view.ring.len()],
            last: false,
            dropped: vec![(MEMBER, Dropped::Silent)],
        }));
        coordinator.run_consensus();
        assert_eq!(coordinator.log.state().view().map(|view| view.ring.len()), Some(1));
        let mut level_after = |elapsed| {
            coordinator.timers.advance(Time(0) + elapsed);
            raise(&mut coordinator);
            coordinator.log.level()
        };
        assert_eq!(level_after(Duration::ZERO), WIRE_VERSION);
        assert_eq!(level_after(ABSENCE_MAX - Duration::from_micros(1)), WIRE_VERSION, "it may return");
        assert_eq!(level_after(ABSENCE_MAX), NEXT);
    }

    #[test]
    fn a_member_below_the_level_stops_with_a_reason() {
        let (mut coordinator, mut member) = coordinator(NEXT);
        let first = member.log.state().next();
        let follow = ControlFrame::Follow { next: first, voter: ConsensusId(0), level: NEXT };
        let log = sent(hear(&mut coordinator, MEMBER, follow), MEMBER);
        let log = log.into_iter().find(|frame| matches!(frame, ControlFrame::Log { .. })).expect("the log");
        let outputs = hear(&mut member, COORDINATOR, log);
        let error = outputs.iter().find_map(|output| match output {
            Output::Event(Event::UnreadableLog { error, .. }) => Some(error.clone()),
            _ => None,
        });
        assert_eq!(error, Some(CommandError::Level { level: NEXT, supported: WIRE_VERSION }), "{outputs:?}");
    }

    #[test]
    fn a_joiner_below_the_level_is_rejected_with_a_reason() {
        let (mut coordinator, _) = coordinator(NEXT);
        coordinator.on_link_up(JOINER, Default::default());
        let mut join = |level| {
            let join = ControlFrame::Join { run: 7, observer: false, result: Checkpoint::default(), level };
            let reason = sent(hear(&mut coordinator, JOINER, join), JOINER).into_iter().find_map(|frame| match frame {
                ControlFrame::Refuse { reason, .. } => Some(reason),
                _ => None,
            });
            reason.unwrap_or_default()
        };
        assert!(
            join(WIRE_VERSION).contains("has feature level 8, and the program of this node supports levels up to 7")
        );
        assert_eq!(join(NEXT), "");
    }

    #[test]
    fn a_state_of_the_log_keeps_the_level() {
        let (coordinator, mut member) = coordinator(NEXT);
        let state = crate::wire::encode_log_state(&coordinator.log.state().log_state());
        let index = LogIndex(coordinator.log.state().next().0 - 1);
        let skipped = member.on_log_state(index, 1, state);
        assert_eq!(skipped, Err(CommandError::Level { level: NEXT, supported: WIRE_VERSION }));
        assert_eq!(member.log.level(), NEXT);
    }
}
