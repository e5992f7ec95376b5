use std::fs;

use bytes::BytesMut;
use cloudy_proto::slot::{Batch, push_payload};
use cloudy_proto::{Digest, Incarnation, NodeId, Seq, ViewId};
use tokio::time::timeout;

use super::*;

const ORIGIN: NodeId = NodeId([0xab; 32]);

fn entry(first_index: u64, numbers: &[f64]) -> Entry {
    let mut body = BytesMut::new();
    numbers.iter().for_each(|number| push_payload(&mut body, &numbers::encode(*number)));
    Entry {
        first_index: Index(first_index),
        view: ViewId(1),
        origin: ORIGIN,
        incarnation: Incarnation(3),
        batch: Batch { first_seq: Seq(7), count: numbers.len() as u32, body: body.freeze() },
    }
}

fn summary(count: u64, sum: f64) -> Summary {
    Summary { count, sum, digest: Digest(0x2a), own: 0, confirmations: 0, left: None }
}

fn line(index: u64, seq: u64, value: &str) -> String {
    let origin = ORIGIN.to_string();
    format!("{{\"index\":{index},\"origin\":\"{origin}\",\"seq\":{seq},\"view\":1,\"value\":{value}}}\n")
}

const LAST: &str = "\"digest\":\"0000000000000000000000000000002a\"}\n";

#[tokio::test]
async fn a_line_per_message_and_a_last_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("result.jsonl");
    let mut file = ResultFile::create(&path).await.expect("opens");
    file.begin().await.expect("begins");
    file.append(entry(1, &[0.1, 1.0])).await.expect("takes");
    file.append(entry(3, &[f64::EPSILON / 2.0])).await.expect("takes");
    file.finish(&summary(3, 0.1 + 0.2)).await.expect("writes");
    let expected = [
        line(1, 7, "0.1"),
        line(2, 8, "1.0"),
        line(3, 7, "1.1102230246251565e-16"),
        format!("{{\"count\":3,\"sum\":0.30000000000000004,{LAST}"),
    ];
    assert_eq!(fs::read_to_string(&path).expect("the file"), expected.concat());

    // The next session starts over.
    file.begin().await.expect("begins");
    file.finish(&summary(0, 0.0)).await.expect("writes");
    assert_eq!(fs::read_to_string(&path).expect("the file"), format!("{{\"count\":0,\"sum\":0.0,{LAST}"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_result_that_was_moved_away_is_left_alone_by_the_next_session() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, first) = (dir.path().join("result.jsonl"), dir.path().join("first.jsonl"));
    let mut file = ResultFile::create(&path).await.expect("opens");
    file.begin().await.expect("begins");
    file.finish(&summary(1, 0.5)).await.expect("writes");
    fs::rename(&path, &first).expect("moved");
    file.begin().await.expect("begins");
    file.finish(&summary(2, 1.5)).await.expect("writes");
    assert_eq!(fs::read_to_string(&first).expect("the file"), format!("{{\"count\":1,\"sum\":0.5,{LAST}"));
    assert_eq!(fs::read_to_string(&path).expect("the file"), format!("{{\"count\":2,\"sum\":1.5,{LAST}"));
    // A deleted file is created again.
    fs::remove_file(&path).expect("removed");
    file.begin().await.expect("begins");
    file.finish(&summary(0, 0.0)).await.expect("writes");
    assert_eq!(fs::read_to_string(&path).expect("the file"), format!("{{\"count\":0,\"sum\":0.0,{LAST}"));
}

#[tokio::test]
async fn lines_reach_the_file_while_the_session_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("result.jsonl");
    let mut file = ResultFile::create(&path).await.expect("opens");
    file.begin().await.expect("begins");
    file.append(entry(1, &[0.5])).await.expect("takes");
    let written = async {
        loop {
            // Few lines wait for others, but only briefly, and none is written twice.
            let _ = timeout(RESULT_WRITE_EVERY / 5, file.keep_writing()).await;
            let text = fs::read_to_string(&path).expect("the file");
            if !text.is_empty() {
                return text;
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(30), written).await.expect("in time"), line(1, 7, "0.5"));
    file.abandon().await.expect("writes");
    assert_eq!(fs::read_to_string(&path).expect("the file"), line(1, 7, "0.5"), "no last line");
}

#[tokio::test]
async fn lines_queued_for_the_disk_are_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut file = ResultFile::create(&dir.path().join("result.jsonl")).await.expect("opens");
    let numbers = vec![0.5; 10_000];
    for at in 0..50 {
        file.append(entry(1 + at * 10_000, &numbers)).await.expect("takes");
        assert!(file.pending_bytes < RESULT_PENDING_BYTES_MAX);
    }
    file.finish(&summary(500_000, 1.0)).await.expect("writes");
    let text = fs::read_to_string(file.path()).expect("the file");
    assert_eq!(text.lines().count(), 500_001);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("missing").join("result.jsonl");
    let error = ResultFile::create(&path).await.expect_err("no such directory").to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("check the path"), "{error}");
}

/// `/dev/full` takes no byte: every write fails with "no space left on device".
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_an_error_and_no_short_file() {
    let mut file = ResultFile::create(Path::new("/dev/full")).await.expect("opens");
    file.begin().await.expect("begins");
    file.append(entry(1, &[0.5])).await.expect("takes");
    let error = timeout(Duration::from_secs(30), file.keep_writing()).await.expect("an error");
    assert!(matches!(error, ResultFileError::Write { .. }), "{error}");
    assert!(error.to_string().contains("incomplete"), "{error}");
    file.append(entry(2, &[0.5])).await.expect("takes");
    assert!(matches!(file.finish(&summary(2, 1.0)).await, Err(ResultFileError::Write { .. })));
}

#[tokio::test]
async fn a_file_keeps_its_content_until_a_session_starts() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("result.jsonl");
    fs::write(&path, "an earlier result\n").expect("writes");
    let mut file = ResultFile::create(&path).await.expect("opens");
    let error = ResultFile::create(&path).await.expect_err("in use");
    assert!(matches!(error, ResultFileError::InUse { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "an earlier result\n");
    file.begin().await.expect("begins");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "");
    file.finish(&summary(0, 0.0)).await.expect("writes");
    drop(file);
    drop(ResultFile::create(&path).await.expect("opens again"));
    assert!(fs::read_to_string(&path).expect("the file").ends_with(LAST));

    let in_vain = dir.path().join("in-vain.jsonl");
    let file = ResultFile::create(&in_vain).await.expect("opens");
    assert!(in_vain.exists(), "it can be written");
    drop(file);
    assert!(!in_vain.exists(), "nothing was written");
}

#[cfg(unix)]
#[tokio::test]
#[cfg(unix)]
async fn a_symbolic_link_to_a_file_that_is_not_there_makes_that_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let [link, target] = ["link.jsonl", "target.jsonl"].map(|name| dir.path().join(name));
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    drop(ResultFile::create(&link).await.expect("opens"));
    assert!(link.is_symlink() && !target.exists(), "no session began: the link stays, and dangles");
    let mut file = ResultFile::create(&link).await.expect("opens");
    file.begin().await.expect("begins");
    file.append(entry(1, &[0.5])).await.expect("taken");
    file.finish(&summary(1, 0.5)).await.expect("written");
    drop(file);
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&target).expect("made").lines().count(), 2);
}

#[tokio::test]
async fn a_path_that_is_not_a_file_is_rejected_and_blocks_no_session() {
    let dir = tempfile::tempdir().expect("a directory");
    let [pipe, socket] = ["pipe", "socket"].map(|name| dir.path().join(name));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).expect("a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    for path in [&*pipe, &*socket, dir.path(), Path::new("/dev/tty")] {
        let opened = timeout(Duration::from_secs(30), ResultFile::create(path)).await.expect("it does not wait");
        let error = opened.expect_err("no file");
        assert!(matches!(error, ResultFileError::NotRegular { .. } | ResultFileError::Open { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    // With a reader at its other end it is still a pipe.
    let _reader = File::options().read(true).write(true).open(&pipe).expect("opens");
    let error = ResultFile::create(&pipe).await.expect_err("no file");
    assert!(matches!(error, ResultFileError::NotRegular { .. }), "{error}");
}

/// The session's report on its file after another program did this to it, in mid-session.
#[cfg(unix)]
async fn changed_by(change: impl FnOnce(&Path)) -> Option<FileChange> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("result.jsonl");
    let mut file = ResultFile::create(&path).await.expect("opens");
    file.begin().await.expect("begins");
    file.append(entry(1, &[0.1, 1.0])).await.expect("takes");
    file.abandon().await.expect("writes");
    change(&path);
    match file.finish(&summary(2, 2.1)).await {
        Ok(()) => None,
        Err(ResultFileError::Changed { how, .. }) => Some(how),
        Err(error) => panic!("{error}"),
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_another_program_changes_during_the_session_is_reported() {
    assert_eq!(changed_by(|_| {}).await, None);
    let resized = changed_by(|path| drop(File::create(path).expect("truncated"))).await;
    assert_eq!(resized, Some(FileChange::Resized));
    let extended = |path: &Path| {
        let mut file = File::options().append(true).open(path).expect("opened");
        file.write_all(b"a line of another program\n").expect("written");
    };
    assert_eq!(changed_by(extended).await, Some(FileChange::Resized));
    assert_eq!(changed_by(|path| fs::remove_file(path).expect("removed")).await, Some(FileChange::Removed));
    let replaced = |path: &Path| {
        let other = path.with_extension("other");
        fs::write(&other, "another file").expect("written");
        fs::rename(other, path).expect("renamed");
    };
    assert_eq!(changed_by(replaced).await, Some(FileChange::Replaced));
}
