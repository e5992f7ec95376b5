//! `/`: the live page, one file without any other source.

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

const MARKUP: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page, and the policy that lets a browser run nothing but its script.
pub(super) struct Page {
    pub(super) markup: Bytes,
    pub(super) policy: Option<HeaderValue>,
}

impl Page {
    pub(super) fn new() -> Self {
        let markup = MARKUP.replace("{STYLE}", STYLE).replace("{SCRIPT}", SCRIPT);
        let [style, script] = [STYLE, SCRIPT].map(|text| BASE64.encode(&Sha256::digest(text)));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        // Base64 has no character that a header cannot have.
        Self { markup: markup.into(), policy: HeaderValue::try_from(policy).ok() }
    }
}
