//! What the payloads of a replicated state machine hold: one tag byte, then the content.
//!
//! | tag | content | postcard of |
//! |---|---|---|
//! | 0 | a command of the application | `StateMachine::Command` |
//! | 1 | a barrier of linearizable reads | nothing |
//! | 2 | the digest of a snapshot | [`Vote`] |

use cloudy_proto::{Digest, Index};
use serde::{Deserialize, Serialize};

use crate::typed::{DecodeError, decode};

const COMMAND: u8 = 0;
const BARRIER: u8 = 1;
const VOTE: u8 = 2;

/// The digest of a member's snapshot at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Vote {
    pub(super) index: Index,
    pub(super) digest: Digest,
}

/// One payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Envelope<C> {
    Command(C),
    Barrier,
    Vote(Vote),
}

impl<C: Serialize + for<'de> Deserialize<'de>> Envelope<C> {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        match payload.split_first() {
            Some((&COMMAND, content)) => decode(content).map(Self::Command),
            Some((&BARRIER, content)) => decode(content).map(|()| Self::Barrier),
            Some((&VOTE, content)) => decode(content).map(Self::Vote),
            Some((&tag, _)) => Err(DecodeError::Tag(tag)),
            None => Err(DecodeError::Malformed(postcard::Error::DeserializeUnexpectedEnd)),
        }
    }
}

/// The payload of a command.
pub(super) fn command(command: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(command, vec![COMMAND])
}

/// The payload of a barrier.
pub(super) fn barrier() -> Vec<u8> {
    vec![BARRIER]
}

/// The payload of a digest.
pub(super) fn vote(vote: Vote) -> Vec<u8> {
    postcard::to_extend(&vote, vec![VOTE]).expect("numbers have an encoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    type OfText = Envelope<String>;

    #[test]
    fn each_payload_is_what_it_was_made_from() {
        let text = "put".to_owned();
        let cast = Vote { index: Index(300), digest: Digest(7) };
        assert_eq!(OfText::decode(&command(&text).unwrap()), Ok(Envelope::Command(text)));
        assert_eq!(OfText::decode(&barrier()), Ok(Envelope::Barrier));
        assert_eq!(OfText::decode(&vote(cast)), Ok(Envelope::Vote(cast)));
    }

    #[test]
    fn a_payload_of_something_else_is_an_error() {
        assert_eq!(OfText::decode(b"\x09put"), Err(DecodeError::Tag(9)));
        assert_eq!(OfText::decode(b"\x01x"), Err(DecodeError::Trailing(1)));
        assert!(OfText::decode(b"").is_err());
    }
}
