//! The kinds of faults and their frequency.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Maximum of [`Faults::latency`] and [`Faults::jitter`]: beyond QUIC's idle timeouts a delay is a loss.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// The additional delay of a datagram that [`Faults::reorder`] selects.
pub const REORDER_HOLD: Duration = Duration::from_millis(5);

/// Faults to inject below QUIC, for each datagram independently.
///
/// ```
/// use cloudy_node::fault::Faults;
/// use std::time::Duration;
///
/// let faults = Faults::none().loss(0.1).latency(Duration::from_millis(20));
/// faults.validate()?;
/// let json = serde_json::to_string(&faults)?;
/// assert_eq!(serde_json::from_str::<Faults>(&json)?, faults);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// In serialized form the durations are whole microseconds, `latency_us` and `jitter_us`. An absent field has the value
/// of [`Faults::none`], an unknown one is an error, and the values are validated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FaultsData", into = "FaultsData")]
#[non_exhaustive]
pub struct Faults {
    /// The share of lost datagrams, 0 to 1.
    pub loss: f64,
    /// The delay of each datagram, up to [`DELAY_MAX`].
    pub latency: Duration,
    /// The delay is uniform in `latency` ± `jitter`, up to [`DELAY_MAX`]; below zero counts as zero. A jitter wider
    /// than the gaps between datagrams reorders them.
    pub jitter: Duration,
    /// The share of datagrams that are held for another [`REORDER_HOLD`], 0 to 1.
    pub reorder: f64,
    /// The share of datagrams that are sent twice, 0 to 1. The copy has its own delay.
    pub duplicate: f64,
    /// The seed of the random numbers. Use another one for each node, or all lose the same datagrams.
    pub seed: u64,
}

impl Faults {
    cloudy_proto::setters! {
        loss: f64,
        latency: Duration,
        jitter: Duration,
        reorder: f64,
        duplicate: f64,
        seed: u64,
    }

    /// No faults; seed 0.
    #[must_use]
    pub const fn none() -> Self {
        Self { loss: 0.0, latency: Duration::ZERO, jitter: Duration::ZERO, reorder: 0.0, duplicate: 0.0, seed: 0 }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`FaultsError`] for the first field outside its range.
    pub fn validate(&self) -> Result<(), FaultsError> {
        let shares = [("loss", self.loss), ("reorder", self.reorder), ("duplicate", self.duplicate)];
        for (field, value) in shares {
            // A range does not contain NaN, so NaN is refused as well.
            if !(0.0..=1.0).contains(&value) {
                return Err(FaultsError::Share { field, value });
            }
        }
        for (field, value) in [("latency", self.latency), ("jitter", self.jitter)] {
            if value > DELAY_MAX {
                return Err(FaultsError::Delay { field, value });
            }
        }
        Ok(())
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

/// Values of [`Faults`] outside their ranges. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultsError {
    /// A share is not between 0 and 1.
    #[error("{field} is {value}: give a share from 0 to 1 (0.1 is 10 %)")]
    Share {
        /// The field of [`Faults`].
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// A delay is too long.
    #[error("{field} is {value:?}: give a time from 0 to {DELAY_MAX:?}")]
    Delay {
        /// The field of [`Faults`].
        field: &'static str,
        /// Its value.
        value: Duration,
    },
}

/// The serialized form of [`Faults`], with units in the names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FaultsData {
    loss: f64,
    latency_us: u64,
    jitter_us: u64,
    reorder: f64,
    duplicate: f64,
    seed: u64,
}

impl Default for FaultsData {
    fn default() -> Self {
        Faults::none().into()
    }
}

impl From<Faults> for FaultsData {
    fn from(faults: Faults) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            loss: faults.loss,
            latency_us: micros(faults.latency),
            jitter_us: micros(faults.jitter),
            reorder: faults.reorder,
            duplicate: faults.duplicate,
            seed: faults.seed,
        }
    }
}

impl TryFrom<FaultsData> for Faults {
    type Error = FaultsError;

    fn try_from(data: FaultsData) -> Result<Self, FaultsError> {
        let faults = Self {
            loss: data.loss,
            latency: Duration::from_micros(data.latency_us),
            jitter: Duration::from_micros(data.jitter_us),
            reorder: data.reorder,
            duplicate: data.duplicate,
            seed: data.seed,
        };
        faults.validate()?;
        Ok(faults)
    }
}
