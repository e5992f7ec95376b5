use std::net::Ipv4Addr;

use bytes::BytesMut;
use cloudy_proto::wire::{ControlFrame, Stream, StreamHeader, encode_control, encode_header};
use cloudy_proto::{GroupId, Incarnation};

use super::*;
use crate::cluster_key::ClusterKey;
use crate::endpoint::EndpointSocket;
use crate::versions::wire_versions;

/// More frames than a connection may leave in the driver's queue.
const FRAMES: usize = 1000;

/// One side of a link, with the mail that a driver would read.
struct TestNode {
    links: Links,
    mail: mpsc::Receiver<LinkMail>,
}

fn node(key: &ClusterKey) -> TestNode {
    let (identity, limits) = (Identity::generate(key).unwrap(), EndpointLimits::default());
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = endpoint::open(&identity, EndpointSocket::Udp(socket), &limits, None).unwrap();
    let (sender, mail) = mpsc::channel(4);
    let addresses = vec![endpoint.local_addr().unwrap()];
    let links = Links::new(&identity, endpoint, limits, (addresses, None), (sender, Health::default())).unwrap();
    links.spawn_accept();
    TestNode { links, mail }
}

impl TestNode {
    async fn linked(&mut self) -> NewLink {
        match self.mail.recv().await {
            Some(LinkMail::Up(link)) => link,
            _ => panic!("another message than a new link"),
        }
    }
}

/// Sends frames on one control stream, waits until they have arrived, and closes the connection.
async fn send_and_close(connection: &Connection) {
    let header = StreamHeader {
        versions: wire_versions(),
        group: GroupId([1; 16]),
        incarnation: Incarnation::default(),
        stream: Stream::Control,
    };
    let mut bytes = BytesMut::from(&encode_header(&header)[..]);
    for run in 0..FRAMES as u64 {
        encode_control(&ControlFrame::Accept { run }, &mut bytes);
    }
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream.finish().unwrap();
    assert_eq!(stream.stopped().await, Ok(None), "all was acknowledged");
    connection.close(0u32.into(), b"the node shuts down");
}

#[tokio::test]
async fn frames_that_arrived_before_a_connection_was_closed_reach_the_driver_before_its_end() {
    let key = ClusterKey::from_bytes(&[1; 32]);
    let (mut sender, mut receiver) = (node(&key), node(&key));
    sender.links.dial(receiver.links.endpoint.local_addr().unwrap(), false);
    let (sending, receiving) = tokio::join!(sender.linked(), receiver.linked());
    let sent = tokio::spawn(async move { send_and_close(&sending.connection).await });
    let Some(LinkMail::Opened { reply, .. }) = receiver.mail.recv().await else { panic!("no stream") };
    reply.send(cloudy_proto::Admission::Read).unwrap();
    // The driver is late: all frames have arrived, and the connection is closed.
    receiving.connection.closed().await;
    sent.await.unwrap();
    let mut handled = 0;
    loop {
        match receiver.mail.recv().await.unwrap() {
            LinkMail::Frames { frames, .. } => handled += frames.len(),
            LinkMail::Down { .. } => break,
            _ => panic!("another message than frames and the end of the link"),
        }
    }
    assert_eq!(handled, FRAMES);
}
