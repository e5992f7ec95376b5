use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

fn key(number: u8) -> MacKey {
    MacKey::new(Zeroizing::new([number; 32]))
}

fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4_000))
}

fn dialable() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), 1..=u16::MAX)
        .prop_filter("neither is advertised", |(ip, _)| !ip.is_multicast() && !ip.is_unspecified())
        .prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn replies() -> impl Strategy<Value = Reply> {
    (any::<[u8; 16]>(), any::<[u8; 32]>(), dialable(), r"[a-z]{0,64}").prop_map(|(nonce, node, address, label)| Reply {
        nonce: Nonce(nonce),
        node: NodeId(node),
        address,
        label,
    })
}

fn decoded(keys: &[MacKey], datagram: &[u8], from: SocketAddr) -> Result<Nonce, DatagramError> {
    decode_query(keys, datagram, from).map(|(nonce, _)| nonce)
}

proptest! {
    #[test]
    fn queries_decode_to_the_same_value(nonce: [u8; 16], padding: [u8; 8]) {
        let (keys, nonce) = ([key(1)], Nonce(nonce));
        let mut datagram = encode_query(&keys[0], nonce, source());
        prop_assert_eq!(decoded(&keys, &datagram, source()), Ok(nonce));
        datagram.extend_from_slice(&padding);
        prop_assert_eq!(decoded(&keys, &datagram, source()), Ok(nonce));
    }

    #[test]
    fn replies_decode_to_the_same_value_and_never_exceed_a_query(reply in replies()) {
        let datagram = encode_reply(&key(1), &reply);
        prop_assert!(datagram.len() <= encode_query(&key(1), reply.nonce, source()).len());
        prop_assert_eq!(nonce_of_reply(&datagram), Ok(reply.nonce));
        prop_assert_eq!(decode_reply(&[key(1)], &datagram), Ok(reply));
    }

    #[test]
    fn garbage_is_an_error(datagram: Vec<u8>) {
        prop_assert!(decoded(&[key(1)], &datagram, source()).is_err());
        prop_assert!(decode_reply(&[key(1)], &datagram).is_err());
    }

    #[test]
    fn every_cut_and_every_changed_bit_is_an_error(reply in replies(), at: prop::sample::Index, bit in 0..8_u8) {
        let query = encode_query(&key(1), reply.nonce, source());
        prop_assert!(decoded(&[key(1)], &query[..at.index(query.len())], source()).is_err());
        let mut altered = query;
        altered[at.index(HEADER_BYTES + TAG_BYTES)] ^= 1_u8 << bit;
        prop_assert!(decoded(&[key(1)], &altered, source()).is_err());
        let datagram = encode_reply(&key(1), &reply);
        prop_assert!(decode_reply(&[key(1)], &datagram[..at.index(datagram.len())]).is_err());
        let mut altered = datagram;
        let position = at.index(altered.len());
        altered[position] ^= 1_u8 << bit;
        prop_assert!(decode_reply(&[key(1)], &altered).is_err());
    }
}

#[test]
fn only_holders_of_a_key_ask_and_answer() {
    let (nonce, address) = (Nonce([7; 16]), source());
    let reply = Reply { nonce, node: NodeId([1; 32]), address, label: String::new() };
    let query = encode_query(&key(1), nonce, source());
    assert_eq!(decoded(&[key(2)], &query, source()), Err(DatagramError::Tag));
    assert_eq!(decode_reply(&[key(2)], &encode_reply(&key(1), &reply)), Err(DatagramError::Tag));
    assert_eq!(decoded(&[], &query, source()), Err(DatagramError::Tag));
}

#[test]
fn a_query_counts_from_its_own_source_only() {
    let query = encode_query(&key(1), Nonce([7; 16]), source());
    for other in ["192.0.2.1:4001", "192.0.2.2:4000", "[::1]:4000"] {
        assert_eq!(decoded(&[key(1)], &query, other.parse().expect("an address")), Err(DatagramError::Tag), "{other}");
    }
    let mapped = "[::ffff:192.0.2.1]:4000".parse().expect("an address");
    assert!(decoded(&[key(1)], &query, mapped).is_ok());
}

/// The sets of accepted keys in the steps of a rotation from key 1 to key 2, the primary key first.
#[test]
fn nodes_one_step_of_a_rotation_apart_ask_and_answer() {
    let steps: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];
    let keys = |step: usize| steps[step].iter().map(|number| key(*number)).collect::<Vec<_>>();
    for (asks, answers) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)] {
        let (asks, answers, nonce) = (keys(asks), keys(answers), Nonce([7; 16]));
        let query = encode_query(&asks[0], nonce, source());
        let (nonce, used) = decode_query(&answers, &query, source()).expect("one of the accepted keys");
        let reply = Reply { nonce, node: NodeId([1; 32]), address: source(), label: "x".to_owned() };
        assert_eq!(decode_reply(&asks, &encode_reply(used, &reply)), Ok(reply));
    }
}

#[test]
fn kinds_and_versions_are_distinguished() {
    let (keys, nonce) = ([key(1)], Nonce([7; 16]));
    let query = encode_query(&keys[0], nonce, source());
    let reply = Reply { nonce, node: NodeId([1; 32]), address: source(), label: String::new() };
    assert_eq!(decode_reply(&keys, &query), Err(DatagramError::Kind));
    assert_eq!(decoded(&keys, &encode_reply(&keys[0], &reply), source()), Err(DatagramError::Kind));
    for version in [1, 3] {
        let mut other = query.clone();
        other[4] = version;
        assert_eq!(decoded(&keys, &other, source()), Err(DatagramError::Version(version)));
    }
    let mut foreign = query;
    foreign[0] ^= 1;
    assert_eq!(decoded(&keys, &foreign, source()), Err(DatagramError::Kind));
}

#[test]
fn addresses_that_cannot_be_dialled_are_errors() {
    for address in ["10.0.0.1:0", "239.255.0.1:10502", "[ff02::1]:10502", "0.0.0.0:10502", "[::]:10502"] {
        let address = address.parse().expect("an address");
        let reply = Reply { nonce: Nonce([7; 16]), node: NodeId([1; 32]), address, label: String::new() };
        assert_eq!(decode_reply(&[key(1)], &encode_reply(&key(1), &reply)), Err(DatagramError::Address), "{address}");
    }
}

/// The bytes on the wire, fixed: a change needs another version.
#[test]
fn the_encoding_is_stable() {
    let nonce = Nonce(*b"0123456789abcdef");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let query = encode_query(&key(1), nonce, source());
    assert_eq!(query.len(), 160);
    assert_eq!(query[..22], *b"cldy\x02\x010123456789abcdef");
    assert_eq!(hex(&query[22..38]), "2a0a66277dfb0557935f29f4648efb51");
    assert!(query[38..].iter().all(|byte| *byte == 0));
    let address = SocketAddr::from(([10, 1, 2, 3], 258));
    let reply = encode_reply(&key(1), &Reply { nonce, node: NodeId([9; 32]), address, label: "team-a".to_owned() });
    assert_eq!(reply[..22], *b"cldy\x02\x020123456789abcdef");
    assert_eq!(reply[22..54], [9; 32]);
    assert_eq!(reply[54..68], *b"\x04\x0a\x01\x02\x03\x01\x02\x06team-a");
    assert_eq!(hex(&reply[68..]), "8420e0671e48e2092d06970f966cbf93");
}
