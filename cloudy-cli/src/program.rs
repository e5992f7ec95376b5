//! This program, for child processes that run it again.

use std::ffi::OsStr;
use std::io;
use std::process::Command;

/// The file that this process was started from, also if its name belongs to another file by now, or to none.
#[cfg(target_os = "linux")]
pub(crate) const OWN_FILE: &str = "/proc/self/exe";

/// A command that starts this program: the same file with the same name.
///
/// # Errors
/// The system does not report the file of this process.
#[cfg(target_os = "linux")]
pub(crate) fn command() -> io::Result<Command> {
    use std::os::unix::process::CommandExt;

    let mut command = Command::new(OWN_FILE);
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    // The system has started the loader, with this program's file as an argument.
    if let Some(file) = given_to_loader()? {
        command.arg(file);
    }
    Ok(command)
}

/// A command that starts this program.
///
/// # Errors
/// The system does not report the file of this process.
#[cfg(not(target_os = "linux"))]
pub(crate) fn command() -> io::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// This program's file if the system started another program, which then loaded it: `/lib64/ld-linux-x86-64.so.2
/// ./cloudy`.
#[cfg(target_os = "linux")]
pub(crate) fn given_to_loader() -> io::Result<Option<std::path::PathBuf>> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    let started = std::fs::read_link(OWN_FILE)?;
    let maps = std::fs::read("/proc/self/maps")?;
    let here = command as *const () as usize;
    let loaded = maps.split(|&byte| byte == b'\n').find_map(|line| mapped(line, here));
    Ok(loaded
        .filter(|&file| OsStr::from_bytes(file) != started)
        .map(|file| std::ffi::OsString::from_vec(file.to_vec()).into()))
}

/// The file of a line of `/proc/self/maps` (proc(5)), if it is mapped at that address.
#[cfg(target_os = "linux")]
fn mapped(line: &[u8], address: usize) -> Option<&[u8]> {
    let text = std::str::from_utf8(line.get(..line.iter().position(|&byte| byte == b' ')?)?).ok()?;
    let (from, to) = text.split_once('-')?;
    let bound = |text| usize::from_str_radix(text, 16).ok();
    let path_at = line.iter().position(|&byte| byte == b'/')?;
    (bound(from)?..bound(to)?).contains(&address).then(|| &line[path_at..])
}

/// Gives this process the name of its file, if the system has named it after [`OWN_FILE`]: `pgrep` and others find it
/// by that.
pub(crate) fn keep_name() {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt;

        let named_after_link = std::fs::read("/proc/self/comm").is_ok_and(|name| name == b"exe\n");
        let name = std::env::args_os().next();
        let name = name.as_deref().and_then(|name| std::path::Path::new(name).file_name());
        let name = name.and_then(|name| std::ffi::CString::new(name.as_bytes()).ok());
        if let Some(name) = name.filter(|_| named_after_link) {
            // A failure has no other effect.
            let _ = rustix::thread::set_name(&name);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_found_by_its_address_and_its_file_may_have_any_name() {
        let line = b"7f00-8000 r-xp 00000000 08:01 42    /opt/a b/\xffcloudy (deleted)";
        assert_eq!(mapped(line, 0x7f00), Some(&b"/opt/a b/\xffcloudy (deleted)"[..]));
        assert_eq!(mapped(line, 0x8000), None);
        assert_eq!(mapped(b"7f00-8000 rw-p 00000000 00:00 0 ", 0x7f00), None);
        assert_eq!(mapped(b"", 0), None);
    }

    #[test]
    fn a_program_that_the_system_has_started_itself_was_given_to_no_loader() {
        assert_eq!(given_to_loader().expect("known"), None);
    }
}
