//! Three nodes in one process agree on one sequence of messages.

use cloudy_node::{ApprovedItem, ClusterKey, Group, GroupConfig, Index, Node, Payloads};
use std::error::Error;

/// The first `count` messages of the result at this node.
async fn first(group: &Group, count: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let mut approved = group.approved_from(Index(1));
    let mut texts = Vec::new();
    while texts.len() < count {
        if let Some(ApprovedItem::Batch(entry)) = approved.next_batch().await.transpose()? {
            texts.extend(Payloads::of(entry.batch.body).map(|payload| String::from_utf8_lossy(&payload).into_owned()));
        }
    }
    Ok(texts)
}

/// What it prints.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let key = ClusterKey::generate()?;
    let start = || Node::builder().cluster_key(&key).start();
    let (a, b, c) = tokio::try_join!(start(), start(), start())?;
    let create = async { Ok::<_, Box<dyn Error>>(a.create_group("hello", 3, GroupConfig::default()).await?) };
    let join = async |node: Node| Ok::<_, Box<dyn Error>>(node.join_group_at("hello", a.local_addr()).await?);
    let (on_a, on_b, on_c) = tokio::try_join!(create, join(b), join(c))?;
    let receipt = on_a.broadcast("from a").await?;
    drop((on_b.broadcast("from b").await?, on_c.broadcast("from c").await?));
    let approval = receipt.await?;
    let mut lines = vec![format!("\"from a\" has index {}, confirmed by {}", approval.index, approval.confirmed.len())];
    for (name, group) in [("a", &on_a), ("b", &on_b), ("c", &on_c)] {
        lines.push(format!("{name}: {:?}", first(group, 3).await?));
    }
    Ok(lines)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await.map(|lines| lines.iter().for_each(|line| println!("{line}")))
}
