//! The fate of each datagram, from a seed.

use std::time::Duration;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{FaultCounters, Faults, FaultsError, REORDER_HOLD};

/// What is to become of one datagram.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// It is lost.
    Lost,
    /// It goes on.
    Pass {
        delay: Duration,
        reordered: bool,
        /// A second copy goes on after this delay.
        copy: Option<Duration>,
    },
}

impl Fate {
    /// Counts this fate once it is certain. What comes later (sent, overflowed) is counted when it comes.
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

/// A seeded stream of fates.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    rng: ChaCha8Rng,
    put_back: Option<Fate>,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Result<Self, FaultsError> {
        faults.validate()?;
        Ok(Self { faults, rng: ChaCha8Rng::seed_from_u64(faults.seed), put_back: None })
    }

    pub(super) fn faults(&self) -> Faults {
        self.faults
    }

    /// The next datagram's fate.
    pub(super) fn roll(&mut self) -> Fate {
        if let Some(fate) = self.put_back.take() {
            return fate;
        }
        // Always five draws, so that changing one share leaves the other dice as they were.
        let [loss, reorder, duplicate, first, second] = [(); 5].map(|()| unit(&mut self.rng));
        if loss < self.faults.loss {
            return Fate::Lost;
        }
        let reordered = reorder < self.faults.reorder;
        let hold = if reordered { REORDER_HOLD } else { Duration::ZERO };
        Fate::Pass {
            delay: self.delay(first) + hold,
            reordered,
            copy: (duplicate < self.faults.duplicate).then(|| self.delay(second)),
        }
    }

    /// Gives a fate back that was not carried out: the next datagram gets it. Otherwise a datagram tried again
    /// after `WouldBlock` would be judged twice and be lost more often than asked.
    pub(super) fn put_back(&mut self, fate: Fate) {
        self.put_back = Some(fate);
    }

    fn delay(&self, unit: f64) -> Duration {
        let Faults { latency, jitter, .. } = self.faults;
        (latency + jitter.mul_f64(2.0 * unit)).saturating_sub(jitter)
    }
}

/// Evenly from [0, 1), the same on every machine: the upper 53 bits are what an `f64` holds exactly.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}
