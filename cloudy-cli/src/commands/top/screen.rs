//! The terminal of `cloudy top`, which is restored however the command ends.

use std::io::{self, Write};
use std::thread;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};
use tokio::sync::mpsc;

use super::picture::fitted;

/// A terminal in raw mode with a screen of its own, until this is dropped.
pub(super) struct Screen(());

impl Screen {
    pub(super) fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        // From here on a failure restores the terminal.
        let screen = Self(());
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Draws the part of the text that fits.
    pub(super) fn draw(&self, text: &str) -> io::Result<()> {
        let (columns, rows) = size()?;
        let mut frame = Vec::new();
        queue!(frame, MoveTo(0, 0))?;
        let lines = fitted(text, columns.into(), rows.into());
        for (at, line) in (0..).zip(&lines) {
            queue!(frame, MoveTo(0, at), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        if lines.len() < rows.into() {
            queue!(frame, MoveTo(0, lines.len() as u16), Clear(ClearType::FromCursorDown))?;
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&frame)?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// An action of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The end.
    Quit,
    /// The picture again, because the window has another size.
    Draw,
}

/// Keys, changes of the window, and signals.
pub(super) struct Orders {
    read: mpsc::Receiver<Order>,
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
}

impl Orders {
    /// Reads keys on a thread of its own, which ends with the process.
    pub(super) fn start() -> io::Result<Self> {
        let (send, read) = mpsc::channel(1);
        thread::spawn(move || {
            // A terminal that cannot be read has no user.
            while let Ok(event) = event::read() {
                if order(&event).is_some_and(|order| send.blocking_send(order).is_err()) {
                    return;
                }
            }
        });
        #[cfg(unix)]
        let signals = {
            use tokio::signal::unix::{SignalKind, signal};
            [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]
        };
        Ok(Self {
            read,
            #[cfg(unix)]
            signals,
        })
    }

    pub(super) async fn next(&mut self) -> Order {
        #[cfg(unix)]
        let signal = async {
            let [interrupt, terminate, hang_up] = &mut self.signals;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        };
        #[cfg(not(unix))]
        let signal = std::future::pending::<()>();
        tokio::select! {
            read = self.read.recv() => read.unwrap_or(Order::Quit),
            () = signal => Order::Quit,
        }
    }
}

fn order(event: &Event) -> Option<Order> {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Release => None,
        Event::Key(key) if key.code == KeyCode::Char('q') => Some(Order::Quit),
        // In raw mode the terminal sends no signal.
        Event::Key(key) if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) => {
            Some(Order::Quit)
        }
        Event::Resize(..) => Some(Order::Draw),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn q_and_ctrl_c_end_it_and_other_keys_do_nothing() {
        let key = |code, modifiers| order(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Order::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Order::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Enter, KeyModifiers::NONE), None);
        assert_eq!(order(&Event::Resize(80, 24)), Some(Order::Draw));
    }
}
