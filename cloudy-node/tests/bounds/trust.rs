//! Peers that revoke without end, or show certificates that are not their own.

use bytes::Bytes;
use cloudy_node::{ClusterKeys, NodeId, RevokeError};
use cloudy_proto::limits::REVOKED_MAX;
use cloudy_proto::wire::NodeFrame;

use crate::common::{key, start, until};
use crate::hostile::{BREACH, Hostile, closed, node};

fn somebody(number: usize) -> NodeId {
    let mut id = [0xaa; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    NodeId(id)
}

#[tokio::test]
async fn a_node_keeps_so_many_revoked_nodes_and_says_so() {
    let key = key();
    let (target, other) = (start(&key).await, start(&key).await);
    let hostile = Hostile::new(&key);
    let (_connection, mut node_stream) = hostile.link(target.local_addr()).await;
    for first in (0..2 * REVOKED_MAX).step_by(16) {
        let nodes = (first..first + 16).map(somebody).collect();
        node_stream.write_all(&node(&NodeFrame::Revoked(nodes))).await.unwrap();
    }
    until("the list is full", async || target.revoked().len() == REVOKED_MAX).await;
    assert!(matches!(target.revoke(other.id()).await, Err(RevokeError::Full(_))));
    assert_eq!(target.revoke(somebody(0)).await, Ok(()));
    let mut keys = ClusterKeys::from(key);
    keys.revoke(other.id()).unwrap();
    let error = target.set_keys(&keys).await.unwrap_err();
    assert!(error.to_string().contains("no room for more"), "{error}");
    // Nothing of the refused keys counts, and all that was learned is passed on.
    other.connect(target.local_addr()).await.unwrap();
    until("it is passed on", async || other.revoked() == target.revoked()).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_the_peer_s_own_closes_the_link() {
    let key = key();
    let target = start(&key).await;
    let hostile = Hostile::new(&key);
    // What everybody is shown.
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
