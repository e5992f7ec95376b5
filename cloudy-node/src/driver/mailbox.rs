//! The mailbox of the driver: for the links, and for the users of the node and its groups.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cloudy_proto::wire::ReportedSeed;
use cloudy_proto::{GroupId, Index, MessageId, NodeId, Outcome, Parameters, Request, Status, Stored, StoredError};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::cluster_keys::ClusterKeys;
use crate::driver::attempt::{Aim, Attempt, Stage};
use crate::driver::creation::CreationParts;
use crate::driver::disk::ForgetReply;
use crate::driver::openings::OpenName;
use crate::error::{CreateGroupError, RevokeError, SetKeysError};
use crate::group::GroupConfig;
use crate::group::saved::Saved;
use crate::group::shared::Shared;
use crate::health::{CloseReason, Health};
use crate::link::{LinkMail, Traffic};
use crate::link_error::ConnectError;
use crate::storage::GroupMeta;

/// Maximum of messages from links that wait for the driver; a reader waits for capacity.
pub(crate) const LINK_MAIL_MAX: usize = 512;
/// Maximum of commands that wait for the driver; a caller waits for capacity.
pub(crate) const COMMANDS_MAX: usize = 1_024;

/// A group that an earlier process left in the data directory.
pub(crate) struct ResumedGroup {
    pub(crate) id: GroupId,
    pub(crate) meta: GroupMeta,
    pub(crate) stored: Stored,
    /// The application's states in the store, with the number of the parts of each.
    pub(crate) states: BTreeMap<u64, u64>,
}

/// A command of a user.
pub(crate) enum Command {
    Connect {
        address: SocketAddr,
        /// Whether other addresses of the same name are dialled too.
        beside: bool,
        reply: oneshot::Sender<Result<NodeId, ConnectError>>,
    },
    /// Discovery has found a node that may be a member of one of this node's groups.
    Located {
        node: NodeId,
        address: SocketAddr,
    },
    Create {
        name: String,
        config: Box<GroupConfig>,
        reply: oneshot::Sender<Result<CreationParts, CreateGroupError>>,
    },
    Join {
        name: String,
        contact: Option<NodeId>,
        aim: Aim,
        config: Box<GroupConfig>,
        stage: Stage,
        reply: oneshot::Sender<Result<Arc<Shared>, Attempt>>,
    },
    /// Opens a group: the name is reported until the receiver in the answer is dropped.
    OpenName {
        name: String,
        expect: u16,
        parameters: Box<Parameters>,
        seeds: Vec<ReportedSeed>,
        reply: oneshot::Sender<OpenName>,
    },
    /// It is known what the seeds of a group that is opened lead to.
    SetSeeds {
        name: String,
        seeds: Vec<ReportedSeed>,
    },
    /// Asks every linked node again what it has under a name.
    ReportAgain {
        name: String,
    },
    Request {
        group: GroupId,
        request: Request,
    },
    /// The application's state after an index.
    Saved {
        group: GroupId,
        index: Index,
        saved: Saved,
    },
    Outcome {
        group: GroupId,
        id: MessageId,
        reply: oneshot::Sender<Outcome>,
    },
    Status {
        group: GroupId,
        reply: oneshot::Sender<Status>,
    },
    Resume {
        group: Box<ResumedGroup>,
        reply: oneshot::Sender<Result<Arc<Shared>, StoredError>>,
    },
    ForgetStored {
        group: GroupId,
        reply: ForgetReply,
    },
    #[cfg(feature = "admin")]
    Snapshot {
        reply: oneshot::Sender<crate::driver::snapshot::Snapshot>,
    },
    Traffic {
        reply: oneshot::Sender<Traffic>,
    },
    SetKeys {
        keys: Box<ClusterKeys>,
        reply: oneshot::Sender<Result<(), SetKeysError>>,
    },
    Revoke {
        node: NodeId,
        reply: oneshot::Sender<Result<(), RevokeError>>,
    },
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

/// The sending side for users.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    commands: mpsc::Sender<Command>,
    payloads: Arc<Notify>,
    pub(crate) health: Health,
    /// The default timeout of waits for other nodes.
    pub(crate) wait_timeout: Duration,
}

/// The sending side for the driver itself: it does not keep the node alive.
pub(crate) struct WeakMailbox {
    commands: mpsc::WeakSender<Command>,
    payloads: Arc<Notify>,
    health: Health,
    wait_timeout: Duration,
}

impl WeakMailbox {
    /// A sending side for a new handle; none once there is no handle.
    pub(crate) fn upgrade(&self) -> Option<Mailbox> {
        let commands = self.commands.upgrade()?;
        let (payloads, health) = (Arc::clone(&self.payloads), self.health.clone());
        Some(Mailbox { commands, payloads, health, wait_timeout: self.wait_timeout })
    }
}

/// The driver's side.
pub(crate) struct Inbox {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) links: mpsc::Receiver<LinkMail>,
    pub(crate) payloads: Arc<Notify>,
    pub(crate) health: Health,
}

/// Creates both sides, and the sender for links.
pub(crate) fn mailbox(health: Health, wait_timeout: Duration) -> (Mailbox, mpsc::Sender<LinkMail>, Inbox) {
    let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
    let (links, links_in) = mpsc::channel(LINK_MAIL_MAX);
    let payloads = Arc::new(Notify::new());
    let inbox =
        Inbox { commands: commands_in, links: links_in, payloads: Arc::clone(&payloads), health: health.clone() };
    (Mailbox { commands, payloads, health, wait_timeout }, links, inbox)
}

impl Mailbox {
    pub(crate) fn downgrade(&self) -> WeakMailbox {
        WeakMailbox {
            commands: self.commands.downgrade(),
            payloads: Arc::clone(&self.payloads),
            health: self.health.clone(),
            wait_timeout: self.wait_timeout,
        }
    }

    /// Sends a command and waits for its answer, which comes as long as the node is open.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, CloseReason> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await;
        match answer.await {
            Ok(answer) => Ok(answer),
            // The driver drops a reply only when it stops.
            Err(_) => Err(self.health.closed().await),
        }
    }

    /// Wakes the driver because an outbox is not empty.
    pub(crate) fn wake(&self) {
        self.payloads.notify_one();
    }

    /// Sends a command; one to a driver that has stopped drops its reply.
    pub(crate) async fn send(&self, command: Command) {
        // The dropped reply notifies the caller.
        let _ = self.commands.send(command).await;
    }

    /// Sends a command without waiting: it arrives after those that wait for capacity.
    pub(crate) fn post(&self, command: Command) {
        if let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) {
            let mailbox = self.clone();
            let health = self.health.clone();
            health.spawn("command", async move { mailbox.send(command).await });
        }
    }
}
