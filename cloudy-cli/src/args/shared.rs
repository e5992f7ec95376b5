//! Arguments that several commands share.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cloudy_node::fault::Faults;
use cloudy_node::key_file::{CLUSTER_KEY_FILE_VARIABLE, KeyFileChoice, KeyFileError, choose};
use cloudy_node::session::SessionName;
use miette::Report;
use tokio::time::{Instant, sleep};

use super::AdminArgs;
use super::values::{delay, wait, whole};
use crate::output::{failure, say_plainly};
use crate::ring::{DurabilityChoice, RingChoice};
use crate::{duration, percent};

/// The address of a node.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct ListenArgs {
    /// The local address to listen on, an IP address or a name; it also chooses the interface for discovery. HOST:PORT in
    /// one argument means the same
    pub(crate) host: String,
    /// The UDP port to listen on; 0 takes a free one
    #[arg(allow_hyphen_values = true, value_parser = whole(0_u16, u16::MAX, "10502"))]
    pub(crate) port: u16,
    /// Timeout for HOST: its name has to resolve, and its address has to be one of this machine
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = wait, allow_hyphen_values = true)]
    pub(crate) start_timeout: Duration,
}

/// The time between two checks of an address that is not available yet.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Refuses multicast addresses, which the system binds and no other node can dial.
fn of_one_machine(address: SocketAddr) -> Result<SocketAddr, Report> {
    let ip = address.ip();
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(failure(
            format_args!("{ip} is a multicast address: a node cannot listen there"),
            "give an address of this machine, for example 127.0.0.1",
        ));
    }
    Ok(address)
}

impl ListenArgs {
    /// Resolves the address to bind: the first one of a name, or `fixed`. While the name does not resolve, or the
    /// address is not one of this machine yet, it retries until the start timeout, and reports that once.
    pub(crate) async fn address(&self, fixed: Option<SocketAddr>) -> Result<SocketAddr, Report> {
        let deadline = Instant::now() + self.start_timeout;
        let mut said = false;
        loop {
            let problem = match self.usable(fixed).await {
                Ok(address) => return of_one_machine(address),
                Err(problem) => problem,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(problem);
            }
            if !std::mem::replace(&mut said, true) {
                say_plainly(&format!("{problem}; the node retries for {}", duration::show(self.start_timeout)));
            }
            // sleep: the system sends no notification of names and addresses.
            sleep(LOOK_AGAIN_AFTER.min(left)).await;
        }
    }

    async fn usable(&self, fixed: Option<SocketAddr>) -> Result<SocketAddr, Report> {
        let address = match fixed {
            Some(address) => address,
            None => self.resolved().await?,
        };
        // With any port: the start of the node checks whether the requested one is free.
        let mut any_port = address;
        any_port.set_port(0);
        match UdpSocket::bind(any_port) {
            Err(error) if is_transient(&error) => Err(failure(
                format_args!("{} is not an address of this machine ({error})", address.ip()),
                "give an address of this machine, for example 127.0.0.1; `--start-timeout` sets the time to wait for it",
            )),
            _ => Ok(address),
        }
    }

    async fn resolved(&self) -> Result<SocketAddr, Report> {
        // A user writes an IPv6 host here without brackets, or copies them from a HOST:PORT.
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

/// Whether an address may become available: its interface is missing or down, or the address is not assigned or not
/// verified yet.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    #[cfg(unix)]
    let no_device = error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error());
    #[cfg(not(unix))]
    let no_device = false;
    no_device || matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkDown | NetworkUnreachable)
}

/// The session of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct SessionArgs {
    /// The session's name: a master counts only slaves of its own session
    #[arg(id = "session", long = "session", value_name = "NAME", env = "CLOUDY_SESSION", default_value_t)]
    pub(crate) name: SessionName,
}

/// The cluster of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct KeyFileArgs {
    /// The file with the cluster key: only nodes with the same key communicate. Without it, the file that
    /// CLOUDY_CLUSTER_KEY_FILE names, else one in your configuration directory, which is created on first use
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster_key: Option<PathBuf>,
}

impl KeyFileArgs {
    /// The file to use.
    pub(crate) fn choose(&self) -> Result<KeyFileChoice, KeyFileError> {
        choose(self.cluster_key.as_deref(), std::env::var_os(CLUSTER_KEY_FILE_VARIABLE).as_deref())
    }
}

/// What a node trusts: a cluster key, or the certificates of a public key infrastructure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct TrustArgs {
    /// The cluster key.
    #[command(flatten)]
    pub(crate) key_file: KeyFileArgs,
    /// The node's certificate of your own public key infrastructure, as PEM, with its intermediate certificates behind it;
    /// in place of a cluster key, with --key and --ca
    #[arg(long, value_name = "FILE", requires_all = ["key", "ca"], conflicts_with = "cluster_key")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of that certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// The certificates of the authorities that sign the nodes' certificates, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) ca: Option<PathBuf>,
}

/// The data directory of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct DataArgs {
    /// The directory for the node's identity and for sessions on disk, created on first use. A node that is restarted
    /// with it, also after a power failure, continues its session. The data of a session is deleted once that has ended
    #[arg(long = "data", value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// Options of a process that a demo started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct ChildArgs {
    /// Report events on stdout as JSON lines, read orders from stdin, and end with the process that holds its other end
    #[arg(long, hide = true)]
    pub(crate) announce: bool,
    /// The parent's directory: deleted if the parent is gone, so that no private key outlives it
    #[arg(long, hide = true, requires = "announce", value_name = "DIR")]
    pub(crate) parents_files: Option<PathBuf>,
    /// Allow orders that cut this process off from others
    #[arg(long, hide = true, requires = "announce")]
    pub(crate) partitions: bool,
}

/// Faults to inject below QUIC.
#[derive(Clone, Debug, PartialEq, Args)]
#[command(next_help_heading = "Faults, injected below QUIC into the datagrams of this node")]
pub(crate) struct FaultArgs {
    /// Lose this share of datagrams: 10% or 0.1
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = percent::parse, allow_hyphen_values = true)]
    pub(crate) loss: f64,
    /// Delay each datagram: 20ms
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = delay, allow_hyphen_values = true)]
    pub(crate) latency: Duration,
    /// Vary the delay by up to this much in both directions: 5ms
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = delay, allow_hyphen_values = true)]
    pub(crate) jitter: Duration,
    /// Hold back this share of datagrams, so that later ones overtake them: 5%
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = percent::parse, allow_hyphen_values = true)]
    pub(crate) reorder: f64,
    /// Send this share of datagrams twice: 1%
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = percent::parse, allow_hyphen_values = true)]
    pub(crate) duplicate: f64,
    /// Seed of the faults' random numbers
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_hyphen_values = true,
          value_parser = whole(0, u64::MAX, "7"))]
    pub(crate) fault_seed: u64,
}

impl FaultArgs {
    /// The faults for a node.
    pub(crate) fn faults(&self) -> Faults {
        Faults::none()
            .loss(self.loss)
            .latency(self.latency)
            .jitter(self.jitter)
            .reorder(self.reorder)
            .duplicate(self.duplicate)
            .seed(self.fault_seed)
    }

    /// The arguments that give another process the same faults with another seed: nodes with equal seeds lose the same
    /// datagrams.
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

/// The configuration of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct GroupArgs {
    /// Ring model: when a member may send
    #[arg(long, value_name = "MODEL", default_value_t)]
    pub(crate) ring: RingChoice,
    /// Where a message is stored before it is confirmed, and where the result is kept. With disk, a master and each of
    /// its slaves need --data, and the session survives the death of all its processes at once: start them again. The
    /// processes of a demo or bench have separate directories below TMPDIR, which are deleted at its end
    #[arg(long, value_name = "WHERE", default_value_t)]
    pub(crate) durability: DurabilityChoice,
}

/// Options of every process of a session.
#[derive(Clone, Debug, PartialEq, Args)]
pub(crate) struct ProcessArgs {
    /// The session.
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// The data directory.
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Options for a demo.
    #[command(flatten)]
    pub(crate) child: ChildArgs,
    /// The cluster key.
    #[command(flatten)]
    pub(crate) key: KeyFileArgs,
    /// Injected faults.
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
    /// The admin endpoint.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}
