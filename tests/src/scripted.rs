//! One machine, and a peer that sends what a test wants: the smallest cases of rules that whole groups seldom exercise.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use cloudy_proto::limits::LOG_ENTRIES_MAX;
use cloudy_proto::slot::{Batch, Slot, push_payload};
use cloudy_proto::wire::{
    ConsensusKind, ConsensusMessage, ControlFrame, LaneFrame, Stream, TallyFrame, encode_command,
};
use cloudy_proto::{
    ApprovedItem, Command, ConsensusId, Durability, Event, Frame, Incarnation, Input, LogBase, LogIndex, Machine,
    MachineConfig, NodeId, Output, Parameters, Rank, Record, Request, Role, Round, Rules, Seq, ServeLimits, StaleDisk,
    Stored, Time, ViewId, Vote, VoterRole,
};

use crate::sim::world::GROUP;

const ME: NodeId = NodeId([1; 32]);
const PEER: NodeId = NodeId([9; 32]);
/// The peer's run.
const INCARNATION: Incarnation = Incarnation(3);

fn config(role: Role, rules: Rules) -> MachineConfig {
    MachineConfig {
        me: ME,
        addresses: Vec::new(),
        advertised: None,
        group: GROUP,
        name: "scripted".to_owned(),
        run: 1,
        role,
        durability: Durability::Memory,
        retain_bytes: 1 << 20,
        retain_disk_bytes: None,
        log_entries_max: LOG_ENTRIES_MAX,
        level_max: cloudy_proto::wire::WIRE_VERSION,
        serves: ServeLimits::default(),
        rules,
    }
}

/// The machine, and its clock.
struct Alone {
    machine: Machine,
    now: Time,
}

impl Alone {
    /// With a link to the peer.
    fn linked(role: Role, rules: Rules) -> Self {
        let mut alone = Self { machine: Machine::new(config(role, rules)), now: Time(0) };
        alone.takes(Input::LinkUp { peer: PEER, addresses: Vec::new(), advertised: None });
        alone
    }

    fn takes(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(self.now, input);
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    fn hears(&mut self, stream: Stream, frame: Frame) -> Vec<Output> {
        self.takes(Input::Frame { from: PEER, incarnation: INCARNATION, stream, frame })
    }

    fn hears_control(&mut self, frame: ControlFrame) -> Vec<Output> {
        self.hears(Stream::Control, Frame::Control(frame))
    }

    /// Until then its timers run.
    fn waits(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        let mut outputs = Vec::new();
        while let Some(due) = self.machine.poll_timeout().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            outputs.extend(self.takes(Input::Timeout));
        }
        self.now = end;
        outputs
    }
}

/// A creator, and a member that sends payloads 1 and 2, and then 1, 2 and 3 in a later slot. Returns the numbers that
/// enter the creator's result.
#[must_use]
pub fn repeats_itself(rules: Rules) -> Vec<u64> {
    let mut creator = Alone::linked(Role::Creator { member: true, parameters: Parameters::default() }, rules);
    let (view, lane) = (ViewId(1), Rank(1));
    let slot = |round, prev, count| {
        let slot = Slot { round: Round(round), prev: Round(prev), batch: batch(count) };
        (Stream::Lane { view, lane }, Frame::Lane(LaneFrame::Slot(slot)))
    };
    let tally = |frame| (Stream::Tally { view }, Frame::Tally(frame));
    creator.takes(Input::Request(Request::Invite { node: PEER }));
    creator.hears_control(ControlFrame::Accept { run: 2 });
    let mut outputs = creator.takes(Input::Request(Request::Create { session: None }));
    for (stream, frame) in [
        tally(TallyFrame::Resume { frontiers: vec![(Rank(0), Round(0))] }),
        slot(0, 0, 2),
        slot(1, 1, 3),
        tally(TallyFrame::Approved { frontier: Round(2) }),
    ] {
        outputs.extend(creator.hears(stream, frame));
    }
    let entered = outputs.into_iter().filter_map(|output| match output {
        Output::Deliver(ApprovedItem::Batch(entry)) => Some(entry.batch.first_seq.0..=entry.batch.last_seq().0),
        _ => None,
    });
    entered.flatten().collect()
}

/// Payloads 1 to `count`.
fn batch(count: u32) -> Batch {
    let mut body = BytesMut::new();
    (0..count).for_each(|at| push_payload(&mut body, &[at as u8]));
    Batch { first_seq: Seq(1), count, body: body.freeze() }
}

/// The node that invited another reports every 50 ms, for a minute, that it does not coordinate. True if the other
/// reports that no node coordinates.
#[must_use]
pub fn reports_that_no_member_coordinates(rules: Rules) -> bool {
    let mut invited = Alone::linked(Role::Invited { by: PEER }, rules);
    let mut outputs = Vec::new();
    for _ in 0..1_200 {
        outputs.extend(invited.hears_control(ControlFrame::Resigned));
        outputs.extend(invited.waits(Duration::from_millis(50)));
    }
    outputs.iter().any(|output| matches!(output, Output::Event(Event::CoordinatorLost { .. })))
}

/// A voter learns from its leader that the log is committed up to entry 100, of which it has none. True if it closes the
/// link: the library would stop the process.
#[must_use]
pub fn rejects_a_commit_of_entries_it_lacks(rules: Rules) -> bool {
    let mut invited = Alone::linked(Role::Invited { by: PEER }, rules);
    let commands = [
        Command::Created { creator: PEER },
        Command::Incarnate { node: PEER, run: 2 },
        Command::Incarnate { node: NodeId([1; 32]), run: 1 },
    ];
    let entries = commands.iter().map(encode_command).collect();
    invited.hears_control(ControlFrame::Log { first: LogIndex(1), entries, term: 0 });
    let outputs = invited.hears_control(ControlFrame::Consensus(ConsensusMessage {
        kind: ConsensusKind::Heartbeat,
        to: ConsensusId(3),
        from: ConsensusId::CREATOR,
        term: 1,
        log_term: 0,
        index: LogIndex(0),
        entries: Vec::new(),
        commit: LogIndex(100),
        commit_term: 1,
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new(),
        snapshot: Bytes::new(),
    }));
    outputs.iter().any(|output| matches!(output, Output::CloseLink { peer: PEER, .. }))
}

/// A node that does not coordinate is asked for the log from entry 50 on, and has less of it. True if it asks back.
#[must_use]
pub fn asks_back(rules: Rules) -> bool {
    let mut invited = Alone::linked(Role::Invited { by: PEER }, rules);
    invited.waits(Duration::from_secs(1));
    let outputs = invited.hears_control(ControlFrame::Follow {
        next: LogIndex(50),
        voter: ConsensusId(0),
        level: cloudy_proto::wire::WIRE_VERSION,
    });
    outputs.iter().any(|output| {
        let Output::Send { to: PEER, frame: Frame::Control(frame), .. } = output else { return false };
        matches!(frame, ControlFrame::Follow { .. })
    })
}

/// A voter starts with an older disk: its leader says that more of the log is committed than the disk holds. True if the
/// voter says so, and stores that it gives up its name.
#[must_use]
pub fn gives_up_its_vote(rules: Rules) -> bool {
    const LEADER: ConsensusId = ConsensusId::CREATOR;
    const VOTER: ConsensusId = ConsensusId(3);
    let electors = vec![(LEADER, VoterRole::Voter), (VOTER, VoterRole::Voter)];
    let commands = [
        Command::Created { creator: PEER },
        Command::Incarnate { node: PEER, run: 2 },
        Command::Incarnate { node: ME, run: 3 },
        Command::Voter { id: VOTER, node: ME, role: VoterRole::Voter },
    ];
    let mut stored = Stored::default();
    let vote = Vote { voter: VOTER, term: 2, voted_for: LEADER, commit: LogIndex(4) };
    let base = LogBase { index: LogIndex(4), term: 2, electors };
    let log = (1..).zip(&commands).map(|(index, command)| Record::Command {
        index: LogIndex(index),
        term: 2,
        command: encode_command(command),
    });
    let records = [Record::Vote(vote), Record::Base { base, alone: true }].into_iter().chain(log);
    records.for_each(|record| stored.take(record).expect("the records follow each other"));
    let config = MachineConfig { durability: Durability::Disk, ..config(Role::Restored, rules) };
    let machine = Machine::restored(Time(0), config, stored).expect("the records are one node's");
    let mut voter = Alone { machine, now: Time(0) };
    voter.takes(Input::LinkUp { peer: PEER, addresses: Vec::new(), advertised: None });
    let outputs = voter.hears_control(ControlFrame::Consensus(ConsensusMessage {
        kind: ConsensusKind::Heartbeat,
        to: VOTER,
        from: LEADER,
        term: 2,
        log_term: 0,
        index: LogIndex(0),
        entries: Vec::new(),
        commit: LogIndex(9),
        commit_term: 2,
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new(),
        snapshot: Bytes::new(),
    }));
    let says = outputs.iter().any(|output| matches!(output, Output::Event(Event::StaleDisk(StaleDisk::Log))));
    let gives_up = |record: &Record| *record == Record::Vote(Vote::default());
    let stores = outputs.iter().any(|output| match output {
        Output::Persist { records, .. } => records.iter().any(gives_up),
        _ => false,
    });
    says && stores
}
