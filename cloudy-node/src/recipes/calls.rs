//! Calls: requests that every member answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use cloudy_proto::{Index, MessageId, NodeId};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, Id, JoinSet};

use super::open_calls::{CALL_BYTES_MAX, CallAnswer, CallRequest, Command, OPEN_CALLS_MAX, OpenCalls, Wanted};
use crate::handle::Group;
use crate::replica::{Applied, Replica, ReplicaError, SubmitError};
use crate::wait::{Answers, Deadline, TimedOut, Wait};

/// The maximum number of handlers that run at a time at one member. Further requests wait for one to return.
const HANDLERS_MAX: usize = 256;

/// A call without the replies that it asks for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The request is too large. Nothing was sent.
    #[error("the request has {bytes} bytes, the most are {CALL_BYTES_MAX}; put the data elsewhere and send its name")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The members hold too many open calls. No handler gets the request.
    #[error(
        "{OPEN_CALLS_MAX} calls of this member are open, or the open calls of the group hold too many bytes; wait for some of them"
    )]
    Full,
    /// The command was not answered. If its outcome is unknown, handlers may get the request.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The replica is closed.
    #[error(transparent)]
    Closed(#[from] ReplicaError),
    /// This member was evicted after the call, which ended it. Handlers may have run.
    #[error("the call at index {0} ended, because this member was evicted; the handlers of other members may have run")]
    Evicted(Index),
    /// Members did not answer in time. Their handlers may have run. The call is withdrawn.
    #[error("{timed_out}")]
    TimedOut {
        /// The members that did not answer; none if the call had no index yet.
        missing: Vec<NodeId>,
        /// The wait.
        timed_out: TimedOut,
    },
    /// All members answered or are gone, and too few of them replied.
    #[error("{} members replied to the call, {wanted} have to", replies.replies().count())]
    TooFew {
        /// The number of replies that the call asked for.
        wanted: usize,
        /// The answers.
        replies: Replies,
    },
}

/// The answers that completed a call: the same whichever member asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replies {
    index: Index,
    completed: Index,
    answers: BTreeMap<NodeId, CallAnswer>,
}

impl Replies {
    /// The index of the call. Its members are those of the view in force there.
    #[must_use]
    pub fn index(&self) -> Index {
        self.index
    }

    /// The index that completed the call: that of the last reply, or the first one of a view without a member.
    #[must_use]
    pub fn completed(&self) -> Index {
        self.completed
    }

    /// Each member that answered, and its answer. After [`Call::all`] these are all members of the view at [`Self::index`].
    #[must_use]
    pub fn answers(&self) -> &BTreeMap<NodeId, CallAnswer> {
        &self.answers
    }

    /// The replies, by node id.
    pub fn replies(&self) -> impl Iterator<Item = (NodeId, &Bytes)> {
        self.answers.iter().filter_map(|(node, answer)| match answer {
            CallAnswer::Reply(reply) => Some((*node, reply)),
            _ => None,
        })
    }

    /// The members that did not reply: they left, were evicted, or their handler failed.
    pub fn missing(&self) -> impl Iterator<Item = NodeId> {
        self.answers.iter().filter(|(_, answer)| !matches!(answer, CallAnswer::Reply(_))).map(|(node, _)| *node)
    }
}

/// Calls of a group: every member answers each request by a handler. Clones are handles to the same ones; the handler runs
/// until the last is dropped.
///
/// A call is a message, and so is each reply. The members of the view in which the call is approved have to answer: each of
/// them replies, or is named as [`CallAnswer::Gone`] because it left or was evicted. So a call ends by membership, and its
/// answers do not depend on the member that asks.
///
/// # Failure mode
///
/// - A handler runs at most once in a process. It runs again if its node restarts while the call is open.
/// - A member that is gone, or that a call did not wait for, may have run its handler.
/// - A call ends when its caller is evicted ([`CallError::Evicted`]), when it is dropped, and after its time limit. A
///   handler that runs at that time continues; its reply is ignored.
/// - A member whose process does not start `Calls` in this group does not answer: calls end by their time limit.
///
/// # Bounds
///
/// A request and a reply have [`CALL_BYTES_MAX`] bytes at most, and a member has [`OPEN_CALLS_MAX`] open calls. All members
/// store the replies until the caller has them.
///
/// ```
/// # use cloudy_node::{ClusterKey, GroupConfig, Node};
/// use cloudy_node::recipes::Calls;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = Node::builder().cluster_key(&ClusterKey::generate()?).start().await?;
/// # let group = node.create_group("calls", 1, GroupConfig::default()).await?;
/// let calls = Calls::start(group, |request| async move { [&b"seen: "[..], &request.payload].concat() }).await?;
/// let replies = calls.call("flush caches").all().await?;
/// for (node, reply) in replies.replies() {
///     println!("{node}: {reply:?}");
/// }
/// for node in replies.missing() {
///     println!("{node} is gone");
/// }
/// # assert_eq!(replies.replies().count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Calls(Arc<Running>);

#[derive(Debug)]
struct Running {
    replica: Replica<OpenCalls>,
    handlers: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handlers.abort();
    }
}

/// A request that is not sent yet. Its methods choose which replies complete the call.
#[derive(Debug)]
#[must_use = "nothing is sent until one of its methods is awaited"]
pub struct Call<'a> {
    calls: &'a Calls,
    request: Bytes,
}

impl Calls {
    /// Starts calls in a group, which must hold nothing else, with the handler of this member. It answers the requests of
    /// all members, also those of this one. Handlers of several requests run at the same time.
    ///
    /// Cancel safe: dropped, it has started nothing.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start<H, F, R>(group: Group, handler: H) -> Result<Self, ReplicaError>
    where
        H: Fn(CallRequest) -> F + Send + Sync + 'static,
        F: Future<Output = R> + Send + 'static,
        R: Into<Bytes> + Send + 'static,
    {
        let replica = Replica::start(group, OpenCalls::default()).await?;
        let handlers = tokio::spawn(serve(replica.clone(), Arc::new(handler))).abort_handle();
        Ok(Self(Arc::new(Running { replica, handlers })))
    }

    /// A request to all members.
    pub fn call(&self, request: impl Into<Bytes>) -> Call<'_> {
        Call { calls: self, request: request.into() }
    }

    /// The number of calls of all members that are open, as this member knows it.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read`].
    pub async fn open(&self) -> Result<usize, ReplicaError> {
        self.0.replica.read(OpenCalls::len).await
    }

    async fn completed(&self, call: Index) -> Result<(usize, Replies), CallError> {
        let replica = &self.0.replica;
        let mut applied = replica.watch();
        loop {
            applied.borrow_and_update();
            let replies = replica.read(|calls| {
                let open = calls.get(call)?;
                let replies = |completed| Replies { index: call, completed, answers: open.answers.clone() };
                Some((open.replies_wanted(), open.completed.map(replies)))
            });
            match replies.await? {
                None => return Err(CallError::Evicted(call)),
                Some((wanted, Some(replies))) => return Ok((wanted, replies)),
                Some((_, None)) => {}
            }
            tokio::select! {
                _ = applied.changed() => {}
                reason = replica.closed() => return Err(reason.into()),
            }
        }
    }

    /// The members that have not answered an open call.
    async fn missing(&self, call: Option<Index>) -> Vec<NodeId> {
        let Some(call) = call else { return Vec::new() };
        let missing = |calls: &OpenCalls| calls.get(call).map(|open| open.waiting.iter().copied().collect());
        self.0.replica.read(missing).await.ok().flatten().unwrap_or_default()
    }
}

impl<'a> Call<'a> {
    /// Waits until each member of the view in which the call is approved has replied or is gone. Returns the answers, also if
    /// some members did not reply ([`Replies::missing`]). Dropping it withdraws the call; handlers may have run.
    ///
    /// # Errors
    /// See [`CallError`]. The time limit is that of the node's other waits
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout)) or [`Wait::timeout`].
    pub fn all(self) -> Wait<'a, Result<Replies, CallError>> {
        self.until(Wanted::All)
    }

    /// Waits for the first reply, by index. Dropping it withdraws the call; handlers may have run.
    ///
    /// # Errors
    /// As [`Call::all`], and [`CallError::TooFew`] if no member replied.
    pub fn first(self) -> Wait<'a, Result<Replies, CallError>> {
        self.until(Wanted::First)
    }

    /// Waits until a majority of the members of the view in which the call is approved has replied. Dropping it withdraws
    /// the call; handlers may have run.
    ///
    /// # Errors
    /// As [`Call::all`], and [`CallError::TooFew`] if too few members replied.
    pub fn majority(self) -> Wait<'a, Result<Replies, CallError>> {
        self.until(Wanted::Majority)
    }

    fn until(self, wanted: Wanted) -> Wait<'a, Result<Replies, CallError>> {
        let Self { calls, request } = self;
        let replica = &calls.0.replica;
        Wait::new(Some(replica.group().mailbox.wait_timeout), move |deadline: Deadline| async move {
            if request.len() > CALL_BYTES_MAX {
                return Err(CallError::TooLarge { bytes: request.len() });
            }
            let (sender, opened) = oneshot::channel();
            // In a task: a call whose caller is gone has to be withdrawn.
            tokio::spawn(submit_call(replica.clone(), Command::Call { request, wanted }, sender));
            let mut open = None;
            let completed = deadline.run(async {
                let Ok(opened) = opened.await else { return Err(replica.closed().await.into()) };
                let index = open.insert(opened?).at.index;
                calls.completed(index).await
            });
            let Some(completed) = completed.await else {
                let missing = calls.missing(open.as_ref().map(|open: &OwnCall| open.at.index)).await;
                return Err(timed_out(deadline, replica.group(), missing));
            };
            let (count, replies) = completed?;
            if wanted != Wanted::All && replies.replies().count() < count {
                return Err(CallError::TooFew { wanted: count, replies });
            }
            Ok(replies)
        })
    }
}

fn timed_out(deadline: Deadline, group: &Group, missing: Vec<NodeId>) -> CallError {
    let what = if missing.is_empty() {
        format!("a call was not approved in group {:?}", group.name())
    } else {
        let nodes: Vec<_> = missing.iter().map(|node| format!("node {}", node.short())).collect();
        format!("no answer to a call in group {:?} from {}", group.name(), nodes.join(", "))
    };
    CallError::TimedOut { missing, timed_out: deadline.passed(what, Answers::default()) }
}

/// Opens a call; it is withdrawn if its caller is gone.
async fn submit_call(replica: Replica<OpenCalls>, call: Command, answer: oneshot::Sender<Result<OwnCall, CallError>>) {
    let opened = replica.submit(call).without_timeout().await;
    if let Err(SubmitError::ResponseLost(id)) = opened {
        close(replica.clone(), id);
    }
    let opened = match opened {
        Ok(Some(at)) => Ok(OwnCall { replica, at }),
        Ok(None) => Err(CallError::Full),
        Err(error) => Err(error.into()),
    };
    // Dropped with what it holds.
    let _ = answer.send(opened);
}

fn close(replica: Replica<OpenCalls>, id: MessageId) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // If it is not answered, this member is gone, and its calls with it.
        runtime.spawn(async move { replica.submit(Command::Close(id)).without_timeout().await.map(drop) });
    }
}

/// An open call of this process. Dropped, it is closed.
struct OwnCall {
    replica: Replica<OpenCalls>,
    at: Applied,
}

impl Drop for OwnCall {
    fn drop(&mut self) {
        close(self.replica.clone(), self.at.id);
    }
}

/// Answers the requests to this member, until the replica is closed.
async fn serve<H, F, R>(replica: Replica<OpenCalls>, handler: Arc<H>)
where
    H: Fn(CallRequest) -> F + Send + Sync + 'static,
    F: Future<Output = R> + Send + 'static,
    R: Into<Bytes> + Send + 'static,
{
    let node = replica.group().node_id();
    let mut applied = replica.watch();
    let (mut tasks, mut calls) = (JoinSet::new(), HashMap::<Id, Index>::new());
    let mut next = Index(0);
    loop {
        applied.borrow_and_update();
        let free = HANDLERS_MAX - tasks.len();
        let Ok(requests) = replica.read(|open| open.requests_to(node, next, free)).await else { return };
        for request in requests {
            let call = request.index;
            next = call.next();
            let (handler, replica) = (Arc::clone(&handler), replica.clone());
            let task = tasks.spawn(async move {
                let reply: Bytes = handler(request).await.into();
                let answer = if reply.len() > CALL_BYTES_MAX { CallAnswer::TooLarge } else { CallAnswer::Reply(reply) };
                send_answer(&replica, call, answer).await;
            });
            calls.insert(task.id(), call);
        }
        tokio::select! {
            changed = applied.changed(), if tasks.len() < HANDLERS_MAX => if changed.is_err() { return },
            Some(ended) = tasks.join_next_with_id() => {
                let (id, panicked) = ended.map_or_else(|error| (error.id(), error.is_panic()), |(id, ())| (id, false));
                if let Some(call) = calls.remove(&id).filter(|_| panicked) {
                    tracing::error!(group = replica.group().name(), %call, "the handler of a call panicked");
                    let replica = replica.clone();
                    tasks.spawn(async move { send_answer(&replica, call, CallAnswer::Panicked).await });
                }
            }
            _ = replica.closed() => return,
        }
    }
}

async fn send_answer(replica: &Replica<OpenCalls>, call: Index, answer: CallAnswer) {
    // If it is not sent, this member is gone, and the caller learns it.
    let _ = replica.submit(Command::Answer { call, answer }).without_timeout().await;
}
