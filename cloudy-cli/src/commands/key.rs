//! `cloudy key`.

use std::process::ExitCode;

use cloudy_node::key_file::{self, KeyFileError};
use cloudy_node::{ClusterKey, ClusterKeys};
use miette::{IntoDiagnostic, Report};

use crate::args::{KeyCommand, KeyFileArgs, RevokeArgs, RotateArgs};
use crate::keys::role;
use crate::output::{EXIT_EQUAL, print};

/// The note for an answer that could not be printed: the change itself is done.
const DONE: &str = "the key file was created or changed, and `cloudy key show` prints its content";

/// Creates, shows, finds or changes the key.
pub(crate) fn run(command: KeyCommand) -> Result<ExitCode, Report> {
    let changes = matches!(command, KeyCommand::New(_) | KeyCommand::Rotate(_) | KeyCommand::Revoke(_));
    let text = match command {
        KeyCommand::New(args) => new(&args),
        KeyCommand::Show(args) => show(&args),
        KeyCommand::Path(args) => path(&args),
        KeyCommand::Rotate(args) => rotate(&args),
        KeyCommand::Revoke(args) => revoke(&args),
    };
    print(&text.into_diagnostic()?).map_err(|error| if changes { error.wrap_err(DONE) } else { error })?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

fn new(args: &KeyFileArgs) -> Result<String, KeyFileError> {
    let path = args.choose()?.path;
    let key = key_file::create(&path)?;
    Ok(format!("made {}\nfingerprint {}\n", path.display(), key.fingerprint()))
}

/// Reads the file, and never creates it.
fn show(args: &KeyFileArgs) -> Result<String, KeyFileError> {
    let path = args.choose()?.path;
    let keys = key_file::inspect(&path)?;
    Ok(format!("{}file {}\n", fingerprints(&keys), path.display()))
}

fn fingerprints(keys: &ClusterKeys) -> String {
    let mut text = format!("fingerprint {}\n", keys.primary());
    if let Some((accepted_as, key)) = keys.accepted() {
        text.push_str(&format!("accepted too {key}, {}\n", role(accepted_as)));
    }
    for node in keys.revoked() {
        text.push_str(&format!("revoked {node}\n"));
    }
    text
}

fn rotate(args: &RotateArgs) -> Result<String, KeyFileError> {
    let file = args.file.display();
    let (keys, (done, next)) = key_file::change(&args.file, |keys| {
        Ok(match (args.switch, args.finish) {
            (true, _) => {
                keys.switch()?;
                let next = format!("once every node uses it, run `cloudy key rotate {file} --finish`");
                ("step 2 of 3: nodes present the next key, and accept the former one", next)
            }
            (false, true) => {
                keys.finish()?;
                let next = "that completes the change".to_owned();
                ("step 3 of 3: the former key is not accepted", next)
            }
            (false, false) => {
                keys.begin_rotation(ClusterKey::generate()?)?;
                let next = format!("once every node uses it, run `cloudy key rotate {file} --switch`");
                ("step 1 of 3: a fresh key is accepted beside the present one", next)
            }
        })
    })?;
    Ok(format!(
        "{done}\n{}next: copy {file} to every node, stopped ones too; a running node logs within 2 seconds that it uses the file; {next}\n",
        fingerprints(&keys)
    ))
}

fn revoke(args: &RevokeArgs) -> Result<String, KeyFileError> {
    let (file, node) = (args.file.display(), args.node);
    let (_, fresh) = key_file::change(&args.file, |keys| Ok(keys.revoke(node)?))?;
    let done = if fresh { "revoked" } else { "revoked already:" };
    Ok(format!(
        "{done} {node}\nnext: copy {file} to every node; running nodes exclude that node within 2 seconds, and notify all linked nodes\na holder of the key can return as another node: to exclude a person, run `cloudy key rotate \
         {file}` too, and keep the file from them\n"
    ))
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

    #[test]
    fn each_step_of_a_rotation_shows_both_keys_and_the_next_step() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("cluster.key");
        let old = key_file::create(&file).expect("makes one").fingerprint();
        let args = |switch, finish| RotateArgs { file: file.clone(), switch, finish };
        let early = rotate(&args(true, false)).expect_err("nothing to switch to").to_string();
        assert!(early.contains("without --switch and --finish"), "{early}");
        let begun = rotate(&args(false, false)).expect("begins");
        let keys = key_file::load_keys(&file).expect("loads");
        let next = keys.accepted().expect("a next key").1.fingerprint();
        let lines = format!("fingerprint {old}\naccepted too {next}, the next key\n");
        assert!(begun.contains(&lines) && begun.contains("--switch"), "{begun}");
        let shown = show(&KeyFileArgs { cluster_key: Some(file.clone()) }).expect("shows it");
        assert_eq!(shown, format!("{lines}file {}\n", file.display()));
        let again = rotate(&args(false, false)).expect_err("one at a time").to_string();
        assert!(again.contains("rotate FILE --switch"), "{again}");
        let switched = rotate(&args(true, false)).expect("switches");
        let lines = format!("fingerprint {next}\naccepted too {old}, the former key\n");
        assert!(switched.contains(&lines) && switched.contains("--finish"), "{switched}");
        let finished = rotate(&args(false, true)).expect("finishes");
        assert!(finished.contains(&next) && !finished.contains(&old), "{finished}");
    }

    #[test]
    fn a_revoked_node_is_shown_and_kept_over_a_rotation() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("cluster.key");
        key_file::create(&file).expect("makes one");
        let node = cloudy_node::NodeId([0xab; 32]);
        let args = RevokeArgs { file: file.clone(), node };
        let line = format!("revoked {node}\n");
        assert!(revoke(&args).expect("revokes").starts_with(&line));
        assert!(revoke(&args).expect("no harm").starts_with("revoked already"));
        let rotated = rotate(&RotateArgs { file, switch: false, finish: false }).expect("begins");
        assert!(rotated.contains(&line), "{rotated}");
    }
}
