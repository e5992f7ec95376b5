//! Applies changes of a key file to a running node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster_keys::ClusterKeys;
use crate::error::SetKeysError;
use crate::key_file::{KeyFileError, load_keys};
use crate::node::Node;

/// The time between two reads of a key file. A change counts once two reads in a row are equal, so that a half-copied
/// file is not used.
pub const LOOK_EVERY: Duration = Duration::from_millis(400);

/// The reason for which a node does not apply a changed key file. It keeps its present keys.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The node cannot use the keys in the file.
    #[error("the node cannot use the keys in {}: {cause}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: SetKeysError,
    },
}

/// An event of a key file that a node follows.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyFileEvent<'a> {
    /// The node uses the keys of the file.
    Applied(&'a ClusterKeys),
    /// The file cannot be used, and the node keeps its present keys. Reported once for each reason.
    Failed(&'a FollowError),
    /// The file has its content from before the failure again.
    Recovered(&'a ClusterKeys),
}

/// Follows a key file: reads it every [`LOOK_EVERY`], and passes a changed content to the node ([`Node::set_keys`])
/// within two reads. `current` is the content at the start of the node. Each event is logged and passed to `observe`.
/// Returns only if it finds at a change that the node is shut down.
///
/// A file that cannot be loaded, because it is missing, malformed or readable by others, changes nothing at the node.
///
/// Cancel safe: a dropped call stops following the file, and the node keeps its present keys.
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
                // The panic must reach the caller: otherwise changed keys would go unnoticed.
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down.
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
    /// The keys of the node.
    taken: ClusterKeys,
    /// The content of the last read, if it is not handled: the keys, or the text of an error.
    seen: Option<Result<ClusterKeys, String>>,
    /// The text of the reported failure.
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
                    tracing::warn!(file = %self.path.display(), "the key file is valid again, with the same content");
                    observe(KeyFileEvent::Recovered(&self.taken));
                }
            }
            Ok(keys) => match node.set_keys(&keys).await {
                Ok(()) => {
                    tracing::info!(file = %self.path.display(), primary = %keys.primary(), "the key file has changed");
                    (self.taken, self.failed) = (keys, None);
                    observe(KeyFileEvent::Applied(&self.taken));
                }
                Err(SetKeysError::Closed(reason)) => return Err(SetKeysError::Closed(reason)),
                Err(cause) => self.fail(&FollowError::Keys { path: self.path.to_owned(), cause }, observe),
            },
            Err(error) => self.fail(&error.into(), observe),
        }
        Ok(())
    }

    fn fail(&mut self, error: &FollowError, observe: &mut impl FnMut(KeyFileEvent<'_>)) {
        let words = error.to_string();
        if self.failed.as_ref() != Some(&words) {
            tracing::error!("the key file cannot be used, and this node keeps its present keys: {words}");
            observe(KeyFileEvent::Failed(error));
            self.failed = Some(words);
        }
    }
}
