use cloudy_proto::limits::REASON_BYTES_MAX;

use super::*;

fn alerted(alert: u8, reason: &str) -> LinkFailure {
    LinkFailure::of_transport(TransportErrorCode::crypto(alert), reason.as_bytes())
}

#[test]
fn alerts_become_words() {
    assert_eq!(alerted(48, "x"), LinkFailure::OtherClusterKey);
    assert_eq!(alerted(116, ""), LinkFailure::NoCertificate);
    assert_eq!(alerted(120, ""), LinkFailure::OtherProtocol);
    assert_eq!(alerted(70, ""), LinkFailure::OtherQuicVersion);
    for alert in [42, 43, 44, 45, 46, 49, 51] {
        assert_eq!(alerted(alert, "expired"), LinkFailure::Certificate { detail: Words("expired".to_owned()) });
        assert!(alerted(alert, "").is_refusal());
    }
    assert_eq!(alerted(80, "broke"), LinkFailure::Transport { detail: Words("broke".to_owned()) });
    assert!(!alerted(80, "broke").is_refusal());
    assert_eq!(LinkFailure::of_transport(TransportErrorCode::CONNECTION_REFUSED, b""), LinkFailure::Full);
    let unexplained = LinkFailure::of_transport(TransportErrorCode::FLOW_CONTROL_ERROR, b"").to_string();
    assert!(unexplained.contains("data limits"), "{unexplained}");
}

#[test]
fn a_peers_words_cannot_forge_lines() {
    assert_eq!(Words::new(b"a\nb\x1b[2Jc\xff ").as_str(), "a\u{fffd}b\u{fffd}[2Jc\u{fffd}");
    assert_eq!(Words::new("x\u{202e}y\u{2028}z".as_bytes()).as_str(), "x\u{fffd}y\u{fffd}z");
    assert_eq!(Words::new(b" \t ").as_str(), "\u{fffd}");
    assert_eq!(Words::new(b"  ").as_str(), "no reason given");
    assert_eq!(Words::new(&[b'w'; 4 * REASON_BYTES_MAX]).as_str().len(), REASON_BYTES_MAX);
}
