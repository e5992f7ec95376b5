//! Resources of a process, as the operating system counts them (Linux: `proc(5)`); zero on other systems.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A tick of `/proc/PID/stat`: `USER_HZ` is 100 on every Linux that Rust's standard library runs on.
const TICK_US: u64 = 10_000;

/// Microseconds since the Unix epoch.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros() as u64
}

/// The processor time of this process, in user and kernel mode; to 10 ms.
pub(crate) fn cpu_us() -> u64 {
    fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_us_of(&stat)).unwrap_or(0)
}

/// The maximum resident memory of this process.
pub(crate) fn memory_kib_max() -> u64 {
    fs::read_to_string("/proc/self/status").ok().and_then(|status| kib_of(&status, "VmHWM:")).unwrap_or(0)
}

/// The resident memory of this process; none if the operating system does not report it.
pub(crate) fn memory_kib() -> Option<u64> {
    kib_of(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

fn cpu_us_of(stat: &str) -> Option<u64> {
    // The program's name, in parentheses, may contain any character; utime and stime are the fields 14 and 15.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks * TICK_US)
}

fn kib_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let stat = "42 (a ) b) R 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 12345 1000 200";
        assert_eq!(cpu_us_of(stat), Some(3_000_000));
        let status = "VmPeak:\t  900 kB\nVmHWM:\t  512 kB\nVmRSS:\t  100 kB\n";
        assert_eq!((kib_of(status, "VmHWM:"), kib_of(status, "VmRSS:")), (Some(512), Some(100)));
        assert_eq!((cpu_us_of("42 (x) R 1"), kib_of("Name: x", "VmRSS:")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory() {
        assert!(memory_kib() > Some(0) && memory_kib_max() > 0);
    }
}
