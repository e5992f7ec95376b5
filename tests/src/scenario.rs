//! Scenarios that read like stories: found a group, broadcast, break something, expect something. All checkers of the
//! simulator watch every step.

use bytes::{Bytes, BytesMut};
use cloudy_proto::limits::LOG_ENTRIES_MAX;
use cloudy_proto::slot::{Batch, Slot, push_payload};
use cloudy_proto::wire::{ControlFrame, LaneFrame, Stream, TallyFrame};
use cloudy_proto::{
    Durability, Frame, Incarnation, Input, Machine, MachineConfig, NodeId, Output, Parameters, Rank, Request, Role,
    Round, Rules, Seq, Time, ViewId,
};

use crate::invariants::{Failure, has_settled};
use crate::sim::node::Item;
use crate::sim::plan::{Fault, Plan};
use crate::sim::world::{GROUP, World};

/// A world that a test tells what to do.
pub struct Scenario {
    /// The world.
    pub world: World,
}

impl Scenario {
    /// Founds the plan's group, and goes on until every member may broadcast.
    ///
    /// # Errors
    /// If a checker fails on the way.
    pub fn begin(plan: Plan) -> Result<Self, Failure> {
        let mut scenario = Self { world: World::new(plan, false) };
        let members: Vec<usize> = scenario.world.plan.members().collect();
        scenario.until("every member has its view", |world| {
            let has_view = |node: &usize| world.nodes[*node].machine.status(cloudy_proto::Time(0)).view.is_some();
            members.iter().all(|node| has_view(node) && world.nodes[*node].app.open)
        })?;
        Ok(scenario)
    }

    /// A member broadcasts so many payloads of so many bytes.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn broadcasts(&mut self, node: usize, payloads: usize, bytes: usize) -> Result<(), Failure> {
        let payload = |at: usize| Bytes::from(vec![(node + at) as u8; bytes]);
        self.world.broadcast_all(node, (0..payloads).map(payload).collect())
    }

    /// Something goes wrong.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn suffers(&mut self, fault: Fault) -> Result<(), Failure> {
        self.world.fault(fault)
    }

    /// The founder ends the group.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn ends(&mut self) -> Result<(), Failure> {
        self.world.end_wanted = true;
        self.world.give(Plan::FOUNDER, Item::Ask(Request::End))
    }

    /// Goes on until something holds.
    ///
    /// # Errors
    /// If a checker fails, or it does not come to that before the plan's end.
    pub fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) -> Result<(), Failure> {
        while !holds(&self.world) {
            let went_on = self.world.step()?;
            if !went_on || self.world.now_us >= self.world.plan.heal_at_us {
                return Err(self.world.judge.failure("the story goes on", Plan::FOUNDER, format!("never: {what}")));
            }
        }
        Ok(())
    }

    /// Goes on for a while.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn pass(&mut self, time_us: u64) -> Result<(), Failure> {
        let until = self.world.now_us + time_us;
        self.until("time passes", |world| world.now_us >= until)
    }

    /// Goes on until all is approved, or the group has ended at everybody with one result.
    ///
    /// # Errors
    /// If a checker fails, or it does not come to that before the plan's end.
    pub fn settles(&mut self) -> Result<(), Failure> {
        self.world.healed = true;
        self.until("all is settled", has_settled)
    }
}

/// A founder, and a scripted member that sends payloads 1 and 2, and then 1, 2 and 3 in a later slot. Gives the numbers
/// that enter the founder's result.
#[must_use]
pub fn repeats_itself(rules: Rules) -> Vec<u64> {
    let peer = NodeId([9; 32]);
    let config = MachineConfig {
        me: NodeId([1; 32]),
        addresses: Vec::new(),
        group: GROUP,
        name: "scripted".to_owned(),
        run: 1,
        role: Role::Founder { member: true, parameters: Parameters::default() },
        durability: Durability::Memory,
        retain_bytes: 1 << 20,
        retain_disk_bytes: None,
        log_entries_max: LOG_ENTRIES_MAX,
        rules,
    };
    let mut founder = Machine::new(config);
    let (view, lane, incarnation) = (ViewId(1), Rank(1), Incarnation(3));
    let control = |frame| (Stream::Control, Frame::Control(frame));
    let tally = |frame| (Stream::Tally { view }, Frame::Tally(frame));
    let slot = |round, prev, count| {
        let slot = Slot { round: Round(round), prev: Round(prev), batch: batch(count) };
        (Stream::Lane { view, lane }, Frame::Lane(LaneFrame::Slot(slot)))
    };
    let said = |(stream, frame)| Input::Frame { from: peer, incarnation, stream, frame };
    let inputs = [
        Input::LinkUp { peer, addresses: Vec::new() },
        Input::Request(Request::Invite { node: peer }),
        said(control(ControlFrame::Accept { run: 2 })),
        Input::Request(Request::Found { session: None }),
        said(tally(TallyFrame::Resume { frontiers: vec![(Rank(0), Round(0))] })),
        said(slot(0, 0, 2)),
        said(slot(1, 1, 3)),
        said(tally(TallyFrame::Approved { frontier: Round(2) })),
    ];
    let mut entered = Vec::new();
    for input in inputs {
        founder.handle(Time(0), input);
        while let Some(output) = founder.poll_output() {
            if let Output::Deliver(entry) = output {
                entered.extend(entry.batch.first_seq.0..=entry.batch.last_seq().0);
            }
        }
    }
    entered
}

/// Payloads 1 to `count`.
fn batch(count: u32) -> Batch {
    let mut body = BytesMut::new();
    (0..count).for_each(|at| push_payload(&mut body, &[at as u8]));
    Batch { first_seq: Seq(1), count, body: body.freeze() }
}
