//! Named counters.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::snapshot;
use crate::handle::Group;
use crate::replica::{Applied, ReadError, Replica, ReplicaError, StateMachine, SubmitError};
use crate::wait::Wait;

/// Named counters of a group. A counter that was never added to is zero. Clones are handles to the same ones.
///
/// Each addition is linearizable, and so is [`get`](Self::get): two additions never return the same value by adding one, so
/// a counter gives out numbers that no other member has.
///
/// # Failure mode
///
/// An addition whose outcome is unknown ([`SubmitError::Unknown`]) is counted once or not at all. Repeating it can count it
/// twice: ask [`Group::outcome`] for its id first. Numbers that a counter gives out are unique, but a number can be lost
/// with its response. At the end of its range a counter stays there.
///
/// ```no_run
/// # async fn example(group: cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
/// use cloudy_node::recipes::Counters;
///
/// let counters = Counters::start(group).await?;
/// let order = counters.add("orders", 1).await?;
/// println!("order {order} of {}", counters.get("orders").await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Counters(Replica<Values>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Values(BTreeMap<String, i64>);

impl Values {
    fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or_default()
    }
}

impl StateMachine for Values {
    /// The counter, and what is added.
    type Command = (String, i64);
    /// The value after it.
    type Response = i64;

    fn apply(&mut self, _at: Applied, (name, by): (String, i64)) -> i64 {
        let value = self.get(&name).saturating_add(by);
        // A counter at zero costs nothing.
        match value {
            0 => self.0.remove(&name),
            value => self.0.insert(name, value),
        };
        value
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        snapshot::write(self, to)
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        snapshot::read(from)
    }
}

impl Counters {
    /// Starts the counters of a group, which must hold nothing else.
    ///
    /// Cancel safe: dropped, it has started nothing.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start(group: Group) -> Result<Self, ReplicaError> {
        Replica::start(group, Values::default()).await.map(Self)
    }

    /// Adds to a counter, or subtracts, and returns its value after that. Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// As [`Replica::submit`].
    pub fn add(&self, name: impl Into<String>, by: i64) -> Wait<'_, Result<i64, SubmitError>> {
        self.0.submit((name.into(), by))
    }

    /// The value of a counter, with every addition that was answered anywhere before the call. Dropping it changes nothing.
    ///
    /// # Errors
    /// As [`Replica::read_linearizable`].
    pub fn get(&self, name: impl Into<String>) -> Wait<'_, Result<i64, ReadError>> {
        let name = name.into();
        self.0.read_linearizable(move |values| values.get(&name))
    }

    /// The value of a counter as this member knows it, possibly not the newest.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read`].
    pub async fn get_local(&self, name: &str) -> Result<i64, ReplicaError> {
        self.0.read(|values| values.get(name)).await
    }
}
