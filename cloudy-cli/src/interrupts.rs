//! Ctrl-C and SIGTERM: the first ends a session cleanly, the second ends the program.

use std::future::Future;

use miette::Report;
use tokio::sync::watch;

use crate::output::failure;

/// The signals that end a program, caught from here on.
pub(crate) struct Interrupts {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    stop: watch::Sender<bool>,
}

impl Interrupts {
    /// Begins to catch them.
    pub(crate) fn catch() -> Result<Self, Report> {
        let stop = watch::Sender::new(false);
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let uncaught = |error| failure(format_args!("cannot catch Ctrl-C ({error})"), "try again");
            let interrupt = signal(SignalKind::interrupt()).map_err(uncaught)?;
            let terminate = signal(SignalKind::terminate()).map_err(uncaught)?;
            Ok(Self { interrupt, terminate, stop })
        }
        #[cfg(not(unix))]
        Ok(Self { stop })
    }

    /// What tells a session to end.
    pub(crate) fn stop(&self) -> Stop {
        Stop { sender: self.stop.clone() }
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Does the work. The first interrupt asks it to stop; None at the second, which does not wait for it.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let stop = self.stop();
        let twice = async {
            self.next().await;
            stop.now();
            self.next().await;
        };
        tokio::select! {
            done = work => Some(done),
            () = twice => None,
        }
    }
}

/// Tells a session to end, and knows whether it was told.
#[derive(Clone)]
pub(crate) struct Stop {
    sender: watch::Sender<bool>,
}

impl Stop {
    /// From here on the session is to end.
    pub(crate) fn now(&self) {
        self.sender.send_replace(true);
    }

    /// It was told to end.
    pub(crate) fn was_asked(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns once it was told to end.
    pub(crate) async fn asked(&self) {
        // The sender lives as long as this.
        let _ = self.sender.subscribe().wait_for(|stop| *stop).await;
    }
}
