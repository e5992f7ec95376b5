//! Tally, control and node frames: a length and one postcard value.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::command::check_ring;
use super::{
    Body, BoundError, COMMAND_BYTES_MAX, DURATION_MAX, FrameError, NODE_FRAME_BYTES_MAX, addresses, advertised_len,
    advertised_text, append, at_most, at_most_len, check_round, counter, decode_exact, fill,
};
use crate::digest::ResultBase;
use crate::limits::{
    CERTIFICATE_BYTES_MAX, CONSENSUS_MESSAGE_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, FETCH_PART_BYTES,
    GROUP_NAME_BYTES_MAX, LOG_ENTRIES_PER_FRAME_MAX, LOG_STATE_BYTES_MAX, MEMBERS_MAX, REASON_BYTES_MAX,
    REPORT_BYTES_MAX, REVOKED_PER_FRAME_MAX, RUNS_MAX, SLOT_BODY_BYTES_MAX, SNAPSHOT_BASE_BYTES_MAX,
    SNAPSHOT_TRANSFER_BYTES_MAX, TALLY_FRAME_BYTES_MAX,
};
use crate::slot::check_body;
use crate::view::InstalledView;
use crate::wire::{
    ConsensusKind, ConsensusMessage, ControlFrame, Fetch, Fetched, Findings, HeldPart, NameReport, NodeFrame, Stall,
    TallyFrame, WIRE_VERSION, Wedged,
};
use crate::words::harmless;

/// Maximum of findings of a member against the others, and against itself.
const STALLS_MAX: usize = 3 * MEMBERS_MAX + 1;

/// The length before each frame.
const LENGTH_BYTES: usize = 4;

/// A frame on a stream of length-prefixed frames.
trait Message: Serialize + DeserializeOwned {
    /// The kind of stream, as text.
    const STREAM: &'static str;
    /// The maximum length of the encoded frame.
    const BYTES_MAX: usize;

    /// Checks values that would make decoding too costly.
    fn check_encoded(_encoded: &[u8]) -> Result<(), BoundError> {
        Ok(())
    }

    /// Checks the decoded frame against the protocol's limits.
    fn check(&self) -> Result<(), FrameError>;

    /// Replaces harmful characters in text of other nodes.
    fn make_harmless(&mut self) {}

    /// Whether the frame ends with a field that [`WIRE_VERSION`] does not have, in a version of the test build.
    fn has_next_field(&self, _version: u16) -> bool {
        false
    }
}

fn encode<F: Message>(frame: &F, version: u16, out: &mut BytesMut) {
    let start = out.len();
    out.put_u32_le(0);
    append(frame, out);
    if frame.has_next_field(version) {
        append(&version, out);
    }
    let length = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

#[derive(Debug)]
struct MessageDecoder {
    version: u16,
    length: [u8; LENGTH_BYTES],
    filled: usize,
    body: Body,
}

impl Default for MessageDecoder {
    fn default() -> Self {
        Self { version: WIRE_VERSION, length: [0; LENGTH_BYTES], filled: 0, body: Body::default() }
    }
}

impl MessageDecoder {
    fn feed<F: Message>(&mut self, chunk: &mut &[u8]) -> Result<Option<F>, FrameError> {
        if self.filled < LENGTH_BYTES {
            if !fill(&mut self.length, &mut self.filled, chunk) {
                return Ok(None);
            }
            let length = u32::from_le_bytes(self.length);
            if length as usize > F::BYTES_MAX {
                let (stream, bytes, max) = (F::STREAM, u64::from(length), F::BYTES_MAX as u64);
                return Err(FrameError::TooLong { stream, bytes, max });
            }
            self.body.expect(length as usize);
        }
        if !self.body.fill(chunk) {
            return Ok(None);
        }
        self.filled = 0;
        F::check_encoded(&self.body.bytes)?;
        let malformed = |error| FrameError::Malformed { stream: F::STREAM, error };
        let (mut frame, mut rest) = postcard::take_from_bytes::<F>(&self.body.bytes).map_err(malformed)?;
        if frame.has_next_field(self.version) {
            rest = postcard::take_from_bytes::<u16>(rest).map_err(malformed)?.1;
        }
        if !rest.is_empty() {
            return Err(FrameError::Trailing { stream: F::STREAM, bytes: rest.len() });
        }
        self.body.shrink();
        frame.check()?;
        frame.make_harmless();
        Ok(Some(frame))
    }
}

macro_rules! message_stream {
    ($words:literal, $frame:ident, $encode:ident, $decoder:ident) => {
        #[doc = concat!("Appends a ", $words, " frame.")]
        pub fn $encode(frame: &$frame, out: &mut BytesMut) {
            encode(frame, WIRE_VERSION, out);
        }

        #[doc = concat!("Reads the frames of one ", $words, " stream, after its header.")]
        #[derive(Debug, Default)]
        pub struct $decoder(MessageDecoder);

        impl $decoder {
            /// Takes bytes from the front of `chunk` until one frame is complete or the chunk is empty; the caller
            /// repeats it until it returns none.
            ///
            /// # Errors
            /// A length out of bounds is reported before memory is reserved for the frame. Nothing more of the stream
            /// can be read.
            pub fn feed(&mut self, chunk: &mut &[u8]) -> Result<Option<$frame>, FrameError> {
                self.0.feed(chunk)
            }

            /// Bytes that are reserved for a frame.
            #[cfg(test)]
            pub(super) fn reserved_bytes(&self) -> usize {
                self.0.body.bytes.capacity()
            }
        }
    };
}

message_stream!("tally", TallyFrame, encode_tally, TallyDecoder);
message_stream!("control", ControlFrame, encode_control, ControlDecoder);
message_stream!("node", NodeFrame, encode_node, NodeDecoder);

/// Appends a tally frame in the version of a link.
pub fn encode_tally_in(version: u16, frame: &TallyFrame, out: &mut BytesMut) {
    encode(frame, version, out);
}

impl TallyDecoder {
    /// A decoder for a link of this version.
    #[must_use]
    pub fn of_version(version: u16) -> Self {
        Self(MessageDecoder { version, ..MessageDecoder::default() })
    }
}

impl Message for TallyFrame {
    const STREAM: &'static str = "tally";
    const BYTES_MAX: usize = TALLY_FRAME_BYTES_MAX;

    fn has_next_field(&self, version: u16) -> bool {
        cfg!(feature = "next-version") && version > WIRE_VERSION && matches!(self, Self::Heartbeat(_))
    }

    fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Resume { frontiers } => {
                at_most_len("lanes", frontiers.len(), MEMBERS_MAX)?;
                for (rank, frontier) in frontiers {
                    at_most_len("rank", rank.at(), MEMBERS_MAX - 1)?;
                    check_round(frontier.0)?;
                }
            }
            Self::Confirm { frontier } | Self::Approved { frontier } => check_round(frontier.0)?,
            // Counts of bytes, which are only compared.
            Self::Moved { taken: _, everywhere: _ } => {}
            Self::Heartbeat(heartbeat) => {
                counter("index", heartbeat.index.0)?;
                counter("checkpoint", heartbeat.checkpoint.index.0)?;
                counter("checkpoint", heartbeat.begins.index.0)?;
            }
            Self::Skips { lanes } => {
                at_most_len("lanes", lanes.len(), MEMBERS_MAX)?;
                for skip in lanes {
                    at_most_len("rank", skip.lane.at(), MEMBERS_MAX - 1)?;
                    check_round(skip.frontier.0)?;
                    if skip.prev > skip.frontier {
                        return Err(FrameError::Order { prev: skip.prev.0, round: skip.frontier.0 });
                    }
                }
            }
        }
        Ok(())
    }
}

impl Message for NodeFrame {
    const STREAM: &'static str = "node";
    const BYTES_MAX: usize = NODE_FRAME_BYTES_MAX;

    fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Hello { addresses: named, advertised, process: _ } => {
                addresses(named.len())?;
                advertised_len(advertised.as_ref())?;
                advertised_text(advertised.as_ref())?;
            }
            Self::Join { name } | Self::Observe { name } => group_name(name)?,
            Self::Refused { name, reason: words, refusal: _ } => {
                group_name(name)?;
                reason(words)?;
            }
            Self::Revoked { nodes, .. } => at_most_len("revoked nodes", nodes.len(), REVOKED_PER_FRAME_MAX)?,
            Self::Certificate(certificate) => {
                at_most_len("a certificate's bytes", certificate.len(), CERTIFICATE_BYTES_MAX)?;
            }
            Self::Named(report) => check_name_report(report)?,
            Self::SameIdentity { .. } | Self::Present | Self::Located { .. } => {}
        }
        Ok(())
    }

    fn make_harmless(&mut self) {
        if let Self::Refused { reason, .. } = self {
            *reason = harmless(reason.as_bytes());
        }
    }
}

/// The positions of [`ControlFrame::Log`] and [`ControlFrame::Wedged`] among the variants.
const LOG: u32 = 4;
const WEDGED: u32 = 7;
/// [`ControlFrame::Suspect`] likewise, with the maximum length of findings on all members.
const SUSPECT: u32 = 12;
const SUSPECT_BYTES_MAX: usize = 8 << 10;
/// [`ControlFrame::Consensus`] likewise.
const CONSENSUS: u32 = 15;
/// [`ControlFrame::Refer`] likewise, with its maximum length.
const REFER: u32 = 20;
const REFER_BYTES_MAX: usize = 1 << 10;

impl Message for ControlFrame {
    const STREAM: &'static str = "control";
    const BYTES_MAX: usize = CONTROL_FRAME_BYTES_MAX;

    /// Checks the length of a list before the list is made: a list of empty entries or of small rounds takes many times
    /// the memory of its encoding, and a control frame may be long.
    fn check_encoded(encoded: &[u8]) -> Result<(), BoundError> {
        match postcard::take_from_bytes::<u32>(encoded) {
            Ok((LOG, rest)) => {
                let Ok(((_first, entries), _)) = postcard::take_from_bytes::<(u64, usize)>(rest) else { return Ok(()) };
                at_most_len("log entries", entries, LOG_ENTRIES_PER_FRAME_MAX)
            }
            Ok((SUSPECT | WEDGED, _)) if encoded.len() > SUSPECT_BYTES_MAX => {
                at_most_len("a frame with findings, bytes", encoded.len(), SUSPECT_BYTES_MAX)
            }
            Ok((REFER, _)) => at_most_len("a referral, bytes", encoded.len(), REFER_BYTES_MAX),
            Ok((CONSENSUS, rest)) => {
                let kind = postcard::take_from_bytes::<ConsensusKind>(rest).ok().map(|(kind, _)| kind);
                let state = if kind == Some(ConsensusKind::Snapshot) { LOG_STATE_BYTES_MAX } else { 0 };
                at_most_len("a consensus message, bytes", encoded.len(), CONSENSUS_MESSAGE_BYTES_MAX + state)
            }
            Ok((WEDGED, rest)) => {
                let Ok(((_view, _incarnation, lanes), _)) = postcard::take_from_bytes::<(u64, u64, usize)>(rest) else {
                    return Ok(());
                };
                at_most_len("lanes", lanes, MEMBERS_MAX)
            }
            _ => Ok(()),
        }
    }

    fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Invite { name, durability: _ } => group_name(name)?,
            Self::Refuse { reason: words, refusal: _ } => reason(words)?,
            Self::Follow { next, voter, level: _ } => {
                counter("log position", next.0)?;
                counter("consensus id", voter.0)?;
            }
            Self::Log { first, entries, term } => {
                counter("log position", first.0)?;
                counter("term", *term)?;
                for entry in entries {
                    at_most_len("a log entry's bytes", entry.len(), COMMAND_BYTES_MAX)?;
                }
            }
            Self::Ready { view } | Self::Wedge { view, .. } | Self::Wedging { view } => counter("view", view.0)?,
            Self::Wedged(wedged) => check_wedged(wedged)?,
            Self::Fetch(fetch) => check_fetch(fetch)?,
            Self::Fetched(fetched) => check_fetched(fetched)?,
            Self::Final { result, report } => {
                counter("index", result.index.0)?;
                at_most_len("a report's bytes", report.len(), REPORT_BYTES_MAX)?;
            }
            Self::Suspect { view, findings, wedged: _ } => {
                counter("view", view.0)?;
                check_findings(findings)?;
            }
            Self::Rejoin { view, .. } => counter("view", view.0)?,
            Self::Coordinates { term } => counter("term", *term)?,
            Self::Consensus(message) => check_consensus(message)?,
            Self::Running { name, creator: _, durability: _ } => group_name(name)?,
            Self::Join { result, .. } => counter("index", result.index.0)?,
            Self::Refer { coordinator: _, addresses: named, left } => {
                addresses(named.len())?;
                at_most("what is left of the phase, seconds", left.as_secs(), DURATION_MAX.as_secs())?;
            }
            Self::LogState { index, term, state } => {
                counter("log position", index.0)?;
                counter("term", *term)?;
                at_most_len("a log state's bytes", state.len(), LOG_STATE_BYTES_MAX)?;
            }
            Self::NoCompleteMember { view, missing, lost } => {
                counter("view", view.0)?;
                at_most_len("missing members", missing.len(), MEMBERS_MAX)?;
                at_most_len("members without what they held", lost.len(), MEMBERS_MAX)?;
            }
            Self::Diverged { view, node: _, theirs, ours } => {
                counter("view", view.0)?;
                counter("index", theirs.index.0)?;
                counter("index", ours.index.0)?;
            }
            Self::Accept { .. } | Self::End | Self::Leave { .. } | Self::Resigned | Self::Ended | Self::Absent => {}
            Self::Probe { .. } | Self::Echo { .. } | Self::SlowDown { .. } => {}
        }
        Ok(())
    }

    fn make_harmless(&mut self) {
        if let Self::Refuse { reason, .. } = self {
            *reason = harmless(reason.as_bytes());
        }
    }
}

fn check_wedged(wedged: &Wedged) -> Result<(), BoundError> {
    counter("view", wedged.view.0)?;
    counter("incarnation", wedged.incarnation.0)?;
    counter("index", wedged.first.0)?;
    check_round(wedged.cursor.round.0)?;
    check_findings(&wedged.findings)?;
    wedged.frontiers.iter().try_for_each(|frontier| check_round(frontier.0))
}

fn check_name_report(report: &NameReport) -> Result<(), FrameError> {
    group_name(&report.name)?;
    let Some(opening) = &report.opening else { return Ok(()) };
    at_most_len("nodes that open a group", opening.linked.len(), MEMBERS_MAX)?;
    at_most_len("seeds", opening.seeds.len(), MEMBERS_MAX)?;
    Ok(opening.parameters.validate()?)
}

fn check_findings(findings: &Findings) -> Result<(), BoundError> {
    at_most_len("members found down", findings.down.len(), MEMBERS_MAX)?;
    at_most_len("quiet members", findings.quiet.len(), MEMBERS_MAX)?;
    // Each member may stall in each of three ways, and the reporter in one additional way.
    at_most_len("stalls", findings.stalled.len(), STALLS_MAX)?;
    findings.stalled.iter().try_for_each(|(_, stall)| match stall {
        Stall::Unconfirmed | Stall::Unsynced => Ok(()),
        Stall::Missing(place) | Stall::Unapproved(place) => check_round(place.round.0),
    })
}

fn check_consensus(message: &ConsensusMessage) -> Result<(), BoundError> {
    counter("consensus id", message.to.0)?;
    counter("consensus id", message.from.0)?;
    let positions = [message.index, message.commit, message.reject_hint];
    positions.into_iter().try_for_each(|position| counter("log position", position.0))?;
    let terms = [message.term, message.log_term, message.commit_term];
    terms.into_iter().try_for_each(|term| counter("term", term))?;
    for entry in &message.entries {
        counter("log position", entry.index.0)?;
        counter("term", entry.term)?;
        counter("consensus id", entry.change.map_or(0, |(id, _)| id.0))?;
        at_most_len("a log entry's bytes", entry.command.len(), COMMAND_BYTES_MAX)?;
    }
    at_most_len("a log state's bytes", message.snapshot.len(), LOG_STATE_BYTES_MAX)
}

fn check_fetch(fetch: &Fetch) -> Result<(), BoundError> {
    counter("index", fetch.from.0)?;
    counter("view", fetch.view.0)?;
    counter("view", fetch.before.0)?;
    match fetch.held {
        HeldPart::Nothing => Ok(()),
        HeldPart::Entry { length, offset } => {
            at_most("a slot body's bytes", length, SLOT_BODY_BYTES_MAX as u64)?;
            at_most("a slot body's bytes", offset, length)
        }
        HeldPart::Snapshot { index, digest: _, offset } => {
            counter("index", index.0)?;
            at_most("a snapshot's bytes", offset, SNAPSHOT_TRANSFER_BYTES_MAX)
        }
    }
}

fn check_fetched(fetched: &Fetched) -> Result<(), FrameError> {
    match fetched {
        Fetched::Entry { first_index, view, origin: _, incarnation, first_seq, count, length, offset, part } => {
            counter("index", first_index.0)?;
            counter("view", view.0)?;
            counter("incarnation", incarnation.0)?;
            counter("sequence number", first_seq.0)?;
            at_most("a slot body's bytes", *length, SLOT_BODY_BYTES_MAX as u64)?;
            check_part("a slot body's bytes", (*offset, part.len()), *length)?;
            if part.len() as u64 == *length {
                check_body(part, *count)?;
            }
        }
        Fetched::View(view) => check_view(view)?,
        Fetched::End { index, ahead: _, view, first, digest: _ } => {
            counter("index", first.0)?;
            counter("index", index.0)?;
            counter("view", view.0)?;
        }
        Fetched::Truncated { first } => counter("index", first.0)?,
        Fetched::Snapshot { index, digest: _, base_length, length, offset, part } => {
            counter("index", index.0)?;
            at_most("a snapshot's bytes", *length, SNAPSHOT_TRANSFER_BYTES_MAX)?;
            at_most("a base's bytes", *base_length, (*length).min(SNAPSHOT_BASE_BYTES_MAX as u64))?;
            check_part("a snapshot's bytes", (*offset, part.len()), *length)?;
        }
    }
    Ok(())
}

fn check_view(installed: &InstalledView) -> Result<(), FrameError> {
    counter("index", installed.first.0)?;
    counter("view", installed.view.id.0)?;
    Ok(check_ring(&installed.view.ring, &installed.view.parameters)?)
}

/// Checks the offset of a part, and that it fits into one frame.
fn check_part(what: &'static str, (offset, bytes): (u64, usize), length: u64) -> Result<(), BoundError> {
    at_most_len("a part's bytes", bytes, FETCH_PART_BYTES)?;
    at_most(what, offset.saturating_add(bytes as u64), length)
}

/// Encodes what a snapshot begins with: the base of the result that follows it, and the view in force at its index.
pub(crate) fn encode_base(base: &ResultBase, view: Option<&InstalledView>) -> BytesMut {
    let mut bytes = BytesMut::new();
    append(&(base, view), &mut bytes);
    bytes
}

/// Decodes it; none if the bytes are not a base.
pub(crate) fn decode_base(bytes: &[u8]) -> Option<(ResultBase, Option<InstalledView>)> {
    let (base, view): (ResultBase, Option<InstalledView>) = decode_exact(bytes).ok()?;
    counter("index", base.checkpoint.index.0).ok()?;
    base.view.iter().chain(&view).try_for_each(check_view).ok()?;
    at_most_len("runs", base.last_numbers.len(), RUNS_MAX).ok()?;
    Some((base, view))
}

fn group_name(name: &str) -> Result<(), BoundError> {
    at_most_len("a group name's bytes", name.len(), GROUP_NAME_BYTES_MAX)
}

fn reason(words: &str) -> Result<(), BoundError> {
    at_most_len("a reason's bytes", words.len(), REASON_BYTES_MAX)
}
