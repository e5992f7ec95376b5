//! Three nodes in one process agree on one sequence of messages.

use cloudy_node::{ApprovedItem, ClusterKey, Group, GroupConfig, Index, Node, Payloads};

/// Prints what this node has, once `count` messages are approved.
async fn print(name: &str, group: &Group, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut approved = group.approved_from(Index(1));
    let mut texts = Vec::new();
    while texts.len() < count {
        if let Some(ApprovedItem::Batch(entry)) = approved.next_batch().await.transpose()? {
            texts.extend(Payloads::of(entry.batch.body).map(|payload| String::from_utf8_lossy(&payload).into_owned()));
        }
    }
    println!("{name}: {texts:?}");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = ClusterKey::generate()?;
    let a = Node::builder().cluster_key(&key).start().await?;
    let b = Node::builder().cluster_key(&key).start().await?;
    let c = Node::builder().cluster_key(&key).start().await?;
    let (on_a, on_b, on_c) = tokio::try_join!(
        async { a.create_group("hello", 3, GroupConfig::default()).await.map_err(|error| error.to_string()) },
        async { b.join_group_at("hello", a.local_addr()).await.map_err(|error| error.to_string()) },
        async { c.join_group_at("hello", a.local_addr()).await.map_err(|error| error.to_string()) },
    )?;
    let receipt = on_a.broadcast("from a").await?;
    drop((on_b.broadcast("from b").await?, on_c.broadcast("from c").await?));
    println!("approved at index {} with {} confirmations", receipt.await?.index, 3);
    for (name, group) in [("a", &on_a), ("b", &on_b), ("c", &on_c)] {
        print(name, group, 3).await?;
    }
    Ok(())
}
