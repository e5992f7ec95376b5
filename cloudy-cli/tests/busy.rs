//! A session at full speed on a machine that has no time for it.
#![cfg(unix)]

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Cluster, Ended, Running};

/// Keeps every core busy, and others waiting for it.
fn with_busy_cores(work: impl FnOnce()) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 * cores {
            scope.spawn(|| {
                let mut spins = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    spins = black_box(spins).wrapping_add(1);
                }
            });
        }
        work();
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn nobody_is_evicted_for_want_of_cpu() {
    with_busy_cores(|| {
        let cluster = Cluster::new();
        let slaves: Vec<Running> = (0..4).map(|_| cluster.slave(&["--json"]).0).collect();
        let args = ["master", "127.0.0.1", "0", "3s", "2s", "--on-failure", "evict", "--expect", "4", "--json"];
        let master = Running::start(cluster.node(&args)).end();
        let slaves: Vec<Ended> = slaves.into_iter().map(Running::end).collect();
        assert_eq!(master.code(), Some(0), "{master:#?}");
        assert!(!master.stderr.contains("without"), "{}", master.stderr);
        let digest = |ended: &Ended| ended.json()["digest"].clone();
        assert!(slaves.iter().all(|slave| slave.code() == Some(0)), "{slaves:#?}");
        assert!(slaves.iter().all(|slave| digest(slave) == digest(&slaves[0])), "{slaves:#?}");
    });
}
