//! A node that takes a changed key file without a restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster_keys::ClusterKeys;
use crate::error::SetKeysError;
use crate::key_file::{KeyFileError, load_keys};
use crate::node::Node;

/// Between two looks at a key file. What it says counts once two looks in a row find the same, so that a file that is
/// being copied is not read half.
pub const LOOK_EVERY: Duration = Duration::from_millis(400);

/// Why a node does not take a changed key file. It keeps the keys that it has.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The node cannot use what is in it.
    #[error("the node cannot use the keys in {}: {source}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SetKeysError,
    },
}

/// What became of a key file that a node follows.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyFileEvent<'a> {
    /// The node has taken what the file holds.
    Taken(&'a ClusterKeys),
    /// The file cannot be used, and the node keeps the keys that it has; said once for each reason.
    Failed(&'a FollowError),
    /// The file is as it was before it failed.
    Well(&'a ClusterKeys),
}

/// Follows a key file: looks at it every [`LOOK_EVERY`], and hands the node what it holds ([`Node::set_keys`]) whenever
/// that has changed, so within two looks. `current` is what the node was started with. Each event is logged and told to
/// `observe`. Runs until it is dropped, or finds at a change that the node is shut down.
///
/// A file that fails to load, because it is gone, malformed or readable by others, changes nothing at the node.
///
/// Cancel safe: dropped, it follows the file no further, and the node keeps the keys that it has.
pub async fn follow(node: &Node, path: &Path, current: ClusterKeys, mut observe: impl FnMut(KeyFileEvent<'_>)) {
    let mut follower = Follower { path, taken: current, seen: None, failed: None };
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let (path, looked) = (path.to_owned(), tokio::task::spawn_blocking);
        let found = match looked(move || load_keys(&path)).await {
            Ok(found) => found,
            Err(error) => match error.try_into_panic() {
                // The follower of the file has to learn it: a changed key would go unnoticed.
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this with it.
                Err(_cancelled) => return,
            },
        };
        if let Err(SetKeysError::Closed(_)) = follower.see(node, found, &mut observe).await {
            return;
        }
    }
}

struct Follower<'a> {
    path: &'a Path,
    /// What the node has.
    taken: ClusterKeys,
    /// What the last look found, if it is not dealt with: the keys, or an error's words.
    seen: Option<Result<ClusterKeys, String>>,
    /// The words of the failure that was told.
    failed: Option<String>,
}

impl Follower<'_> {
    async fn see(
        &mut self,
        node: &Node,
        found: Result<ClusterKeys, KeyFileError>,
        observe: &mut impl FnMut(KeyFileEvent<'_>),
    ) -> Result<(), SetKeysError> {
        let comparable = found.as_ref().map(ClusterKeys::clone).map_err(ToString::to_string);
        if self.seen.replace(comparable.clone()) != Some(comparable) {
            return Ok(());
        }
        match found {
            Ok(keys) if keys == self.taken => {
                if self.failed.take().is_some() {
                    tracing::warn!(file = %self.path.display(), "the key file is well again, and as it was");
                    observe(KeyFileEvent::Well(&self.taken));
                }
            }
            Ok(keys) => match node.set_keys(&keys).await {
                Ok(()) => {
                    tracing::info!(file = %self.path.display(), primary = %keys.primary(), "the key file has changed");
                    (self.taken, self.failed) = (keys, None);
                    observe(KeyFileEvent::Taken(&self.taken));
                }
                Err(SetKeysError::Closed(reason)) => return Err(SetKeysError::Closed(reason)),
                Err(source) => self.fail(&FollowError::Keys { path: self.path.to_owned(), source }, observe),
            },
            Err(error) => self.fail(&error.into(), observe),
        }
        Ok(())
    }

    fn fail(&mut self, error: &FollowError, observe: &mut impl FnMut(KeyFileEvent<'_>)) {
        let words = error.to_string();
        if self.failed.as_ref() != Some(&words) {
            tracing::error!("the key file cannot be used, and this node keeps the keys that it has: {words}");
            observe(KeyFileEvent::Failed(error));
            self.failed = Some(words);
        }
    }
}
