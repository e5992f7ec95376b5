//! Timers with a resolution of microseconds: tokio's timers count milliseconds, which is more than an unloaded group
//! needs.

#[cfg(target_os = "linux")]
mod exact {
    use std::io;

    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
    use rustix::time::{timerfd_create, timerfd_settime};
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe::Receiver;

    use crate::bench::meter::now_us;

    /// A kernel timer (`timerfd_create(2)`). It is read like a pipe: eight bytes once it has expired.
    pub(crate) struct Timer {
        timer: Receiver,
        set_us: Option<u64>,
    }

    impl Timer {
        pub(crate) fn new() -> io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            Ok(Self { timer: Receiver::from_owned_fd_unchecked(timer)?, set_us: None })
        }

        /// Returns at this time, microseconds since the Unix epoch.
        pub(crate) async fn at(&mut self, at_us: u64) -> io::Result<()> {
            let wait_us = at_us.saturating_sub(now_us());
            if wait_us == 0 {
                return Ok(());
            }
            if self.set_us != Some(at_us) {
                let (tv_sec, tv_nsec) = ((wait_us / 1_000_000) as _, (wait_us % 1_000_000 * 1_000) as _);
                let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
                let timer = Itimerspec { it_interval, it_value: Timespec { tv_sec, tv_nsec } };
                timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
                self.set_us = Some(at_us);
            }
            self.timer.read_exact(&mut [0; 8]).await.map(|_| ())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod exact {
    use std::io;
    use std::time::Duration;

    use crate::bench::meter::now_us;

    /// The runtime's timer.
    pub(crate) struct Timer;

    impl Timer {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// Returns at this time, microseconds since the Unix epoch; up to some milliseconds late.
        pub(crate) async fn at(&mut self, at_us: u64) -> io::Result<()> {
            // sleep: a schedule defines the time.
            tokio::time::sleep(Duration::from_micros(at_us.saturating_sub(now_us()))).await;
            Ok(())
        }
    }
}

pub(crate) use exact::Timer;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::meter::now_us;

    #[tokio::test]
    async fn a_sleep_never_returns_early_even_after_cancellation() {
        let mut timer = Timer::new().expect("a timer");
        let begun_us = now_us();
        timer.at(begun_us).await.expect("the past is there");
        tokio::select! {
            biased;
            _ = timer.at(begun_us + 3_000) => panic!("too soon"),
            () = std::future::ready(()) => {}
        }
        timer.at(begun_us + 3_000).await.expect("a time");
        timer.at(begun_us + 4_000).await.expect("a later one");
        assert!(now_us() >= begun_us + 4_000);
    }
}
