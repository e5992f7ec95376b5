//! Random faults for datagrams, from a seed.

use std::time::Duration;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{FaultCounters, Faults, FaultsError, REORDER_HOLD};

/// The treatment of one datagram.
#[derive(Clone, Copy, Debug)]
pub(super) enum Treatment {
    /// It is lost.
    Lost,
    /// It passes.
    Pass {
        delay: Duration,
        reordered: bool,
        /// The delay of a second copy, if there is one.
        copy: Option<Duration>,
    },
}

impl Treatment {
    /// Counts the treatment once it is certain. Later outcomes (sent, overflowed) are counted when they occur.
    pub(super) fn count(self, counters: &mut FaultCounters) {
        match self {
            Self::Lost => counters.dropped += 1,
            Self::Pass { delay, reordered, copy } => {
                counters.delayed += u64::from(!delay.is_zero());
                counters.reordered += u64::from(reordered);
                counters.duplicated += u64::from(copy.is_some());
            }
        }
    }
}

/// A seeded stream of treatments.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    rng: ChaCha8Rng,
    put_back: Option<Treatment>,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Result<Self, FaultsError> {
        faults.validate()?;
        Ok(Self { faults, rng: ChaCha8Rng::seed_from_u64(faults.seed), put_back: None })
    }

    pub(super) fn faults(&self) -> Faults {
        self.faults
    }

    /// The treatment of the next datagram.
    pub(super) fn roll(&mut self) -> Treatment {
        if let Some(treatment) = self.put_back.take() {
            return treatment;
        }
        // Always five draws, so that a changed share leaves the other draws as they were.
        let [loss, reorder, duplicate, first, second] = [(); 5].map(|()| unit(&mut self.rng));
        if loss < self.faults.loss {
            return Treatment::Lost;
        }
        let reordered = reorder < self.faults.reorder;
        let hold = if reordered { REORDER_HOLD } else { Duration::ZERO };
        Treatment::Pass {
            delay: self.delay(first) + hold,
            reordered,
            copy: (duplicate < self.faults.duplicate).then(|| self.delay(second)),
        }
    }

    /// Returns a treatment that was not carried out: the next datagram gets it. Otherwise a datagram that is sent again
    /// after `WouldBlock` would be treated twice and be lost too often.
    pub(super) fn put_back(&mut self, treatment: Treatment) {
        self.put_back = Some(treatment);
    }

    fn delay(&self, unit: f64) -> Duration {
        let Faults { latency, jitter, .. } = self.faults;
        (latency + jitter.mul_f64(2.0 * unit)).saturating_sub(jitter)
    }
}

/// A uniform number in [0, 1), the same on every machine: from the upper 53 bits, which an `f64` holds exactly.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}
