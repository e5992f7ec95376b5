//! Both sockets, alone and under QUIC.

mod faults;
mod memory;
mod quic;
mod socket;

use std::{future::poll_fn, io::IoSliceMut, net::SocketAddr, time::Duration};

use quinn::{
    AsyncUdpSocket,
    udp::{RecvMeta, Transmit},
};
use tokio::time::timeout;

/// Longer than any delay in these tests; it passes in virtual time.
const QUIET: Duration = Duration::from_secs(120);

fn addr(nth: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, nth], 4433))
}

fn send(from: &dyn AsyncUdpSocket, to: SocketAddr, contents: &[u8]) {
    from.try_send(&transmit(to, contents, None)).expect("a memory socket is always writable");
}

fn transmit(destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
    Transmit { destination, ecn: None, contents, segment_size, src_ip: None }
}

async fn recv(socket: &dyn AsyncUdpSocket) -> (RecvMeta, Vec<u8>) {
    let mut storage = [0; 2048];
    let mut meta = [RecvMeta::default()];
    let received = poll_fn(|cx| {
        let mut bufs = [IoSliceMut::new(&mut storage)];
        socket.poll_recv(cx, &mut bufs, &mut meta)
    })
    .await
    .expect("receive");
    assert_eq!(received, 1);
    (meta[0], storage[..meta[0].len].to_vec())
}

/// All that arrives until nothing comes, in order of arrival.
async fn recv_all(socket: &dyn AsyncUdpSocket) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Ok((_, contents)) = timeout(QUIET, recv(socket)).await {
        all.push(contents);
    }
    all
}
