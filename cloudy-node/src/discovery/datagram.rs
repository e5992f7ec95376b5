//! The two datagrams of multicast discovery, as pure functions.
//!
//! ```text
//! query   magic (4) version (1) kind = 1 (1) token (16) padding, 64 bytes or more in all
//! reply   magic (4) version (1) kind = 2 (1) token (16) family 4 | 6 (1) address (4 | 16) port (2, big-endian)
//! ```
//!
//! A query is padded beyond the longest reply, so no reply is longer than its request and a responder cannot be used
//! to amplify traffic. The token is random per finder; a reply repeats it, so replies to others and blind forgeries
//! fall through.

use std::net::{IpAddr, SocketAddr};

/// The length of a query as sent, and the least that is answered.
pub const QUERY_BYTES_MIN: usize = 64;
/// The longest datagram that is read; what is longer is cut off, and a reply that was cut does not decode.
pub const DATAGRAM_BYTES_MAX: usize = 256;
/// The version of both datagrams.
pub const VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"cldy";
const KIND_QUERY: u8 = 1;
const KIND_REPLY: u8 = 2;
const TOKEN_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + 2 + TOKEN_BYTES;
const REPLY_BYTES_MAX: usize = HEADER_BYTES + 1 + 16 + 2;
const _: () = assert!(REPLY_BYTES_MAX <= QUERY_BYTES_MIN && QUERY_BYTES_MIN <= DATAGRAM_BYTES_MAX);

/// Binds replies to one finder's queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryToken(pub [u8; TOKEN_BYTES]);

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The query's token, repeated.
    pub token: QueryToken,
    /// Where the node says it can be dialled. An unspecified IP (`0.0.0.0`, `::`) stands for the reply's source.
    pub advertised: SocketAddr,
}

/// A datagram that is not what was expected; it is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Not the length that its kind must have.
    #[error("a datagram of {bytes} bytes has not the length of its kind; ignore it")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// Another program's, or the other of the two kinds.
    #[error("not the kind of datagram expected here; ignore it")]
    Kind,
    /// Another version of cloudy's discovery.
    #[error("discovery version {0}, and this is version {VERSION}; update the older program")]
    Version(u8),
    /// An address that cannot be dialled: unknown family, port 0, or a multicast address.
    #[error("the advertised address cannot be dialled; ignore it")]
    Address,
}

/// A query, padded to [`QUERY_BYTES_MIN`].
#[must_use]
pub fn encode_query(token: QueryToken) -> Vec<u8> {
    let mut datagram = header(KIND_QUERY, token);
    datagram.resize(QUERY_BYTES_MIN, 0);
    datagram
}

/// Reads a query; what the padding holds is ignored, so a later version may use it.
///
/// # Errors
/// What is wrong with it. A query shorter than [`QUERY_BYTES_MIN`] is an error.
pub fn decode_query(datagram: &[u8]) -> Result<QueryToken, DatagramError> {
    let (token, padding) = split_header(KIND_QUERY, datagram)?;
    if HEADER_BYTES + padding.len() < QUERY_BYTES_MIN {
        return Err(DatagramError::Length { bytes: datagram.len() });
    }
    Ok(token)
}

/// A reply, never longer than a query. An IPv6 scope and flow label are not sent: they mean nothing elsewhere.
#[must_use]
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    let mut datagram = header(KIND_REPLY, reply.token);
    match reply.advertised.ip() {
        IpAddr::V4(ip) => {
            datagram.push(4);
            datagram.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            datagram.push(6);
            datagram.extend_from_slice(&ip.octets());
        }
    }
    datagram.extend_from_slice(&reply.advertised.port().to_be_bytes());
    datagram
}

/// Reads a reply; nothing may follow it.
///
/// # Errors
/// What is wrong with it.
pub fn decode_reply(datagram: &[u8]) -> Result<Reply, DatagramError> {
    let (token, body) = split_header(KIND_REPLY, datagram)?;
    let length = DatagramError::Length { bytes: datagram.len() };
    let (family, body) = body.split_first().ok_or(length)?;
    let (address, port) = body.split_last_chunk::<2>().ok_or(length)?;
    let ip = match family {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).map_err(|_| length)?),
        6 => IpAddr::from(<[u8; 16]>::try_from(address).map_err(|_| length)?),
        _ => return Err(DatagramError::Address),
    };
    let port = u16::from_be_bytes(*port);
    if port == 0 || ip.is_multicast() {
        return Err(DatagramError::Address);
    }
    Ok(Reply { token, advertised: SocketAddr::new(ip, port) })
}

fn header(kind: u8, token: QueryToken) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(QUERY_BYTES_MIN);
    datagram.extend_from_slice(&MAGIC);
    datagram.extend_from_slice(&[VERSION, kind]);
    datagram.extend_from_slice(&token.0);
    datagram
}

fn split_header(kind: u8, datagram: &[u8]) -> Result<(QueryToken, &[u8]), DatagramError> {
    let length = DatagramError::Length { bytes: datagram.len() };
    let (magic, rest) = datagram.split_first_chunk::<4>().ok_or(length)?;
    let ([version, found_kind], rest) = rest.split_first_chunk::<2>().ok_or(length)?;
    if *magic != MAGIC {
        return Err(DatagramError::Kind);
    }
    // The version comes before the rest: what follows it may have another shape.
    if *version != VERSION {
        return Err(DatagramError::Version(*version));
    }
    if *found_kind != kind {
        return Err(DatagramError::Kind);
    }
    let (token, body) = rest.split_first_chunk::<TOKEN_BYTES>().ok_or(length)?;
    Ok((QueryToken(*token), body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dialable() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), 1..=u16::MAX)
            .prop_filter("multicast is not advertised", |(ip, _)| !ip.is_multicast())
            .prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn queries_come_back(token: [u8; 16], padding: [u8; 8]) {
            let mut datagram = encode_query(QueryToken(token));
            prop_assert_eq!(decode_query(&datagram), Ok(QueryToken(token)));
            datagram.extend_from_slice(&padding);
            prop_assert_eq!(decode_query(&datagram), Ok(QueryToken(token)));
        }

        #[test]
        fn replies_come_back_and_are_never_longer_than_a_query(token: [u8; 16], advertised in dialable()) {
            let reply = Reply { token: QueryToken(token), advertised };
            let datagram = encode_reply(&reply);
            prop_assert!(datagram.len() <= encode_query(reply.token).len());
            prop_assert_eq!(decode_reply(&datagram), Ok(reply));
        }

        #[test]
        fn garbage_is_an_error(datagram: Vec<u8>) {
            prop_assert!(decode_query(&datagram).is_err());
            prop_assert!(decode_reply(&datagram).is_err());
        }

        #[test]
        fn what_decodes_encodes_back(token: [u8; 16], body in prop::collection::vec(any::<u8>(), 0..24)) {
            let mut datagram = header(KIND_REPLY, QueryToken(token));
            datagram.extend_from_slice(&body);
            if let Ok(reply) = decode_reply(&datagram) {
                prop_assert_eq!(encode_reply(&reply), datagram);
            }
        }

        #[test]
        fn every_cut_is_an_error(token: [u8; 16], advertised in dialable(), cut: prop::sample::Index) {
            let token = QueryToken(token);
            let query = encode_query(token);
            prop_assert!(decode_query(&query[..cut.index(query.len())]).is_err());
            let reply = encode_reply(&Reply { token, advertised });
            prop_assert!(decode_reply(&reply[..cut.index(reply.len())]).is_err());
        }
    }

    #[test]
    fn kinds_and_versions_are_told_apart() {
        let token = QueryToken([7; 16]);
        let query = encode_query(token);
        let advertised = SocketAddr::from(([127, 0, 0, 1], 10_502));
        let reply = encode_reply(&Reply { token, advertised });
        assert_eq!(decode_reply(&query), Err(DatagramError::Kind));
        assert_eq!(decode_query(&reply), Err(DatagramError::Kind));
        let mut later = query.clone();
        later[4] = 2;
        assert_eq!(decode_query(&later), Err(DatagramError::Version(2)));
        let mut foreign = query;
        foreign[0] ^= 1;
        assert_eq!(decode_query(&foreign), Err(DatagramError::Kind));
    }

    #[test]
    fn what_cannot_be_dialled_is_an_error() {
        let token = QueryToken([7; 16]);
        for advertised in ["10.0.0.1:0", "239.255.0.1:10502", "[ff02::1]:10502"] {
            let reply = Reply { token, advertised: advertised.parse().expect("an address") };
            assert_eq!(decode_reply(&encode_reply(&reply)), Err(DatagramError::Address), "{advertised}");
        }
    }

    /// The bytes on the wire, fixed: a change needs another version.
    #[test]
    fn the_encoding_is_stable() {
        let token = QueryToken(*b"0123456789abcdef");
        let query = encode_query(token);
        assert_eq!(query.len(), 64);
        assert_eq!(query[..22], *b"cldy\x01\x010123456789abcdef");
        assert!(query[22..].iter().all(|byte| *byte == 0));
        let v4 = Reply { token, advertised: SocketAddr::from(([10, 1, 2, 3], 258)) };
        assert_eq!(encode_reply(&v4), *b"cldy\x01\x020123456789abcdef\x04\x0a\x01\x02\x03\x01\x02");
    }
}
