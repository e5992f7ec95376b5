//! Embed cloudy: nodes, groups, approved messages over QUIC.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
