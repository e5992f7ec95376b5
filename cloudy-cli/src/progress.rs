//! Progress of a command on stderr: one line that changes on a terminal, separate lines elsewhere.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::output::{prints_events, say_plainly};
use crate::sink::STDERR;

/// The time between two states in separate lines.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// The time between two frames of the spinner.
const TICK: Duration = Duration::from_millis(120);
/// Maximum of frames per second.
const PICTURES_PER_SECOND_MAX: u8 = 20;

/// The output of progress.
pub(crate) struct Progress {
    /// On a terminal.
    spinner: Option<ProgressBar>,
    plain_at: Cell<Option<Instant>>,
}

impl Progress {
    /// Progress on stderr.
    pub(crate) fn start() -> Self {
        let spinner = (io::stderr().is_terminal() && !prints_events()).then(|| {
            let terminal = Box::new(Terminal { size: Term::stderr(), picture: Mutex::default() });
            let target = ProgressDrawTarget::term_like_with_hz(terminal, PICTURES_PER_SECOND_MAX);
            let spinner = ProgressBar::with_draw_target(None, target);
            spinner.set_style(ProgressStyle::default_spinner());
            spinner.enable_steady_tick(TICK);
            spinner
        });
        Self { spinner, plain_at: Cell::new(None) }
    }

    /// Prints a line that stays.
    pub(crate) fn line(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| say_plainly(text)),
            None => say_plainly(text),
        }
    }

    /// Shows a state: it replaces the one before, or becomes a line at intervals.
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

/// The terminal behind stderr. [`STDERR`] writes one frame at a time, so a stopped terminal (Ctrl-S) blocks nothing.
#[derive(Debug)]
struct Terminal {
    size: Term,
    picture: Mutex<String>,
}

impl Terminal {
    fn add(&self, text: &str) -> io::Result<()> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    /// A control sequence with a count (ECMA-48 §8.3), which moves nothing for a count of zero.
    fn moved(&self, count: usize, direction: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.add(&format!("\x1b[{count}{direction}")) }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.size.size().1
    }

    fn height(&self) -> u16 {
        self.size.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.add(s)?;
        self.add("\n")
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.add(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let picture = std::mem::take(&mut *self.picture.lock().unwrap_or_else(PoisonError::into_inner));
        STDERR.picture(picture.as_bytes());
        Ok(())
    }
}
