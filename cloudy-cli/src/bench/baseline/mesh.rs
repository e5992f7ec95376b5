//! A connection with each other node: data one way, counts the other, both ways.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cloudy_node::SERVER_NAME;
use cloudy_node::{EndpointLimits, internals};
use miette::{IntoDiagnostic, Report};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::task::JoinSet;

use super::frames::Decoder;
use super::state::Shared;
use crate::output::failure;

/// Size of a stream's header: its content, and its node.
const HEADER_BYTES: usize = 3;
const DATA: u8 = 0;
const COUNTS: u8 = 1;
/// Size of two counts: received messages of the peer, approved messages of this node.
const COUNTS_BYTES: usize = 16;
/// Maximum of pieces in one read: each is at most one packet.
const PIECES_MAX: usize = 64;

/// The connections.
pub(super) struct Mesh {
    peers: Vec<(Connection, SendStream)>,
    _tasks: JoinSet<()>,
}

/// One connection's streams, all open.
struct Link {
    peer: usize,
    connection: Connection,
    data_out: SendStream,
    counts_out: SendStream,
    data_in: RecvStream,
    counts_in: RecvStream,
}

impl Mesh {
    /// Dials the nodes after this one and accepts those before; returns once all are connected.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        limits: &EndpointLimits,
        addresses: &[SocketAddr],
        shared: Arc<Shared>,
    ) -> Result<Self, Report> {
        let own = endpoint.local_addr().into_diagnostic()?;
        let me = addresses.iter().position(|address| *address == own);
        let me = me.ok_or_else(|| failure("this node is not among those to link", "run it again"))?;
        let dial = async {
            let mut links = Vec::new();
            for address in &addresses[me + 1..] {
                let connecting = endpoint.connect(*address, SERVER_NAME).into_diagnostic()?;
                let connection = internals::handshake(connecting, limits).await.into_diagnostic()?;
                let (data_out, counts_out) = open(&connection, me).await?;
                let (peer, data_in, counts_in) = accept(&connection).await?;
                links.push(Link { peer, connection, data_out, counts_out, data_in, counts_in });
            }
            Ok::<_, Report>(links)
        };
        let be_dialled = async {
            let mut links = Vec::new();
            for _ in 0..me {
                let incoming = endpoint.accept().await.ok_or_else(closed)?;
                let connecting = incoming.accept().into_diagnostic()?;
                let connection = internals::handshake(connecting, limits).await.into_diagnostic()?;
                let (peer, data_in, counts_in) = accept(&connection).await?;
                let (data_out, counts_out) = open(&connection, me).await?;
                links.push(Link { peer, connection, data_out, counts_out, data_in, counts_in });
            }
            Ok::<_, Report>(links)
        };
        let (dialled, accepted) = tokio::try_join!(dial, be_dialled)?;
        let (mut peers, mut tasks) = (Vec::new(), JoinSet::new());
        for link in dialled.into_iter().chain(accepted) {
            // A stream ends with its connection; the sender's error or a timeout reports that to the bench.
            tasks.spawn(read_data(link.data_in, link.peer, Arc::clone(&shared)));
            tasks.spawn(read_counts(link.counts_in, link.peer, Arc::clone(&shared)));
            tasks.spawn(write_counts(link.counts_out, link.peer, Arc::clone(&shared)));
            peers.push((link.connection, link.data_out));
        }
        Ok(Self { peers, _tasks: tasks })
    }

    /// Writes the same bytes to all.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Report> {
        for (_, stream) in &mut self.peers {
            stream.write_chunk(bytes.clone()).await.into_diagnostic()?;
        }
        Ok(())
    }

    /// Number of sent UDP datagrams.
    pub(super) fn datagrams_sent(&self) -> u64 {
        self.peers.iter().map(|(connection, _)| connection.stats().udp_tx.datagrams).sum()
    }
}

fn closed() -> Report {
    failure("the endpoint was closed", "run it again")
}

async fn open(connection: &Connection, me: usize) -> Result<(SendStream, SendStream), Report> {
    let [low, high] = (me as u16).to_le_bytes();
    let mut data = connection.open_uni().await.into_diagnostic()?;
    data.write_all(&[DATA, low, high]).await.into_diagnostic()?;
    let mut counts = connection.open_uni().await.into_diagnostic()?;
    counts.write_all(&[COUNTS, low, high]).await.into_diagnostic()?;
    counts.set_priority(1).into_diagnostic()?;
    Ok((data, counts))
}

async fn accept(connection: &Connection) -> Result<(usize, RecvStream, RecvStream), Report> {
    let (peer, is_data, first) = accept_one(connection).await?;
    let (_, _, second) = accept_one(connection).await?;
    Ok(if is_data { (peer, first, second) } else { (peer, second, first) })
}

async fn accept_one(connection: &Connection) -> Result<(usize, bool, RecvStream), Report> {
    let mut stream = connection.accept_uni().await.into_diagnostic()?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.into_diagnostic()?;
    let [kind, low, high] = header;
    Ok((usize::from(u16::from_le_bytes([low, high])), kind == DATA, stream))
}

async fn read_data(mut stream: RecvStream, from: usize, shared: Arc<Shared>) {
    let mut pieces = vec![Bytes::new(); PIECES_MAX];
    let (mut decoder, mut runs) = (Decoder::default(), Vec::new());
    while let Ok(Some(count)) = stream.read_chunks(&mut pieces).await {
        pieces[..count].iter().for_each(|piece| decoder.feed(piece, &mut runs));
        shared.arrived(from, &mut runs);
    }
}

async fn read_counts(mut stream: RecvStream, from: usize, shared: Arc<Shared>) {
    let mut counts = [0; COUNTS_BYTES];
    while stream.read_exact(&mut counts).await.is_ok() {
        let both = u128::from_le_bytes(counts);
        shared.reported(from, both as u64, (both >> 64) as u64);
    }
}

/// Sends the newest counts to a peer whenever they change; those in between are left out.
async fn write_counts(mut stream: SendStream, to: usize, shared: Arc<Shared>) {
    let mut told = (0, 0);
    loop {
        shared.news[to].notified().await;
        let (received, approved) = shared.report_to(to);
        if (received, approved) == told {
            continue;
        }
        told = (received, approved);
        let counts = u128::from(received) | u128::from(approved) << 64;
        if stream.write_all(&counts.to_le_bytes()).await.is_err() {
            return;
        }
    }
}
