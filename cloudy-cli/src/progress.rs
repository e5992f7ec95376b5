//! What a command says on stderr while it works: one line that changes where stderr is a terminal, plain lines elsewhere.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two states in plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// Between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// Where progress goes.
pub(crate) struct Progress {
    /// On a terminal.
    spinner: Option<ProgressBar>,
    plain_at: Cell<Option<Instant>>,
}

impl Progress {
    /// On stderr.
    pub(crate) fn start() -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            spinner.set_style(ProgressStyle::default_spinner());
            spinner.enable_steady_tick(TICK);
            spinner
        });
        Self { spinner, plain_at: Cell::new(None) }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        let write = || {
            // Without a stderr there is nobody to tell.
            let _ = writeln!(io::stderr(), "{text}");
        };
        match &self.spinner {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        }
    }

    /// How things stand: replaces what was said of it before, or becomes a line now and then.
    pub(crate) fn state(&self, text: String) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(text),
            None if self.plain_at.get().is_none_or(|at| at.elapsed() >= PLAIN_EVERY) => {
                self.plain_at.set(Some(Instant::now()));
                self.line(&text);
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
