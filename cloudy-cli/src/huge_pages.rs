//! Memory in pages of 2 MiB in place of 4 KiB, if the system offers them.
//!
//! A node writes each payload into memory that it has not used for as long as the result is retained. With small pages,
//! the processor spends most of that time on finding the next page.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::program;

/// The variable that the C library's allocator reads when a process starts.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// The settings: request huge pages; keep up to 32 MiB of free memory at the heap's end, and blocks up to that size in
/// the heap, because memory that returns to the system has to be cleared when it is used again, 2 MiB at a time.
const HUGE_PAGES: &str =
    "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=33554432:glibc.malloc.mmap_threshold=33554432";

/// The option that switches it off.
pub(crate) const NO_HUGE_PAGES: &str = "--no-huge-pages";

/// Whether nodes of this process and of its children have huge pages.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Replaces this process by itself with an allocator that requests huge pages, if `runs_a_node`: the command's node
/// runs in this process. `refused`: the option [`NO_HUGE_PAGES`] was given.
///
/// It returns if there is nothing to do: the user has set the allocator's tunables, to any value, or has passed
/// `--no-huge-pages`, which a replaced process has too. So a process is replaced at most once for any
/// environment. It also returns on failure: everything works without huge pages, with more CPU for each message.
pub(crate) fn ask(runs_a_node: bool, refused: bool) {
    if refused || env::var_os(TUNABLES).is_some() {
        return;
    }
    WANTED.store(true, Ordering::Relaxed);
    // The loader, started again, would receive this program's arguments.
    let itself = matches!(program::given_to_loader(), Ok(None));
    if !itself || !runs_a_node {
        return;
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(program::OWN_FILE);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // It returns only with an error.
    let _ = again.arg(NO_HUGE_PAGES).args(arguments).env(TUNABLES, HUGE_PAGES).exec();
}

/// Gives a child process the settings of [`ask`], so that it need not replace itself.
pub(crate) fn give(child: &mut Command) {
    child.arg(NO_HUGE_PAGES);
    if WANTED.load(Ordering::Relaxed) {
        child.env(TUNABLES, HUGE_PAGES);
    }
}
