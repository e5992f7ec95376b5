//! The address of an admin endpoint.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The prefix of a path in the text form.
const UNIX: &str = "unix:";

/// The address of an admin endpoint: a TCP address, or the path of a unix socket.
///
/// Its text form is `HOST:PORT` or `unix:PATH`. The host is an IP address or `localhost`: another name could lead to an
/// address that other machines reach, which has to be given as such. A port alone is one of 127.0.0.1.
///
/// ```
/// use cloudy_node::admin::AdminAddress;
///
/// assert_eq!("localhost:7401".parse(), Ok(AdminAddress::Tcp(([127, 0, 0, 1], 7401).into())));
/// assert_eq!("unix:/run/cloudy.sock".parse(), Ok(AdminAddress::Unix("/run/cloudy.sock".into())));
/// assert!("example.org:7401".parse::<AdminAddress>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a unix socket, which is created with access for this user only.
    Unix(PathBuf),
}

/// The reason for which a text is not an address of an admin endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseAdminAddressError {
    /// The path is missing.
    #[error("`unix:` needs a path, for example unix:/run/cloudy.sock")]
    NoPath,
    /// The port is missing or not a number.
    #[error("an admin address is HOST:PORT or unix:PATH, for example 127.0.0.1:7401; {text:?} has no port")]
    NoPort {
        /// The text.
        text: String,
    },
    /// The host is a name.
    #[error(
        "the host of an admin address is an IP address or localhost, and {host:?} is a name: write the IP address, and one that other machines reach only if they may read the status"
    )]
    Name {
        /// The host.
        host: String,
    },
}

impl FromStr for AdminAddress {
    type Err = ParseAdminAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAdminAddressError> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return if path.is_empty() { Err(ParseAdminAddressError::NoPath) } else { Ok(Self::Unix(path.into())) };
        }
        let no_port = || ParseAdminAddressError::NoPort { text: text.to_owned() };
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(no_port());
        }
        let port = port.parse().map_err(|_| no_port())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let ip = match bare {
            "" if !text.starts_with(':') => IpAddr::V4(Ipv4Addr::LOCALHOST),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().map_err(|_| ParseAdminAddressError::Name { host: host.to_owned() })?,
        };
        Ok(Self::Tcp(SocketAddr::new(ip, port)))
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["127.0.0.1:7401", "[::1]:7401", "0.0.0.0:0", "unix:/run/cloudy.sock", "unix:relative"] {
            assert_eq!(text.parse::<AdminAddress>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("7401".parse::<AdminAddress>().map(|address| address.to_string()), Ok("127.0.0.1:7401".to_owned()));
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_in_words() {
        for text in ["", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:+1", "127.0.0.1:65536", "unix"] {
            let error = text.parse::<AdminAddress>().expect_err(text).to_string();
            assert!(error.contains("HOST:PORT or unix:PATH"), "{text}: {error}");
        }
        for text in ["example.org:7401", "*:7401", ":7401"] {
            let error = text.parse::<AdminAddress>().expect_err(text).to_string();
            assert!(error.contains("is a name"), "{text}: {error}");
        }
        assert_eq!("unix:".parse::<AdminAddress>(), Err(ParseAdminAddressError::NoPath));
    }
}
