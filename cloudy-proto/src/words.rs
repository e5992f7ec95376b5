//! Text that another node may have written, made harmless where it enters.

use crate::limits::{ADVERTISED_BYTES_MAX, REASON_BYTES_MAX};

/// The harmless part of a reason: at most [`REASON_BYTES_MAX`] bytes, free of control characters, of invisible ones and
/// of those that reorder the text around them, so that it can be logged, printed and put into errors. Harmless text
/// stays as it was.
#[must_use]
pub fn harmless(bytes: &[u8]) -> String {
    let kept = &bytes[..bytes.len().min(REASON_BYTES_MAX)];
    let mut text = String::with_capacity(kept.len());
    for c in String::from_utf8_lossy(kept).chars() {
        let c = if is_harmless(c) { c } else { char::REPLACEMENT_CHARACTER };
        // A replacement may be longer than the character that it replaces.
        if text.len() + c.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        text.push(c);
    }
    match text.trim() {
        "" => "no reason given".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// Whether a text can be an advertised name, `HOST:PORT`: visible ASCII characters, at most
/// [`ADVERTISED_BYTES_MAX`](crate::limits::ADVERTISED_BYTES_MAX) of them.
#[must_use]
pub fn is_advertisable(name: &str) -> bool {
    (1..=ADVERTISED_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Other characters could forge lines of a terminal, or look like other text.
fn is_harmless(c: char) -> bool {
    let hidden = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}');
    let reorders_or_breaks = matches!(c, '\u{2028}'..='\u{202e}');
    let marks = matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !hidden && !reorders_or_breaks && !marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced_and_the_length_is_bounded() {
        let forged = "no\x1b[2J\r\n2026 ERROR\u{202e}\u{9b}1m\u{2066}\u{200b}";
        let expected = "no\u{fffd}[2J\u{fffd}\u{fffd}2026 ERROR\u{fffd}\u{fffd}1m\u{fffd}\u{fffd}";
        assert_eq!(harmless(forged.as_bytes()), expected);
        let long = harmless("\x07".repeat(10_000).as_bytes());
        assert!(long.len() <= REASON_BYTES_MAX);
        assert_eq!(harmless(long.as_bytes()), long, "nothing changes twice");
        assert_eq!(harmless(&[0xff, b'a', 0xc3]), "\u{fffd}a\u{fffd}");
        assert_eq!(harmless(b" \t"), "\u{fffd}");
        assert_eq!(harmless(b"  "), "no reason given");
        assert_eq!(harmless("plain: ä €".as_bytes()), "plain: ä €");
    }
}
