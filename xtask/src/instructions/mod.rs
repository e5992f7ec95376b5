//! Instructions of the protocol's hot paths, counted by valgrind and compared with the committed counts.
//!
//! Times differ from run to run and machine to machine; counts do not, so a regression shows on a busy machine too.

mod book;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::steps::{Outcome, cargo};
use book::Book;

/// The file of the expected counts.
const BOOK: &str = "cloudy-proto/benches/instructions.json";
const PACKAGE: &str = "cloudy-proto";
const BENCH: &str = "instructions";
/// The function of the bench that counts, with all that it calls.
const COUNTED: &str = "*counted*";
/// The text before the count in valgrind's output.
const COLLECTED: &str = "Collected :";
/// The C library selects its copy functions by processor; with this setting it selects the same on every x86-64
/// processor.
const PLAIN_PROCESSOR: &str = "glibc.cpu.hwcaps=\
    -AVX2_Usable,-AVX_Usable,-AVX_Fast_Unaligned_Load,-AVX2,-AVX,-AVX512F,-AVX512VL,-EVEX,-ERMS,-FSRM";
const ACCEPT: &str = "cargo xtask instructions --accept";

/// Counts, and compares.
pub(crate) fn check(root: &Path) -> Outcome {
    run(root, false)
}

/// Counts, and takes the counts as those to expect.
pub(crate) fn accept(root: &Path) -> Outcome {
    run(root, true)
}

fn run(root: &Path, accept: bool) -> Outcome {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Outcome::NotChecked("the counts are those of Linux on x86-64");
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Outcome::NotChecked("valgrind is not installed");
    }
    let worked = counts(root).and_then(|found| if accept { write(root, &found) } else { compare(root, &found) });
    worked.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        Outcome::Failed
    })
}

fn write(root: &Path, found: &Book) -> Result<Outcome, String> {
    let path = root.join(BOOK);
    std::fs::write(&path, found.text()).map_err(|error| format!("cannot write {BOOK}: {error}"))?;
    println!("{BOOK} has the counts of {} operations; commit it with what changed them", found.instructions.len());
    Ok(Outcome::Passed)
}

fn compare(root: &Path, found: &Book) -> Result<Outcome, String> {
    let text = std::fs::read_to_string(root.join(BOOK))
        .map_err(|error| format!("cannot read {BOOK} ({error}); `{ACCEPT}` makes it"))?;
    let comparison = Book::parse(&text).map_err(|error| format!("{BOOK}: {error}"))?.against(found);
    print!("{}", comparison.text);
    if comparison.passes {
        return Ok(Outcome::Passed);
    }
    println!("If that is meant: {ACCEPT}, and say why in the commit.");
    Ok(Outcome::Failed)
}

/// The present counts of the hot paths.
fn counts(root: &Path) -> Result<Book, String> {
    let program = build(root)?;
    let names = said(Command::new(&program).current_dir(root))?;
    let instructions = names.lines().map(|name| Ok((name.to_owned(), count(root, &program, name)?)));
    Ok(Book { compiler: compiler(root)?, instructions: instructions.collect::<Result<_, String>>()? })
}

/// Instructions of one operation.
fn count(root: &Path, program: &Path, name: &str) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(program)
        .arg(name)
        .env("GLIBC_TUNABLES", PLAIN_PROCESSOR)
        .current_dir(root)
        .output()
        .map_err(|error| format!("cannot start valgrind: {error}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let total = collected(&log).filter(|&total| total > 0);
    let operations =
        String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|&operations: &u64| operations > 0);
    match (output.status.success(), total, operations) {
        (true, Some(total), Some(operations)) => Ok(total / operations),
        _ => Err(format!("nothing was counted of `{name}`; valgrind said:\n{log}")),
    }
}

/// The count in valgrind's output.
fn collected(log: &str) -> Option<u64> {
    log.lines().find_map(|line| line.split_once(COLLECTED)?.1.trim().parse().ok())
}

/// Builds the bench, as it ships; its progress is shown.
fn build(root: &Path) -> Result<PathBuf, String> {
    let messages = said(
        cargo()
            .args([
                "bench",
                "--package",
                PACKAGE,
                "--bench",
                BENCH,
                "--no-run",
                "--message-format=json-render-diagnostics",
            ])
            .current_dir(root),
    )?;
    executable(&messages).ok_or_else(|| format!("cargo built no program for the bench `{BENCH}`"))
}

/// The bench's program, from cargo's build messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut bench = messages.filter(|message| message["target"]["name"] == BENCH);
    bench.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

fn compiler(root: &Path) -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Ok(said(Command::new(rustc).arg("--version").current_dir(root))?.trim().to_owned())
}

/// The output of a command, if it succeeds.
fn said(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |how: String| format!("{program} {how}");
    let output = match command.stderr(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(error) => return Err(failed(format!("cannot be started: {error}"))),
    };
    if !output.status.success() {
        return Err(failed(format!("ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_the_total_that_valgrind_prints_last() {
        let log = "==7== Callgrind, a call-graph generating cache profiler\n==7== Events    : Ir\n==7== Collected : 1234567\n";
        assert_eq!(collected(log), Some(1_234_567));
        assert_eq!(collected("==7== Collected : \n"), None);
    }

    #[test]
    fn the_program_is_the_one_that_cargo_names() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"bytes"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"instructions"},"executable":"/b/instructions-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/b/instructions-1")));
        assert_eq!(executable("{}"), None);
    }
}
