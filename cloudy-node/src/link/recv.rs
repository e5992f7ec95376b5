//! Reads the streams that a peer opens: header, admission, then frames.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::limits::ADDRESSES_MAX;
use cloudy_proto::wire::{
    ControlDecoder, FrameError, HeaderDecoder, HeaderError, LaneDecoder, NodeDecoder, NodeFrame, Stream, StreamHeader,
    TallyDecoder, WIRE_VERSION,
};
use cloudy_proto::{Admission, Frame, NodeId};
use quinn::{Connection, ConnectionError, RecvStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Level;

use crate::endpoint::canonical;
use crate::health::Health;
use crate::link::LinkMail;
use crate::link::held::{CONTROL_FRAMES_MAX, Held, HeldStream, TooMuch};
use crate::link::send::close_words;
use crate::link_error::{LinkFailure, Words, code};
use crate::repeats::{Repeats, Source};
use crate::versions::wire_versions;

/// The log text for a peer whose streams cannot be read.
const UNREADABLE: &str = "link closed: the peer sends malformed data";
/// Maximum bytes of one read.
const READ_BYTES_MAX: usize = 256 << 10;
/// Maximum frames that are passed on together: the bound for one stream in a turn of the driver.
const FRAMES_TOGETHER_MAX: usize = 512;
/// Maximum pieces of a stream in one read.
const CHUNKS_TOGETHER_MAX: usize = 64;
/// The time between two reports of bytes of a large frame.
const ARRIVING_EVERY: Duration = Duration::from_millis(25);
/// The time for the frames that arrived before a connection was closed to reach the driver. The peer waits as long for
/// their arrival ([`WRITERS_LINGER`](super::WRITERS_LINGER)).
const READ_OUT_MAX: Duration = Duration::from_millis(500);
/// The timeout for a stream's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason for which a stream cannot be read further; the link is closed with this text.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a stream without a header")]
    NoHeader,
    #[error("a second node stream, or one that does not begin with hello")]
    NotHello,
    #[error("a stream that this peer may not open")]
    Refused,
    #[error("a second stream of a lane or tally that is open")]
    Second,
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// The connection or the stream was closed, which is no fault.
    #[error("the stream ended")]
    Ended,
}

impl From<quinn::ReadError> for ReadError {
    fn from(_: quinn::ReadError) -> Self {
        Self::Ended
    }
}

/// The peer's hello, with its stream.
pub(super) struct Hello {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) advertised: Option<String>,
    pub(super) process: u64,
    /// The highest wire version that both nodes speak.
    pub(super) version: u16,
    pub(super) stream: NodeStream,
}

/// The peer's node stream, read up to its hello.
pub(super) struct NodeStream {
    stream: RecvStream,
    decoder: NodeDecoder,
    rest: Bytes,
}

/// Waits for the peer's hello.
pub(super) async fn read_hello(connection: &Connection) -> Result<Hello, LinkFailure> {
    match find_hello(connection).await {
        Ok(hello) => Ok(hello),
        Err(error) => match (connection.close_reason(), error) {
            (Some(reason), _) => Err(reason.into()),
            (None, ReadError::Ended) => Err(LinkFailure::from(connection.closed().await)),
            (None, ReadError::Header(error @ HeaderError::Version { .. })) => {
                let words = error.to_string();
                connection.close(code::OTHER_VERSION.into(), close_words(&words));
                Err(LinkFailure::OtherWireVersion { detail: Words::new(words.as_bytes()) })
            }
            (None, error) => {
                let words = error.to_string();
                connection.close(code::BREACH.into(), close_words(&words));
                Err(LinkFailure::Transport { detail: Words::new(words.as_bytes()) })
            }
        },
    }
}

/// A node opens its node stream first, and streams are accepted in the order in which they were opened.
async fn find_hello(connection: &Connection) -> Result<Hello, ReadError> {
    let mut stream = connection.accept_uni().await.map_err(|_| ReadError::Ended)?;
    let (header, mut rest) = read_header(&mut stream).await?;
    if header.stream != Stream::Node {
        return Err(ReadError::NotHello);
    }
    // The header was accepted, so there is one.
    let version = wire_versions().common(header.versions).unwrap_or(WIRE_VERSION);
    let mut decoder = NodeDecoder::default();
    loop {
        let mut view: &[u8] = &rest;
        let frame = decoder.feed(&mut view)?;
        rest = rest.slice(rest.len() - view.len()..);
        match frame {
            Some(NodeFrame::Hello { addresses, process, advertised }) => {
                let stream = NodeStream { stream, decoder, rest };
                return Ok(Hello { addresses, process, advertised, version, stream });
            }
            Some(_) => return Err(ReadError::NotHello),
            None => rest = read_chunk(&mut stream).await?.ok_or(ReadError::NotHello)?,
        }
    }
}

/// The addresses of a peer: its source address first, because one socket dials and listens, then those in its hello.
pub(super) fn reachable_at(heard_from: SocketAddr, said: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = vec![heard_from];
    for mut address in said.into_iter().map(canonical) {
        if address.ip().is_unspecified() {
            address.set_ip(heard_from.ip());
        }
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    addresses
}

async fn read_chunk(stream: &mut RecvStream) -> Result<Option<Bytes>, ReadError> {
    Ok(stream.read_chunk(READ_BYTES_MAX, true).await?.map(|chunk| chunk.bytes))
}

/// Reads a stream's header, and the first bytes of its frames that arrived with it.
async fn read_header(stream: &mut RecvStream) -> Result<(StreamHeader, Bytes), ReadError> {
    let read = async {
        let mut decoder = HeaderDecoder::new(wire_versions());
        loop {
            let chunk = read_chunk(stream).await?.ok_or(ReadError::NoHeader)?;
            let mut view: &[u8] = &chunk;
            if let Some(header) = decoder.feed(&mut view)? {
                return Ok((header, chunk.slice(chunk.len() - view.len()..)));
            }
        }
    };
    tokio::time::timeout(HEADER_TIMEOUT, read).await.unwrap_or(Err(ReadError::NoHeader))
}

/// Reads everything that a peer sends on one connection.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) peer: NodeId,
    /// The wire version of the link.
    pub(super) version: u16,
    pub(super) link: u64,
    pub(super) connection: Connection,
    pub(super) mail: mpsc::Sender<LinkMail>,
    pub(super) repeats: Repeats,
    pub(super) held: Held,
    pub(super) health: Health,
}

/// A decoder for the kind of stream.
enum Decoder {
    Lane(LaneDecoder),
    Tally(TallyDecoder),
    Control(ControlDecoder),
}

impl Decoder {
    fn feed(&mut self, view: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        Ok(match self {
            Self::Lane(decoder) => decoder.feed(view)?.map(Frame::Lane),
            Self::Tally(decoder) => decoder.feed(view)?.map(Frame::Tally),
            Self::Control(decoder) => decoder.feed(view)?.map(Frame::Control),
        })
    }
}

impl Reader {
    /// Reads until the connection is closed and the driver has all frames that arrived before, within
    /// [`READ_OUT_MAX`], and returns the reason.
    pub(super) async fn run(&self, node: NodeStream) -> LinkFailure {
        let (reading, mut all_read) = mpsc::channel::<Infallible>(1);
        self.read_in_task("node stream reader", reading.clone(), |reader| reader.read_node(node));
        let ended = loop {
            match self.connection.accept_uni().await {
                Ok(stream) => {
                    self.read_in_task("stream reader", reading.clone(), |reader| reader.read_stream(stream));
                }
                Err(error) => break error,
            }
        };
        drop(reading);
        if ended != ConnectionError::LocallyClosed {
            // A stream whose view is not installed here may wait for longer.
            let _ = tokio::time::timeout(READ_OUT_MAX, all_read.recv()).await;
        }
        ended.into()
    }

    /// Reads one stream in a separate task, which holds `reading` until it ends.
    fn read_in_task<F>(&self, part: &'static str, reading: mpsc::Sender<Infallible>, read: impl FnOnce(Self) -> F)
    where
        F: Future<Output = Result<(), ReadError>> + Send + 'static,
    {
        let reader = self.clone();
        let read = read(self.clone());
        self.health.spawn(part, async move {
            reader.close_on(read.await);
            drop(reading);
        });
    }

    fn close_on(&self, read: Result<(), ReadError>) {
        match read {
            Ok(()) | Err(ReadError::Ended) => {}
            Err(error) => {
                let words = error.to_string();
                let text = format_args!("{UNREADABLE}: {}", Words::new(words.as_bytes()));
                self.repeats.say(Level::WARN, UNREADABLE, Source::Node(self.peer), text);
                self.connection.close(code::BREACH.into(), close_words(&words));
            }
        }
    }

    async fn read_node(self, node: NodeStream) -> Result<(), ReadError> {
        let NodeStream { mut stream, mut decoder, mut rest } = node;
        let mut held = self.held.stream();
        loop {
            let mut view: &[u8] = &rest;
            while let Some(frame) = decoder.feed(&mut view)? {
                let taken = held.finished_control(0, 1).await;
                let mail = LinkMail::Node { peer: self.peer, link: self.link, frame, taken };
                self.mail.send(mail).await.map_err(|_| ReadError::Ended)?;
            }
            let Some(chunk) = read_chunk(&mut stream).await? else { return Ok(()) };
            rest = chunk;
        }
    }

    async fn read_stream(self, mut stream: RecvStream) -> Result<(), ReadError> {
        let (header, first) = read_header(&mut stream).await?;
        let mut held = self.held.stream();
        held.arrived(first.len())?;
        let decoder = match header.stream {
            Stream::Node => return Err(ReadError::NotHello),
            Stream::Control | Stream::Result => Decoder::Control(ControlDecoder::default()),
            Stream::Tally { .. } => Decoder::Tally(TallyDecoder::of_version(self.version)),
            Stream::Lane { .. } => Decoder::Lane(LaneDecoder::default()),
        };
        if !held.is_single(&header) {
            return Err(ReadError::Second);
        }
        match self.ask(&header).await? {
            Admission::Read => {}
            Admission::Stop | Admission::Wait => {
                // The peer may have closed the stream already.
                let _ = stream.stop(0u32.into());
                return Ok(());
            }
            Admission::Refuse => return Err(ReadError::Refused),
        }
        if matches!(header.stream, Stream::Lane { .. }) {
            held.is_lane();
        }
        let frames = Frames::of(decoder);
        self.read_frames(&header, stream, first, (frames, held)).await
    }

    async fn read_frames(
        &self,
        header: &StreamHeader,
        mut stream: RecvStream,
        first: Bytes,
        (mut frames, mut held): (Frames, HeldStream),
    ) -> Result<(), ReadError> {
        // One chunk for each packet: all received chunks are read, decoded and passed on together.
        let mut chunks: [Bytes; CHUNKS_TOGETHER_MAX] = core::array::from_fn(|_| Bytes::new());
        chunks[0] = first;
        let mut filled = 1;
        loop {
            for chunk in &mut chunks[..filled] {
                let chunk = std::mem::take(chunk);
                let mut view: &[u8] = &chunk;
                while frames.feed(&mut view)? {
                    if frames.are_many() {
                        self.hand_over(header, &mut frames, &mut held).await?;
                    }
                }
            }
            self.hand_over(header, &mut frames, &mut held).await?;
            if let Some(bytes) = frames.arriving() {
                let mail = LinkMail::Arriving { peer: self.peer, link: self.link, header: header.clone(), bytes };
                self.mail.send(mail).await.map_err(|_| ReadError::Ended)?;
            }
            match read_on(&mut stream, &mut chunks, &held).await? {
                Some(read) => filled = read,
                None => return Ok(()),
            }
            held.arrived(chunks[..filled].iter().map(Bytes::len).sum())?;
        }
    }

    /// Requests the driver's admission of a stream; the answer comes once the stream's view is installed.
    async fn ask(&self, header: &StreamHeader) -> Result<Admission, ReadError> {
        let (reply, answer) = oneshot::channel();
        let mail = LinkMail::Opened { peer: self.peer, link: self.link, header: header.clone(), reply };
        self.mail.send(mail).await.map_err(|_| ReadError::Ended)?;
        answer.await.map_err(|_| ReadError::Ended)
    }

    async fn hand_over(
        &self,
        header: &StreamHeader,
        frames: &mut Frames,
        held: &mut HeldStream,
    ) -> Result<(), ReadError> {
        if frames.decoded.is_empty() {
            return Ok(());
        }
        let (decoded, bytes) = (std::mem::take(&mut frames.decoded), std::mem::take(&mut frames.bytes));
        let taken = match header.stream {
            Stream::Control | Stream::Result => held.finished_control(bytes, decoded.len()).await,
            _ => held.finished(bytes, decoded.len()),
        };
        let mail =
            LinkMail::Frames { peer: self.peer, link: self.link, header: header.clone(), frames: decoded, taken };
        self.mail.send(mail).await.map_err(|_| ReadError::Ended)
    }
}

/// The decoded frames of one stream.
struct Frames {
    decoder: Decoder,
    decoded: Vec<Frame>,
    /// Their size on the wire.
    bytes: usize,
    /// Received bytes of the next frame.
    unfinished: usize,
    /// The reported part of these bytes, with the time of the report.
    reported: (usize, Instant),
}

impl Frames {
    fn of(decoder: Decoder) -> Self {
        Self { decoder, decoded: Vec::new(), bytes: 0, unfinished: 0, reported: (0, Instant::now()) }
    }

    /// The bytes of a lane's unfinished frame that arrived after the last report.
    fn arriving(&mut self) -> Option<u64> {
        let (before, at) = self.reported;
        let is_due = matches!(self.decoder, Decoder::Lane(_)) && self.unfinished > before;
        if !is_due || at.elapsed() < ARRIVING_EVERY {
            return None;
        }
        self.reported = (self.unfinished, Instant::now());
        Some((self.unfinished - before) as u64)
    }

    /// Decodes one frame; false once the view is empty.
    fn feed(&mut self, view: &mut &[u8]) -> Result<bool, FrameError> {
        let before = view.len();
        let frame = self.decoder.feed(view)?;
        self.unfinished += before - view.len();
        let Some(frame) = frame else { return Ok(false) };
        self.decoded.push(frame);
        self.bytes += std::mem::take(&mut self.unfinished);
        self.reported.0 = 0;
        Ok(true)
    }

    /// Whether the maximum for one turn is reached.
    fn are_many(&self) -> bool {
        let max = if matches!(self.decoder, Decoder::Control(_)) { CONTROL_FRAMES_MAX } else { FRAMES_TOGETHER_MAX };
        self.decoded.len() == max
    }
}

/// Reads the received bytes, while the connection holds less than its bound.
async fn read_on(
    stream: &mut RecvStream,
    chunks: &mut [Bytes],
    held: &HeldStream,
) -> Result<Option<usize>, quinn::ReadError> {
    loop {
        held.has_capacity().await;
        tokio::select! {
            biased;
            () = held.is_full() => {}
            read = stream.read_chunks(chunks) => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_reached_at_its_first_address_and_a_bounded_number_of_others() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let heard_from = address("192.0.2.7:4433");
        let said = ["0.0.0.0:4433", "0.0.0.0:4434", "[::]:4433", "198.51.100.1:9", "192.0.2.7:4433"].map(address);
        let expected = ["192.0.2.7:4433", "192.0.2.7:4434", "198.51.100.1:9"].map(address);
        assert_eq!(reachable_at(heard_from, said.to_vec()), expected);
        let mapped = ["[::ffff:0.0.0.0]:4433", "[::ffff:192.0.2.7]:4434", "[::ffff:198.51.100.1]:9"].map(address);
        assert_eq!(reachable_at(heard_from, mapped.to_vec()), expected, "IPv4 as an IPv6 socket shows it");
        let many = (1..=100).map(|port| SocketAddr::from(([198, 51, 100, 1], port))).collect();
        assert_eq!(reachable_at(heard_from, many).len(), ADDRESSES_MAX);
    }
}
