use proptest::prelude::*;

use super::*;

fn key(byte: u8) -> ClusterKey {
    ClusterKey::from_bytes(&[byte; 32])
}

fn fingerprints(keys: &ClusterKeys) -> (String, Option<(AcceptedAs, String)>) {
    (keys.primary().fingerprint(), keys.accepted().map(|(accepted_as, key)| (accepted_as, key.fingerprint())))
}

#[test]
fn a_rotation_has_three_steps_in_one_order() {
    let mut keys = ClusterKeys::from(key(1));
    assert_eq!((keys.switch(), keys.finish()), (Err(RotateError::NotBegun), Err(RotateError::NotBegun)));
    assert_eq!(keys.begin_rotation(key(1)), Err(RotateError::SameKey));
    keys.begin_rotation(key(2)).unwrap();
    assert_eq!(fingerprints(&keys), (key(1).fingerprint(), Some((AcceptedAs::Next, key(2).fingerprint()))));
    assert_eq!((keys.begin_rotation(key(3)), keys.finish()), (Err(RotateError::Begun), Err(RotateError::Begun)));
    keys.switch().unwrap();
    assert_eq!(fingerprints(&keys), (key(2).fingerprint(), Some((AcceptedAs::Former, key(1).fingerprint()))));
    assert_eq!((keys.begin_rotation(key(3)), keys.switch()), (Err(RotateError::Switched), Err(RotateError::Switched)));
    keys.finish().unwrap();
    assert_eq!(keys, ClusterKeys::from(key(2)));
}

#[test]
fn text_gives_the_keys_back_at_every_step() {
    let mut keys = ClusterKeys::from(key(1));
    let same = |keys: &ClusterKeys| assert_eq!(&keys.to_text().parse::<ClusterKeys>().unwrap(), keys);
    assert_eq!(keys.to_text().trim_end(), key(1).to_text().as_str(), "one key alone is what it always was");
    same(&keys);
    keys.begin_rotation(key(2)).unwrap();
    same(&keys);
    keys.switch().unwrap();
    for number in 0..REVOKED_MAX {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        assert_eq!(keys.revoke(NodeId(id)), Ok(true));
        assert_eq!(keys.revoke(NodeId(id)), Ok(false), "once is enough, also when the list is full");
    }
    same(&keys);
    assert!(keys.to_text().len() <= TEXT_BYTES_MAX);
    assert_eq!(keys.revoke(NodeId([9; 32])), Err(RevokedFullError));
    let over = format!("{}revoked {}\n", *keys.to_text(), NodeId([9; 32]));
    assert_eq!(over.parse::<ClusterKeys>(), Err(RevokedFullError.into()));
    let spaced = format!("\n  {}  \r\n\n\tnext   {} \n", *key(1).to_text(), *key(2).to_text());
    assert_eq!(spaced.parse::<ClusterKeys>().unwrap().accepted(), Some((AcceptedAs::Next, &key(2))));
}

#[test]
fn each_malformed_line_has_its_own_error_without_its_content() {
    let (first, other) = (key(0xab).to_text(), key(0xcd).to_text());
    let node = NodeId([0xef; 32]).to_string();
    let cases = [
        (String::new(), ParseClusterKeysError::Primary(ParseClusterKeyError::Prefix)),
        (format!("next {}", *other), ParseClusterKeysError::Primary(ParseClusterKeyError::Prefix)),
        (format!("{}\n{}", *first, *other), ParseClusterKeysError::Line { line: 2 }),
        (format!("{}\n\nlater {}", *first, *other), ParseClusterKeysError::Line { line: 3 }),
        (format!("{}\nnext", *first), ParseClusterKeysError::Line { line: 2 }),
        (
            format!("{}\nnext {}", *first, &other[..20]),
            ParseClusterKeysError::Accepted { line: 2, cause: ParseClusterKeyError::Length { found: 7 } },
        ),
        (format!("{}\nformer {}", *first, *first), ParseClusterKeysError::SameKey { line: 2 }),
        (
            format!("{}\nnext {}\nformer {}", *first, *other, *key(0xef).to_text()),
            ParseClusterKeysError::ThirdKey { line: 3 },
        ),
        (
            format!("{}\nrevoked {}", *first, &node[1..]),
            ParseClusterKeysError::Node { line: 2, cause: ParseNodeIdError::Length { found: 63 } },
        ),
        (
            format!("{}\nrevoked {}ä", *first, &node[1..]),
            ParseClusterKeysError::Node { line: 2, cause: ParseNodeIdError::Digit { position: 64 } },
        ),
    ];
    for (text, error) in cases {
        let found = text.parse::<ClusterKeys>().unwrap_err();
        for secret in ["abab", "cdcd"] {
            assert!(!format!("{found} {found:?}").contains(secret), "{found}");
        }
        assert_eq!(found, error);
    }
}

#[test]
fn debug_shows_no_secret() {
    let mut keys = ClusterKeys::from(key(0xab));
    keys.begin_rotation(key(0xcd)).unwrap();
    let shown = format!("{keys:?} {keys:#?}");
    assert!(shown.contains(&key(0xcd).fingerprint()));
    for secret in ["abab", "cdcd", "171, 171", "205, 205"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(lines in proptest::collection::vec("(next |former |revoked |)[ -~äß]{0,90}", 0..6), led in any::<bool>()) {
        let mut text = if led { format!("{}\n", *key(1).to_text()) } else { String::new() };
        text.push_str(&lines.join("\n"));
        // An error or keys, and these as they were written.
        if let Ok(keys) = text.parse::<ClusterKeys>() {
            prop_assert_eq!(keys.to_text().parse::<ClusterKeys>(), Ok(keys));
        }
    }
}
