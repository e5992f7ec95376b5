//! Peers that revoke without end, or show certificates that are not their own.

use bytes::Bytes;
use cloudy_node::{ClusterKeys, NodeId};
use cloudy_proto::limits::{REVOKED_HEARSAY_MAX, REVOKED_MAX, REVOKED_OF_PEER_MAX};
use cloudy_proto::wire::NodeFrame;

use crate::common::{key, start, until, within};
use crate::hostile::{BREACH, Hostile, REVOKED, closed, node};

fn somebody(number: usize) -> NodeId {
    let mut id = [0xaa; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    NodeId(id)
}

#[tokio::test]
async fn revocations_of_a_peer_are_bounded_and_leave_the_operator_all_capacity() {
    let key = key();
    let (target, other) = (start(&key).await, start(&key).await);
    other.connect(target.local_addr()).await.unwrap();
    let hostile = Hostile::new(&key);
    let (connection, mut node_stream) = hostile.link(target.local_addr()).await;
    for first in (0..8 * REVOKED_MAX).step_by(16) {
        let nodes = (first..first + 16).map(somebody).collect();
        let own = first < 4 * REVOKED_MAX;
        node_stream.write_all(&node(&NodeFrame::Revoked { own, nodes })).await.unwrap();
    }
    let told = REVOKED_OF_PEER_MAX + REVOKED_HEARSAY_MAX;
    until("the peer's lists are full", async || target.revoked().len() == told).await;
    // A whole key file of lines, the peer itself among them, and a step of a rotation in the same change.
    let mut keys = ClusterKeys::from(key.clone());
    keys.begin_rotation(crate::common::key()).unwrap();
    for number in 0..REVOKED_MAX - 1 {
        keys.revoke(somebody(1_000_000 + number)).unwrap();
    }
    keys.revoke(hostile.id).unwrap();
    target.set_keys(&keys).await.unwrap();
    // With so much in flight the transport may lose the code.
    within("its link is closed", connection.closed()).await;
    let (again, _node_stream) = hostile.link(target.local_addr()).await;
    assert_eq!(closed(&again).await.0, REVOKED);
    assert_eq!(target.revoke(somebody(2_000_000)).await, Ok(()));
    assert_eq!(target.revoked().len(), told + REVOKED_MAX + 1);
    until("others learn what the operator says", async || {
        let known = other.revoked();
        known.contains(&hostile.id) && known.contains(&somebody(2_000_000))
    })
    .await;
    let late = start(&key).await;
    late.connect(target.local_addr()).await.unwrap();
    until("those that come learn it too", async || late.revoked().contains(&hostile.id)).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_the_peer_s_own_closes_the_link() {
    let key = key();
    let target = start(&key).await;
    let hostile = Hostile::new(&key);
    // The certificate that every peer receives.
    let shown = hostile.connect(target.local_addr()).await.peer_identity().unwrap();
    let shown = shown.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
    let targets_own = Bytes::copy_from_slice(&shown[0]);
    for certificate in [targets_own, Bytes::from_static(b"no certificate"), Bytes::new()] {
        let (connection, mut node_stream) = hostile.link(target.local_addr()).await;
        node_stream.write_all(&node(&NodeFrame::Certificate(certificate))).await.unwrap();
        let (code, words) = closed(&connection).await;
        assert!(code == BREACH && words.contains("not the sender's"), "{code} {words}");
    }
}
