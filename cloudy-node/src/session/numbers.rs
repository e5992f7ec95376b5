//! The random numbers of a session: m in (0, 1], the same for equal seeds on every machine and in every version.

use cloudy_proto::NodeId;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Length of an encoded number: the f64's bits, least significant byte first.
pub const NUMBER_BYTES: usize = 8;

/// The context in the generator's key behind the seed, so that no other use of the seed has the same sequence.
const KEY_CONTEXT: &[u8; 24] = b"cloudy session numbers 1";
/// 2⁻⁵³, the distance between two numbers.
const STEP: f64 = 1.0 / (1u64 << 53) as f64;

/// One stream of a seed's random numbers.
///
/// The generator is ChaCha with 12 rounds. Its 32-byte key is the seed's eight bytes, least significant first, followed
/// by `cloudy session numbers 1` in ASCII. Its 64-bit stream number is the stream (`protocol.md` §9: the rank in view
/// 1, then the next number for each join). From each 64-bit word x of its output comes m = ((x >> 11) + 1) × 2⁻⁵³:
/// every multiple of 2⁻⁵³ in (0, 1] is equally likely, and each is an f64 exactly.
#[derive(Clone, Debug)]
pub struct Numbers(ChaCha12Rng);

impl Numbers {
    /// The stream from its start.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..].copy_from_slice(KEY_CONTEXT);
        let mut generator = ChaCha12Rng::from_seed(key);
        generator.set_stream(stream);
        Self(generator)
    }

    /// The next number, above 0 and at most 1.
    pub fn next_number(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) + 1) as f64 * STEP
    }
}

/// Encodes a number as a payload.
#[must_use]
pub fn encode(number: f64) -> [u8; NUMBER_BYTES] {
    number.to_bits().to_le_bytes()
}

/// The reason for which a payload is not a number of a session. It comes from a peer, so the session has no valid
/// result.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum NumberError {
    /// Not the length of a number.
    #[error("a number is {NUMBER_BYTES} bytes, and this payload has {0}; do all nodes run the same application?")]
    Length(usize),
    /// Outside (0, 1].
    #[error("a number is above 0 and at most 1, and this is {0}; do all nodes run the same application?")]
    Range(f64),
}

/// Decodes the number in a payload.
///
/// # Errors
/// The fault of the payload.
pub fn decode(payload: &[u8]) -> Result<f64, NumberError> {
    let bytes = payload.try_into().map_err(|_| NumberError::Length(payload.len()))?;
    let number = f64::from_bits(u64::from_le_bytes(bytes));
    // A comparison with NaN is false, so that is refused as well.
    if number > 0.0 && number <= 1.0 { Ok(number) } else { Err(NumberError::Range(number)) }
}

/// A payload in the result that is not a number, with its origin.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("message {index} of the result, from node {}: {cause}", origin.short())]
pub struct NotANumber {
    /// Its index.
    pub index: u64,
    /// The node that broadcast it.
    pub origin: NodeId,
    /// The fault.
    pub cause: NumberError,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares bits, and not decimals: none may change, or old results cannot be repeated.
    #[test]
    fn the_sequences_never_change() {
        for (seed, stream, bits) in GOLDEN {
            let mut numbers = Numbers::new(seed, stream);
            let found = [(); 3].map(|()| numbers.next_number().to_bits());
            assert_eq!(found, bits, "seed {seed}, stream {stream}: {found:#018x?}");
        }
    }

    /// Seed, stream, and the first three numbers, from an independent implementation of ChaCha.
    const GOLDEN: [(u64, u64, [u64; 3]); 4] = [
        (0, 0, [0x3fbc_1b58_e5d1_a6b0, 0x3fe7_d48d_1436_91bd, 0x3feb_9ebb_1258_4c1b]),
        (0, 1, [0x3fe7_dc9b_a052_a02a, 0x3fec_40fb_cfae_16da, 0x3fc3_e59a_17c1_c780]),
        (7, 0, [0x3fd0_292f_e08b_aa3a, 0x3fec_267c_86bd_c88a, 0x3fd3_b0a2_cc2d_ad26]),
        (7, 1, [0x3fe6_14d7_2642_3098, 0x3fc9_e7a6_4700_13dc, 0x3feb_c8df_9e59_3800]),
    ];

    #[test]
    fn the_ends_of_the_range() {
        let of = |word: u64| ((word >> 11) + 1) as f64 * STEP;
        assert_eq!((of(0), of(u64::MAX)), (f64::EPSILON / 2.0, 1.0));
    }

    #[test]
    fn payloads_read_back_and_others_are_refused() {
        for number in [f64::EPSILON / 2.0, 0.1, 1.0] {
            assert_eq!(decode(&encode(number)), Ok(number));
        }
        for number in [0.0, -0.0, -0.5, 1.0 + f64::EPSILON, f64::INFINITY] {
            assert_eq!(decode(&encode(number)), Err(NumberError::Range(number)));
        }
        assert!(matches!(decode(&encode(f64::NAN)), Err(NumberError::Range(_))));
        for length in [0, 7, 9] {
            assert_eq!(decode(&vec![0; length]), Err(NumberError::Length(length)));
        }
        assert_eq!(encode(1.0), [0, 0, 0, 0, 0, 0, 0xf0, 0x3f], "least significant first");
    }
}
