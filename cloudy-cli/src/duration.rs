//! Durations as a user writes them: `2s`, `500ms`, `1m`, `250us`, or a bare number.

use std::time::Duration;

/// Maximum duration. It keeps sums of several far from overflow.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Units, longest first, with their microseconds.
const UNITS: [(&str, u64); 6] =
    [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1), ("µs", 1)];

/// The reason for which a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// Not a number with a unit.
    #[error("not a duration; write for example 2s, 500ms, 1m or 250us (a number without a unit is {bare})")]
    Malformed {
        /// The unit of a number without one.
        bare: &'static str,
    },
    /// A fraction of a microsecond.
    #[error("finer than a microsecond; write whole microseconds, for example 250us, or 500ms, 2s, 1m")]
    TooFine,
    /// Over [`DURATION_MAX`].
    #[error("longer than 365 days; write for example 2s, 500ms, 1m or 250us")]
    TooLong,
}

/// Parses a duration; a number without a unit counts microseconds.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    parse_with(text, "microseconds", 1)
}

/// Parses a duration; a number without a unit counts seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, DurationError> {
    parse_with(text, "seconds", 1_000_000)
}

fn parse_with(text: &str, bare: &'static str, bare_us: u64) -> Result<Duration, DurationError> {
    let malformed = DurationError::Malformed { bare };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_us = match unit {
        "" => bare_us,
        _ => UNITS.iter().find(|(name, _)| *name == unit).ok_or(malformed)?.1,
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && !fraction.contains('.') => (whole, fraction),
        Some(_) => return Err(malformed),
        None => (number, ""),
    };
    if whole.is_empty() {
        return Err(malformed);
    }
    // Only digits are left, so a failure means that the number is too large.
    let whole: u64 = whole.parse().map_err(|_| DurationError::TooLong)?;
    let micros = whole.checked_mul(unit_us).ok_or(DurationError::TooLong)?;
    let micros = micros.checked_add(fraction_us(fraction, unit_us)?).ok_or(DurationError::TooLong)?;
    let duration = Duration::from_micros(micros);
    if duration > DURATION_MAX { Err(DurationError::TooLong) } else { Ok(duration) }
}

/// The microseconds of a decimal fraction of a unit, exactly.
fn fraction_us(digits: &str, unit_us: u64) -> Result<u64, DurationError> {
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    // Too many digits to fit: far finer than a microsecond.
    let scale = u32::try_from(digits.len()).ok().and_then(|length| 10_u64.checked_pow(length));
    let (Some(scale), Ok(digits)) = (scale, digits.parse::<u64>()) else {
        return Err(DurationError::TooFine);
    };
    let scaled = u128::from(digits) * u128::from(unit_us);
    if !scaled.is_multiple_of(u128::from(scale)) {
        return Err(DurationError::TooFine);
    }
    Ok((scaled / u128::from(scale)) as u64)
}

/// A duration in the largest unit that is exact, to the microsecond: `2s`, `800ms`. [`parse`] reads it back.
pub(crate) fn show(duration: Duration) -> String {
    let micros = duration.as_micros();
    let exact = UNITS.iter().find(|(_, unit_us)| micros != 0 && micros.is_multiple_of(u128::from(*unit_us)));
    match exact {
        Some((unit, unit_us)) => format!("{}{unit}", micros / u128::from(*unit_us)),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_and_without_units() {
        for (text, micros) in [
            ("0", 0),
            ("2000000", 2_000_000),
            ("2s", 2_000_000),
            ("500ms", 500_000),
            ("1m", 60_000_000),
            ("1h", 3_600_000_000),
            ("250us", 250),
            ("250µs", 250),
            ("1.5s", 1_500_000),
            ("0.25ms", 250),
            ("2.000", 2),
            ("1.0000000000000000000000000s", 1_000_000),
            ("00012s", 12_000_000),
            ("31536000s", 31_536_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        assert_eq!(parse_seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_seconds("20ms"), Ok(Duration::from_millis(20)));
    }

    #[test]
    fn errors_name_valid_examples() {
        let malformed = DurationError::Malformed { bare: "microseconds" };
        for (text, error) in [
            ("", malformed),
            ("s", malformed),
            ("abc", malformed),
            ("-5", malformed),
            ("+5", malformed),
            ("2 s", malformed),
            (" 2s", malformed),
            ("2S", malformed),
            ("2sec", malformed),
            ("1e6", malformed),
            (".5s", malformed),
            ("5.s", malformed),
            ("1.2.3s", malformed),
            ("٣s", malformed),
            ("0.5", DurationError::TooFine),
            ("0.0001ms", DurationError::TooFine),
            ("0.00000000000000000000000001s", DurationError::TooFine),
            ("31536000.000001s", DurationError::TooLong),
            ("18446744073709551615s", DurationError::TooLong),
            ("18446744073709551616", DurationError::TooLong),
            ("99999999999999999999999999h", DurationError::TooLong),
        ] {
            let found = parse(text).expect_err(text);
            assert_eq!(found, error, "{text}");
            for example in ["2s", "500ms", "1m", "250us"] {
                assert!(found.to_string().contains(example), "{found}");
            }
        }
        let error = parse_seconds("soon").expect_err("no duration").to_string();
        assert!(error.contains("a number without a unit is seconds"), "{error}");
    }

    #[test]
    fn displayed_text_parses_to_the_same_value() {
        for (micros, text) in [
            (0, "0s"),
            (1, "1us"),
            (1_000, "1ms"),
            (200_000, "200ms"),
            (2_000_000, "2s"),
            (1_500_000, "1500ms"),
            (90_000_000, "90s"),
            (120_000_000, "2m"),
            (7_200_000_000, "2h"),
        ] {
            let duration = Duration::from_micros(micros);
            assert_eq!(show(duration), text);
            assert_eq!(parse(text), Ok(duration));
        }
    }
}
