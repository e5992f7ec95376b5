//! A node follows its key file.
#![cfg(unix)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use cloudy_node::key_file::{self, KeyFileEvent};
use cloudy_node::{ClusterKey, ClusterKeys, ConnectError, Node, NodeId};

use crate::common::until;

/// The reported events, in short.
type Told = Arc<Mutex<Vec<String>>>;

fn follow(node: &Node, path: &Path, keys: ClusterKeys) -> (Told, tokio::task::JoinHandle<()>) {
    let told = Told::default();
    let (node, path, heard) = (node.clone(), path.to_owned(), Arc::clone(&told));
    let task = tokio::spawn(async move {
        let observe = |event: KeyFileEvent<'_>| {
            heard.lock().unwrap().push(match event {
                KeyFileEvent::Applied(keys) => format!("taken {}", keys.primary()),
                KeyFileEvent::Failed(error) => format!("failed {error}"),
                KeyFileEvent::Recovered(_) => "well".to_owned(),
                event => panic!("{event:?}"),
            });
        };
        key_file::follow(&node, &path, keys, observe).await;
    });
    (told, task)
}

async fn hears(told: &Told, number: usize, words: &str) {
    until(words, async || told.lock().unwrap().len() >= number).await;
    let told = told.lock().unwrap();
    assert!(told.len() == number && told[number - 1].contains(words), "no {words:?} in {told:#?}");
}

#[tokio::test]
async fn a_changed_file_is_taken_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.key");
    let old = key_file::create(&path).unwrap();
    let keys = key_file::load_keys(&path).unwrap();
    let node = Node::builder().cluster_keys(&keys).start().await.unwrap();
    let (told, task) = follow(&node, &path, keys);

    let next = ClusterKey::generate().unwrap();
    let (begun, ()) = key_file::change(&path, |keys| Ok(keys.begin_rotation(next.clone())?)).unwrap();
    hears(&told, 1, &format!("taken {old}")).await;
    let comes = async |key: &ClusterKey| -> Result<NodeId, ConnectError> {
        Node::builder().cluster_key(key).start().await.unwrap().connect(node.local_addr()).await
    };
    assert_eq!(comes(&old).await, Ok(node.id()));

    for (number, (bad, words)) in [
        (b"".to_vec(), "no cluster key"),
        (b"\xff\xfe\n".to_vec(), "few lines of text"),
        (old.to_text()[..20].as_bytes().to_vec(), "copy the whole line"),
        (format!("{}\nnext x\n", *old.to_text()).into_bytes(), "line 2"),
        (format!("{}\nrevoked 12\n", *old.to_text()).into_bytes(), "64 hexadecimal digits"),
        (vec![b' '; key_file::KEY_FILE_BYTES_MAX + 1], "few lines of text"),
    ]
    .into_iter()
    .enumerate()
    {
        // Each is another failure or follows another.
        std::fs::write(&path, bad).unwrap();
        hears(&told, number + 2, words).await;
        assert_eq!(comes(&old).await, Ok(node.id()), "it keeps its keys");
    }
    std::fs::remove_file(&path).unwrap();
    hears(&told, 8, "there is no key file").await;
    std::fs::write(&path, begun.to_text().as_bytes()).unwrap();
    loose(&path, &told).await;
    hears(&told, 10, "well").await;

    key_file::change(&path, |keys| Ok(keys.switch()?)).unwrap();
    hears(&told, 11, &format!("taken {next}")).await;
    let gone = NodeId([7; 32]);
    key_file::change(&path, |keys| Ok(keys.revoke(gone)?)).unwrap();
    hears(&told, 12, "taken").await;
    assert!(node.revoked().contains(&gone));
    task.abort();
}

/// Rights that are too wide are a failure like any other; the owner's own are put back.
async fn loose(path: &Path, told: &Told) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    hears(told, 9, "chmod 600").await;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_file_behind_links_is_followed_when_it_changes_and_when_the_links_do() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // As a volume of secrets: the name leads through a link that is replaced as a whole.
    std::fs::create_dir(at("first")).unwrap();
    let old = key_file::create(&at("first").join("cluster.key")).unwrap();
    symlink("first", at("..data")).unwrap();
    symlink("..data/cluster.key", at("cluster.key")).unwrap();
    let path = at("cluster.key");
    let keys = key_file::load_keys(&path).unwrap();
    let node = Node::builder().cluster_keys(&keys).start().await.unwrap();
    let (told, task) = follow(&node, &path, keys);
    let next = ClusterKey::generate().unwrap();
    key_file::change(&path, |keys| Ok(keys.begin_rotation(next.clone())?)).unwrap();
    hears(&told, 1, &format!("taken {old}")).await;
    assert!(std::fs::symlink_metadata(&path).unwrap().is_symlink());

    std::fs::create_dir(at("second")).unwrap();
    std::fs::copy(at("first").join("cluster.key"), at("second").join("cluster.key")).unwrap();
    key_file::change(&at("second").join("cluster.key"), |keys| Ok(keys.switch()?)).unwrap();
    symlink("second", at("..data.new")).unwrap();
    std::fs::rename(at("..data.new"), at("..data")).unwrap();
    hears(&told, 2, &format!("taken {next}")).await;
    task.abort();
}
