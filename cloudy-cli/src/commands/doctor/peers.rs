//! Checks of the paths to peers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloudy_node::admin::{AdminAddress, AdminListener};
use cloudy_node::discovery::{Advertisement, Finder, GROUP, Multicast, Responder, seeds};
use cloudy_node::{ConnectError, LinkFailure, WireVersions, wire_versions};
use tokio::time::{Instant, sleep};

use super::Finding;
use crate::admin_client::fetch;
use crate::args::DoctorArgs;
use crate::keys::Trust;

/// Between two looks at the path of a link.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the transport may take to find the largest datagram of a path.
const MTU_MAX: Duration = Duration::from_secs(3);
/// Datagrams of an Ethernet path have more bytes than this.
const DATAGRAM_BYTES_GOOD: u16 = 1_400;
/// A round trip that a group's default timeouts do not expect.
const ROUND_TRIP_LONG: Duration = Duration::from_millis(200);
/// Clocks are compared only by people who read logs.
const CLOCK_DIFFERENCE_MAX_MS: u64 = 5_000;
/// The time for answers to a multicast query.
const MULTICAST_MAX: Duration = Duration::from_secs(2);

/// Links to each peer.
pub(super) async fn check(args: &DoctorArgs, trust: &Trust) -> Vec<Finding> {
    let mut findings = Vec::new();
    for peer in &args.peers {
        match seeds::look_up(peer).await {
            Err(error) => findings.push(Finding::broken(
                "name",
                error.to_string(),
                "correct the name, or the name service of this machine",
            )),
            Ok(addresses) => {
                for address in addresses {
                    findings.extend(path(trust, peer, address, args.timeout).await);
                }
            }
        }
    }
    if let Some(interface) = args.multicast {
        findings.push(multicast(trust, interface).await);
    }
    findings
}

/// The checks of one link. Its node is new, so that it can run beside the node of this machine.
async fn path(trust: &Trust, name: &str, address: SocketAddr, limit: Duration) -> Vec<Finding> {
    let any = match address {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)),
    };
    let nowhere = AdminAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let started = async {
        let admin = AdminListener::bind(&nowhere).map_err(|error| error.to_string())?;
        let at = admin.address().map_err(|error| error.to_string())?;
        let node = trust.builder().bind(any).start().await.map_err(|error| error.to_string())?;
        node.serve_admin(admin).map_err(|error| error.to_string())?;
        Ok::<_, String>((node, at))
    };
    let (node, admin) = match started.await {
        Ok(started) => started,
        Err(error) => {
            let remedy = "follow the text, then run this again";
            return vec![Finding::broken("node", format!("no node starts here: {error}"), remedy)];
        }
    };
    let findings = match node.connect(address).timeout(limit).await {
        Ok(_) => {
            let link = Finding::fine("link", format!("{name} ({address}) answers, so both directions are open"));
            let mut findings = vec![link];
            findings.extend(of_path(name, address, &admin).await);
            findings
        }
        Err(error) => vec![no_link(name, address, &error)],
    };
    node.shutdown().await;
    findings
}

fn is_of_version(failure: &LinkFailure) -> bool {
    use LinkFailure::{OtherProtocol, OtherQuicVersion, OtherWireVersion};
    matches!(failure, OtherProtocol | OtherQuicVersion | OtherWireVersion { .. })
}

fn no_link(name: &str, address: SocketAddr, error: &ConnectError) -> Finding {
    let what = format!("no link to {name}: {error}");
    match error {
        ConnectError::Link { failure: LinkFailure::OtherClusterKey, .. } => {
            Finding::broken("key", what, "give both nodes the same key file, and compare `cloudy key show` on both")
        }
        ConnectError::Link { failure, .. } if is_of_version(failure) => {
            Finding::broken("version", what, "run releases that share a wire version: see `cloudy version`")
        }
        ConnectError::Link { failure, .. } if failure.is_refusal() => {
            Finding::broken("refused", what, "follow the text, on the node that refuses")
        }
        ConnectError::SameIdentity { .. } | ConnectError::Itself { .. } => {
            Finding::broken("identity", what, "give each node a data directory and a node key of its own")
        }
        _ => Finding::broken(
            "link",
            what,
            format!(
                "start the node there; else open UDP port {} in both directions: packets to it, and its answers. Run \
                 `cloudy doctor` on that machine too: if only one side fails, the firewall of the other blocks new \
                 connections",
                address.port()
            ),
        ),
    }
}

/// Round trip and largest datagram, as the transport measures them.
async fn of_path(name: &str, address: SocketAddr, admin: &AdminAddress) -> Vec<Finding> {
    let give_up_at = Instant::now() + MTU_MAX;
    loop {
        let status = fetch(admin, MTU_MAX).await.ok();
        let peer = status.and_then(|(_, status)| status.peers.into_iter().find(|peer| peer.address == address));
        let is_late = Instant::now() >= give_up_at;
        match peer {
            Some(peer) if is_late || peer.datagram_bytes >= DATAGRAM_BYTES_GOOD => {
                let round_trip = Duration::from_micros(peer.round_trip_us);
                return vec![of_round_trip(name, round_trip), of_datagram(name, peer.datagram_bytes)];
            }
            None if is_late => {
                let remedy = "run this again; look at the log of the node there if it stays";
                return vec![Finding::warning("link", format!("the link to {name} was closed at once"), remedy)];
            }
            // sleep: the transport probes in the background.
            _ => sleep(LOOK_EVERY).await,
        }
    }
}

fn of_round_trip(name: &str, round_trip: Duration) -> Finding {
    let what = format!("the round trip to {name} takes {:.1} ms", round_trip.as_secs_f64() * 1_000.0);
    if round_trip < ROUND_TRIP_LONG {
        return Finding::fine("round trip", what);
    }
    Finding::warning("round trip", what, "place the nodes closer, or use a longer --failure-timeout")
}

fn of_datagram(name: &str, bytes: u16) -> Finding {
    let what = format!("the largest datagram to {name} has {bytes} bytes");
    if bytes >= DATAGRAM_BYTES_GOOD {
        return Finding::fine("path mtu", what);
    }
    let remedy = "expected for a tunnel or VPN; else set the MTU of the interfaces on the path to 1500. It costs throughput only";
    Finding::warning("path mtu", what, remedy)
}

/// Whether a query by multicast is answered on this interface, by a responder of this process.
async fn multicast(trust: &Trust, interface: IpAddr) -> Finding {
    let place = Multicast::new(GROUP, interface);
    let answered = async {
        let node = trust.builder().start().await.map_err(|error| error.to_string())?;
        let advertised = Advertisement::new(node.id(), node.local_addr(), "doctor");
        let responder =
            Responder::start(node.discovery_keys(), place, advertised).map_err(|error| error.to_string())?;
        let found = async {
            let mut finder = Finder::start(node.discovery_keys(), place, MULTICAST_MAX)?;
            while let Some(hint) = finder.next().await {
                if hint.node == node.id() {
                    return Ok(true);
                }
            }
            Ok::<_, cloudy_node::discovery::DiscoveryError>(false)
        };
        let found = found.await.map_err(|error| error.to_string());
        drop(responder);
        node.shutdown().await;
        found
    };
    let remedy =
        "enable multicast on the interface (ip link set dev NAME multicast on), open UDP port 24670, or name the nodes";
    match answered.await {
        Ok(true) => Finding::fine("multicast", format!("a query on {interface} is answered")),
        Ok(false) => Finding::warning("multicast", format!("a query on {interface} is not answered"), remedy),
        Err(error) => Finding::warning("multicast", format!("multicast on {interface} fails: {error}"), remedy),
    }
}

/// Compares the clocks and versions of nodes with an admin endpoint.
pub(super) async fn clocks(args: &DoctorArgs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in &args.status {
        let before = now_ms();
        match fetch(address, args.timeout).await {
            Err(error) => findings.push(Finding::broken("admin", error.to_string(), "start that node with --admin")),
            Ok((_, status)) => {
                let middle = before.midpoint(now_ms());
                findings.push(of_clock(address, middle.abs_diff(status.at_ms)));
                findings.push(of_version(address, status.wire_version_min, status.wire_version));
            }
        }
    }
    findings
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn of_clock(address: &AdminAddress, difference_ms: u64) -> Finding {
    let what = format!("the clocks of this machine and of {address} differ by {:.1} s", difference_ms as f64 / 1_000.0);
    if difference_ms <= CLOCK_DIFFERENCE_MAX_MS {
        return Finding::fine("clock", what);
    }
    let remedy = "synchronize both by NTP: groups do not depend on it, logs and certificates do";
    Finding::warning("clock", what, remedy)
}

fn of_version(address: &AdminAddress, min: u16, max: u16) -> Finding {
    let (theirs, ours) = (WireVersions { min, max }, wire_versions());
    let what = format!("{address} has wire format {theirs}, and this program {ours}");
    if ours.common(theirs).is_some() {
        return Finding::fine("version", what);
    }
    Finding::broken("version", what, "run releases that share a wire version: see `cloudy version`")
}
