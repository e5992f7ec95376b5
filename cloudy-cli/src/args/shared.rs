//! Arguments that several commands take.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cloudy_node::fault::{DELAY_MAX, Faults};
use cloudy_node::key_file::{CLUSTER_KEY_FILE_VARIABLE, KeyFileChoice, KeyFileError, choose};
use miette::Report;

use crate::output::failure;
use crate::{duration, percent};

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct ListenArgs {
    /// The local address to listen on, an IP address or a name; it also chooses the interface for discovery
    pub(crate) host: String,
    /// The UDP port to listen on; 0 takes a free one
    #[arg(allow_negative_numbers = true)]
    pub(crate) port: u16,
}

impl ListenArgs {
    /// The address to bind, a name's first one.
    pub(crate) async fn address(&self) -> Result<SocketAddr, Report> {
        // A user writes an IPv6 host here without brackets, or takes them along from a HOST:PORT.
        let host = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let remedy = "give a local IP address, for example 127.0.0.1";
        let mut found = tokio::net::lookup_host((host, self.port))
            .await
            .map_err(|error| failure(format_args!("HOST `{host}` does not resolve ({error})"), remedy))?;
        found.next().ok_or_else(|| failure(format_args!("HOST `{host}` has no address"), remedy))
    }
}

/// Which cluster a node belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct KeyFileArgs {
    /// The file with the cluster key: only nodes with the same key talk to each other. Without it, the file that
    /// CLOUDY_CLUSTER_KEY_FILE names, else one in your configuration directory, made on first use
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster_key: Option<PathBuf>,
}

impl KeyFileArgs {
    /// The file to use.
    pub(crate) fn choose(&self) -> Result<KeyFileChoice, KeyFileError> {
        choose(self.cluster_key.as_deref(), std::env::var_os(CLUSTER_KEY_FILE_VARIABLE).as_deref())
    }
}

/// Where a node keeps what is to outlive its process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct DataArgs {
    /// The directory for the node's identity and for sessions on disk, made on first use. Started again with it, also
    /// after a power cut, the node goes on with the session that it was in; what it holds of a session is deleted once
    /// that has ended
    #[arg(long = "data", value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// For a process that a demo started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct ChildArgs {
    /// Say on stdout what happens, a JSON object on a line each; take orders on stdin, and end with whoever holds its
    /// other end
    #[arg(long, hide = true)]
    pub(crate) announce: bool,
    /// Be ready to be cut off from others by an order
    #[arg(long, hide = true, requires = "announce")]
    pub(crate) partitions: bool,
}

/// Faults to inject below QUIC.
#[derive(Clone, Debug, PartialEq, Args)]
#[command(next_help_heading = "Faults, injected below QUIC into what this node sends")]
pub(crate) struct FaultArgs {
    /// Lose this share of datagrams: 10% or 0.1
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = percent::parse, allow_hyphen_values = true)]
    pub(crate) loss: f64,
    /// Delay each datagram: 20ms
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = delay, allow_hyphen_values = true)]
    pub(crate) latency: Duration,
    /// Spread the delay by up to this much both ways: 5ms
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = delay, allow_hyphen_values = true)]
    pub(crate) jitter: Duration,
    /// Hold this share of datagrams back, so that later ones overtake them: 5%
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = percent::parse, allow_hyphen_values = true)]
    pub(crate) reorder: f64,
    /// Send this share of datagrams twice: 1%
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = percent::parse, allow_hyphen_values = true)]
    pub(crate) duplicate: f64,
    /// Where the dice for the faults start
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) fault_seed: u64,
}

impl FaultArgs {
    /// The faults as the node takes them.
    pub(crate) fn faults(&self) -> Faults {
        Faults {
            loss: self.loss,
            latency: self.latency,
            jitter: self.jitter,
            reorder: self.reorder,
            duplicate: self.duplicate,
            seed: self.fault_seed,
        }
    }

    /// The arguments that give another process the same faults, with dice of its own: nodes that share them lose in
    /// step.
    pub(crate) fn arguments(&self, fault_seed: u64) -> Vec<OsString> {
        let values = [
            ("--loss", self.loss.to_string()),
            ("--latency", duration::show(self.latency)),
            ("--jitter", duration::show(self.jitter)),
            ("--reorder", self.reorder.to_string()),
            ("--duplicate", self.duplicate.to_string()),
            ("--fault-seed", fault_seed.to_string()),
        ];
        values.into_iter().flat_map(|(name, value)| [name.into(), value.into()]).collect()
    }
}

/// A duration that a datagram may be delayed.
pub(super) fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration::parse(text).map_err(|error| error.to_string())?;
    if delay > DELAY_MAX {
        return Err(format!("longer than {}; write for example 20ms", duration::show(DELAY_MAX)));
    }
    Ok(delay)
}
