//! Trust of a command's node: a key file that it follows, or certificates.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cloudy_node::AcceptedAs;
use cloudy_node::key_file::{self, KeyFileEvent};
use cloudy_node::{ClusterKeys, Identity, Node, NodeBuilder};
use miette::{IntoDiagnostic, Report};
use tokio::task::spawn_blocking;

use crate::args::{KeyFileArgs, TrustArgs};
use crate::audit::AuditLog;
use crate::output::say_plainly;

/// A key file with its content at the start of the command.
pub(crate) struct KeyFile {
    path: PathBuf,
    pub(crate) keys: ClusterKeys,
}

/// The trust settings of a command's node.
pub(crate) enum Trust {
    /// Nodes with the cluster key of this file.
    Keys(KeyFile),
    /// Nodes with certificates of the same authorities.
    Certificates(Box<Identity>),
}

impl Trust {
    /// Reads the files.
    pub(crate) async fn open(args: &TrustArgs) -> Result<Self, Report> {
        let (Some(cert), Some(key), Some(ca)) = (args.cert.clone(), args.key.clone(), args.ca.clone()) else {
            return Ok(Self::Keys(KeyFile::open(&args.key_file).await?));
        };
        // A disk may hang, and signals must end the process all the same.
        let read = spawn_blocking(move || Identity::from_pem_files(&cert, &key, &ca)).await;
        Ok(Self::Certificates(Box::new(read.into_diagnostic()?.into_diagnostic()?)))
    }

    /// The builder of a node of this trust.
    pub(crate) fn builder(&self) -> NodeBuilder {
        match self {
            Self::Keys(file) => Node::builder().cluster_keys(&file.keys),
            Self::Certificates(identity) => Node::builder().identity(Identity::clone(identity)),
        }
    }

    /// Runs the work, and meanwhile passes changes of a key file to the node, and to the audit log.
    pub(crate) async fn followed<T>(&self, node: &Node, audit: &AuditLog, work: impl Future<Output = T>) -> T {
        match self {
            Self::Keys(file) => {
                let say = |line: &str| {
                    audit.keys(line);
                    say_plainly(line);
                };
                file.followed(node, say, work).await
            }
            Self::Certificates(_) => work.await,
        }
    }
}

impl KeyFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keys without a file.
    #[cfg(test)]
    pub(crate) fn of(keys: ClusterKeys) -> Self {
        Self { path: PathBuf::new(), keys }
    }

    /// Reads the file; the default file is created if it is missing.
    pub(crate) async fn open(args: &KeyFileArgs) -> Result<Self, Report> {
        let choice = args.choose().into_diagnostic()?;
        // A disk may hang, and signals must end the process all the same.
        let opened = spawn_blocking(move || choice.open().map(|keys| Self { path: choice.path, keys })).await;
        opened.into_diagnostic()?.into_diagnostic()
    }

    /// Runs the work, and meanwhile passes changes of the file to the node. `say` receives a line for each.
    pub(crate) async fn followed<T>(&self, node: &Node, say: impl Fn(&str), work: impl Future<Output = T>) -> T {
        tokio::select! {
            ended = work => ended,
            never = self.follow(node, say) => match never {},
        }
    }

    async fn follow(&self, node: &Node, say: impl Fn(&str)) -> Infallible {
        let file = self.path.display();
        let observe = |event: KeyFileEvent<'_>| match event {
            KeyFileEvent::Applied(keys) => say(&format!("applied the key file {file}: {}", summary(keys))),
            KeyFileEvent::Failed(error) => {
                say(&format!("the key file cannot be used, and this node keeps its present keys: {error}"));
            }
            KeyFileEvent::Recovered(keys) => say(&format!("the key file {file} is valid again: {}", summary(keys))),
            _ => {}
        };
        key_file::follow(node, &self.path, self.keys.clone(), observe).await;
        std::future::pending().await
    }
}

/// The content of a file, in a line.
fn summary(keys: &ClusterKeys) -> String {
    let mut text = format!("cluster key fingerprint {}", keys.primary());
    if let Some((accepted_as, key)) = keys.accepted() {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {} is accepted too, as {}", key, role(accepted_as));
    }
    if !keys.revoked().is_empty() {
        // As above.
        let _ = write!(text, "; nodes revoked: {}", keys.revoked().len());
    }
    text
}

/// The role of the other accepted key, as text.
pub(crate) fn role(accepted_as: AcceptedAs) -> &'static str {
    match accepted_as {
        AcceptedAs::Next => "the next key",
        AcceptedAs::Former => "the former key",
    }
}
