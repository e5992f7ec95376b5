//! Memory in pages of 2 MiB in place of 4 KiB, where the system gives them to programs that ask.
//!
//! A node writes each payload into memory that it has not touched for as long as the result is retained: in small pages, the
//! processor spends most of that time on finding out where the next page is.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::program;

/// Where the C library's allocator looks, once, when a process starts.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// What it is to do: ask for huge pages; and keep what is free at the heap's end, up to 32 MiB, and blocks up to that size in
/// the heap, since whatever goes back to the system has to be cleared when it is taken again, 2 MiB at a time.
const HUGE_PAGES: &str =
    "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=33554432:glibc.malloc.mmap_threshold=33554432";

/// The option that says not to.
pub(crate) const NO_HUGE_PAGES: &str = "--no-huge-pages";

/// Nodes of this process and of its children are to have huge pages.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Starts this process again, as the same process, with an allocator that asks for huge pages, if `runs_a_node`: the
/// command's node runs in this process. `refused`: the option [`NO_HUGE_PAGES`] was given.
///
/// It returns if there is nothing to do: the user has set the allocator's tunables, to nothing or to something, or has
/// passed `--no-huge-pages`, which a process that was started again has too. So it starts again at most once, whatever
/// becomes of the environment. It also returns if that does not work: everything works without, at more CPU a message.
pub(crate) fn ask(runs_a_node: bool, refused: bool) {
    if refused || env::var_os(TUNABLES).is_some() {
        return;
    }
    WANTED.store(true, Ordering::Relaxed);
    // The loader, started again, would be given this program's arguments.
    let itself = matches!(program::given_to_loader(), Ok(None));
    if !itself || !runs_a_node {
        return;
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(program::OWN_FILE);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // It comes back only with an error.
    let _ = again.arg(NO_HUGE_PAGES).args(arguments).env(TUNABLES, HUGE_PAGES).exec();
}

/// Gives a process that is to run this program what [`ask`] would give it, so that it need not start again.
pub(crate) fn give(child: &mut Command) {
    child.arg(NO_HUGE_PAGES);
    if WANTED.load(Ordering::Relaxed) {
        child.env(TUNABLES, HUGE_PAGES);
    }
}
