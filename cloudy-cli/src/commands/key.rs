//! `cloudy key`.

use std::process::ExitCode;

use cloudy_node::key_file::{self, KeyFileError};
use miette::{IntoDiagnostic, Report};

use crate::args::{KeyCommand, KeyFileArgs};
use crate::output::{EXIT_EQUAL, print};

/// Makes, shows or finds the key.
pub(crate) fn run(command: KeyCommand) -> Result<ExitCode, Report> {
    let text = match command {
        KeyCommand::New(args) => new(&args),
        KeyCommand::Show(args) => show(&args),
        KeyCommand::Path(args) => path(&args),
    };
    print(&text.into_diagnostic()?)?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

fn new(args: &KeyFileArgs) -> Result<String, KeyFileError> {
    let path = args.choose()?.path;
    let key = key_file::create(&path)?;
    Ok(format!("made {}\nfingerprint {}\n", path.display(), key.fingerprint()))
}

/// Reads the file and makes none: a question changes nothing.
fn show(args: &KeyFileArgs) -> Result<String, KeyFileError> {
    let path = args.choose()?.path;
    let key = key_file::load(&path)?;
    Ok(format!("fingerprint {}\nfile {}\n", key.fingerprint(), path.display()))
}

fn path(args: &KeyFileArgs) -> Result<String, KeyFileError> {
    Ok(format!("{}\n", args.choose()?.path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_never_printed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("below").join("cluster.key");
        let args = KeyFileArgs { cluster_key: Some(file.clone()) };
        assert!(matches!(show(&args), Err(KeyFileError::Missing { .. })));
        let made = new(&args).expect("makes one");
        let secret = fs::read_to_string(&file).expect("the file");
        let shown = show(&args).expect("shows it");
        let fingerprint = key_file::load(&file).expect("loads").fingerprint();
        let digits = secret.trim().rsplit(':').next().expect("the key's digits");
        for text in [&made, &shown] {
            assert!(text.contains(&fingerprint) && text.contains(&file.display().to_string()), "{text}");
            assert!(!text.contains(digits), "the key is in the output");
        }
        assert!(matches!(new(&args), Err(KeyFileError::Exists { .. })));
        assert_eq!(fs::read_to_string(&file).expect("the file"), secret);
        assert_eq!(path(&args).expect("a path"), format!("{}\n", file.display()));
    }
}
