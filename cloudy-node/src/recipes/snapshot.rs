//! The form in which the states of recipes are kept: [postcard](https://postcard.jamesmunns.com/wire-format), in memory at
//! once.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) fn write(state: &impl Serialize, to: &mut dyn Write) -> io::Result<()> {
    to.write_all(&postcard::to_stdvec(state).map_err(io::Error::other)?)
}

/// Reads a state that [`write`] wrote.
pub(super) fn read<S: DeserializeOwned>(from: &mut dyn Read) -> io::Result<S> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}
