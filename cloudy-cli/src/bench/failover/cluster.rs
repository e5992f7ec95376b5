//! A group under a steady load, whose members are killed, cut off and replaced.

use std::net::SocketAddr;
use std::time::Duration;

use cloudy_node::{NodeId, ViewId};
use miette::Report;

use crate::bench::key::Key;
use crate::bench::nodes::{Nodes, Place};
use crate::bench::orders::{Failed, Order, Part, Role, Said, Span, Task, Word};
use crate::output::failure;

/// Maximum of voters of a group (`protocol.md` §6.6).
const VOTERS_MAX: usize = 7;
/// The timeout for filling a group with messages.
const FILL_TIMEOUT: Duration = Duration::from_secs(120);

/// The composition of a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Make {
    /// Number of processes, including a master if there is one.
    pub(crate) nodes: usize,
    /// Whether the creator is no member.
    pub(crate) master: bool,
    /// Nodes can be cut off from each other.
    pub(crate) partitions: bool,
    pub(crate) size_bytes: usize,
    /// For each member.
    pub(crate) rate_per_s: u64,
}

impl Make {
    /// Number of voters: odd, with the master among them if that makes it odd.
    pub(crate) fn voters(&self) -> usize {
        (self.nodes - usize::from(self.nodes.is_multiple_of(2))).min(VOTERS_MAX)
    }

    fn part(&self, role: Role, key: &Key) -> Order {
        let &Self { partitions, size_bytes, rate_per_s, .. } = self;
        Order::Serve(Box::new(Part { role, partitions, size_bytes, rate_per_s, key: key.file().to_owned() }))
    }
}

/// A process of the group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// Its number among the bench's nodes.
    pub(crate) number: usize,
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
}

/// The join of a newcomer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined {
    pub(crate) took_us: u64,
    pub(crate) messages: u64,
}

/// A complete group: its coordinator, and the length of its result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) view: ViewId,
    pub(crate) coordinator: NodeId,
    pub(crate) messages: u64,
}

/// A group under load. Dropping it kills its processes.
pub(crate) struct Cluster<'a> {
    key: &'a Key,
    make: Make,
    nodes: Nodes,
    /// A creator that is no member.
    master: Option<Process>,
    members: Vec<Process>,
}

impl<'a> Cluster<'a> {
    /// Starts the processes, and returns once all are in the group.
    pub(crate) async fn start(make: Make, key: &'a Key) -> Result<Self, Report> {
        let mut cluster = Self { key, make, nodes: Nodes::new(), master: None, members: Vec::new() };
        let others = cluster.make.nodes - 1;
        let role = if cluster.make.master { Role::Master { others } } else { Role::Creator { others } };
        let (creator, creator_at) = cluster.add(role).await?;
        cluster.nodes.tell(creator, Order::Do(Task::Join(None))).await;
        let mut added = Vec::with_capacity(others);
        for _ in 0..others {
            let (number, address) = cluster.add(Role::Joiner).await?;
            cluster.nodes.tell(number, Order::Do(Task::Join(Some(creator_at)))).await;
            added.push((number, address));
        }
        let (node, _) = cluster.joined(creator).await?;
        let creator = Process { number: creator, node, address: creator_at };
        if cluster.make.master {
            cluster.master = Some(creator);
        } else {
            cluster.members.push(creator);
        }
        for (number, address) in added {
            let (node, _) = cluster.joined(number).await?;
            cluster.members.push(Process { number, node, address });
        }
        Ok(cluster)
    }

    /// The members, in the order in which they joined.
    pub(crate) fn members(&self) -> &[Process] {
        &self.members
    }

    /// Number of its voters.
    pub(crate) fn voters(&self) -> usize {
        self.make.voters()
    }

    /// The creator that is no member.
    pub(crate) fn master(&self) -> Option<Process> {
        self.master
    }

    /// Lets another process join, at the address of the first member.
    pub(crate) async fn join(&mut self) -> Result<Joined, Report> {
        let contact = self.members.first().map(|member| member.address);
        let (number, address) = self.add(Role::Joiner).await?;
        self.nodes.tell(number, Order::Do(Task::Join(contact))).await;
        let (node, joined) = self.joined(number).await?;
        self.members.push(Process { number, node, address });
        Ok(joined)
    }

    /// Waits until the group is complete, with this number of voters, and every member's messages are approved.
    pub(crate) async fn settle(&mut self) -> Result<Settled, Report> {
        let (members, voters) = (self.members.len(), self.make.voters());
        self.tell_all(|| Task::Settle { members, voters }).await;
        let mut settled = None;
        for at in 0..self.members.len() {
            let word = |word| match word {
                Word::Settled { view, coordinator, messages } => Some(Settled { view, coordinator, messages }),
                _ => None,
            };
            settled = Some(self.did(at, Duration::ZERO, "a member of the whole group", word).await?);
        }
        settled.ok_or_else(|| failure("a group without members", "run it again"))
    }

    /// Kills a process.
    pub(crate) async fn kill(&mut self, process: Process) {
        self.nodes.kill(process.number).await;
        self.members.retain(|member| member.number != process.number);
        self.master = self.master.filter(|master| master.number != process.number);
        // Another task of this thread kills it.
        tokio::task::yield_now().await;
    }

    /// Blocks traffic between some members and the others.
    pub(crate) async fn cut_off(&self, some: &[Process]) {
        let is_some = |process: &Process| some.iter().any(|other| other.number == process.number);
        for process in &self.members {
            let others = self.members.iter().filter(|other| is_some(other) != is_some(process));
            let cut_off = Task::CutOff(others.map(|other| other.address).collect());
            self.nodes.tell(process.number, Order::Do(cut_off)).await;
        }
    }

    /// The survivors' measurements of a failure.
    pub(crate) async fn survive(&mut self, survivors: &[Process], failed: &Failed) -> Result<Vec<Span>, Report> {
        for process in survivors {
            self.nodes.tell(process.number, Order::Do(Task::Survive(failed.clone()))).await;
        }
        let mut spans = Vec::with_capacity(survivors.len());
        for process in survivors {
            let word = |said| match said {
                Said::Did(Word::Survived(span)) => Some(span),
                _ => None,
            };
            spans.push(self.nodes.hear_from(process.number, Duration::ZERO, "over the failure", word).await?);
        }
        Ok(spans)
    }

    /// Lets every member broadcast this number of messages at full speed, and returns once all are approved.
    pub(crate) async fn fill(&mut self, messages: u64) -> Result<(), Report> {
        self.tell_all(|| Task::Fill { messages }).await;
        for at in 0..self.members.len() {
            self.did(at, FILL_TIMEOUT, "done with its load", |word| matches!(word, Word::Filled).then_some(())).await?;
        }
        Ok(())
    }

    /// The memory of each member; none if it is unknown.
    pub(crate) async fn memory_kib(&mut self) -> Result<Option<Vec<u64>>, Report> {
        self.tell_all(|| Task::Memory).await;
        let mut all = Some(Vec::with_capacity(self.members.len()));
        for at in 0..self.members.len() {
            let word = |word| match word {
                Word::Memory { kib } => Some(kib),
                _ => None,
            };
            let kib = self.did(at, Duration::ZERO, "asked for its memory", word).await?;
            all = all.zip(kib).map(|(mut all, kib)| {
                all.push(kib);
                all
            });
        }
        Ok(all)
    }

    /// Closes the group; returns the length of its result.
    ///
    /// # Errors
    /// A node failed, or the nodes' results differ.
    pub(crate) async fn end(mut self) -> Result<u64, Report> {
        for (at, process) in self.members.iter().chain(&self.master).enumerate() {
            self.nodes.tell(process.number, Order::Do(Task::End { ends: at == 0 })).await;
        }
        let mut results = Vec::with_capacity(self.members.len());
        for at in 0..self.members.len() {
            let word = |word| match word {
                Word::Done { messages, digest } => Some((messages, digest)),
                _ => None,
            };
            results.push(self.did(at, Duration::ZERO, "done", word).await?);
        }
        self.nodes.end().await;
        let first = results.first().cloned().unwrap_or_default();
        match results.iter().position(|result| *result != first) {
            None => Ok(first.0),
            Some(at) => Err(failure(
                format_args!("UNEQUAL: the results of two members differ: {first:?} and {:?}", results[at]),
                "this is a defect of cloudy or of this machine's memory: report it, with the command line",
            )),
        }
    }

    async fn add(&mut self, role: Role) -> Result<(usize, SocketAddr), Report> {
        let number = self.nodes.add(self.make.part(role, self.key), Place::Processes).await?;
        let listening = |said| match said {
            Said::Listening(address) => Some(address),
            _ => None,
        };
        Ok((number, self.nodes.hear_from(number, Duration::ZERO, "listening", listening).await?))
    }

    async fn joined(&mut self, number: usize) -> Result<(NodeId, Joined), Report> {
        let joined = |said| match said {
            Said::Did(Word::Joined { node, took_us, messages }) => Some((node, Joined { took_us, messages })),
            _ => None,
        };
        self.nodes.hear_from(number, Duration::ZERO, "in the group", joined).await
    }

    async fn tell_all(&self, task: impl Fn() -> Task) {
        for process in &self.members {
            self.nodes.tell(process.number, Order::Do(task())).await;
        }
    }

    /// Waits for the result of a member's task.
    async fn did<T>(
        &mut self,
        at: usize,
        after: Duration,
        what: &str,
        wanted: impl Fn(Word) -> Option<T>,
    ) -> Result<T, Report> {
        let wanted = |said| match said {
            Said::Did(word) => wanted(word),
            _ => None,
        };
        self.nodes.hear_from(self.members[at].number, after, what, wanted).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_are_an_odd_number_of_at_most_seven() {
        let voters = |nodes| Make { nodes, master: false, partitions: false, size_bytes: 100, rate_per_s: 1 }.voters();
        assert_eq!([3, 4, 5, 6, 7, 8, 64].map(voters), [3, 3, 5, 5, 7, 7, 7]);
    }
}
