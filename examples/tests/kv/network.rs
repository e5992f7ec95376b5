//! A network namespace of a test, in which packets between nodes can be dropped.

use std::net::Ipv4Addr;
use std::process::Command;

/// Set in the process that runs in the namespace.
const INSIDE: &str = "CLOUDY_KV_INSIDE";
/// `required`: a machine that does not permit namespaces is a failure.
const REQUIRED: &str = "CLOUDY_NAMESPACES";

/// Drops packets by their source and destination.
const FILTER: &str = "table ip faults {
    set cut_off { type ipv4_addr . ipv4_addr; }
    chain arriving {
        type filter hook input priority filter;
        ip saddr . ip daddr @cut_off drop
    }
}";

/// The packet filter of this process's namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network(());

impl Network {
    /// Runs the test of this name in a namespace of its own, and returns its network there. None in the process that has
    /// started that one, and has waited for its end; and, with a line that says why, on a machine that does not permit it.
    pub(crate) fn of_test(name: &str) -> Option<Self> {
        if std::env::var_os(INSIDE).is_some() {
            tool("ip", &["link", "set", "lo", "up"]).unwrap();
            tool("nft", &[FILTER]).unwrap();
            return Some(Self(()));
        }
        if let Err(reason) = tool("unshare", &["--net", "nft", FILTER]) {
            let required = std::env::var(REQUIRED).is_ok_and(|value| value == "required");
            assert!(!required, "network namespaces are required here ({REQUIRED}), but: {reason}");
            eprintln!("skipped: this machine does not permit network namespaces: {reason}");
            return None;
        }
        let test = std::env::current_exe().unwrap();
        let mut inside = Command::new("unshare");
        inside.arg("--net").arg(test).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
        let status = inside.status().unwrap();
        assert!(status.success(), "the test in its namespace: {status}");
        None
    }

    /// `to` receives no packet of `from`.
    pub(crate) fn cut(self, from: Ipv4Addr, to: Ipv4Addr) {
        self.filter(&format!("add element ip faults cut_off {{ {from} . {to} }}"));
    }

    /// All packets arrive.
    pub(crate) fn heal(self) {
        self.filter("flush set ip faults cut_off");
    }

    fn filter(self, command: &str) {
        tool("nft", &[command]).unwrap();
    }
}

fn tool(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("cannot run {program}: {error}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", words.trim())) }
}
