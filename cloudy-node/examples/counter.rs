//! A replicated counter: three nodes count up and down at the same time, and all see the same values on the way.

use std::error::Error;

use cloudy_node::{ClusterKey, GroupConfig, Index, Node, TypedGroup, TypedItem};
use serde::{Deserialize, Serialize};

/// What nodes tell each other.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Change {
    Up,
    Down,
}

/// One node's counter: it changes only as the result says, so it changes alike everywhere.
struct Counter {
    group: TypedGroup<Change>,
}

impl Counter {
    /// Counts up `ups` times and down `downs` times.
    async fn change(&self, ups: usize, downs: usize) -> Result<(), Box<dyn Error>> {
        for at in 0..ups.max(downs) {
            for (change, times) in [(Change::Up, ups), (Change::Down, downs)] {
                if at < times {
                    // The result says when it is approved, so the receipt is not needed.
                    drop(self.group.broadcast(&change).await?);
                }
            }
        }
        Ok(())
    }

    /// The values after each of the first `changes` changes.
    async fn values(&self, changes: usize) -> Result<Vec<i64>, Box<dyn Error>> {
        let mut approved = self.group.approved_from(Index(1));
        let mut values = Vec::new();
        let mut value = 0;
        while values.len() < changes {
            match approved.next().await.ok_or("the group has ended")?? {
                TypedItem::Message { message, .. } => {
                    value += match message? {
                        Change::Up => 1,
                        Change::Down => -1,
                    };
                    values.push(value);
                }
                TypedItem::View(_) => {}
            }
        }
        Ok(values)
    }
}

/// Each node's values on the way, the last one its counter's value at the end.
pub(crate) async fn run() -> Result<Vec<Vec<i64>>, Box<dyn Error>> {
    let key = ClusterKey::generate()?;
    let creator = Node::builder().cluster_key(&key).start().await?;
    let create = async { Ok::<_, Box<dyn Error>>(creator.create_group("counter", 3, GroupConfig::default()).await?) };
    let join = async || {
        let node = Node::builder().cluster_key(&key).start().await?;
        Ok::<_, Box<dyn Error>>(node.join_group_at("counter", creator.local_addr()).await?)
    };
    let (a, b, c) = tokio::try_join!(create, join(), join())?;
    let [a, b, c] = [a, b, c].map(|group| Counter { group: TypedGroup::new(group) });
    tokio::try_join!(a.change(30, 10), b.change(0, 20), c.change(20, 5))?;
    let (on_a, on_b, on_c) = tokio::try_join!(a.values(85), b.values(85), c.values(85))?;
    Ok(vec![on_a, on_b, on_c])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for (name, values) in ["a", "b", "c"].iter().zip(run().await?) {
        let at = |value: Option<&i64>| value.copied().unwrap_or_default();
        let (lowest, highest) = (at(values.iter().min()), at(values.iter().max()));
        println!("{name}: {} in the end, {lowest} to {highest} on the way", at(values.last()));
    }
    Ok(())
}
