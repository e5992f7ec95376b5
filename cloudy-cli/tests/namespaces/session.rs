//! A session over the hosts of a lab: the master on host 0, a slave on each other one.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use cloudy_node::session::numbers::Numbers;
use serde_json::Value;

use crate::common::{Cluster, Ended, PATIENCE, Recomputed, Running, recompute};
use crate::lab::{Lab, address};

/// The host of the master.
pub(crate) const MASTER: usize = 0;
/// The number of slaves in most sessions, on the hosts `1..=SLAVES`.
pub(crate) const SLAVES: usize = 4;
/// The seed of the slaves' numbers.
const SEED: u64 = 0;
/// Each host has all ports for itself.
const PORT: &str = "10500";
/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A result that has not grown for so long waits: slaves broadcast far more often, and write 20 times a second.
const STILL_FOR: Duration = Duration::from_millis(400);
/// More than a line of a result file.
const TAIL_BYTES: u64 = 4_096;

/// A running session. The processes go before the hosts.
pub(crate) struct Session {
    pub(crate) master: Running,
    slaves: Vec<Running>,
    cluster: Cluster,
    pub(crate) lab: Lab,
}

/// A session that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) master: Ended,
    /// Of host `at + 1`.
    pub(crate) slaves: Vec<Ended>,
    /// The entries in the files of the slaves; none of one that failed.
    files: Vec<Option<Entries>>,
}

/// A result file: the result, and of each message its number at its origin and the view that it was approved in.
#[derive(PartialEq)]
struct Entries {
    result: Recomputed,
    seqs: Vec<u64>,
    views: Vec<u64>,
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages", self.views.len())
    }
}

impl Session {
    /// Starts slaves that answer multicast, and a master that looks for them.
    pub(crate) fn start(lab: Lab, slave_args: &[&str], master_args: &[&str]) -> Self {
        let cluster = Cluster::new();
        let slaves: Vec<Running> = (1..lab.hosts())
            .map(|host| {
                let mut slave = command(&cluster, "slave", host, slave_args);
                slave.arg("--result").arg(file(&cluster, host));
                lab.spawn(host, &slave)
            })
            .collect();
        let listening = |mut slave: Running| {
            slave.wait_for("listening on");
            slave
        };
        let slaves: Vec<Running> = slaves.into_iter().map(listening).collect();
        let search = ["--expect", &slaves.len().to_string(), "--discovery-timeout", "20s"];
        let master = lab.spawn(MASTER, &command(&cluster, "master", MASTER, &[master_args, &search].concat()));
        Self { master, slaves, cluster, lab }
    }

    /// A session in SEND without a planned end, in which every slave's messages are approved.
    pub(crate) fn in_send(lab: Lab, slave_args: &[&str], master_args: &[&str]) -> Self {
        Self::in_send_for("10m", "1s", lab, slave_args, master_args)
    }

    /// A session in SEND with these periods, in which every slave's messages are approved.
    pub(crate) fn in_send_for(send: &str, grace: &str, lab: Lab, slave_args: &[&str], master_args: &[&str]) -> Self {
        let mut session = Self::start(lab, slave_args, &[&[send, grace], master_args].concat());
        session.master.wait_for("SEND: slaves broadcast");
        session.hosts().for_each(|host| session.goes_on(host, 1));
        session
    }

    /// The slaves' hosts.
    pub(crate) fn hosts(&self) -> RangeInclusive<usize> {
        1..=self.slaves.len()
    }

    /// Waits until a slave says that a phase has begun.
    pub(crate) fn enters(&mut self, host: usize, phase: &str) {
        self.slaves[host - 1].wait_for(phase);
    }

    /// Waits until a slave's result has grown since now, by a message of this view or a later one.
    pub(crate) fn goes_on(&self, host: usize, view: u64) {
        let before = self.last_entry(host).map_or(0, |(index, _)| index);
        until(&format!("host {host} continues in view {view}"), || {
            self.last_entry(host).is_some_and(|(index, now)| index > before && now >= view)
        });
    }

    /// Waits until a slave's result grows no more.
    pub(crate) fn stands_still(&self, host: usize) {
        let mut last = (self.last_entry(host), Instant::now());
        until(&format!("host {host} stands still"), || {
            let entry = self.last_entry(host);
            if entry != last.0 {
                last = (entry, Instant::now());
            }
            last.1.elapsed() >= STILL_FOR
        });
    }

    /// Index and view of the last message in a slave's result file.
    pub(crate) fn last_entry(&self, host: usize) -> Option<(u64, u64)> {
        let mut file = File::open(file(&self.cluster, host)).ok()?;
        let bytes = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES))).ok()?;
        let mut tail = String::new();
        file.read_to_string(&mut tail).ok()?;
        // The last line may be incomplete.
        let whole = &tail[..tail.rfind('\n')?];
        let object: Value = serde_json::from_str(whole.rsplit('\n').next()?).ok()?;
        Some((object["index"].as_u64()?, object["view"].as_u64()?))
    }

    /// Kills a slave's process: if its host's plug is pulled already, no other node gets a last packet of its kernel.
    pub(crate) fn kill(&self, host: usize) {
        self.slaves[host - 1].signal("KILL");
    }

    /// Waits until the master says that a view without that slave is in force, and returns the view's number.
    pub(crate) fn leaves(&mut self, host: usize) -> u64 {
        let line = self.master.wait_for(", without ");
        assert!(line.contains(&name(host)), "another than {} left: {line}", name(host));
        view(&line)
    }

    /// Waits until the master says that a slave is on the ring again, and returns the view's number.
    pub(crate) fn is_back(&mut self, host: usize) -> u64 {
        view(&self.master.wait_for(&format!("{} is back", name(host))))
    }

    /// Waits until the master says that a view of so many slaves is in force, and returns the view's number.
    pub(crate) fn has(&mut self, slaves: usize) -> u64 {
        view(&self.master.wait_for(&format!(": {slaves} slaves, ")))
    }

    /// Ends the session as Ctrl-C does, and waits for all to end.
    pub(crate) fn stop(self) -> Outcome {
        self.master.signal("INT");
        self.end()
    }

    /// Waits for all to end.
    pub(crate) fn end(self) -> Outcome {
        let Self { master, slaves, cluster, lab } = self;
        // The slaves first: they need no master in order to end.
        let slaves: Vec<Ended> = slaves.into_iter().map(Running::end).collect();
        let master = master.end();
        let read = |(at, slave): (usize, &Ended)| (slave.code() == Some(0)).then(|| entries(&file(&cluster, at + 1)));
        let files = slaves.iter().enumerate().map(read).collect();
        drop(lab);
        Outcome { master, slaves, files }
    }
}

impl Outcome {
    /// All slaves and the master have one result, by their output and by the files, with messages of every slave.
    pub(crate) fn is_equal(&self) -> Value {
        assert_eq!(self.master.code(), Some(0), "{self:#?}");
        let object = self.master.json();
        assert_eq!((&object["equal"], &object["problems"]), (&Value::Bool(true), &serde_json::json!([])), "{object}");
        self.agree(&(1..=self.slaves.len()).collect::<Vec<_>>());
        object
    }

    /// The slaves on these hosts have one result, by their and the master's output and by the files, with messages of
    /// each of them.
    pub(crate) fn agree(&self, hosts: &[usize]) {
        self.slaves_agree(hosts);
        let object = self.master.json();
        for host in hosts {
            let (own, row) = (self.slaves[host - 1].json(), row(&object, *host));
            for field in ["node", "count", "sum", "digest", "own"] {
                assert_eq!(own[field], row[field], "{field} of {}: {object}", name(*host));
            }
        }
    }

    /// The slaves on these hosts have one result, by their output and by the files. Of the messages of each of them
    /// none is in it twice, and none is missing before its last one.
    pub(crate) fn slaves_agree(&self, hosts: &[usize]) {
        for host in hosts {
            let slave = &self.slaves[host - 1];
            assert_eq!(slave.code(), Some(0), "{slave:#?}");
            let (own, entries) = (slave.json(), self.entries(*host));
            assert!(entries == self.entries(hosts[0]), "the results of hosts {host} and {} differ", hosts[0]);
            assert_eq!(own["count"].as_u64(), Some(entries.result.values.len() as u64), "{own}");
            assert_eq!(own["sum"].as_f64(), Some(entries.result.sum), "{own}");
            assert_eq!(own["digest"], *entries.result.digest, "{own}");
            let messages = entries.of(own["node"].as_str().expect("an id"));
            assert!(!messages.is_empty(), "nothing of {}: {own}", name(*host));
            assert_eq!(own["own"].as_u64(), Some(messages.len() as u64), "{own}");
            let mut numbers = Numbers::new(SEED, own["rank"].as_u64().expect("a rank"));
            let sent = (1..=messages.len() as u64).map(|seq| (seq, numbers.next_number()));
            assert!(messages.into_iter().eq(sent), "what {} sent is not what is in the result", name(*host));
        }
    }

    /// The number of messages of a slave that were approved in this view or later ones, by the first whole result.
    pub(crate) fn messages(&self, host: usize, view: u64) -> usize {
        let object = self.master.json();
        let origin = row(&object, host)["node"].as_str().expect("an id");
        let whole = self.files.iter().flatten().next().expect("a whole result");
        let of_it = |(by, in_view): &(&String, &u64)| *by == origin && **in_view >= view;
        whole.result.origins.iter().zip(&whole.views).filter(of_it).count()
    }

    fn entries(&self, host: usize) -> &Entries {
        self.files[host - 1].as_ref().unwrap_or_else(|| panic!("no result: {:#?}", self.slaves[host - 1]))
    }
}

/// A slave's name at its master.
pub(crate) fn name(host: usize) -> String {
    format!("{}:{PORT}", address(host))
}

/// Looks again and again until the condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up_at, "in vain: {what}");
        // sleep: the kernel's counters and other hosts' files announce nothing.
        std::thread::sleep(LOOK_EVERY);
    }
}

fn command(cluster: &Cluster, role: &str, host: usize, args: &[&str]) -> Command {
    cluster.node(&[&[role, &address(host).to_string(), PORT, "--json"], args].concat())
}

fn file(cluster: &Cluster, host: usize) -> PathBuf {
    cluster.path(&format!("result-{host}.jsonl"))
}

fn entries(path: &std::path::Path) -> Entries {
    let text = std::fs::read_to_string(path).expect("a result file");
    let line = |line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let places = text.lines().map(line).filter_map(|line| Some((line["seq"].as_u64()?, line["view"].as_u64()?)));
    let (seqs, views) = places.unzip();
    Entries { result: recompute(path), seqs, views }
}

impl Entries {
    /// The messages of one origin, in order: their numbers there, and their values.
    fn of(&self, origin: &str) -> Vec<(u64, f64)> {
        let messages = self.seqs.iter().copied().zip(self.result.values.iter().copied());
        let of_it = messages.zip(&self.result.origins).filter(|(_, by)| *by == origin);
        of_it.map(|(message, _)| message).collect()
    }
}

fn row(object: &Value, host: usize) -> &Value {
    let rows = object["nodes"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == *name(host)).unwrap_or_else(|| panic!("no {} in {object}", name(host)))
}

/// The number in `1.234 s  view 2: 3 slaves, …`.
fn view(line: &str) -> u64 {
    let number = line.split("view ").nth(1).and_then(|rest| rest.split(':').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no view in {line}"))
}
