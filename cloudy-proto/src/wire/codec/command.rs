//! The control log's entries, opaque to the consensus library: one postcard value each.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;

use super::{
    AdvertisedError, BoundError, COMMAND_BYTES_MAX, NotOne, addresses, advertised_len, advertised_text, append,
    at_most_len, check_round, counter, decode_exact,
};
use crate::command::{Command, InstallView};
use crate::config::{Parameters, ParametersError};
use crate::id::NodeId;
use crate::limits::{MEMBERS_MAX, REPORT_BYTES_MAX};
use crate::view::RingMember;

/// A log entry that no correct coordinator proposes; nothing of it was accepted. The log cannot be applied further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Its bytes do not decode to a command.
    #[error("a log entry that does not decode: {0}")]
    Malformed(postcard::Error),
    /// Bytes follow the command.
    #[error("a log entry with {0} bytes after its end")]
    Trailing(usize),
    /// A value is above its maximum.
    #[error(transparent)]
    Bound(#[from] BoundError),
    /// A ring has an advertised name that cannot be `HOST:PORT`.
    #[error(transparent)]
    Advertised(#[from] AdvertisedError),
    /// A ring names a node more than once.
    #[error("a ring that names node {0} twice")]
    NodeTwice(NodeId),
    /// The consensus library's part of an entry that changes the voters does not decode.
    #[error("a change of the voters that does not decode")]
    Change,
    /// The group has a feature level that this program does not support.
    #[error("the group has feature level {level}, and this program supports levels up to {supported}")]
    Level {
        /// The level of the group.
        level: u16,
        /// The highest level that this program supports.
        supported: u16,
    },
    /// A view's parameters or a session's periods are not valid.
    #[error("a view's parameters or a session's periods: {0}")]
    Parameters(#[from] ParametersError),
}

/// Encodes a command as an entry of the control log.
#[must_use]
pub fn encode_command(command: &Command) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    append(command, &mut out);
    out.freeze()
}

/// Decodes a command from an entry of the control log.
///
/// # Errors
/// The first fault; the length is checked before anything else.
pub fn decode_command(entry: &[u8]) -> Result<Command, CommandError> {
    at_most_len("a log entry's bytes", entry.len(), COMMAND_BYTES_MAX)?;
    let command = decode(entry)?;
    match &command {
        Command::InstallView(install) => check_install(install)?,
        Command::Kickstart(plan) | Command::Session(plan) => plan.validate()?,
        Command::Report { result, report, node: _ } => {
            counter("index", result.index.0)?;
            at_most_len("a report's bytes", report.len(), REPORT_BYTES_MAX)?;
        }
        Command::Voter { id, .. } => counter("consensus id", id.0)?,
        Command::Left { incarnation, node: _ } => counter("incarnation", incarnation.0)?,
        Command::Created { .. } | Command::Incarnate { .. } | Command::Grace | Command::Close => {}
        Command::Level { .. } => {}
        #[cfg(feature = "next-version")]
        Command::Next => {}
    }
    Ok(command)
}

pub(super) fn decode<T: DeserializeOwned>(encoded: &[u8]) -> Result<T, CommandError> {
    decode_exact(encoded).map_err(|error| match error {
        NotOne::Malformed(error) => CommandError::Malformed(error),
        NotOne::Trailing(bytes) => CommandError::Trailing(bytes),
    })
}

pub(super) fn check_install(install: &InstallView) -> Result<(), CommandError> {
    counter("view", install.from.0)?;
    at_most_len("lanes", install.cut.len(), MEMBERS_MAX)?;
    at_most_len("dropped members", install.dropped.len(), MEMBERS_MAX)?;
    install.cut.iter().try_for_each(|cut| check_round(cut.0))?;
    check_ring(&install.ring, &install.parameters)
}

pub(super) fn check_ring(ring: &[RingMember], parameters: &Parameters) -> Result<(), CommandError> {
    at_most_len("members", ring.len(), MEMBERS_MAX)?;
    let mut nodes = BTreeSet::new();
    for member in ring {
        counter("incarnation", member.incarnation.0)?;
        addresses(member.addresses.len())?;
        advertised_len(member.advertised.as_ref())?;
        advertised_text(member.advertised.as_ref())?;
        if !nodes.insert(member.node) {
            return Err(CommandError::NodeTwice(member.node));
        }
    }
    Ok(parameters.validate()?)
}
