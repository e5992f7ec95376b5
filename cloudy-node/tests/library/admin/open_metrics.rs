//! A parser of the OpenMetrics text format, as strict as the tests need.

use std::collections::{BTreeMap, BTreeSet};

/// The samples of a text, by name and labels.
#[derive(Debug, Default)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// The value of a sample, named as it is written: `name{label="value"}`.
    pub(crate) fn value(&self, sample: &str) -> f64 {
        *self.0.get(sample).unwrap_or_else(|| panic!("no {sample} in {:#?}", self.0.keys()))
    }

    /// Number of samples whose names begin so.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.0.keys().filter(|sample| sample.starts_with(prefix)).count()
    }
}

/// Reads a text.
///
/// # Panics
/// It does not follow the format.
pub(crate) fn parse(text: &str) -> Metrics {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let (mut metrics, mut families, mut family) = (Metrics::default(), BTreeSet::new(), None::<(String, String)>);
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (keyword, rest) = comment.split_once(' ').expect("a keyword");
            let (name, value) = rest.split_once(' ').expect("a name");
            match keyword {
                "HELP" => assert!(!value.is_empty(), "{line}"),
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                "TYPE" => {
                    assert!(families.insert(name.to_owned()), "two families {name}");
                    family = Some((name.to_owned(), value.to_owned()));
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = sample.split_once('{').map_or((sample, ""), |(name, labels)| (name, labels));
        let (family, kind) = family.as_ref().expect("a family before its samples");
        let suffixes: &[&str] = match &**kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            kind => panic!("{kind}"),
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line} in {family} ({kind})");
        check_labels(labels);
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(metrics.0.insert(sample.to_owned(), value).is_none(), "twice: {sample}");
    }
    metrics
}

/// Reads `name="value",…}` with escapes.
fn check_labels(mut labels: &str) {
    if labels.is_empty() {
        return;
    }
    loop {
        let (name, rest) = labels.split_once("=\"").expect("a label");
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
        let mut escaped = false;
        let end = rest.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        labels = &rest[end.expect("the end of a label") + 1..];
        match labels {
            "}" => return,
            more => labels = more.strip_prefix(',').expect("another label"),
        }
    }
}
