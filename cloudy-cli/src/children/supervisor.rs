//! The channel from a supervisor to its slave: the slave's stdin. It carries the node's private key, so that no file
//! does, and ends with the supervisor.

use std::io::{self, Read};
use std::thread;

use cloudy_node::NodeKey;
use miette::{IntoDiagnostic, Report};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::output::failure;

/// Maximum length of an encoded private key; an Ed25519 or P-256 key needs a sixteenth of it.
const KEY_BYTES_MAX: u16 = 4_096;

/// Sends a slave its key; none if the slave has a data directory with one.
pub(crate) async fn introduce(slave: &mut (impl AsyncWrite + Unpin), key: Option<&NodeKey>) -> io::Result<()> {
    let key = key.map(NodeKey::to_pkcs8);
    let key: &[u8] = key.as_ref().map_or(&[], |key| key.as_ref());
    let length = u16::try_from(key.len()).ok().filter(|&length| length <= KEY_BYTES_MAX);
    slave.write_u16(length.ok_or(io::ErrorKind::InvalidData)?).await?;
    slave.write_all(key).await?;
    slave.flush().await
}

/// The supervisor, at its slave.
pub(crate) struct Supervisor {
    /// The node's private key, unless a data directory has it.
    pub(crate) key: Option<NodeKey>,
    gone: oneshot::Receiver<()>,
}

impl Supervisor {
    /// Receives the supervisor's key.
    pub(crate) async fn meet() -> Result<Self, Report> {
        let (give, given) = oneshot::channel();
        let (alive, gone) = oneshot::channel();
        // A separate thread, because a read of stdin blocks.
        let spawned = thread::Builder::new().name("supervisor".to_owned()).spawn(move || listen(give, alive));
        spawned.into_diagnostic()?;
        let key = given.await.unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()));
        let key = key.map_err(|error| {
            failure(
                format_args!("this slave received no key from a supervisor ({error})"),
                "start it by --supervise alone",
            )
        })?;
        let key = if key.is_empty() { None } else { Some(NodeKey::from_pkcs8(&key).into_diagnostic()?) };
        Ok(Self { key, gone })
    }

    /// Returns once the supervisor is gone.
    pub(crate) async fn gone(self) {
        // No value is ever sent.
        let _ = self.gone.await;
    }
}

/// Reads the key, and then until the supervisor is gone.
fn listen(give: oneshot::Sender<io::Result<Zeroizing<Vec<u8>>>>, _alive: oneshot::Sender<()>) {
    let mut stdin = io::stdin().lock();
    // The waiting caller may be gone.
    let _ = give.send(read_key(&mut stdin));
    // Any end means the same.
    let _ = io::copy(&mut stdin, &mut io::sink());
}

fn read_key(stdin: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 2];
    stdin.read_exact(&mut length)?;
    let length = u16::from_be_bytes(length);
    if length > KEY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut key = Zeroizing::new(vec![0; usize::from(length)]);
    stdin.read_exact(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_arrives_as_it_was_given_and_half_a_key_is_none() {
        let key = NodeKey::generate().expect("a key");
        let mut pipe = Vec::new();
        introduce(&mut pipe, Some(&key)).await.expect("written");
        assert_eq!(read_key(&mut &pipe[..]).expect("read")[..], key.to_pkcs8()[..]);
        assert!(read_key(&mut &pipe[..pipe.len() - 1]).is_err());
        assert!(read_key(&mut &[0xff, 0xff][..]).is_err());
        let mut pipe = Vec::new();
        introduce(&mut pipe, None).await.expect("written");
        assert!(read_key(&mut &pipe[..]).expect("read").is_empty());
    }
}
