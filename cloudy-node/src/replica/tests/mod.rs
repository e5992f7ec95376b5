//! State machines for the tests of this module, and what needs a node.

#[cfg(feature = "fault")]
mod linearizability;

use std::io::{self, Read, Write};

use super::{Applied, Replica, ReplicaConfig, StateMachine};
use crate::{ClusterKey, GroupConfig, Node};

/// Keeps the bytes of its commands.
#[derive(Debug, Default)]
pub(super) struct Log(pub(super) Vec<u8>);

impl StateMachine for Log {
    type Command = u8;
    type Response = usize;

    fn apply(&mut self, _at: Applied, byte: u8) -> usize {
        self.0.push(byte);
        self.0.len()
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.0)
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        Ok(Self(bytes))
    }
}

#[tokio::test]
async fn a_state_that_is_too_large_for_a_snapshot_is_reported_and_stops_nothing() {
    let node = Node::builder().cluster_key(&ClusterKey::generate().unwrap()).start().await.unwrap();
    let group = node.create_group("log", 1, GroupConfig::default()).await.unwrap();
    let config = ReplicaConfig::default().snapshot_every_bytes(100).memory_snapshot_bytes_max(50);
    let replica = Replica::start_with(group, Log::default(), config).await.unwrap();
    for at in 1..=200 {
        assert_eq!(replica.submit(7).await.unwrap(), at);
    }
    let status = replica.status().await;
    assert!(status.snapshot_error.is_some_and(|error| error.contains("at most 50 are kept")));
    assert_eq!(status.snapshot, None);
}
