//! Opening a group by its name: resume, join or create (`protocol.md` §7.1).

mod create;
mod plan;
mod progress;
mod seeds;
#[cfg(test)]
mod tests;
mod work;

use core::fmt;
use std::collections::BTreeSet;

use cloudy_proto::Durability;
use cloudy_proto::limits::{GROUP_NAME_BYTES_MAX, MEMBERS_MAX};

pub use progress::{NotOpened, OpenEvent, OpenGroupError, SeedAnswer, SettingDifference};

use crate::discovery::seeds::check;
use crate::group::GroupConfig;
use crate::handle::Group;
use crate::node::Node;
use crate::wait::Wait;
use work::Work;

type Progress<'a> = Box<dyn FnMut(OpenEvent) + Send + 'a>;

/// How a node opens a group: [`Node::group`].
#[must_use = "a group is opened by open()"]
pub struct OpenGroup<'a> {
    node: &'a Node,
    name: String,
    seeds: Vec<String>,
    expect: Option<usize>,
    config: GroupConfig,
    progress: Option<Progress<'a>>,
}

impl fmt::Debug for OpenGroup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenGroup").field("name", &self.name).field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

impl Node {
    /// The group of a name, to be opened: the same call at every start of every node.
    ///
    /// ```no_run
    /// # async fn example(key: cloudy_node::ClusterKey) -> Result<(), Box<dyn std::error::Error>> {
    /// use cloudy_node::{DataDir, Durability, Node};
    ///
    /// let data = DataDir::open("/var/lib/orders".as_ref(), true)?;
    /// let node = Node::builder()
    ///     .identity(data.identity(&key)?)
    ///     .data_dir(data)
    ///     .bind("0.0.0.0:7400".parse()?)
    ///     .start()
    ///     .await?;
    ///
    /// let group = node
    ///     .group("orders")
    ///     .seeds(["orders-0.orders:7400", "orders-1.orders:7400", "orders-2.orders:7400"])
    ///     .bootstrap_expect(3)
    ///     .durability(Durability::Disk)
    ///     .open()
    ///     .await?;
    /// println!("{} is group {}", group.name(), group.id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn group(&self, name: &str) -> OpenGroup<'_> {
        let (name, config) = (name.to_owned(), GroupConfig::default());
        OpenGroup { node: self, name, seeds: Vec::new(), expect: None, config, progress: None }
    }
}

impl<'a> OpenGroup<'a> {
    /// Nodes to ask, each `HOST:PORT`: names or addresses. A name is resolved again at each attempt, and all of its
    /// addresses are dialled side by side. Give the same seeds at every node; this node's own address may be among them.
    pub fn seeds(mut self, seeds: impl IntoIterator<Item = impl ToString>) -> Self {
        self.seeds = seeds.into_iter().map(|seed| seed.to_string()).collect();
        self
    }

    /// Creates the group once this number of nodes open it with equal settings and are linked to each other, if no node
    /// in reach is in a group of that name. It must be more than half of the seeds. Without it this node never creates
    /// the group.
    pub fn bootstrap_expect(mut self, members: usize) -> Self {
        self.expect = Some(members);
        self
    }

    /// Where the group keeps its result. Part of [`config`](Self::config).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.config.parameters.durability = durability;
        self
    }

    /// The settings of a new group, and this node's retention. An existing group keeps its own
    /// [`Parameters`](crate::Parameters). The creator is always a member. Default: [`GroupConfig::default`].
    pub fn config(mut self, config: GroupConfig) -> Self {
        self.config = config;
        self
    }

    /// Called with what happens until the group is open, in place of lines in the log. It must not block.
    pub fn on_progress(mut self, progress: impl FnMut(OpenEvent) + Send + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Opens the group and returns once this node is a member of it:
    ///
    /// 1. If this node is in the group already, it is the same group. So a repeated call is harmless.
    /// 2. **Resume**: if the data directory has the group, this node continues in it. The call returns once this node is
    ///    back on the ring; [`Node::resumed_groups`] has the group, to read from, at once.
    /// 3. **Join**: if a seed, or another linked node, is in a group of that name, this node joins that.
    /// 4. **Create**: else, with [`bootstrap_expect`](Self::bootstrap_expect), one of the nodes that wait creates it with
    ///    exactly that number of members.
    ///
    /// The nodes may start in any order, and what fails is tried again until the deadline
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or [`Wait::timeout`]). After it has returned,
    /// the seeds are looked up whenever a link to a member is missing, as by [`Node::look_up`].
    ///
    /// Never are two groups of one name created by nodes with the same seeds: a group is created by more than half of
    /// them, and each of these accepts one invitation at a time. This relies on what a node remembers. A node that has
    /// lost its data directory, or a node of a `Memory` group that was restarted, knows nothing of a group that it was
    /// in; if no node in reach is in that group, such nodes can create another. A node that finds two groups of one
    /// name opens neither.
    ///
    /// Cancel safe: dropped, it withdraws. A creation or a join that can no longer be withdrawn is completed, and this
    /// node leaves the group then.
    ///
    /// # Errors
    /// The settings cannot work, a node of the group does not let this one join, there are two groups of that name, or
    /// the group is closed, with the reason. Or it was not open in time: [`OpenGroupError::TimedOut`] has the last answer of
    /// each seed.
    pub fn open(self) -> Wait<'a, Result<Group, OpenGroupError>> {
        let limit = self.node.mailbox.wait_timeout;
        Wait::new(Some(limit), move |deadline| async move {
            let expect = self.checked()?;
            let mut work = Work::new(self.node, self.name, (self.seeds, expect), self.config, self.progress);
            let opened = tokio::select! {
                biased;
                opened = deadline.run(work.run()) => opened,
                reason = self.node.closed() => return Err(reason.into()),
            };
            opened.unwrap_or_else(|| Err(work.late(deadline.limit()).into()))
        })
    }

    /// Invalid settings are rejected before anything is sent.
    fn checked(&self) -> Result<u16, OpenGroupError> {
        if self.name.len() > GROUP_NAME_BYTES_MAX {
            return Err(OpenGroupError::NameTooLong);
        }
        check(&self.seeds)?;
        if self.seeds.len() > MEMBERS_MAX {
            return Err(OpenGroupError::TooManySeeds { seeds: self.seeds.len() });
        }
        self.config.validate()?;
        let Some(expect) = self.expect else { return Ok(0) };
        if !(1..=MEMBERS_MAX).contains(&expect) {
            return Err(OpenGroupError::ExpectOutOfRange { expect });
        }
        let seeds = self.seeds.iter().map(|seed| seed.to_ascii_lowercase()).collect::<BTreeSet<_>>().len();
        if 2 * expect <= seeds {
            return Err(OpenGroupError::TooFewExpected { expect, seeds });
        }
        Ok(expect as u16)
    }
}
