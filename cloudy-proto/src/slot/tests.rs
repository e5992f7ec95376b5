use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{Batch, BodyError, Payloads, check_body, offset_of, payload_slices, push_payload};
use crate::id::Seq;

fn body_of(payloads: &[Vec<u8>]) -> Bytes {
    let mut body = BytesMut::new();
    payloads.iter().for_each(|payload| push_payload(&mut body, payload));
    body.freeze()
}

#[test]
fn a_length_is_accepted_only_in_its_shortest_form() {
    assert_eq!(check_body(&[0x80, 0x00], 1), Err(BodyError::PayloadLength));
    assert_eq!(check_body(&[0x00], 1), Ok(()));
}

#[test]
fn a_body_matches_its_header_exactly() {
    let body = body_of(&[b"a".to_vec(), b"bc".to_vec()]);
    assert_eq!(check_body(&body, 2), Ok(()));
    assert_eq!(check_body(&body, 1), Err(BodyError::Extent));
    assert_eq!(check_body(&body, 3), Err(BodyError::PayloadLength));
    assert_eq!(check_body(&body[..4], 2), Err(BodyError::Extent));
    assert_eq!(check_body(&[], 0), Err(BodyError::Count(0)));
    assert_eq!(check_body(&[0xff, 0xff, 0xff, 0xff, 0x7f], 1), Err(BodyError::PayloadLength));
}

#[test]
fn payloads_of_the_boundary_sizes_are_distinguished() {
    let sizes = [0, 8, 8, 8, 200, 8, 8, 127, 127, 128, 128, 127, 0, 0, 8, 20_000, 0];
    let payloads: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(at, size)| vec![at as u8; *size]).collect();
    let body = body_of(&payloads);
    assert_eq!(check_body(&body, payloads.len() as u32), Ok(()));
    assert!(payload_slices(&body).eq(payloads.iter()));
    let ends = (1..=payloads.len()).map(|count| offset_of(&body, count as u32));
    assert!(ends.eq((1..=payloads.len()).map(|count| body_of(&payloads[..count]).len())));
}

#[test]
fn a_batch_without_its_first_payloads_keeps_the_numbers_of_the_rest() {
    let batch = Batch { first_seq: Seq(7), count: 3, body: body_of(&[b"a".to_vec(), b"bc".to_vec(), vec![]]) };
    let rest = batch.without_first(2);
    assert_eq!((rest.first_seq, rest.count, rest.last_seq()), (Seq(9), 1, Seq(9)));
    assert_eq!(check_body(&rest.body, 1), Ok(()));
}

proptest! {
    #[test]
    fn payloads_decode_to_the_same_bytes(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..40)) {
        let body = body_of(&payloads);
        prop_assert_eq!(check_body(&body, payloads.len() as u32), Ok(()));
        let back: Vec<Vec<u8>> = Payloads::of(body.clone()).map(|payload| payload.to_vec()).collect();
        prop_assert_eq!(&back, &payloads);
        prop_assert!(payload_slices(&body).eq(payloads.iter()));
        prop_assert_eq!(offset_of(&body, payloads.len() as u32), body.len());
    }

    #[test]
    fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200), count in 0u32..50) {
        let valid = check_body(&body, count).is_ok();
        let read = Payloads::of(Bytes::from(body)).take(100).count();
        prop_assert!(!valid || read == count as usize);
    }
}
