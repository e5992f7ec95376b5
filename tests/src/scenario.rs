//! Scenarios in the simulator: create a group, broadcast, cause a fault, expect a state. All checkers of the simulator run
//! after each step.

use bytes::Bytes;
use cloudy_proto::Request;

use crate::invariants::{Failure, has_settled};
use crate::sim::node::Item;
use crate::sim::plan::{Fault, Plan};
use crate::sim::world::World;

/// A world that a test controls.
pub struct Scenario {
    /// The world.
    pub world: World,
}

impl Scenario {
    /// Creates the plan's group, and runs until every member may broadcast.
    ///
    /// # Errors
    /// If a checker fails meanwhile.
    pub fn begin(plan: Plan) -> Result<Self, Failure> {
        let mut scenario = Self { world: World::new(plan, false) };
        let members: Vec<usize> = scenario.world.plan.members().collect();
        scenario.until("every member has its view", |world| {
            let has_view = |node: &usize| world.nodes[*node].machine.status(cloudy_proto::Time(0)).view.is_some();
            members.iter().all(|node| has_view(node) && world.nodes[*node].app.open)
        })?;
        Ok(scenario)
    }

    /// A member broadcasts a number of payloads of a size in bytes.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn broadcasts(&mut self, node: usize, payloads: usize, bytes: usize) -> Result<(), Failure> {
        let payload = |at: usize| Bytes::from(vec![(node + at) as u8; bytes]);
        self.world.broadcast_all(node, (0..payloads).map(payload).collect())
    }

    /// Causes a fault.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn suffers(&mut self, fault: Fault) -> Result<(), Failure> {
        self.world.fault(fault)
    }

    /// The creator closes the group.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn ends(&mut self) -> Result<(), Failure> {
        self.ended_by(Plan::CREATOR)
    }

    /// A node requests to close the group.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn ended_by(&mut self, node: usize) -> Result<(), Failure> {
        self.world.end_wanted = true;
        let place = self.world.running(node).unwrap_or(node);
        self.world.give(place, Item::Ask(Request::End))
    }

    /// A node leaves once all that it broadcast is approved.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn leaves(&mut self, node: usize) -> Result<(), Failure> {
        self.world.fault(Fault::Leave { node })
    }

    /// Runs until a condition holds.
    ///
    /// # Errors
    /// If a checker fails, or the condition does not hold before the plan's end.
    pub fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) -> Result<(), Failure> {
        while !holds(&self.world) {
            let went_on = self.world.step()?;
            if !went_on || self.world.now_us >= self.world.plan.heal_at_us {
                return Err(self.world.judge.failure(
                    "the scenario continues",
                    Plan::CREATOR,
                    format!("never: {what}"),
                ));
            }
        }
        Ok(())
    }

    /// Runs for a time.
    ///
    /// # Errors
    /// If a checker fails.
    pub fn pass(&mut self, time_us: u64) -> Result<(), Failure> {
        let until = self.world.now_us + time_us;
        self.world.pass_until(until)
    }

    /// Runs until every broadcast is approved, or the group has closed at every node with one result.
    ///
    /// # Errors
    /// If a checker fails, or the plan ends before that.
    pub fn settles(&mut self) -> Result<(), Failure> {
        self.world.healed = true;
        self.until("all is settled", has_settled)
    }
}
