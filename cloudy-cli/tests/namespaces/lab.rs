//! Hosts with addresses of their own on one machine: a network namespace each, joined by a bridge, and faults between them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::Running;

/// Set where the tests can run: that they are skipped is then a failure.
const REQUIRED_VARIABLE: &str = "CLOUDY_NAMESPACES";
/// The prefix of a namespace's name; the id of the process that made it follows.
const NAME_PREFIX: &str = "cloudy-lab-";
/// A host's end of its link.
const LINK: &str = "eth0";
const BRIDGE: &str = "bridge0";
/// Maximum queue of a slow link; the rest is dropped, as a router does.
const QUEUE_BYTES_MAX: &str = "64kb";
/// Maximum burst of a slow link: more than any packet of this network.
const BURST_BYTES: &str = "16kb";

/// The packet filter of a host. It drops all packets from `cut_off`, and of the rest those that chain `loss` drops.
const FILTER: &str = "table inet faults {
    set cut_off { type ipv4_addr; }
    counter cut { }
    counter lost { }
    chain loss { }
    chain arriving {
        type filter hook input priority filter;
        ip saddr @cut_off counter name cut drop
        jump loss
    }
}";

/// Some hosts on a network that nothing else is on. All of it goes with this value.
pub(crate) struct Lab {
    hosts: Vec<Namespace>,
    switch: Namespace,
}

/// A reason for a drop in a host's packet filter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dropped {
    /// The sender was blocked.
    Cut,
    /// Chance.
    Lost,
}

impl Lab {
    /// Hosts `0..hosts`, or None and a line that says why not, on a machine that does not permit it.
    pub(crate) fn new(hosts: usize) -> Option<Self> {
        remove_leftovers();
        if let Err(reason) = probe() {
            let required = std::env::var(REQUIRED_VARIABLE).is_ok_and(|value| value == "required");
            assert!(!required, "network namespaces are required here ({REQUIRED_VARIABLE}), but: {reason}");
            eprintln!("skipped: this machine does not permit hosts in network namespaces: {reason}");
            return None;
        }
        Some(Self::build(hosts).unwrap_or_else(|reason| panic!("{reason}")))
    }

    fn build(hosts: usize) -> Result<Self, String> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let mut built = Self { hosts: Vec::new(), switch: Namespace::add(&format!("{lab}-switch"))? };
        built.switch.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        built.switch.ip(&["link", "set", BRIDGE, "up"])?;
        for number in 0..hosts {
            let host = Namespace::add(&format!("{lab}-{number}"))?;
            host.ip(&["link", "set", "lo", "up"])?;
            host.run("nft", &[FILTER])?;
            built.hosts.push(host);
            built.connect(number)?;
        }
        Ok(built)
    }

    fn connect(&self, number: usize) -> Result<(), String> {
        let (host, port) = (&self.hosts[number], port(number));
        host.ip(&["link", "add", LINK, "type", "veth", "peer", "name", &port, "netns", &self.switch.name])?;
        // Without offload each datagram is a packet, so that a drop is a drop of one.
        host.ip(&["link", "set", LINK, "gso_max_segs", "1", "up"])?;
        host.ip(&["address", "add", &format!("{}/24", address(number)), "dev", LINK])?;
        // Duplicate address detection would take a second.
        host.ip(&["address", "add", &format!("{}/64", address_v6(number)), "dev", LINK, "nodad"])?;
        self.switch.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        Ok(())
    }

    /// A host's link-local IPv6 address, which its interface has given itself.
    pub(crate) fn link_local(&self, host: usize) -> String {
        let shown = self.hosts[host].ip(&["-6", "-o", "address", "show", "dev", LINK, "scope", "link"]);
        let shown = shown.unwrap_or_else(|reason| panic!("{reason}"));
        let address = shown.split_whitespace().find_map(|word| word.strip_suffix("/64"));
        address.unwrap_or_else(|| panic!("no link-local address in {shown:?}")).to_owned()
    }

    /// Removes a host's interface.
    pub(crate) fn unplug(&self, host: usize) {
        self.hosts[host].ip(&["link", "delete", LINK]).unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Creates a host's interface again, with its addresses.
    pub(crate) fn plug(&self, host: usize) {
        self.connect(host).unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// The number of hosts.
    pub(crate) fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Starts the command as a process of that host; it is killed when dropped.
    pub(crate) fn spawn(&self, host: usize, command: &Command) -> Running {
        let mut inside = Command::new("ip");
        // It becomes the command's process, so that a signal reaches that one.
        inside.args(["netns", "exec", &self.hosts[host].name]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        Running::start(inside)
    }

    /// `to` hears nothing more of `from`.
    pub(crate) fn block(&self, from: usize, to: usize) {
        self.filter(to, &format!("add element inet faults cut_off {{ {} }}", address(from)));
    }

    /// Cuts the hosts of one side off from those of the other. Hosts on neither side reach all.
    pub(crate) fn partition(&self, one: &[usize], other: &[usize]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.block(a, b);
            self.block(b, a);
        }
    }

    /// Cuts a host off from all others.
    pub(crate) fn isolate(&self, host: usize) {
        let others: Vec<usize> = (0..self.hosts.len()).filter(|other| *other != host).collect();
        self.partition(&[host], &others);
    }

    /// All hear all again. Loss and slow links stay.
    pub(crate) fn heal(&self) {
        (0..self.hosts.len()).for_each(|host| self.filter(host, "flush set inet faults cut_off"));
    }

    /// Of the UDP datagrams that arrive at a host, this share is lost.
    pub(crate) fn loss(&self, host: usize, percent: u32) {
        let rule = format!("meta l4proto udp numgen random mod 100 < {percent} counter name lost drop");
        self.filter(host, &format!("flush chain inet faults loss; add rule inet faults loss {rule}"));
    }

    /// A host's link takes this rate, both ways, for example `2mbit`.
    pub(crate) fn slow(&self, host: usize, rate: &str) {
        let ends = [(&self.hosts[host], LINK.to_owned()), (&self.switch, port(host))];
        for (namespace, link) in ends {
            namespace.bucket(&link, rate).unwrap_or_else(|reason| panic!("{reason}"));
        }
    }

    /// From here on the switch drops packets of more bytes than this to and from a host, without a word.
    pub(crate) fn narrow(&self, host: usize, bytes_max: u32) {
        let (port, bytes_max) = (port(host), bytes_max.to_string());
        let set = self.switch.ip(&["link", "set", &port, "mtu", &bytes_max]);
        set.unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// The number of packets of a host that the switch has dropped at its input.
    pub(crate) fn too_large(&self, host: usize) -> u64 {
        let shown = self.switch.ip(&["-s", "-j", "link", "show", "dev", &port(host)]);
        number_after(&shown.unwrap_or_else(|reason| panic!("{reason}")), "\"dropped\":")
    }

    /// Pulls a host's plug, for good.
    pub(crate) fn down(&self, host: usize) {
        self.switch.ip(&["link", "set", &port(host), "down"]).unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// The number of packets that a host's filter has dropped.
    pub(crate) fn dropped(&self, host: usize, reason: Dropped) -> u64 {
        let counter = match reason {
            Dropped::Cut => "cut",
            Dropped::Lost => "lost",
        };
        let shown = self.hosts[host].run("nft", &["list", "counter", "inet", "faults", counter]);
        number_after(&shown.unwrap_or_else(|reason| panic!("{reason}")), "packets ")
    }

    /// The number of times that a host's slow link, or the switch towards it, has delayed packets.
    pub(crate) fn held_back(&self, host: usize) -> u64 {
        let shown = |namespace: &Namespace, link: &str| namespace.run("tc", &["-s", "qdisc", "show", "dev", link]);
        [shown(&self.hosts[host], LINK), shown(&self.switch, &port(host))]
            .map(|shown| number_after(&shown.unwrap_or_else(|reason| panic!("{reason}")), "overlimits "))
            .iter()
            .sum()
    }

    fn filter(&self, host: usize, commands: &str) {
        self.hosts[host].run("nft", &[commands]).unwrap_or_else(|reason| panic!("{reason}"));
    }
}

/// A host's address.
pub(crate) fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(host + 1).expect("a host of this network"))
}

/// A host's IPv6 address.
pub(crate) fn address_v6(host: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::try_from(host + 1).expect("a host of this network"))
}

/// The switch's end of a host's link.
fn port(host: usize) -> String {
    format!("port{host}")
}

/// A network namespace with a name; processes in it outlive it.
struct Namespace {
    name: String,
}

impl Namespace {
    fn add(suffix: &str) -> Result<Self, String> {
        let name = format!("{NAME_PREFIX}{}-{suffix}", std::process::id());
        tool("ip", &["netns", "add", &name])?;
        Ok(Self { name })
    }

    fn ip(&self, args: &[&str]) -> Result<String, String> {
        tool("ip", &[&["-n", &self.name], args].concat())
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        tool("ip", &[&["netns", "exec", &self.name, program], args].concat())
    }

    fn bucket(&self, link: &str, rate: &str) -> Result<String, String> {
        let bucket = ["root", "tbf", "rate", rate, "burst", BURST_BYTES, "limit", QUEUE_BYTES_MAX];
        self.run("tc", &[&["qdisc", "add", "dev", link], &bucket[..]].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(reason) = tool("ip", &["netns", "delete", &self.name]) {
            // The next run removes it; a panic here would hide the test's own.
            eprintln!("{reason}");
        }
    }
}

/// Tries everything that a lab needs.
fn probe() -> Result<(), String> {
    static PROBES: AtomicU32 = AtomicU32::new(0);
    let host = Namespace::add(&format!("probe{}", PROBES.fetch_add(1, Ordering::Relaxed)))?;
    host.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    host.ip(&["link", "add", LINK, "type", "veth", "peer", "name", "port0"])?;
    host.bucket(LINK, "1mbit")?;
    host.run("nft", &[FILTER])?;
    host.run("nft", &["add rule inet faults loss numgen random mod 100 < 5 counter name lost drop"])?;
    Ok(())
}

/// Removes the namespaces of test processes that were killed, and the processes in them.
fn remove_leftovers() {
    // If this fails, the probe reports the cause. Another test process may do the same at this moment.
    for line in tool("ip", &["netns", "list"]).unwrap_or_default().lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let Some(owner) = name.strip_prefix(NAME_PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        for process in tool("ip", &["netns", "pids", name]).unwrap_or_default().lines() {
            let _ = tool("kill", &["-KILL", process]);
        }
        let _ = tool("ip", &["netns", "delete", name]);
    }
}

/// Runs a command to its end: its output, or the cause of its failure.
fn tool(program: &str, args: &[&str]) -> Result<String, String> {
    let text = args.join(" ");
    let line = format!("`{program} {}`", text.lines().next().unwrap_or_default());
    let output = Command::new(program).args(args).output().map_err(|error| format!("cannot run {line}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{line} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn number_after(text: &str, words: &str) -> u64 {
    let digits = text.split(words).nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no {words:?} in {text}"))
}
