//! A state of any size that needs no memory: its bytes follow from the number of its commands.

use std::io::{self, Read, Write};

use cloudy_node::{Applied, StateMachine};

const PIECE_BYTES: usize = 64 << 10;

pub(crate) struct Large {
    length: u64,
    count: u64,
}

/// Writes the same bytes for the same state, piece by piece.
struct Pieces {
    word: u64,
    left: u64,
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let length = self.left.min(PIECE_BYTES as u64);
        self.left -= length;
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        while (piece.len() as u64) < length {
            self.word = self.word.wrapping_mul(0x5851_F42D_4C95_7F2D).rotate_left(17) ^ length;
            piece.extend_from_slice(&self.word.to_le_bytes());
        }
        piece.truncate(length as usize);
        (length > 0).then_some(piece)
    }
}

impl Large {
    pub(crate) fn new(length: u64) -> Self {
        Self { length, count: 0 }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    fn pieces(&self) -> Pieces {
        Pieces { word: self.count | 1, left: self.length }
    }
}

impl StateMachine for Large {
    type Command = Vec<u8>;
    type Response = ();

    fn apply(&mut self, _at: Applied, _command: Vec<u8>) {
        self.count += 1;
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.length.to_le_bytes())?;
        to.write_all(&self.count.to_le_bytes())?;
        self.pieces().try_for_each(|piece| to.write_all(&piece))
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        let mut numbers = [[0; 8]; 2];
        numbers.iter_mut().try_for_each(|number| from.read_exact(number))?;
        let [length, count] = numbers.map(u64::from_le_bytes);
        let state = Self { length, count };
        let mut read = vec![0; PIECE_BYTES];
        for piece in state.pieces() {
            from.read_exact(&mut read[..piece.len()])?;
            if read[..piece.len()] != piece {
                return Err(io::Error::other("its bytes are others"));
            }
        }
        Ok(state)
    }
}
