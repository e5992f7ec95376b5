//! Memory in pages of 2 MiB in place of 4 KiB, where the system gives them to those who ask.
//!
//! A node writes each payload into memory that it has not touched for as long as the result is retained: in small pages, the
//! processor spends most of that time on finding out where the next page is.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where the C library's allocator looks, once, when a process starts.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// What it is to do: ask for huge pages; and keep what is free at the heap's end, up to 32 MiB, and blocks up to that size in
/// the heap, since whatever goes back to the system has to be cleared when it is taken again, 2 MiB at a time.
const HUGE_PAGES: &str =
    "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=33554432:glibc.malloc.mmap_threshold=33554432";

/// Lets this process begin again, as the same process, with an allocator that asks for huge pages. Whoever has set the
/// allocator's tunables, to nothing or to something, has decided otherwise. It returns where there is nothing to do, or where it
/// does not work: everything does without, at more CPU a message.
pub(crate) fn ask() {
    if env::var_os(TUNABLES).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // It comes back only with an error.
    let _ = again.args(arguments).env(TUNABLES, HUGE_PAGES).exec();
}
