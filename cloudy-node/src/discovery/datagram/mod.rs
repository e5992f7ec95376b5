//! The two datagrams of multicast discovery, as pure functions.
//!
//! ```text
//! query   magic (4) version (1) kind = 1 (1) nonce (16) tag (16) padding, 160 bytes or more in all
//! reply   magic (4) version (1) kind = 2 (1) nonce (16) node (32) family 4 | 6 (1) address (4 | 16)
//!         port (2, big-endian) length of the label (1) label tag (16)
//! ```
//!
//! A tag is HMAC-SHA256 under a key derived from a cluster key, truncated to 16 bytes. A query's tag covers what precedes
//! it and the query's source address, so a captured query cannot be sent again from elsewhere. A reply's tag covers what
//! precedes it, the query's nonce included. A query is padded beyond the longest reply, so a responder cannot be used to
//! amplify traffic.

use std::net::{IpAddr, SocketAddr};

use cloudy_proto::NodeId;

use super::keys::address_bytes;
use crate::cluster_key::{MacKey, TAG_BYTES};

/// The length of a sent query, and the minimum of an answered one.
pub(super) const QUERY_BYTES_MIN: usize = 160;
/// Maximum length that is read. A longer datagram is cut off, and a reply that was cut off does not decode.
pub(super) const DATAGRAM_BYTES_MAX: usize = 256;
/// Maximum length of a label.
pub(super) const LABEL_BYTES_MAX: usize = 64;
/// The version of both datagrams.
pub(super) const VERSION: u8 = 2;

const MAGIC: [u8; 4] = *b"cldy";
const KIND_QUERY: u8 = 1;
const KIND_REPLY: u8 = 2;
const NONCE_BYTES: usize = 16;
const NODE_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + 2 + NONCE_BYTES;
const REPLY_BYTES_MAX: usize = HEADER_BYTES + NODE_BYTES + 1 + 16 + 2 + 1 + LABEL_BYTES_MAX + TAG_BYTES;
const _: () = assert!(REPLY_BYTES_MAX <= QUERY_BYTES_MIN && QUERY_BYTES_MIN <= DATAGRAM_BYTES_MAX);

/// A random number that binds a reply to its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Nonce(pub [u8; NONCE_BYTES]);

/// The content of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// The query's nonce, repeated.
    pub nonce: Nonce,
    /// The node that replies.
    pub node: NodeId,
    /// The address of the node.
    pub address: SocketAddr,
    /// The application's label, for example a session's name; at most [`LABEL_BYTES_MAX`] bytes.
    pub label: String,
}

/// The reason to ignore a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DatagramError {
    /// Not the length of its kind.
    #[error("a datagram of {bytes} bytes does not have the length of its kind; ignore it")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// A datagram of another program, or of the other kind.
    #[error("not the kind of datagram expected here; ignore it")]
    Kind,
    /// Another version of cloudy's discovery.
    #[error("discovery version {0}, and this is version {VERSION}; update the older program")]
    Version(u8),
    /// The sender does not hold a cluster key that is accepted here, or the datagram was altered or sent from elsewhere.
    #[error("the sender proves no cluster key that is accepted here; give both nodes the same key file")]
    Tag,
    /// An address that cannot be dialled: unknown family, port 0, or an unspecified or multicast address.
    #[error("the address in the reply cannot be dialled; ignore it")]
    Address,
    /// The label is not text.
    #[error("the label is not text; ignore it")]
    Label,
}

/// Encodes a query from a source address, padded to [`QUERY_BYTES_MIN`].
pub(super) fn encode_query(key: &MacKey, nonce: Nonce, source: SocketAddr) -> Vec<u8> {
    let mut datagram = header(KIND_QUERY, nonce);
    let tag = key.tag(&[&datagram, &address_bytes(source)]);
    datagram.extend_from_slice(&tag);
    datagram.resize(QUERY_BYTES_MIN, 0);
    datagram
}

/// Decodes a query from a source address: its nonce, and the key under which it is authentic. The content of the
/// padding is ignored, so that a later version may use it.
///
/// # Errors
/// The fault. A query shorter than [`QUERY_BYTES_MIN`] is an error.
pub(super) fn decode_query<'k>(
    keys: &'k [MacKey],
    datagram: &[u8],
    source: SocketAddr,
) -> Result<(Nonce, &'k MacKey), DatagramError> {
    let (nonce, rest) = split_header(KIND_QUERY, datagram)?;
    let length = DatagramError::Length { bytes: datagram.len() };
    if datagram.len() < QUERY_BYTES_MIN {
        return Err(length);
    }
    let tag = rest.first_chunk().ok_or(length)?;
    let parts: [&[u8]; 2] = [&datagram[..HEADER_BYTES], &address_bytes(source)];
    let key = keys.iter().find(|key| key.verifies(&parts, tag)).ok_or(DatagramError::Tag)?;
    Ok((nonce, key))
}

/// Encodes a reply, never longer than a query. An IPv6 scope and flow label are left out: they have no meaning on
/// another host.
pub(super) fn encode_reply(key: &MacKey, reply: &Reply) -> Vec<u8> {
    let mut datagram = header(KIND_REPLY, reply.nonce);
    datagram.extend_from_slice(&reply.node.0);
    match reply.address.ip() {
        IpAddr::V4(ip) => {
            datagram.push(4);
            datagram.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            datagram.push(6);
            datagram.extend_from_slice(&ip.octets());
        }
    }
    datagram.extend_from_slice(&reply.address.port().to_be_bytes());
    // At most LABEL_BYTES_MAX, so the cast is exact.
    datagram.push(reply.label.len() as u8);
    datagram.extend_from_slice(reply.label.as_bytes());
    let tag = key.tag(&[&datagram]);
    datagram.extend_from_slice(&tag);
    datagram
}

/// Decodes only the nonce of a reply, so that replies to others cost no more.
///
/// # Errors
/// The datagram is not a reply.
pub(super) fn nonce_of_reply(datagram: &[u8]) -> Result<Nonce, DatagramError> {
    split_header(KIND_REPLY, datagram).map(|(nonce, _)| nonce)
}

/// Decodes a reply without trailing bytes.
///
/// # Errors
/// The fault.
pub(super) fn decode_reply(keys: &[MacKey], datagram: &[u8]) -> Result<Reply, DatagramError> {
    let (nonce, body) = split_header(KIND_REPLY, datagram)?;
    let length = DatagramError::Length { bytes: datagram.len() };
    let (body, tag) = body.split_last_chunk().ok_or(length)?;
    let tagged = &datagram[..datagram.len() - TAG_BYTES];
    if !keys.iter().any(|key| key.verifies(&[tagged], tag)) {
        return Err(DatagramError::Tag);
    }
    let (node, body) = body.split_first_chunk::<NODE_BYTES>().ok_or(length)?;
    let (family, body) = body.split_first().ok_or(length)?;
    let (ip, body) = match family {
        4 => body.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest)).ok_or(length)?,
        6 => body.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest)).ok_or(length)?,
        _ => return Err(DatagramError::Address),
    };
    let (port, body) = body.split_first_chunk::<2>().ok_or(length)?;
    let port = u16::from_be_bytes(*port);
    let (label_bytes, label) = body.split_first().ok_or(length)?;
    if label.len() != usize::from(*label_bytes) || label.len() > LABEL_BYTES_MAX {
        return Err(length);
    }
    if port == 0 || ip.is_unspecified() || ip.is_multicast() {
        return Err(DatagramError::Address);
    }
    let label = str::from_utf8(label).map_err(|_| DatagramError::Label)?.to_owned();
    Ok(Reply { nonce, node: NodeId(*node), address: SocketAddr::new(ip, port), label })
}

fn header(kind: u8, nonce: Nonce) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(QUERY_BYTES_MIN);
    datagram.extend_from_slice(&MAGIC);
    datagram.extend_from_slice(&[VERSION, kind]);
    datagram.extend_from_slice(&nonce.0);
    datagram
}

fn split_header(kind: u8, datagram: &[u8]) -> Result<(Nonce, &[u8]), DatagramError> {
    let length = DatagramError::Length { bytes: datagram.len() };
    let (magic, rest) = datagram.split_first_chunk::<4>().ok_or(length)?;
    let ([version, found_kind], rest) = rest.split_first_chunk::<2>().ok_or(length)?;
    if *magic != MAGIC {
        return Err(DatagramError::Kind);
    }
    // The version comes first, because a later version may have another layout.
    if *version != VERSION {
        return Err(DatagramError::Version(*version));
    }
    if *found_kind != kind {
        return Err(DatagramError::Kind);
    }
    let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(length)?;
    Ok((Nonce(*nonce), body))
}

#[cfg(test)]
mod tests;
