//! Where the output of `cloudy join --data` continues: a record in the data directory, written before and after each
//! write to stdout.
//!
//! A process that is killed between the two has printed none, some or all of those lines. If stdout is a file, its last
//! line tells how many, and the output continues without gap or repeat. The reader of a pipe gets those lines again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use cloudy_node::{GroupId, Index, ViewId};
use miette::{IntoDiagnostic, Report};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::output::{failure, say_plainly};

/// The record's file in the data directory.
const FILE: &str = "join.position";
/// The first part of the output to look for its last message in; doubled until there is one.
const TAIL_BYTES: u64 = 64 << 10;

/// The printed part of a group's result, and the part handed to the command of `--exec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    group: GroupId,
    /// The first message that is not printed.
    shown: Index,
    /// The first message behind the lines that are being printed; `shown` if there are none.
    printing: Index,
    /// The first message that is not handed to the command.
    executed: Index,
    /// The last view that is printed.
    view: ViewId,
}

/// The position of one run of the command.
pub(crate) struct Position {
    record: Record,
    /// None without a data directory.
    file: Option<Arc<File>>,
    executes: bool,
}

impl Record {
    fn at(group: GroupId, from: Index) -> Self {
        Self { group, shown: from, printing: from, executed: from, view: ViewId(0) }
    }

    /// Each record has the same length, so that one replaces another completely.
    fn text(&self) -> String {
        let Self { group, shown, printing, executed, view } = self;
        format!("{group} {:020} {:020} {:020} {:020}\n", shown.0, printing.0, executed.0, view.0)
    }

    /// The record of this group in the text of the file.
    fn parse(text: &str, group: GroupId) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        (words.next()? == group.to_string()).then_some(())?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let (shown, printing, executed) = (Index(number()?), Index(number()?), Index(number()?));
        let record = Self { group, shown, printing, executed, view: ViewId(number()?) };
        (shown >= Index(1) && printing >= shown && executed >= Index(1)).then_some(record)
    }
}

impl Position {
    /// Where to begin: at `from` if it is given, else where an earlier process with this data directory stopped, else
    /// at the start.
    pub(crate) async fn open(
        data: Option<&Path>,
        group: GroupId,
        from: Option<Index>,
        executes: bool,
    ) -> Result<Self, Report> {
        let first = from.unwrap_or(Index(1));
        let Some(data) = data else {
            return Ok(Self { record: Record::at(group, first), file: None, executes });
        };
        let path = data.join(FILE);
        let opened = spawn_blocking(move || -> io::Result<(File, Option<Record>)> {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut text = String::new();
            // A line that is not UTF-8 is not a record.
            let _ = (&mut file).take(1 << 10).read_to_string(&mut text);
            let stored = Record::parse(&text, group).filter(|_| from.is_none());
            let record = stored.map(|stored| settled(stored, stdout_file().as_mut()));
            Ok((file, record.transpose()?))
        });
        let (file, stored) = opened.await.into_diagnostic()?.map_err(|error| unwritable(&error))?;
        let record = stored.unwrap_or_else(|| Record::at(group, first));
        Ok(Self { record, file: Some(Arc::new(file)), executes })
    }

    /// The index to read from. It precedes the next message, so that every view change after the last one is read.
    pub(crate) fn read_from(&self) -> Index {
        let next = if self.executes { self.record.shown.min(self.record.executed) } else { self.record.shown };
        if self.record.view > ViewId(0) { Index((next.0 - 1).max(1)) } else { next }
    }

    /// The first message that is not printed.
    pub(crate) fn shown(&self) -> Index {
        self.record.shown
    }

    /// The first message that the command has not been run for.
    pub(crate) fn executed(&self) -> Index {
        self.record.executed
    }

    /// Whether a view is to be printed: it is newer than the last one.
    pub(crate) fn is_new(&self, view: ViewId) -> bool {
        view > self.record.view
    }

    /// Lines of messages before this index are about to be printed.
    pub(crate) async fn prints(&mut self, before: Index) -> Result<(), Report> {
        self.record.printing = before;
        self.write().await
    }

    /// They are printed.
    pub(crate) async fn printed(&mut self) -> Result<(), Report> {
        self.record.shown = self.record.printing;
        if !self.executes {
            self.record.executed = self.record.shown;
        }
        self.write().await
    }

    /// The command has run for the message before this index.
    pub(crate) async fn has_executed(&mut self, before: Index) -> Result<(), Report> {
        self.record.executed = before;
        self.write().await
    }

    /// A view is printed.
    pub(crate) async fn printed_view(&mut self, view: ViewId) -> Result<(), Report> {
        self.record.view = view;
        self.write().await
    }

    async fn write(&self) -> Result<(), Report> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let text = self.record.text();
        // A disk may hang, and the node must not.
        let written = spawn_blocking(move || {
            (&*file).seek(SeekFrom::Start(0))?;
            (&*file).write_all(text.as_bytes())
        });
        written.await.into_diagnostic()?.map_err(|error| unwritable(&error))
    }
}

fn unwritable(error: &io::Error) -> Report {
    failure(
        format_args!("cannot use the file {FILE} of the data directory ({error})"),
        "free space on its disk, and check that the directory belongs to this user",
    )
}

/// The record without lines in doubt: those that stdout has, if it is a file, are printed, and a part of a line is removed.
fn settled(record: Record, stdout: Option<&mut File>) -> io::Result<Record> {
    if record.printing == record.shown {
        return Ok(record);
    }
    let shown = match stdout {
        Some(file) => {
            remove_torn_line(file)?;
            let next = last_message(file)?.map(|last| Index(last + 1));
            next.filter(|next| (record.shown..=record.printing).contains(next))
        }
        None => None,
    };
    if shown.is_none() {
        let Record { shown, printing, .. } = record;
        say_plainly(&format!("the lines of messages {shown} to {} may be printed again", printing.0 - 1));
    }
    let shown = shown.unwrap_or(record.shown);
    Ok(Record { shown, printing: shown, ..record })
}

/// Stdout, if it is a file that can be read.
#[cfg(target_os = "linux")]
fn stdout_file() -> Option<File> {
    let file = OpenOptions::new().read(true).write(true).open("/proc/self/fd/1").ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file).map(|_| file)
}

#[cfg(not(target_os = "linux"))]
fn stdout_file() -> Option<File> {
    None
}

/// The process was killed in the middle of a line.
fn remove_torn_line(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let tail = tail_of(file, TAIL_BYTES)?;
    let torn = tail.iter().rev().take_while(|&&byte| byte != b'\n').count() as u64;
    if torn > 0 && (torn < tail.len() as u64 || torn == length) {
        file.set_len(length - torn)?;
    }
    Ok(())
}

/// The index of the last message in a file of lines.
fn last_message(file: &mut File) -> io::Result<Option<u64>> {
    let mut bytes = TAIL_BYTES;
    loop {
        let tail = tail_of(file, bytes)?;
        let index = |line: &[u8]| {
            let line: Value = serde_json::from_slice(line).ok()?;
            line.get("origin").and(line.get("index")).and_then(Value::as_u64)
        };
        let found = tail.split(|&byte| byte == b'\n').rev().find_map(index);
        if found.is_some() || (tail.len() as u64) < bytes {
            return Ok(found);
        }
        bytes *= 2;
    }
}

fn tail_of(file: &mut File, bytes: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut tail = Vec::new();
    file.take(bytes).read_to_end(&mut tail)?;
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId([7; 16]);

    fn record(shown: u64, printing: u64) -> Record {
        Record { shown: Index(shown), printing: Index(printing), executed: Index(shown), ..Record::at(GROUP, Index(1)) }
    }

    fn output(text: &str) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_only_for_its_group() {
        let record = Record { view: ViewId(3), executed: Index(9), ..record(17, 20) };
        let text = record.text();
        assert_eq!(Record::parse(&text, GROUP), Some(record));
        assert_eq!(Record::parse(&text, GroupId([8; 16])), None);
        assert_eq!(text.len(), Record::at(GROUP, Index(u64::MAX)).text().len());
        for damaged in [&text[..text.len() - 1], &text[5..], "", &text.replace("17", "00")] {
            assert_eq!(Record::parse(damaged, GROUP), None, "{damaged}");
        }
    }

    #[test]
    fn a_file_reports_how_many_uncertain_lines_it_has() {
        let line = |index: u64| format!("{{\"index\":{index},\"origin\":\"a\",\"seq\":1,\"text\":\"x\"}}\n");
        let lines = |range: std::ops::RangeInclusive<u64>| range.map(line).collect::<String>();
        let receipt = "{\"receipt\":4,\"index\":2}\n";
        for (text, shown, rest) in [
            (lines(1..=6), 7, lines(1..=6)),
            (lines(1..=4), 5, lines(1..=4)),
            (lines(1..=9), 10, lines(1..=9)),
            (lines(1..=6) + receipt, 7, lines(1..=6) + receipt),
            (lines(1..=6) + "{\"index\":7,\"ori", 7, lines(1..=6)),
            // It is another file, or an empty one.
            (lines(1..=2), 5, lines(1..=2)),
            (lines(1..=40), 5, lines(1..=40)),
            (String::new(), 5, String::new()),
            ("{\"index\":5,\"o".to_owned(), 5, String::new()),
            (lines(1..=6) + &receipt.repeat(10_000), 7, lines(1..=6) + &receipt.repeat(10_000)),
        ] {
            let mut file = output(&text);
            let settled = settled(record(5, 10), Some(&mut file)).expect("read");
            assert_eq!((settled.shown.0, settled.printing.0), (shown, shown), "{text:.80}");
            let mut left = String::new();
            file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut left)).expect("read");
            assert_eq!(left, rest);
        }
    }

    #[test]
    fn lines_in_doubt_are_printed_again_to_a_pipe_and_others_are_not() {
        assert_eq!(settled(record(5, 10), None).expect("read"), record(5, 5));
        assert_eq!(settled(record(10, 10), None).expect("read"), record(10, 10));
    }
}
