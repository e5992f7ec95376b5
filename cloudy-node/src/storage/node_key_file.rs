//! The file with the node's private key: three lines of text, including the node's id, so that damage is detected.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use super::data_files::{io_error, read_opened, write_small};
use super::error::DataDirError;
use crate::files::{self, WrongRights};
use crate::identity::NodeKey;

const TITLE: &str = "cloudy node key 1";

pub(super) fn store(directory: &Path, path: &Path, key: &NodeKey) -> Result<(), DataDirError> {
    write_small(directory, path, text_of(key).as_bytes())
}

/// Reads the key. Refuses a file that another user owns or has any right to; a group of this process may have rights,
/// as orchestrators set them for a whole volume.
pub(super) fn load(path: &Path) -> Result<NodeKey, DataDirError> {
    load_as(path, false)
}

/// The same; with `as_root_any_owner`, root may read a file of another user.
pub(super) fn load_as(path: &Path, as_root_any_owner: bool) -> Result<NodeKey, DataDirError> {
    let wrong = |what| DataDirError::NodeKey { path: path.to_owned(), what };
    let file = match files::open_regular(path, OpenOptions::new().read(true)) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(wrong("no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(wrong("missing")),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    match files::wrong_rights(&file, files::GROUP_READS_AND_WRITES, as_root_any_owner)
        .map_err(io_error("read", path))?
    {
        Some(WrongRights::OtherOwner { owner }) => {
            return Err(DataDirError::OtherOwner { path: path.to_owned(), owner });
        }
        Some(WrongRights::Loose { mode }) => return Err(DataDirError::LooseRights { path: path.to_owned(), mode }),
        None => {}
    }
    let bytes = read_opened(path, file)?.ok_or_else(|| wrong("damaged"))?;
    let key = key_in(&bytes).ok_or_else(|| wrong("damaged"))?;
    // Every byte counts: a key has only one text form.
    if text_of(&key).as_bytes() == bytes.as_slice() { Ok(key) } else { Err(wrong("damaged")) }
}

fn text_of(key: &NodeKey) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (node, secret) = (key.node_id().to_string(), key.to_pkcs8());
    let head = format!("{TITLE}\nnode {node}\nkey ");
    // Allocated in full size: growing would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(head.len() + 2 * secret.len() + 1));
    text.push_str(&head);
    for byte in secret.iter() {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text.push('\n');
    text
}

fn key_in(bytes: &[u8]) -> Option<NodeKey> {
    let digits = core::str::from_utf8(bytes).ok()?.lines().nth(2)?.strip_prefix("key ")?.as_bytes();
    let mut secret = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for pair in digits.chunks(2) {
        let [high, low] = pair else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        secret.push((digit(*high)? << 4 | digit(*low)?) as u8);
    }
    NodeKey::from_pkcs8(&secret).ok()
}
