//! Barriers: parties wait for each other.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use cloudy_proto::{Index, MessageId};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::snapshot;
use crate::handle::Group;
use crate::replica::{Applied, MembersChanged, Replica, ReplicaError, StateMachine, SubmitError};
use crate::wait::{Answers, Deadline, TimedOut, Wait};

/// Parties that have passed and did not acknowledge it, because their node died: the newest are kept.
const PASSED_MAX: usize = 65_536;

/// A party that did not pass a barrier.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BarrierError {
    /// A command was not answered. If its outcome is unknown, the party may be counted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The replica is closed.
    #[error(transparent)]
    Closed(#[from] ReplicaError),
    /// Too few parties arrived in time. This one is withdrawn.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

/// Named barriers of a group: each lets a number of parties pass once all of them have arrived, again and again. Clones
/// are handles to the same ones.
///
/// # Failure mode
///
/// A party that waits is removed when its wait is dropped, and when its member is evicted or leaves. The others
/// continue to wait until another party arrives; the removed one arrives again when its member is back. A party that
/// has passed may be paused or dead at any time after that: a barrier proves that all parties arrived, not that they
/// still run.
///
/// ```no_run
/// # async fn example(group: cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
/// use cloudy_node::recipes::Barriers;
///
/// let barriers = Barriers::start(group).await?;
/// let step = barriers.wait("loaded", 3).without_timeout().await?;
/// println!("all three have loaded their data, at index {step}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Barriers(Replica<Parties>);

/// A party: the index of its command names it.
type Ticket = Index;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Parties {
    /// Of each barrier, the parties that wait and the commands that named them.
    waiting: BTreeMap<String, BTreeMap<Ticket, MessageId>>,
    /// The parties that have passed and may not know it, and the index at which they passed.
    passed: BTreeMap<Ticket, Index>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    Arrive {
        barrier: String,
        parties: u64,
    },
    /// A party no longer waits, or knows that it has passed.
    Withdraw(Ticket),
    /// The same for a party whose index its node does not know.
    WithdrawId(MessageId),
}

/// The state of a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    /// At this index.
    Passed(Index),
    /// Its node was no member for a while.
    Removed,
}

impl Parties {
    fn place(&self, barrier: &str, ticket: Ticket) -> Place {
        if self.waiting.get(barrier).is_some_and(|waiting| waiting.contains_key(&ticket)) {
            return Place::Waiting;
        }
        self.passed.get(&ticket).map_or(Place::Removed, |at| Place::Passed(*at))
    }

    /// Removes parties that wait.
    fn remove(&mut self, is_removed: impl Fn(Ticket, MessageId) -> bool) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|ticket, id| !is_removed(*ticket, *id));
            !waiting.is_empty()
        });
    }
}

impl StateMachine for Parties {
    type Command = Command;
    /// The index of the command.
    type Response = Index;

    fn apply(&mut self, at: Applied, command: Command) -> Index {
        match command {
            Command::Arrive { barrier, parties } => {
                let waiting = self.waiting.entry(barrier.clone()).or_default();
                waiting.insert(at.index, at.id);
                if waiting.len() as u64 >= parties {
                    let passes = self.waiting.remove(&barrier).unwrap_or_default();
                    self.passed.extend(passes.into_keys().map(|ticket| (ticket, at.index)));
                    while self.passed.len() > PASSED_MAX {
                        self.passed.pop_first();
                    }
                }
            }
            Command::Withdraw(ticket) => {
                self.passed.remove(&ticket);
                self.remove(|waiting, _| waiting == ticket);
            }
            Command::WithdrawId(id) => self.remove(|_, waiting| waiting == id),
        }
        at.index
    }

    fn members_changed(&mut self, change: &MembersChanged) {
        self.remove(|_, id| change.left.contains(&id.origin));
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        snapshot::write(self, to)
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        snapshot::read(from)
    }
}

impl Barriers {
    /// Starts the barriers of a group, which must hold nothing else.
    ///
    /// Cancel safe: dropped, it has started nothing.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start(group: Group) -> Result<Self, ReplicaError> {
        Replica::start(group, Parties::default()).await.map(Self)
    }

    /// Waits at a barrier until a number of parties, with this one, wait there; all parties give the same number.
    /// Returns the index at which they passed, which all of them get. Dropping it withdraws this party, unless it has
    /// passed.
    ///
    /// # Errors
    /// See [`BarrierError`]. The time limit is that of the node's other waits
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout)) or [`Wait::timeout`].
    pub fn wait(&self, barrier: impl Into<String>, parties: u64) -> Wait<'_, Result<Index, BarrierError>> {
        let barrier = barrier.into();
        Wait::new(Some(self.0.group().mailbox.wait_timeout), move |deadline: Deadline| async move {
            let what = format!("fewer than {parties} parties arrived at the barrier {barrier:?}");
            let passed = deadline.run(self.passed(&barrier, parties)).await;
            passed.unwrap_or_else(|| Err(deadline.passed(what, Answers::default()).into()))
        })
    }

    /// The number of parties that wait at a barrier, as this member knows it.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read`].
    pub async fn waiting(&self, barrier: &str) -> Result<usize, ReplicaError> {
        self.0.read(|parties| parties.waiting.get(barrier).map_or(0, BTreeMap::len)).await
    }

    async fn passed(&self, barrier: &str, parties: u64) -> Result<Index, BarrierError> {
        loop {
            let mut applied = self.0.watch();
            let (sender, arrived) = oneshot::channel();
            let arrive = Command::Arrive { barrier: barrier.to_owned(), parties };
            // In a task: a party whose caller is gone has to be withdrawn.
            tokio::spawn(submit_arrival(self.0.clone(), arrive, sender));
            let Ok(party) = arrived.await else { return Err(self.0.closed().await.into()) };
            let party = party?;
            let ticket = party.ticket;
            loop {
                match self.0.read(|parties| parties.place(barrier, ticket)).await? {
                    Place::Passed(at) => return Ok(at),
                    Place::Waiting => {}
                    // This member was evicted meanwhile.
                    Place::Removed => break,
                }
                tokio::select! {
                    _ = applied.changed() => {}
                    reason = self.0.closed() => return Err(reason.into()),
                }
            }
        }
    }
}

/// Arrives at a barrier; the party is withdrawn if its caller is gone.
async fn submit_arrival(
    replica: Replica<Parties>,
    arrive: Command,
    answer: oneshot::Sender<Result<Party, SubmitError>>,
) {
    let arrived = replica.submit(arrive).without_timeout().await;
    if let Err(SubmitError::ResponseLost(id)) = arrived {
        withdraw(replica.clone(), Command::WithdrawId(id));
    }
    // Dropped with what it holds.
    let _ = answer.send(arrived.map(|ticket| Party { replica, ticket }));
}

fn withdraw(replica: Replica<Parties>, command: Command) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // If it is not answered, this member is gone, and the party with it.
        runtime.spawn(async move { replica.submit(command).without_timeout().await.map(drop) });
    }
}

/// A party that arrived: withdrawn when dropped.
struct Party {
    replica: Replica<Parties>,
    ticket: Ticket,
}

impl Drop for Party {
    fn drop(&mut self) {
        withdraw(self.replica.clone(), Command::Withdraw(self.ticket));
    }
}

#[cfg(test)]
mod tests {
    use cloudy_proto::{Incarnation, NodeId, Seq, ViewId};

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn at(from: u8, index: u64) -> Applied {
        let id = MessageId { origin: node(from), incarnation: Incarnation(1), seq: Seq(index) };
        Applied { index: Index(index), id }
    }

    fn arrive(parties: &mut Parties, from: u8, index: u64) {
        parties.apply(at(from, index), Command::Arrive { barrier: "a".to_owned(), parties: 2 });
    }

    #[test]
    fn parties_pass_together_and_a_removed_one_is_not_counted() {
        let mut parties = Parties::default();
        arrive(&mut parties, 1, 1);
        assert_eq!(parties.place("a", Index(1)), Place::Waiting);
        let change = MembersChanged {
            view: ViewId(2),
            first: Index(2),
            members: vec![node(2)],
            joined: Vec::new(),
            left: vec![node(1)],
        };
        parties.members_changed(&change);
        assert_eq!(parties.place("a", Index(1)), Place::Removed);
        arrive(&mut parties, 2, 2);
        assert_eq!(parties.place("a", Index(2)), Place::Waiting, "it waits for another");
        arrive(&mut parties, 1, 3);
        // Eviction after the barrier was passed.
        parties.members_changed(&change);
        let places = [2, 3].map(|ticket| parties.place("a", Index(ticket)));
        assert_eq!(places, [Place::Passed(Index(3)); 2]);
        for ticket in [2, 3].map(Index) {
            parties.apply(at(1, 4), Command::Withdraw(ticket));
        }
        assert_eq!(parties, Parties::default(), "a barrier that no party waits at costs nothing");
    }
}
