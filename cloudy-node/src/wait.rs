//! Waits for other nodes: each has a deadline that the caller can set, and its error names the nodes and their last
//! answers.

use core::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use cloudy_proto::NodeId;
use tokio::time::Instant;

/// The timeout of a wait for other nodes, unless [`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or
/// [`Wait::timeout`] sets another.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The first pause between two attempts.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const RETRY_AFTER_MAX: Duration = Duration::from_millis(500);

type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Start<'a, T> = Box<dyn FnOnce(Deadline) -> Work<'a, T> + Send + 'a>;

/// A future that waits for other nodes. Each method documents the effect of dropping it.
///
/// Requests that come too early are retried, so nodes can start in any order. The timeout runs from the first poll.
///
/// ```no_run
/// # async fn example(node: &cloudy_node::Node, address: std::net::SocketAddr) -> Result<(), cloudy_node::JoinError> {
/// use std::time::Duration;
///
/// let group = node.join_group_at("chat", address).timeout(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens until it is awaited"]
pub struct Wait<'a, T> {
    limit: Option<Duration>,
    state: State<'a, T>,
}

enum State<'a, T> {
    Idle(Start<'a, T>),
    Waiting(Work<'a, T>),
    Done,
}

impl<'a, T> Wait<'a, T> {
    pub(crate) fn new<F>(limit: Option<Duration>, start: impl FnOnce(Deadline) -> F + Send + 'a) -> Self
    where
        F: Future<Output = T> + Send + 'a,
    {
        Self { limit, state: State::Idle(Box::new(move |deadline| Box::pin(start(deadline)))) }
    }

    /// Sets the timeout. It has no effect after the first poll.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Waits without a timeout. It has no effect after the first poll.
    pub fn without_timeout(mut self) -> Self {
        self.limit = None;
        self
    }

    /// The same wait with another output. It must not have been polled.
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U + Send + 'a) -> Wait<'a, U>
    where
        T: 'a,
    {
        let State::Idle(start) = self.state else { panic!("a wait was changed after its first poll") };
        let start: Start<'a, U> = Box::new(move |deadline| {
            let work = start(deadline);
            Box::pin(async move { map(work.await) })
        });
        Wait { limit: self.limit, state: State::Idle(start) }
    }
}

impl<T> Future for Wait<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let State::Idle(_) = self.state
            && let State::Idle(start) = std::mem::replace(&mut self.state, State::Done)
        {
            let deadline = Deadline::after(self.limit);
            self.state = State::Waiting(start(deadline));
        }
        let State::Waiting(work) = &mut self.state else { panic!("a wait was polled after its end") };
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.state = State::Done;
        }
        polled
    }
}

impl<T> fmt::Debug for Wait<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The deadline of a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    limit: Duration,
}

impl Deadline {
    fn after(limit: Option<Duration>) -> Self {
        let at = limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { at, limit: limit.unwrap_or(Duration::MAX) }
    }

    /// How long the wait takes at most.
    pub(crate) fn limit(self) -> Duration {
        self.limit
    }

    /// Runs `work`; none if the deadline passes first.
    pub(crate) async fn run<T>(self, work: impl Future<Output = T>) -> Option<T> {
        match self.at {
            Some(at) => tokio::time::timeout_at(at, work).await.ok(),
            None => Some(work.await),
        }
    }

    /// The error of a wait whose deadline passed: its purpose, and the last answers.
    pub(crate) fn passed(self, what: String, answers: Answers) -> TimedOut {
        TimedOut { what, waited: self.limit, answers: answers.0 }
    }
}

/// The node that a wait was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Awaited {
    /// The node that listens at an address.
    Address(SocketAddr),
    /// A node that is known by its id.
    Node(NodeId),
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Node(node) => write!(f, "node {}", node.short()),
        }
    }
}

/// The last answer of a node during a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The node that answered.
    pub from: Awaited,
    /// The text of the answer, without control characters.
    pub words: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.from, self.words)
    }
}

/// The last answer of each node.
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<Answer>);

/// Maximum of answers in one error: the nodes that a group can have invited.
const ANSWERS_MAX: usize = cloudy_proto::limits::INVITED_MAX;

impl Answers {
    /// Notes an answer. False if it is known already.
    pub(crate) fn note(&mut self, answer: Answer) -> bool {
        if self.0.contains(&answer) {
            return false;
        }
        self.forget(answer.from);
        let has_capacity = self.0.len() < ANSWERS_MAX;
        if has_capacity {
            self.0.push(answer);
        }
        has_capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn forget(&mut self, from: Awaited) {
        self.0.retain(|answer| answer.from != from);
    }
}

/// A wait whose timeout passed first. It can be repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TimedOut {
    what: String,
    waited: Duration,
    answers: Vec<Answer>,
}

impl TimedOut {
    /// The timeout.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The last answer of each node that the wait was for.
    #[must_use]
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {:?}", self.what, self.waited)?;
        for (at, answer) in self.answers.iter().enumerate() {
            write!(f, "{} {answer}", if at == 0 { ":" } else { ";" })?;
        }
        f.write_str("; check these nodes, then retry or allow more time")
    }
}

/// A random time between half of `pause` and all of it, so that nodes that failed together do not retry together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// Growing pauses between attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(RETRY_AFTER_MAX)
    }
}

impl Backoff {
    /// Pauses that grow up to `max`.
    pub(crate) fn up_to(max: Duration) -> Self {
        Self { next: RETRY_AFTER_MIN, max }
    }

    /// The pause before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let next = jittered(self.next);
        self.next = (self.next * 2).min(self.max);
        next
    }

    /// Returns when the next attempt is due.
    pub(crate) async fn pause(&mut self) {
        let pause = self.next();
        // sleep: the pause between two attempts.
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_limit_counts_from_the_first_poll() {
        let wait = |limit| Wait::new(limit, |deadline: Deadline| async move { deadline.run(pending::<()>()).await });
        let begun = Instant::now();
        let short = wait(Some(Duration::from_secs(9))).timeout(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(short.await, None);
        assert_eq!(begun.elapsed().as_secs(), 6);
        let endless = wait(Some(Duration::from_secs(1))).without_timeout();
        assert!(tokio::time::timeout(Duration::from_secs(1_000), endless).await.is_err());
    }

    #[test]
    fn an_error_lists_the_last_answer_of_each() {
        let mut answers = Answers::default();
        let from = Awaited::Address(SocketAddr::from(([127, 0, 0, 1], 9)));
        let answer = |words: &str| Answer { from, words: words.to_owned() };
        assert!(answers.note(answer("nothing")));
        assert!(!answers.note(answer("nothing")));
        assert!(answers.note(answer("no such group")));
        answers.note(Answer { from: Awaited::Node(NodeId([7; 32])), words: "busy".to_owned() });
        let error = Deadline::after(Some(Duration::from_secs(2))).passed("nothing was joined".to_owned(), answers);
        assert_eq!(
            error.to_string(),
            format!(
                "nothing was joined within 2s: 127.0.0.1:9: no such group; node {}: busy; check these nodes, then retry or allow more time",
                NodeId([7; 32]).short()
            )
        );
    }
}
