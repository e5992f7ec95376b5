//! `cloudy man`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;
use miette::Report;

use crate::args::{Cli, ManArgs};
use crate::output::{EXIT_EQUAL, failure, no_directory, print};

/// Prints one page, or writes all pages.
pub(crate) fn run(args: &ManArgs) -> Result<ExitCode, Report> {
    match &args.dir {
        Some(dir) => write_all(dir)?,
        None => print(&page(&args.path)?)?,
    }
    Ok(ExitCode::from(EXIT_EQUAL))
}

fn write_all(dir: &Path) -> Result<(), Report> {
    fs::create_dir_all(dir).map_err(|error| no_directory("manual pages", dir, &error))?;
    clap_mangen::generate_to(Cli::grammar(), dir).map_err(|error| {
        failure(
            format_args!("cannot write manual pages into {} ({error})", dir.display()),
            "choose a directory that you may write to",
        )
    })
}

/// The page of the command with these words.
fn page(path: &[String]) -> Result<String, Report> {
    let mut command = Cli::grammar();
    command.build();
    let mut found: &Command = &command;
    for word in path {
        found = found.find_subcommand(word).ok_or_else(|| {
            failure(
                format_args!("there is no command `cloudy {}`", path.join(" ")),
                "`cloudy --help` lists the commands, `cloudy key --help` those below `cloudy key`",
            )
        })?;
    }
    let mut page = Vec::new();
    let unprintable = |error: io::Error| failure(format_args!("cannot print the page ({error})"), "try --help");
    Man::new(found.clone()).render(&mut page).map_err(unprintable)?;
    String::from_utf8(page).map_err(|error| unprintable(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(words: &[&str]) -> Result<String, Report> {
        page(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        for (words, title, example) in [
            (&[][..], ".TH cloudy 1", "cloudy demo"),
            (&["demo"], ".TH cloudy-demo 1", "cloudy demo"),
            (&["master"], ".TH cloudy-master 1", "cloudy master 127.0.0.1 10501 2000000 1000000 0"),
            (&["key", "new"], ".TH cloudy-key-new 1", "cloudy key new"),
        ] {
            let page = page_of(words).expect("a page");
            assert!(page.contains(title), "{words:?}: {page}");
            assert!(page.replace("\\-", "-").contains(example), "{words:?}: {page}");
        }
    }

    #[test]
    fn a_command_that_is_none_is_named() {
        let error = page_of(&["key", "lend"]).expect_err("no such command");
        assert_eq!(error.to_string(), "there is no command `cloudy key lend`");
    }

    #[test]
    fn all_pages_go_into_a_directory_that_is_made() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("man").join("man1");
        write_all(&dir).expect("writes");
        for page in ["cloudy.1", "cloudy-slave.1", "cloudy-key-show.1"] {
            assert!(dir.join(page).is_file(), "{page}");
        }
        let file = parent.path().join("file");
        fs::write(&file, "").expect("writes");
        let error = write_all(&file).expect_err("no directory").to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}
