//! Stdout and stderr of a process that runs a node: a thread writes them, so that a stopped reader blocks no node.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::words::for_operators;

/// Maximum bytes that wait for a stream's reader. Beyond it, lines are dropped and counted.
const WAITING_BYTES_MAX: usize = 512 << 10;
/// Waiting bytes above which a frame of progress is dropped: it would be outdated when displayed.
const PICTURE_BEHIND_BYTES_MAX: usize = 4 << 10;
/// The pause before the next attempt if the stream is non-blocking and has no capacity.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Log lines, progress and errors.
pub(crate) static STDERR: Sink = Sink::new(Stream { name: "stderr", write: write_stderr, tells_of_gaps: true });
/// Results. Programs read them: the caller reports a gap.
pub(crate) static STDOUT: Sink = Sink::new(Stream { name: "stdout", write: write_stdout, tells_of_gaps: false });

/// An output of this process. Lines keep their order, and each is one write.
pub(crate) struct Sink {
    stream: Stream,
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Stream {
    name: &'static str,
    /// Writes everything, and may block.
    write: fn(&[u8]) -> io::Result<()>,
    /// Whether its reader receives the number of dropped lines.
    tells_of_gaps: bool,
}

struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Number of dropped lines after the last report.
    dropped: u64,
    /// Whether the writing thread has been started.
    started: bool,
    /// Whether it is writing a piece.
    writing: bool,
}

/// The text of one write, with the caller that waits for it.
struct Piece {
    text: Vec<u8>,
    written: Option<oneshot::Sender<io::Result<()>>>,
}

impl Sink {
    const fn new(stream: Stream) -> Self {
        let queue = Queue { pieces: VecDeque::new(), bytes: 0, dropped: 0, started: false, writing: false };
        Self { stream, queue: Mutex::new(queue), changed: Condvar::new() }
    }

    /// Queues whole lines; drops and counts them, and returns false, if too much waits. Never blocks.
    pub(crate) fn lines(&'static self, text: &[u8]) -> bool {
        let mut queue = self.lock();
        if queue.bytes + text.len() > WAITING_BYTES_MAX {
            queue.dropped += 1;
            return false;
        }
        if let Some(note) = self.dropped_note(&mut queue) {
            self.push(&mut queue, note, None);
        }
        self.push(&mut queue, text.to_vec(), None);
        true
    }

    /// Shows a frame of progress, unless the reader lags: the next one replaces it. Never blocks.
    pub(crate) fn picture(&'static self, text: &[u8]) {
        let mut queue = self.lock();
        if queue.bytes <= PICTURE_BEHIND_BYTES_MAX {
            self.push(&mut queue, text.to_vec(), None);
        }
    }

    /// Writes, and returns once that is done. A dropped future does not withdraw the text.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) async fn write(&'static self, text: Vec<u8>) -> io::Result<()> {
        let (written, answer) = oneshot::channel();
        self.push(&mut self.lock(), text, Some(written));
        answer.await.unwrap_or_else(|_| Err(io::Error::other("the thread that writes is gone")))
    }

    /// Waits until everything is written, for at most this time, so that a stopped reader does not block the end.
    pub(crate) fn finish(&'static self, at_most: Duration) {
        let busy = |queue: &mut Queue| queue.writing || !queue.pieces.is_empty();
        // The outcome has no effect.
        drop(self.changed.wait_timeout_while(self.lock(), at_most, busy));
    }

    fn push(&'static self, queue: &mut Queue, text: Vec<u8>, written: Option<oneshot::Sender<io::Result<()>>>) {
        queue.bytes += text.len();
        queue.pieces.push_back(Piece { text, written });
        if !queue.started {
            let writer = thread::Builder::new().name(self.stream.name.to_owned());
            // Without a thread, which the system may refuse for a while, the next piece retries.
            queue.started = writer.spawn(|| self.keep_writing()).is_ok();
        }
        self.changed.notify_all();
    }

    fn keep_writing(&self) {
        let mut queue = self.lock();
        loop {
            let Some(piece) = queue.pieces.pop_front() else {
                queue.writing = false;
                if let Some(note) = self.dropped_note(&mut queue) {
                    queue.bytes += note.len();
                    queue.pieces.push_back(Piece { text: note, written: None });
                    continue;
                }
                self.changed.notify_all();
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.writing = true;
            drop(queue);
            let result = (self.stream.write)(&piece.text);
            if let Some(written) = piece.written {
                // The waiting caller may be gone.
                let _ = written.send(result);
            }
            queue = self.lock();
            queue.bytes -= piece.text.len();
        }
    }

    /// The note of dropped lines for the reader, which resets the count.
    fn dropped_note(&self, queue: &mut Queue) -> Option<Vec<u8>> {
        let dropped = std::mem::take(&mut queue.dropped);
        let told = dropped > 0 && self.stream.tells_of_gaps;
        told.then(|| {
            format!("{dropped} log lines were dropped: {} was not read for too long\n", self.stream.name).into_bytes()
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_stdout(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    patiently(&mut stdout, text)?;
    stdout.flush()
}

fn write_stderr(text: &[u8]) -> io::Result<()> {
    patiently(&mut io::stderr(), text)
}

/// Writes everything, also to a stream that another process has made non-blocking.
fn patiently(stream: &mut impl Write, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match stream.write(text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // sleep: the stream's readiness cannot be awaited, because it may be a file.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_AFTER),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Passes each log event to [`STDERR`] as one whole line.
#[derive(Clone, Copy)]
pub(crate) struct LogLines;

impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        STDERR.lines(for_operators(&String::from_utf8_lossy(line)).as_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a reader, which reads only while the lock is free.
    static READ: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static BLOCKED: Sink = Sink::new(Stream { name: "a pipe", write: read, tells_of_gaps: true });

    fn read(text: &[u8]) -> io::Result<()> {
        READ.lock().expect("whole").extend_from_slice(text);
        Ok(())
    }

    #[test]
    fn lines_that_a_stopped_reader_misses_are_counted_and_the_others_stay_whole_and_in_order() {
        let stopped = READ.lock().expect("whole");
        let line = |number: usize| format!("{number:>1023}\n");
        let kept = (0..).take_while(|number| BLOCKED.lines(line(*number).as_bytes())).count();
        assert!((WAITING_BYTES_MAX >> 10..=(WAITING_BYTES_MAX >> 10) + 1).contains(&kept), "{kept} lines");
        assert!(!BLOCKED.lines(line(0).as_bytes()));
        BLOCKED.picture(b"a picture that nobody sees");
        // It takes no longer than its limit.
        BLOCKED.finish(Duration::from_millis(1));
        drop(stopped);
        BLOCKED.finish(Duration::from_secs(60));
        assert!(BLOCKED.lines(b"after it\n"));
        BLOCKED.finish(Duration::from_secs(60));
        let expected: String = (0..kept).map(line).collect();
        let expected = expected + "2 log lines were dropped: a pipe was not read for too long\nafter it\n";
        assert_eq!(String::from_utf8_lossy(&READ.lock().expect("whole")), expected);
    }

    #[test]
    fn a_stream_that_does_not_block_is_tried_again() {
        struct Slow(Vec<u8>, bool);
        impl Write for Slow {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.0.push(text[0]);
                Ok(1)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut slow = Slow(Vec::new(), false);
        patiently(&mut slow, b"abc").expect("written");
        assert_eq!(slow.0, b"abc");
    }
}
