//! Parsers of values that several commands share.

use std::fmt::Display;
use std::net::SocketAddrV4;
use std::str::FromStr;
use std::time::Duration;

use cloudy_node::discovery::seeds::{self, SeedError};
use cloudy_node::fault::DELAY_MAX;

use crate::duration;

/// The least time for which a command waits for others: below it nothing can answer.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Bytes of a result that a slave keeps in memory, at least: what members have in flight, several times over.
const RETAINED_BYTES_MIN: u64 = 1 << 20;
/// The same, at most.
const RETAINED_BYTES_MAX: u64 = 1 << 40;
/// Maximum of messages per second of one sender: a schedule counts microseconds.
const RATE_PER_S_MAX: u64 = 1_000_000;

/// A parser of whole numbers from `min` to `max`, in digits only.
pub(super) fn whole<T>(min: T, max: T, example: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Copy,
{
    move |text| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<T>().ok().filter(|number| digits && *number >= min && *number <= max);
        number.ok_or_else(|| format!("not a whole number from {min} to {max}; write for example {example}"))
    }
}

/// Parses a number from `min` to `max`.
pub(super) fn number(text: &str, min: u64, max: u64, example: &str) -> Result<u64, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u64>().ok().filter(|number| digits && (min..=max).contains(number));
    number.ok_or_else(|| format!("not a number from {min} to {max}; write for example {example}"))
}

/// Parses a size such as 64KiB, in bytes.
pub(super) fn bytes(text: &str, max: u64, example: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let with_unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = with_unit.unwrap_or((text, 1));
    // Rust's numbers accept a sign, and a size has none.
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = number.parse::<u64>().ok().filter(|_| digits).and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes <= max)
        .ok_or_else(|| format!("not a size up to {} KiB; write for example {example}", max >> 10))
}

/// Parses a size such as 512MiB, in bytes.
pub(super) fn retained(text: &str) -> Result<u64, String> {
    match bytes(text, RETAINED_BYTES_MAX, "512MiB")? {
        retained if retained < RETAINED_BYTES_MIN => {
            Err("less than 1MiB, which not even the slave's own reader keeps up with; write for example 512MiB"
                .to_owned())
        }
        retained => Ok(retained),
    }
}

/// A multicast group with a port.
pub(super) fn multicast_group(text: &str) -> Result<SocketAddrV4, String> {
    let group = text.parse::<SocketAddrV4>().ok().filter(|group| group.ip().is_multicast() && group.port() != 0);
    group.ok_or_else(|| {
        let example = cloudy_node::discovery::GROUP;
        format!("not a multicast group of IPv4 with a port; use one of 239.255.0.0/16, for example {example}")
    })
}

/// Parses messages per second.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    number(text, 1, RATE_PER_S_MAX, "100")
}

/// Parses the length of a measurement.
pub(super) fn measured(text: &str) -> Result<Duration, String> {
    match duration::parse(text).map_err(|error| error.to_string())? {
        Duration::ZERO => Err("nothing can be measured in no time; write for example 2s".to_owned()),
        duration => Ok(duration),
    }
}

/// Parses a time for which a command waits for others.
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    let wait = duration::parse(text).map_err(|error| error.to_string())?;
    if wait < WAIT_MIN {
        let min = duration::show(WAIT_MIN);
        return Err(format!("shorter than {min}; write for example 60s (a number without a unit is microseconds)"));
    }
    Ok(wait)
}

/// Parses the delay of a datagram.
pub(super) fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration::parse(text).map_err(|error| error.to_string())?;
    if delay > DELAY_MAX {
        return Err(format!("longer than {}; write for example 20ms", duration::show(DELAY_MAX)));
    }
    Ok(delay)
}

/// Checks an address as HOST:PORT; its name is resolved later.
pub(super) fn seed(text: &str) -> Result<String, SeedError> {
    seeds::split(text).map(|_| text.to_owned())
}
