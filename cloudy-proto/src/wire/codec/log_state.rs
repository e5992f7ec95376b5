//! The encoded state of the control log after an entry, opaque to the consensus library like its entries.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use super::command::{check_install, decode};
use super::{CommandError, append, at_most_len, counter};
use crate::command::LogState;
use crate::limits::{LOG_STATE_BYTES_MAX, REPORT_BYTES_MAX};

/// Encodes a state. A log's memory is bounded, so the encoding never exceeds the maximum that nodes accept.
pub(crate) fn encode_log_state(state: &LogState) -> Bytes {
    let mut out = BytesMut::with_capacity(1 << 10);
    append(state, &mut out);
    debug_assert!(out.len() <= LOG_STATE_BYTES_MAX, "{} bytes", out.len());
    out.freeze()
}

/// Decodes a state.
///
/// # Errors
/// The first fault; the length is checked before anything else.
pub(crate) fn decode_log_state(encoded: &[u8]) -> Result<LogState, CommandError> {
    at_most_len("a log state's bytes", encoded.len(), LOG_STATE_BYTES_MAX)?;
    let state: LogState = decode(encoded)?;
    if let Some(install) = &state.installed {
        check_install(install)?;
    }
    for plan in state.session.iter().chain(&state.kickstarted) {
        plan.validate()?;
    }
    let mut nodes = BTreeSet::new();
    for (node, incarnation, _) in &state.incarnations {
        counter("incarnation", incarnation.0)?;
        if !nodes.insert(*node) {
            return Err(CommandError::NodeTwice(*node));
        }
    }
    let mut electors = BTreeSet::new();
    for (id, node, _) in &state.electors {
        counter("consensus id", id.0)?;
        if id.0 == 0 || !electors.insert(*id) {
            return Err(CommandError::NodeTwice(*node));
        }
    }
    at_most_len("reports", state.reports.len(), state.members_ever.len())?;
    for (_, result, report) in &state.reports {
        counter("index", result.index.0)?;
        at_most_len("a report's bytes", report.len(), REPORT_BYTES_MAX)?;
    }
    state.streams.iter().try_for_each(|(_, incarnation, _)| counter("incarnation", incarnation.0))?;
    Ok(state)
}
