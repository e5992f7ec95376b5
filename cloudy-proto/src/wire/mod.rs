//! The messages between nodes, and their encodings.

mod codec;
mod consensus;
mod frame;
mod name_report;
mod tally;
mod versions;

pub use codec::{
    BoundError, COMMAND_BYTES_MAX, COUNTER_MAX, CommandError, ControlDecoder, DURATION_MAX, FrameError, HeaderDecoder,
    HeaderError, LaneDecoder, NODE_FRAME_BYTES_MAX, NodeDecoder, TallyDecoder, decode_command, encode_command,
    encode_control, encode_header, encode_lane, encode_node, encode_tally, encode_tally_in,
};
pub(crate) use codec::{decode_base, decode_log_state, encode_base, encode_log_state};
pub use consensus::{ConsensusEntry, ConsensusKind, ConsensusMessage};
pub use frame::{
    AHEAD_UNKNOWN, ControlFrame, Fetch, Fetched, Findings, HeldPart, LaneFrame, NodeFrame, Rates, Refusal, Stall,
    Stream, StreamHeader, Wedged,
};
pub use name_report::{NameReport, NamedGroup, Opening, ReportedSeed};
pub use tally::{Heartbeat, KnownSkip, TallyFrame};
#[cfg(feature = "next-version")]
pub use versions::NEXT_VERSION;
pub use versions::{WIRE_VERSION, WireVersions};
