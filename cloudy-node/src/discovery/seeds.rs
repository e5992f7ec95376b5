//! Seeds: addresses of nodes as `HOST:PORT`, where HOST is a DNS name, an IPv4 address or an IPv6 address in brackets.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::endpoint::canonical;

/// Maximum of seeds in one call.
pub const SEEDS_MAX: usize = 256;
/// Maximum of addresses for one seed; further ones are dropped.
pub const ADDRESSES_PER_SEED_MAX: usize = 32;
/// The timeout for the resolution of one name.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two resolutions of a name that fails.
const LOOK_UP_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// The reason for which a seed has no address. The addresses of other seeds are dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// Not `HOST:PORT`.
    #[error("`{seed}` is not HOST:PORT; write for example node-1.example:10502, 127.0.0.1:10502 or [::1]:10502")]
    Malformed {
        /// The text as given.
        seed: String,
    },
    /// An IPv6 address without brackets: its port is ambiguous.
    #[error("`{seed}` is ambiguous; put the IPv6 address in brackets, for example [::1]:10502")]
    Unbracketed {
        /// The text as given.
        seed: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("`{port}` in `{seed}` is not a port; use a number from 1 to 65535")]
    Port {
        /// The text as given.
        seed: String,
        /// The part after the last colon.
        port: String,
    },
    /// The name did not resolve.
    #[error("`{seed}` does not resolve ({cause}); check the name, or give an IP address")]
    Lookup {
        /// The text as given.
        seed: String,
        /// The resolver's error.
        cause: io::Error,
    },
    /// More seeds than [`SEEDS_MAX`].
    #[error("{count} seeds are too many; give at most {SEEDS_MAX}")]
    TooMany {
        /// The number of seeds.
        count: usize,
    },
}

/// Splits `HOST:PORT` into its host, without brackets, and its port, without a name server.
///
/// # Errors
/// The fault in the text.
pub fn split(seed: &str) -> Result<(&str, u16), SeedError> {
    let malformed = || SeedError::Malformed { seed: seed.to_owned() };
    let (host, port) = seed.rsplit_once(':').ok_or_else(malformed)?;
    let bracketed = host.starts_with('[');
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let host = rest.strip_suffix(']').ok_or_else(malformed)?;
            // A scope (`%2`, `%eth0`) follows the address itself.
            let address = host.split_once('%').map_or(host, |(address, _)| address);
            address.parse::<Ipv6Addr>().map_err(|_| malformed())?;
            host
        }
        None if [host, seed].iter().any(|text| text.parse::<Ipv6Addr>().is_ok()) => {
            return Err(SeedError::Unbracketed { seed: seed.to_owned() });
        }
        None => host,
    };
    if host.is_empty()
        || host.contains(|c: char| c.is_whitespace() || c.is_control() || ":[]/@".contains(c) && !bracketed)
    {
        return Err(malformed());
    }
    // `u16::from_str` accepts a leading plus sign.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number != 0 => Ok((host, number)),
        _ => Err(SeedError::Port { seed: seed.to_owned(), port: port.to_owned() }),
    }
}

/// Resolves each seed to its addresses, in the order of the seeds and of the resolver. Each has at least one and at
/// most [`ADDRESSES_PER_SEED_MAX`], without repetitions. Two names of one node remain two seeds: the handshake
/// identifies nodes.
///
/// Cancel safe.
///
/// # Errors
/// The first malformed seed; if there is none, the first that does not resolve within [`RESOLVE_TIMEOUT`].
pub async fn resolve(seeds: &[String]) -> Result<Vec<Vec<SocketAddr>>, SeedError> {
    resolve_until(seeds, Instant::now()).await
}

/// Checks the form of seeds, without a name server.
///
/// # Errors
/// The first malformed seed, or the number of seeds if there are too many.
pub fn check(seeds: &[String]) -> Result<(), SeedError> {
    if seeds.len() > SEEDS_MAX {
        return Err(SeedError::TooMany { count: seeds.len() });
    }
    seeds.iter().try_for_each(|seed| split(seed).map(drop))
}

/// Resolves one seed to its present addresses, like [`resolve`].
///
/// Cancel safe.
///
/// # Errors
/// The seed is malformed, or does not resolve within [`RESOLVE_TIMEOUT`].
pub async fn look_up(seed: &str) -> Result<Vec<SocketAddr>, SeedError> {
    let (host, port) = split(seed)?;
    let looked_up = tokio::time::timeout(RESOLVE_TIMEOUT, addresses(host, port)).await;
    let outcome = looked_up.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
    outcome.map_err(|cause| SeedError::Lookup { seed: seed.to_owned(), cause })
}

/// A test's replacement of the name service; none: the system's resolver is used.
#[cfg(feature = "fault")]
type Answers = std::sync::Arc<dyn Fn(&str) -> Option<Vec<SocketAddr>> + Send + Sync>;

/// Where a node looks seeds up.
#[derive(Clone, Default)]
pub(crate) struct Resolver {
    #[cfg(feature = "fault")]
    answers: Option<Answers>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// One that asks this function first.
    #[cfg(feature = "fault")]
    pub(crate) fn answering(answers: Answers) -> Self {
        Self { answers: Some(answers) }
    }

    /// As [`look_up`]. Cancel safe.
    pub(crate) async fn look_up(&self, seed: &str) -> Result<Vec<SocketAddr>, SeedError> {
        #[cfg(feature = "fault")]
        if let Some(addresses) = self.answers.as_ref().and_then(|answers| answers(seed)) {
            let cause = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            let found = Some(addresses).filter(|addresses| !addresses.is_empty());
            return found.ok_or_else(|| SeedError::Lookup { seed: seed.to_owned(), cause });
        }
        look_up(seed).await
    }
}

/// Resolves seeds like [`resolve`]. A name that does not resolve is logged once and retried until the deadline, because
/// a name service may be late when a host starts. A resolution in progress at the deadline is finished.
///
/// Cancel safe.
///
/// # Errors
/// The first malformed seed; if there is none, the first that does not resolve by the deadline.
pub async fn resolve_until(seeds: &[String], deadline: Instant) -> Result<Vec<Vec<SocketAddr>>, SeedError> {
    if seeds.len() > SEEDS_MAX {
        return Err(SeedError::TooMany { count: seeds.len() });
    }
    let parts = seeds.iter().map(|seed| split(seed)).collect::<Result<Vec<_>, _>>()?;
    let mut resolved = Vec::with_capacity(seeds.len());
    for (seed, (host, port)) in seeds.iter().zip(parts) {
        let outcome = addresses_by(host, port, deadline).await;
        resolved.push(outcome.map_err(|cause| SeedError::Lookup { seed: seed.clone(), cause })?);
    }
    Ok(resolved)
}

async fn addresses_by(host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    let mut reported = false;
    loop {
        let lookup = tokio::time::timeout(RESOLVE_TIMEOUT, addresses(host, port)).await;
        let outcome = lookup.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
        let left = deadline.saturating_duration_since(Instant::now());
        let Err(error) = &outcome else { return outcome };
        if left.is_zero() {
            return outcome;
        }
        if !std::mem::replace(&mut reported, true) {
            tracing::warn!("`{host}` does not resolve yet ({error}); it is looked up again for {left:.1?}");
        }
        // sleep: a name service sends no notification.
        tokio::time::sleep(LOOK_UP_AGAIN_AFTER.min(left)).await;
    }
}

async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for address in tokio::net::lookup_host((host, port)).await?.take(ADDRESSES_PER_SEED_MAX).map(canonical) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(seeds: &[&str]) -> Vec<String> {
        seeds.iter().map(|seed| (*seed).to_owned()).collect()
    }

    #[test]
    fn hosts_and_ports_are_split() {
        for (seed, expected) in [
            ("127.0.0.1:10502", ("127.0.0.1", 10_502)),
            ("localhost:1", ("localhost", 1)),
            ("node-1.example.org:65535", ("node-1.example.org", 65_535)),
            ("[::1]:10502", ("::1", 10_502)),
            ("[fe80::1%2]:10502", ("fe80::1%2", 10_502)),
        ] {
            assert_eq!(split(seed).expect(seed), expected);
        }
    }

    #[test]
    fn errors_name_the_text_that_is_wrong() {
        for (seed, part) in [
            ("", "`` is not HOST:PORT"),
            ("localhost", "`localhost` is not HOST:PORT"),
            (":10502", "`:10502` is not HOST:PORT"),
            ("a b:10502", "`a b:10502` is not HOST:PORT"),
            ("[::1:10502", "`[::1:10502` is not HOST:PORT"),
            ("[localhost]:10502", "`[localhost]:10502` is not HOST:PORT"),
            ("quic://host:10502", "`quic://host:10502` is not HOST:PORT"),
            ("1:2:3:4:5:6:7:8", "`1:2:3:4:5:6:7:8` is ambiguous"),
            ("::1:10502", "`::1:10502` is ambiguous; put the IPv6 address in brackets"),
            ("localhost:", "`` in `localhost:` is not a port"),
            ("localhost:0", "`0` in `localhost:0` is not a port"),
            ("localhost:+1", "`+1` in `localhost:+1` is not a port"),
            ("localhost:65536", "`65536` in `localhost:65536` is not a port"),
            ("localhost:http", "`http` in `localhost:http` is not a port"),
        ] {
            let error = split(seed).expect_err(seed).to_string();
            assert!(error.starts_with(part), "{seed}: {error}");
        }
    }

    proptest! {
        #[test]
        fn splitting_never_panics_and_keeps_host_and_port(seed in r"\PC{0,40}") {
            if let Ok((host, port)) = split(&seed) {
                prop_assert!(seed.contains(host) && port != 0);
            }
        }
    }

    #[tokio::test]
    async fn literals_and_names_resolve_in_order() {
        let resolved = resolve(&owned(&["[::1]:7", "127.0.0.1:8", "localhost:9"])).await.expect("all resolve");
        assert_eq!(resolved[0], [SocketAddr::from((Ipv6Addr::LOCALHOST, 7))]);
        assert_eq!(resolved[1], [SocketAddr::from(([127, 0, 0, 1], 8))]);
        let mapped = resolve(&owned(&["[::ffff:127.0.0.1]:8"])).await.expect("a literal");
        assert_eq!(mapped[0], resolved[1], "an IPv4 address is one, however it is written");
        assert!(!resolved[2].is_empty());
        assert!(resolved[2].iter().all(|address| address.ip().is_loopback() && address.port() == 9), "{resolved:?}");
        assert_eq!(resolve(&[]).await.expect("nothing to do"), Vec::<Vec<SocketAddr>>::new());
    }

    #[tokio::test]
    async fn a_malformed_seed_is_found_before_any_lookup() {
        let error = resolve(&owned(&["no-such-host.invalid:1", "nonsense"])).await.expect_err("malformed");
        assert!(matches!(&error, SeedError::Malformed { seed } if seed == "nonsense"), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_named() {
        // `.invalid` never exists (RFC 2606 §2).
        let error = resolve(&owned(&["no-such-host.invalid:1"])).await.expect_err("no such name");
        assert!(error.to_string().starts_with("`no-such-host.invalid:1` does not resolve"), "{error}");
    }

    #[tokio::test]
    async fn too_many_seeds_are_refused() {
        let seeds = vec!["localhost:1".to_owned(); SEEDS_MAX + 1];
        assert!(matches!(resolve(&seeds).await, Err(SeedError::TooMany { count }) if count == SEEDS_MAX + 1));
    }
}
