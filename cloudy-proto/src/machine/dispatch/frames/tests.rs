//! Each frame of the control plane: where it is accepted, ignored and refused.

use core::time::Duration;

use bytes::Bytes;

use super::*;
use crate::command::Command;
use crate::config::{Durability, Parameters};
use crate::digest::{Checkpoint, Digest};
use crate::id::{ConsensusId, Index, LogIndex, Round, ViewId};
use crate::io::{Event, Output, Request};
use crate::machine::Machine;
use crate::machine::tests::{COORDINATOR, MEMBER, alone, drain, invited, joiner, pair};
use crate::view::Place;
use crate::wire::{ConsensusKind, ConsensusMessage, Fetch, Fetched, Findings, Refusal, Wedged, encode_command};

/// A linked node that is not of the group.
const STRANGER: NodeId = NodeId([9; 32]);
const VIEW: ViewId = ViewId(1);

/// The effect of a frame on a machine; an empty list if it ignores it.
#[derive(Debug, PartialEq)]
enum Effect {
    Sends(NodeId, ControlFrame),
    /// It closes the link to the sender.
    Refuses,
    Tells(Event),
}

use Effect::{Refuses, Sends, Tells};

/// The effects of a frame on a stream, but for frames of the data plane and measurements.
fn effects_on(machine: &mut Machine, from: NodeId, stream: Stream, frame: ControlFrame) -> Vec<Effect> {
    let (now, incarnation) = (machine.timers.now(), Incarnation(0));
    machine.handle(now, Input::Frame { from, incarnation, stream, frame: Frame::Control(frame) });
    let effect = |output| match output {
        Output::Send { frame: Frame::Control(ControlFrame::Probe { .. } | ControlFrame::Consensus(_)), .. } => None,
        Output::Send { to, frame: Frame::Control(frame), .. } => Some(Sends(to, frame)),
        Output::CloseLink { .. } => Some(Refuses),
        Output::Event(event) => Some(Tells(event)),
        _ => None,
    };
    drain(machine).into_iter().filter_map(effect).collect()
}

fn effects(machine: &mut Machine, from: NodeId, frame: ControlFrame) -> Vec<Effect> {
    effects_on(machine, from, Stream::Control, frame)
}

/// The coordinator and the other member of a group, each with a link to a stranger.
fn group() -> (Machine, Machine) {
    let (mut coordinator, mut member) = pair(Parameters::default());
    for machine in [&mut coordinator, &mut member] {
        machine.handle(machine.timers.now(), Input::LinkUp { peer: STRANGER, addresses: Vec::new(), advertised: None });
        drain(machine);
    }
    (coordinator, member)
}

fn has_sent(effects: &[Effect], wanted: impl Fn(&ControlFrame) -> bool) -> bool {
    effects.iter().any(|effect| matches!(effect, Sends(_, frame) if wanted(frame)))
}

#[test]
fn invite_is_accepted_from_the_inviter_and_ignored_on_the_ring() {
    let invite = || ControlFrame::Invite { name: "pair".to_owned(), durability: Durability::Memory };
    let mut fresh = invited();
    assert_eq!(effects(&mut fresh, COORDINATOR, invite()), [Sends(COORDINATOR, ControlFrame::Accept { run: 2 })]);
    fresh.handle(fresh.timers.now(), Input::LinkUp { peer: STRANGER, addresses: Vec::new(), advertised: None });
    drain(&mut fresh);
    assert_eq!(effects(&mut fresh, STRANGER, invite()), [Refuses]);
    assert_eq!(effects(&mut group().1, COORDINATOR, invite()), []);
}

#[test]
fn accept_counts_from_an_invited_node_once() {
    let mut creator = alone(Parameters::default());
    creator.handle(creator.timers.now(), Input::LinkUp { peer: STRANGER, addresses: Vec::new(), advertised: None });
    drain(&mut creator);
    let said = effects(&mut creator, STRANGER, ControlFrame::Accept { run: 7 });
    assert!(
        has_sent(&said, |frame| matches!(frame, ControlFrame::Refuse { refusal: Refusal::NotYet, .. })),
        "{said:?}"
    );
    assert_eq!(effects(&mut group().0, MEMBER, ControlFrame::Accept { run: 2 }), [], "it has accepted");
    assert_eq!(effects(&mut group().1, STRANGER, ControlFrame::Accept { run: 7 }), [], "it has invited nobody");
}

#[test]
fn refuse_counts_from_a_node_of_the_group() {
    let refuse = || ControlFrame::Refuse { reason: "no".to_owned(), refusal: Refusal::Final };
    let told = Tells(Event::Refused { node: COORDINATOR, reason: "no".to_owned(), refusal: Refusal::Final });
    assert_eq!(effects(&mut group().1, COORDINATOR, refuse()), [told, Tells(Event::Closed)]);
    assert_eq!(effects(&mut group().1, STRANGER, refuse()), []);
    assert_eq!(effects(&mut group().0, STRANGER, refuse()), [], "it was not invited");
}

#[test]
fn follow_brings_the_log_and_only_the_coordinator_keeps_a_follower() {
    let follow = || ControlFrame::Follow { next: LogIndex(1), voter: ConsensusId(0), level: crate::wire::WIRE_VERSION };
    let (mut coordinator, mut member) = group();
    let is_log = |frame: &ControlFrame| matches!(frame, ControlFrame::Log { first: LogIndex(1), .. });
    let said = effects(&mut coordinator, STRANGER, follow());
    assert!(
        has_sent(&said, is_log) && coordinator.coordinating.as_ref().is_some_and(|it| it.has_follower(STRANGER)),
        "{said:?}"
    );
    let said = effects(&mut member, STRANGER, follow());
    assert!(has_sent(&said, is_log) && has_sent(&said, |frame| *frame == ControlFrame::Resigned), "{said:?}");
}

#[test]
fn log_is_applied_in_order_and_only_from_the_group() {
    let entry = encode_command(&Command::Incarnate { node: STRANGER, run: 9 });
    let log = |first, entry: &Bytes| ControlFrame::Log { first, entries: vec![entry.clone()], term: 1 };
    let (_, mut member) = group();
    let next = member.log.state().next();
    assert_eq!(effects(&mut member, STRANGER, log(next, &entry)), []);
    assert_eq!(member.log.state().next(), next, "a stranger's entry is ignored");
    assert_eq!(effects(&mut member, COORDINATOR, log(next.next(), &entry)), [Refuses], "a gap");
    assert_eq!(effects(&mut member, COORDINATOR, log(next, &entry)), []);
    assert_eq!(member.log.state().next(), next.next(), "applied");
    let said = effects(&mut member, COORDINATOR, log(next.next(), &Bytes::from_static(b"\xff")));
    assert!(matches!(said[..], [Tells(Event::UnreadableLog { .. })]), "{said:?}");
}

#[test]
fn log_state_replaces_entries_and_only_from_the_group() {
    let state = |index, state| ControlFrame::LogState { index, term: 1, state };
    let (coordinator, mut member) = group();
    let encoded = crate::wire::encode_log_state(&coordinator.log.state().log_state());
    let end = LogIndex(member.log.state().next().0 + 5);
    assert_eq!(effects(&mut member, STRANGER, state(end, encoded.clone())), []);
    assert_eq!(effects(&mut member, COORDINATOR, state(LogIndex(1), Bytes::new())), [], "known already");
    assert_eq!(effects(&mut member, COORDINATOR, state(end, encoded)), []);
    assert_eq!(member.log.state().next(), end.next());
    let said = effects(&mut member, COORDINATOR, state(end.next(), Bytes::from_static(b"\xff")));
    assert!(matches!(said[..], [Tells(Event::UnreadableLog { .. })]), "{said:?}");
}

#[test]
fn ready_counts_at_the_coordinator_for_a_listed_node() {
    let (mut coordinator, mut member) = group();
    assert_eq!(effects(&mut coordinator, STRANGER, ControlFrame::Ready { view: VIEW }), []);
    assert_eq!(effects(&mut member, COORDINATOR, ControlFrame::Ready { view: VIEW }), []);
    let later = ControlFrame::Ready { view: ViewId(2) };
    assert_eq!(effects(&mut coordinator, MEMBER, later), [], "the view is not in force yet");
    assert_eq!(effects(&mut coordinator, MEMBER, ControlFrame::Ready { view: VIEW }), [Tells(Event::AllReady)]);
}

#[test]
fn wedge_freezes_the_view_for_the_coordinator_only() {
    let wedge = |view| ControlFrame::Wedge { view, last: false, again: false };
    let (mut coordinator, mut member) = group();
    assert_eq!(effects(&mut member, STRANGER, wedge(VIEW)), []);
    assert_eq!(effects(&mut coordinator, MEMBER, wedge(VIEW)), [], "the member does not coordinate");
    assert_eq!(effects(&mut member, COORDINATOR, wedge(ViewId(2))), [], "no such view");
    let said = effects(&mut member, COORDINATOR, wedge(VIEW));
    assert!(has_sent(&said, |frame| matches!(frame, ControlFrame::Wedged(answer) if answer.complete)), "{said:?}");
}

fn answer(machine: &Machine, lanes: usize) -> Wedged {
    let incarnation = machine.log.state().incarnation(MEMBER).expect("the log lists it");
    Wedged {
        view: VIEW,
        incarnation,
        frontiers: vec![Round(0); lanes],
        complete: true,
        first: Index(1),
        digest: Digest(0),
        cursor: Place::default(),
        findings: Findings::default(),
    }
}

#[test]
fn wedged_counts_in_a_view_change_from_a_member_of_the_view() {
    let (mut coordinator, _) = group();
    let right = answer(&coordinator, 2);
    assert_eq!(effects(&mut coordinator, MEMBER, ControlFrame::Wedged(right.clone())), [], "no view change");
    coordinator.view_change().start(false);
    drain(&mut coordinator);
    assert_eq!(effects(&mut coordinator, STRANGER, ControlFrame::Wedged(right.clone())), [Refuses]);
    let wrong = answer(&coordinator, 7);
    assert_eq!(effects(&mut coordinator, MEMBER, ControlFrame::Wedged(wrong)), [Refuses], "seven lanes");
    let said = effects(&mut coordinator, MEMBER, ControlFrame::Wedged(right));
    assert!(!said.contains(&Refuses) && coordinator.change().is_none_or(|change| change.is_proposed()), "{said:?}");
}

#[test]
fn wedging_is_noted_in_a_view_change_only() {
    let (mut coordinator, _) = group();
    assert_eq!(effects(&mut coordinator, MEMBER, ControlFrame::Wedging { view: VIEW }), []);
    coordinator.view_change().start(false);
    drain(&mut coordinator);
    let is_wedging = |machine: &Machine, node| machine.change().is_some_and(|change| change.is_wedging(node));
    effects(&mut coordinator, MEMBER, ControlFrame::Wedging { view: ViewId(2) });
    assert!(!is_wedging(&coordinator, MEMBER), "another view");
    effects(&mut coordinator, MEMBER, ControlFrame::Wedging { view: VIEW });
    assert!(is_wedging(&coordinator, MEMBER));
}

#[test]
fn fetch_is_served_as_far_as_its_credit_allows() {
    let fetch = |credit| ControlFrame::Fetch(Fetch { number: 1, from: Index(1), credit, ..Fetch::default() });
    let (mut coordinator, _) = group();
    let said = effects(&mut coordinator, STRANGER, fetch(1_000));
    assert!(has_sent(&said, |frame| matches!(frame, ControlFrame::Fetched(Fetched::End { .. }))), "{said:?}");
    assert_eq!(effects(&mut coordinator, STRANGER, fetch(0)), [], "it ends the transfer");
}

#[test]
fn fetched_belongs_on_the_result_stream_and_is_ignored_without_a_request() {
    let part = || ControlFrame::Fetched(Fetched::Truncated { first: Index(9) });
    let (mut coordinator, _) = group();
    assert_eq!(effects(&mut coordinator, MEMBER, part()), [Refuses]);
    assert_eq!(effects_on(&mut coordinator, MEMBER, Stream::Result, part()), []);
    assert_eq!(effects_on(&mut coordinator, MEMBER, Stream::Result, ControlFrame::End), [Refuses]);
}

#[test]
fn final_reports_reach_the_log_through_the_coordinator() {
    let report = || ControlFrame::Final { result: Checkpoint::default(), report: Bytes::new() };
    let (mut coordinator, mut member) = group();
    assert_eq!(effects(&mut member, COORDINATOR, report()), []);
    assert!(effects(&mut coordinator, MEMBER, report()).iter().all(|effect| *effect != Refuses));
    assert!(!coordinator.coordinating.as_mut().expect("it coordinates").propose_report(MEMBER), "proposed once");
}

#[test]
fn end_counts_at_the_coordinator_from_a_node_of_the_group() {
    let (mut coordinator, mut member) = group();
    assert_eq!(effects(&mut coordinator, STRANGER, ControlFrame::End), []);
    assert_eq!(effects(&mut member, COORDINATOR, ControlFrame::End), []);
    assert!(effects(&mut coordinator, MEMBER, ControlFrame::End).contains(&Tells(Event::Stop)));
}

#[test]
fn suspect_begins_a_view_change_for_a_member_of_the_view() {
    let suspect = |view| ControlFrame::Suspect { view, findings: Findings::default(), wedged: true };
    let (mut coordinator, mut member) = group();
    assert_eq!(effects(&mut coordinator, STRANGER, suspect(VIEW)), []);
    assert_eq!(effects(&mut member, COORDINATOR, suspect(VIEW)), []);
    effects(&mut coordinator, MEMBER, suspect(ViewId(2)));
    assert!(coordinator.change().is_none(), "a later view is not in force yet");
    effects(&mut coordinator, MEMBER, suspect(VIEW));
    assert!(coordinator.change().is_some());
}

#[test]
fn rejoin_is_ignored_from_a_stranger_and_from_a_member() {
    let rejoin = || ControlFrame::Rejoin { view: VIEW, ready: true, slower: None };
    let (mut coordinator, _) = group();
    for from in [STRANGER, MEMBER] {
        assert_eq!(effects(&mut coordinator, from, rejoin()), []);
        assert!(coordinator.change().is_none());
    }
    let entry = Command::Incarnate { node: STRANGER, run: 9 };
    coordinator.propose(&entry);
    coordinator.run_consensus();
    drain(&mut coordinator);
    effects(&mut coordinator, STRANGER, rejoin());
    assert!(coordinator.change().is_some(), "the log lists it by now");
}

#[test]
fn coordinates_counts_in_a_later_term_from_a_node_of_the_group() {
    let claim = |term| ControlFrame::Coordinates { term };
    let (_, mut member) = group();
    assert_eq!(effects(&mut member, STRANGER, claim(9)), []);
    assert_eq!(member.tracking.node(), COORDINATOR, "a stranger's claim is kept for later");
    assert_eq!(effects(&mut member, COORDINATOR, claim(0)), [], "outdated");
    let said = effects(&mut member, COORDINATOR, claim(9));
    assert!(said.contains(&Tells(Event::Coordinator { node: COORDINATOR })), "{said:?}");
}

#[test]
fn consensus_messages_count_from_the_voter_that_they_name() {
    let message = |from| {
        ControlFrame::Consensus(ConsensusMessage {
            kind: ConsensusKind::Heartbeat,
            to: ConsensusId(77),
            from,
            term: 1,
            log_term: 0,
            index: LogIndex(0),
            entries: Vec::new(),
            commit: LogIndex(0),
            commit_term: 0,
            reject: false,
            reject_hint: LogIndex(0),
            context: Bytes::new(),
            snapshot: Bytes::new(),
        })
    };
    let (mut coordinator, _) = group();
    let own = coordinator.log.voter().expect("it votes").id();
    assert_eq!(effects(&mut coordinator, STRANGER, message(own)), [], "not of the group");
    assert_eq!(effects(&mut coordinator, MEMBER, message(own)), [Refuses], "it names another voter");
    assert_eq!(effects(&mut coordinator, MEMBER, message(ConsensusId(88))), [], "for no voter here");
}

#[test]
fn leave_begins_a_view_change_at_the_coordinator() {
    let (mut coordinator, mut member) = group();
    assert_eq!(effects(&mut member, COORDINATOR, ControlFrame::Leave { returns: false }), []);
    effects(&mut coordinator, MEMBER, ControlFrame::Leave { returns: false });
    assert!(coordinator.is_leaving(MEMBER) && coordinator.change().is_some());
}

#[test]
fn resigned_counts_from_the_coordinator() {
    let (_, mut member) = group();
    effects(&mut member, STRANGER, ControlFrame::Resigned);
    assert!(member.has_coordinator());
    effects(&mut member, COORDINATOR, ControlFrame::Resigned);
    assert!(!member.has_coordinator());
}

#[test]
fn running_is_for_another_driver() {
    let running =
        ControlFrame::Running { name: "pair".to_owned(), creator: COORDINATOR, durability: Durability::Memory };
    assert_eq!(effects(&mut group().1, COORDINATOR, running), []);
}

#[test]
fn join_is_answered_with_the_coordinator_and_refused_by_a_group_that_is_not_open() {
    let join = || ControlFrame::Join {
        run: 9,
        observer: false,
        result: Checkpoint::default(),
        level: crate::wire::WIRE_VERSION,
    };
    let is_refer = |frame: &ControlFrame| matches!(frame, ControlFrame::Refer { coordinator: COORDINATOR, .. });
    let (mut coordinator, mut member) = group();
    for machine in [&mut coordinator, &mut member] {
        let said = effects(machine, STRANGER, join());
        assert!(has_sent(&said, is_refer), "{said:?}");
    }
    assert!(coordinator.log.state().incarnation(STRANGER).is_some(), "the coordinator proposes its incarnation");
    let mut closed = alone(Parameters { open: false, ..Parameters::default() });
    closed.handle(closed.timers.now(), Input::LinkUp { peer: STRANGER, addresses: Vec::new(), advertised: None });
    drain(&mut closed);
    let said = effects(&mut closed, STRANGER, join());
    assert!(has_sent(&said, |frame| matches!(frame, ControlFrame::Refuse { refusal: Refusal::Final, .. })), "{said:?}");
    assert_eq!(effects(&mut invited(), COORDINATOR, join()), [], "there is no view to come into");
}

#[test]
fn refer_is_reported_by_a_joiner_and_ignored_by_a_node_that_does_not_join() {
    let refer = || ControlFrame::Refer { coordinator: STRANGER, addresses: Vec::new(), left: Duration::ZERO };
    assert_eq!(effects(&mut group().1, COORDINATOR, refer()), []);
    let mut machine = linked_joiner();
    let told = Tells(Event::Referred { node: STRANGER, addresses: Vec::new() });
    assert_eq!(effects(&mut machine, COORDINATOR, refer()), [told]);
}

/// A joiner that has asked the coordinator.
fn linked_joiner() -> Machine {
    let mut machine = joiner();
    machine.handle(machine.timers.now(), Input::LinkUp { peer: COORDINATOR, addresses: Vec::new(), advertised: None });
    drain(&mut machine);
    machine
}

#[test]
fn a_joiner_relies_on_the_node_of_its_request() {
    let refuse = || ControlFrame::Refuse { reason: "no".to_owned(), refusal: Refusal::Final };
    let mut machine = linked_joiner();
    machine.handle(machine.timers.now(), Input::LinkUp { peer: MEMBER, addresses: Vec::new(), advertised: None });
    drain(&mut machine);
    assert_eq!(effects(&mut machine, MEMBER, refuse()), [], "it was not asked");
    let told = Tells(Event::Refused { node: COORDINATOR, reason: "no".to_owned(), refusal: Refusal::Final });
    assert_eq!(effects(&mut machine, COORDINATOR, refuse()), [told, Tells(Event::Closed)]);
    let other = Checkpoint { index: Index(1), digest: Digest(5) };
    let diverged = || ControlFrame::Diverged { view: VIEW, node: COORDINATOR, theirs: other, ours: other };
    assert_eq!(effects(&mut machine, MEMBER, diverged()), []);
    assert!(matches!(effects(&mut machine, COORDINATOR, diverged())[..], [Tells(Event::Diverged { .. })]));
}

#[test]
fn a_frame_on_a_stream_that_is_not_its_own_is_refused() {
    let (mut coordinator, _) = group();
    let now = coordinator.timers.now();
    let incarnation = coordinator.log.state().incarnation(MEMBER).expect("the log lists it");
    let mut effect = |from, incarnation, stream| {
        let frame = Frame::Tally(TallyFrame::Confirm { frontier: Round(0) });
        coordinator.handle(now, Input::Frame { from, incarnation, stream, frame });
        drain(&mut coordinator).iter().any(|output| matches!(output, Output::CloseLink { .. }))
    };
    assert!(!effect(MEMBER, incarnation, Stream::Tally { view: VIEW }));
    assert!(!effect(MEMBER, incarnation, Stream::Tally { view: ViewId(2) }), "a view that is not in force yet");
    assert!(effect(STRANGER, Incarnation(9), Stream::Tally { view: VIEW }), "not of the view");
    assert!(effect(MEMBER, Incarnation(99), Stream::Tally { view: VIEW }), "another incarnation");
    assert!(effect(MEMBER, incarnation, Stream::Control), "a tally belongs on its own stream");
}

#[test]
fn the_lack_of_a_complete_member_is_reported_once_and_by_the_coordinator_only() {
    let lack = |view| ControlFrame::NoCompleteMember { view, missing: vec![MEMBER], lost: Vec::new() };
    let (_, mut member) = group();
    assert_eq!(effects(&mut member, STRANGER, lack(VIEW)), []);
    assert_eq!(effects(&mut member, COORDINATOR, lack(ViewId(2))), [], "not in force");
    let said = effects(&mut member, COORDINATOR, lack(VIEW));
    assert!(matches!(said[..], [Tells(Event::NoCompleteMember(_))]), "{said:?}");
    assert_eq!(effects(&mut member, COORDINATOR, lack(VIEW)), [], "told already");
}

#[test]
fn diverged_stops_a_member_only_at_the_word_of_the_coordinator() {
    let other = Checkpoint { index: Index(1), digest: Digest(5) };
    let diverged = || ControlFrame::Diverged { view: VIEW, node: COORDINATOR, theirs: other, ours: other };
    let (_, mut member) = group();
    assert_eq!(effects(&mut member, STRANGER, diverged()), []);
    let said = effects(&mut member, COORDINATOR, diverged());
    assert!(matches!(said[..], [Tells(Event::Diverged { .. })]), "{said:?}");
    assert_eq!(effects(&mut member, COORDINATOR, ControlFrame::Probe { sent_us: 1 }), [], "it has stopped");
}

#[test]
fn ended_makes_a_node_ask_for_the_rest_of_the_log() {
    let (_, mut member) = group();
    let said = effects(&mut member, STRANGER, ControlFrame::Ended);
    assert!(has_sent(&said, |frame| matches!(frame, ControlFrame::Follow { .. })), "{said:?}");
    assert_eq!(member.closing.told_by(), Some(STRANGER));
}

#[test]
fn absent_means_that_a_vote_is_lost() {
    let (mut coordinator, _) = group();
    assert_eq!(coordinator.log.lost_majority(), None);
    assert_eq!(effects(&mut coordinator, STRANGER, ControlFrame::Absent), []);
    assert_eq!(coordinator.log.lost_majority(), None, "a stranger has no vote");
    let voter = coordinator.log.state().electors().next().map(|(_, node, _)| node).expect("one votes");
    coordinator.log.on_votes_lost(voter);
    assert!(coordinator.log.lost_majority().is_some());
}

#[test]
fn probe_is_echoed_and_an_echo_is_not_answered() {
    let (mut coordinator, _) = group();
    let said = effects(&mut coordinator, STRANGER, ControlFrame::Probe { sent_us: 5 });
    assert_eq!(said, [Sends(STRANGER, ControlFrame::Echo { sent_us: 5 })]);
    assert_eq!(effects(&mut coordinator, STRANGER, ControlFrame::Echo { sent_us: 5 }), []);
}

#[test]
fn a_closed_group_answers_only_that_it_is_closed() {
    let (mut coordinator, _) = pair(Parameters::default());
    coordinator.propose(&Command::Close);
    coordinator.handle(coordinator.timers.now(), Input::Timeout);
    drain(&mut coordinator);
    assert!(coordinator.is_closed());
    let ended = [Sends(MEMBER, ControlFrame::Ended)];
    assert_eq!(effects(&mut coordinator, MEMBER, ControlFrame::Leave { returns: false }), ended);
    assert_eq!(effects(&mut coordinator, MEMBER, ControlFrame::End), ended);
    assert_eq!(effects(&mut coordinator, MEMBER, ControlFrame::Ready { view: VIEW }), []);
    coordinator.handle(coordinator.timers.now(), Input::Request(Request::End));
    assert_eq!(drain(&mut coordinator).len(), 0);
}
