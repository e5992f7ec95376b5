//! Log entries and reports that no correct voter or coordinator sends, with the exact error for each.

use core::time::Duration;

use bytes::Bytes;

use super::examples::largest_install;
use super::refused::{over, refused_frame, taken};
use super::*;
use crate::command::{Command, Dropped, InstallView, LogState, SessionPlan, VoterRole};
use crate::config::{Parameters, ParametersError};
use crate::digest::Checkpoint;
use crate::id::{ConsensusId, Incarnation, Index, LogIndex, NodeId, Round, ViewId};
use crate::limits::{
    LOG_STATE_BYTES_MAX, MEMBERS_MAX, PAYLOAD_BYTES_MAX, REPORT_BYTES_MAX, SLOT_BODY_BYTES_MAX, SLOT_PAYLOADS_MAX,
    WINDOW_BYTES_MAX,
};
use crate::view::RingMember;
use crate::wire::{ConsensusEntry, ConsensusKind, ConsensusMessage};

fn consensus() -> ConsensusMessage {
    let change = Some((ConsensusId(COUNTER_MAX), VoterRole::Voter));
    let entry =
        ConsensusEntry { term: 1, index: LogIndex(1), change, command: Bytes::from(vec![0; COMMAND_BYTES_MAX]) };
    ConsensusMessage {
        kind: ConsensusKind::Append,
        to: ConsensusId(COUNTER_MAX),
        from: ConsensusId(1),
        term: COUNTER_MAX,
        log_term: 0,
        index: LogIndex(0),
        entries: vec![entry; 3],
        commit: LogIndex(0),
        commit_term: 0,
        reject: false,
        reject_hint: LogIndex(COUNTER_MAX),
        context: Bytes::new(),
        snapshot: Bytes::new(),
    }
}

#[test]
fn a_consensus_message_out_of_bounds_is_refused() {
    let check = |change: fn(&mut ConsensusMessage), error: BoundError| {
        let mut message = consensus();
        change(&mut message);
        assert_eq!(refused_frame::<ControlDecoder>(ControlFrame::Consensus(message)), error.into());
    };
    taken::<ControlDecoder>(ControlFrame::Consensus(consensus()));
    let counter = |what| over(what, u64::MAX, COUNTER_MAX);
    check(|message| message.to.0 = u64::MAX, counter("consensus id"));
    check(|message| message.from.0 = u64::MAX, counter("consensus id"));
    check(|message| message.term = u64::MAX, counter("term"));
    check(|message| message.log_term = u64::MAX, counter("term"));
    check(|message| message.commit_term = u64::MAX, counter("term"));
    check(|message| message.index.0 = u64::MAX, counter("log position"));
    check(|message| message.commit.0 = u64::MAX, counter("log position"));
    check(|message| message.reject_hint.0 = u64::MAX, counter("log position"));
    check(|message| message.entries[2].index.0 = u64::MAX, counter("log position"));
    check(|message| message.entries[2].term = u64::MAX, counter("term"));
    check(
        |message| message.entries[2].change = Some((ConsensusId(u64::MAX), VoterRole::Gone)),
        counter("consensus id"),
    );
    let long = vec![0; COMMAND_BYTES_MAX + 1];
    let longer = over("a log entry's bytes", long.len() as u64, COMMAND_BYTES_MAX as u64);
    check(|message| message.entries[2].command = Bytes::from(vec![0; COMMAND_BYTES_MAX + 1]), longer);

    let crowd = ConsensusMessage { entries: vec![consensus().entries[0].clone(); 9], ..consensus() };
    let refused = refused_frame::<ControlDecoder>(ControlFrame::Consensus(crowd));
    assert!(refused.to_string().contains("a consensus message, bytes"), "{refused}");
    let term = over("term", u64::MAX, COUNTER_MAX);
    assert_eq!(refused_frame::<ControlDecoder>(ControlFrame::Coordinates { term: u64::MAX }), term.into());
}

#[test]
fn a_log_snapshot_is_checked_like_entries() {
    let (node, run) = (NodeId([7; 32]), Incarnation(COUNTER_MAX));
    let state = LogState {
        creator: Some(node),
        incarnations: vec![(node, run, u64::MAX)],
        installed: Some(largest_install()),
        electors: vec![(ConsensusId(COUNTER_MAX), node, VoterRole::Learner)],
        streams: vec![(node, run, 3)],
        grace: true,
        members_ever: vec![node],
        reports: vec![(node, Checkpoint::default(), Bytes::from(vec![0; REPORT_BYTES_MAX]))],
        ..LogState::default()
    };
    let encoded = encode_log_state(&state);
    assert_eq!(decode_log_state(&encoded), Ok(state.clone()));
    let check = |change: fn(&mut LogState), error: CommandError| {
        let mut state = state.clone();
        change(&mut state);
        assert_eq!(decode_log_state(&encode_log_state(&state)), Err(error));
    };
    let counter = |what| CommandError::from(over(what, u64::MAX, COUNTER_MAX));
    check(|state| state.incarnations[0].1.0 = u64::MAX, counter("incarnation"));
    check(|state| state.streams[0].1.0 = u64::MAX, counter("incarnation"));
    check(|state| state.electors[0].0.0 = u64::MAX, counter("consensus id"));
    check(|state| state.electors[0].0.0 = 0, CommandError::NodeTwice(node));
    check(|state| state.incarnations.push(state.incarnations[0]), CommandError::NodeTwice(node));
    check(|state| state.reports[0].1.index.0 = u64::MAX, counter("index"));
    check(|state| state.members_ever.clear(), over("reports", 1, 0).into());
    let report = over("a report's bytes", REPORT_BYTES_MAX as u64 + 1, REPORT_BYTES_MAX as u64);
    check(|state| state.reports[0].2 = Bytes::from(vec![0; REPORT_BYTES_MAX + 1]), report.into());
    check(|state| state.installed.as_mut().expect("one").from.0 = u64::MAX, counter("view"));
    let long = vec![0; LOG_STATE_BYTES_MAX + 1];
    let longer = over("a log state's bytes", long.len() as u64, LOG_STATE_BYTES_MAX as u64);
    assert_eq!(decode_log_state(&long), Err(longer.into()));
    let frame = |index, term, state| ControlFrame::LogState { index: LogIndex(index), term, state: Bytes::from(state) };
    taken::<ControlDecoder>(frame(COUNTER_MAX, COUNTER_MAX, vec![0; LOG_STATE_BYTES_MAX]));
    let refused = |frame, error: BoundError| assert_eq!(refused_frame::<ControlDecoder>(frame), error.into());
    refused(frame(u64::MAX, 0, vec![]), over("log position", u64::MAX, COUNTER_MAX));
    refused(frame(0, u64::MAX, vec![]), over("term", u64::MAX, COUNTER_MAX));
    refused(frame(0, 0, long), longer);
    let kind = ConsensusKind::Snapshot;
    let message = |snapshot: Vec<u8>| ConsensusMessage { kind, snapshot: snapshot.into(), ..consensus() };
    taken::<ControlDecoder>(ControlFrame::Consensus(message(vec![0; LOG_STATE_BYTES_MAX])));
    refused(ControlFrame::Consensus(message(vec![0; LOG_STATE_BYTES_MAX + 1])), longer);
}

#[test]
fn a_report_or_voter_out_of_bounds_is_refused() {
    let check = |command, error: BoundError| assert_eq!(decode_command(&encode_command(&command)), Err(error.into()));
    let node = NodeId([1; 32]);
    let id = ConsensusId(u64::MAX);
    check(Command::Voter { id, node, role: VoterRole::Voter }, over("consensus id", u64::MAX, COUNTER_MAX));
    let result = Checkpoint { index: Index(u64::MAX), ..Checkpoint::default() };
    check(Command::Report { node, result, report: Bytes::new() }, over("index", u64::MAX, COUNTER_MAX));
    let (result, report) = (Checkpoint::default(), Bytes::from(vec![0; REPORT_BYTES_MAX + 1]));
    check(Command::Report { node, result, report }, over("a report's bytes", 4_097, 4_096));
}

fn refused_install(change: impl Fn(&mut InstallView)) -> CommandError {
    let mut install = largest_install();
    change(&mut install);
    decode_command(&encode_command(&Command::InstallView(install))).expect_err("out of bounds")
}

#[test]
fn a_view_out_of_bounds_is_refused() {
    let crowd = refused_install(|view| {
        let newcomer = RingMember { node: NodeId([99; 32]), addresses: vec![], ..view.ring[0].clone() };
        view.ring.iter_mut().for_each(|member| member.addresses.clear());
        view.ring.push(newcomer);
    });
    assert_eq!(crowd, over("members", 65, 64).into());
    let twice = refused_install(|view| view.ring[9].node = NodeId([4; 32]));
    assert_eq!(twice, CommandError::NodeTwice(NodeId([4; 32])));
    let reachable = refused_install(|view| {
        let address = view.ring[9].addresses[0];
        view.ring[9].addresses.push(address);
    });
    assert_eq!(reachable, over("addresses", 17, 16).into());
    let advertised = |name: String| refused_install(|view| view.ring[9].advertised = Some(name.clone()));
    assert_eq!(advertised("n".repeat(262)), over("an advertised name's bytes", 262, 261).into());
    assert_eq!(advertised("one\n:7400".to_owned()), AdvertisedError.into());
    assert_eq!(advertised(String::new()), AdvertisedError.into());
    let run = refused_install(|view| view.ring[9].incarnation = Incarnation(u64::MAX));
    assert_eq!(run, over("incarnation", u64::MAX, COUNTER_MAX).into());
    assert_eq!(refused_install(|view| view.from = ViewId(u64::MAX)), over("view", u64::MAX, COUNTER_MAX).into());
    assert_eq!(refused_install(|view| view.cut.push(Round(0))), over("lanes", 65, 64).into());
    let gone = refused_install(|view| {
        view.ring.iter_mut().for_each(|member| member.addresses.clear());
        view.dropped.push((NodeId([99; 32]), Dropped::Silent));
    });
    assert_eq!(gone, over("dropped members", 65, 64).into());
    assert_eq!(refused_install(|view| view.cut[3] = Round(u64::MAX)), over("round", u64::MAX, ROUND_MAX).into());
}

type Field = fn(&mut Parameters, Duration);

const TIMES: [(&str, Field); 10] = [
    ("token_tick", |parameters, value| parameters.token_tick = value),
    ("heartbeat", |parameters, value| parameters.heartbeat = value),
    ("failure_timeout", |parameters, value| parameters.failure_timeout = value),
    ("stall_timeout", |parameters, value| parameters.stall_timeout = value),
    ("coordinator_timeout", |parameters, value| parameters.coordinator_timeout = value),
    ("wedge_timeout", |parameters, value| parameters.wedge_timeout = value),
    ("sync_timeout", |parameters, value| parameters.sync_timeout = value),
    ("resume_timeout", |parameters, value| parameters.resume_timeout = value),
    ("timeout_max", |parameters, value| parameters.timeout_max = value),
    ("slow_down_max", |parameters, value| parameters.slow_down_max = value),
];

/// Three times a heartbeat of the greatest duration would overflow: durations are checked before anything is computed.
#[test]
fn parameters_that_cannot_work_are_refused() {
    let closed = refused_install(|view| view.parameters.window_slots = 0);
    assert_eq!(closed, ParametersError::Zero("window_slots").into());
    for (field, set) in TIMES {
        let refused = refused_install(|view| set(&mut view.parameters, Duration::MAX));
        assert_eq!(refused, ParametersError::TooLong { field, value: Duration::MAX }.into());
    }
}

/// Every member decodes the parameters that a group's creator accepts.
#[test]
fn parameters_at_their_bounds_decode_and_parameters_beyond_them_do_not_validate() {
    let largest = Parameters {
        window_slots: 1 << 16,
        window_bytes: WINDOW_BYTES_MAX,
        window_bytes_min: WINDOW_BYTES_MAX,
        slot_bytes_max: SLOT_BODY_BYTES_MAX as u32,
        slot_payloads_max: SLOT_PAYLOADS_MAX,
        payload_bytes_max: PAYLOAD_BYTES_MAX as u32,
        skip_ahead: 1 << 16,
        ring_min: MEMBERS_MAX as u16,
        ..Parameters::default()
    };
    let cases = TIMES.into_iter().map(|(field, set)| {
        let mut at = Parameters { failure_timeout: DURATION_MAX, ..largest.clone() };
        let bound = if field == "heartbeat" { DURATION_MAX / 3 } else { DURATION_MAX };
        set(&mut at, bound);
        let mut beyond = at.clone();
        set(&mut beyond, DURATION_MAX + Duration::from_secs(1));
        (field, at, beyond)
    });
    for (field, at, beyond) in cases {
        assert_eq!(at.validate(), Ok(()), "{field}");
        let mut install = largest_install();
        install.parameters = at;
        let command = Command::InstallView(install);
        assert_eq!(decode_command(&encode_command(&command)), Ok(command), "{field}");
        let value = DURATION_MAX + Duration::from_secs(1);
        assert_eq!(beyond.validate(), Err(ParametersError::TooLong { field, value }));
    }
}

#[test]
fn a_plan_out_of_bounds_is_refused() {
    let plan = SessionPlan { send: DURATION_MAX, grace: DURATION_MAX, stop: DURATION_MAX, seed: u64::MAX };
    let decoded = |plan| decode_command(&encode_command(&Command::Kickstart(plan)));
    assert_eq!(plan.validate(), Ok(()));
    assert_eq!(decoded(plan), Ok(Command::Kickstart(plan)));
    for (field, plan) in [
        ("send", SessionPlan { send: Duration::MAX, ..plan }),
        ("grace", SessionPlan { grace: Duration::MAX, ..plan }),
        ("stop", SessionPlan { stop: Duration::MAX, ..plan }),
    ] {
        let error = ParametersError::TooLong { field, value: Duration::MAX };
        assert_eq!(plan.validate(), Err(error));
        assert_eq!(decoded(plan), Err(error.into()));
    }
}

#[test]
fn bytes_that_are_not_one_command_are_refused() {
    let grace = encode_command(&Command::Grace);
    assert_eq!(decode_command(&[&grace[..], &[0]].concat()), Err(CommandError::Trailing(1)));
    for bad in [&[][..], &[0x7f]] {
        assert!(matches!(decode_command(bad), Err(CommandError::Malformed(_))));
    }
    let long = over("a log entry's bytes", COMMAND_BYTES_MAX as u64 + 1, COMMAND_BYTES_MAX as u64);
    assert_eq!(decode_command(&vec![0; COMMAND_BYTES_MAX + 1]), Err(long.into()));
}
