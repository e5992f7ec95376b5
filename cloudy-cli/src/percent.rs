//! Shares as a user writes them: `10%` or `0.1`.

/// The text is not a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a share from 0% to 100%; write for example 10% or 0.1")]
pub(crate) struct PercentError;

/// Parses a share from 0 to 1. A number over 1 without a percent sign is an error, because its meaning is ambiguous.
pub(crate) fn parse(text: &str) -> Result<f64, PercentError> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    // A share is digits and a point: no sign, exponent or infinity.
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(PercentError);
    }
    let share = number.parse::<f64>().map_err(|_| PercentError)? / whole;
    if share <= 1.0 { Ok(share) } else { Err(PercentError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_and_fractions() {
        for (text, share) in [
            ("10%", 0.1),
            ("0.1", 0.1),
            ("0", 0.0),
            ("0%", 0.0),
            ("1", 1.0),
            ("100%", 1.0),
            ("2.5%", 0.025),
            ("1%", 0.01),
        ] {
            assert_eq!(parse(text), Ok(share), "{text}");
        }
    }

    #[test]
    fn anything_else_is_an_error_with_examples() {
        for text in
            ["", "%", ".", "10", "1.1", "101%", "-1%", "-0", "+0.1", "nan", "inf", "1e-3", "10 %", "10%%", "ten"]
        {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains("10% or 0.1"), "{error}");
        }
    }
}
