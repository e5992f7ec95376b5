//! Reading the result.

use cloudy_node::{ApprovedError, ApprovedItem, GroupConfig, Index, TypedGroup, TypedItem, ViewId};
use futures_util::{StreamExt, TryStreamExt};

use crate::common::{create, key, messages, read, read_final, start_all, within};
use crate::help::config;

#[tokio::test]
async fn a_reader_begins_anywhere() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "middle", GroupConfig::default()).await;
    let mut ahead = groups[1].approved_from(Index(95));
    // Broadcast together, they share slots: a reader begins inside of one.
    for at in 0..100 {
        drop(groups[0].try_broadcast(format!("{at}")).unwrap());
    }
    let all = read(&groups[1], 1, 100).await;
    let entries = groups[1].approved_from(Index(1)).take(1 + 1).collect::<Vec<_>>().await;
    assert!(matches!(&entries[1], Ok(ApprovedItem::Batch(entry)) if entry.batch.count > 1), "{entries:?}");
    for from in [1, 2, 50, 99, 100] {
        assert_eq!(read(&groups[1], from, 101 - from as usize).await, all[from as usize - 1..]);
    }
    // Begun before there was anything.
    let mut late = Vec::new();
    while late.len() < 6 {
        late.extend(messages(within("the rest", ahead.next_batch()).await.unwrap().unwrap()));
    }
    assert_eq!(late, all[94..]);
}

#[tokio::test]
async fn a_slow_reader_gets_the_index_to_continue_from_and_delays_no_member() {
    let nodes = start_all(&key(), 3).await;
    let mut small = config(|parameters| parameters.slot_payloads_max = 1);
    small.retain_bytes = 100_000;
    let groups = create(&nodes, "slow", small).await;
    let mut slow = groups[0].approved_from(Index(1));
    let mut quick = groups[0].approved_from(Index(1));
    let mut seen = Vec::new();
    for at in 0..500_u32 {
        let receipt = groups[0].broadcast(at.to_le_bytes().repeat(25)).await.unwrap();
        within("nobody is held up", receipt.into_future()).await.unwrap();
        while seen.len() <= at as usize {
            seen.extend(messages(within("the next", quick.next_batch()).await.unwrap().unwrap()));
        }
    }
    let lagged = slow.next_batch().await.unwrap().unwrap_err();
    let ApprovedError::Lagged { resume_from } = lagged else { panic!("{lagged}") };
    // Never more than the bound, and the same for each.
    let kept_bytes = 100_000 / (500 - resume_from.0 + 1);
    assert!((101 + 208..512).contains(&kept_bytes), "the oldest is {resume_from}");
    let mut rest = Vec::new();
    while rest.len() < seen.len() + 1 - resume_from.0 as usize {
        rest.extend(messages(slow.next_batch().await.unwrap().unwrap()));
    }
    assert_eq!(rest, seen[resume_from.0 as usize - 1..]);
    let again = groups[0].approved_from(Index(3)).next_batch().await.unwrap().unwrap_err();
    assert_eq!(again, ApprovedError::Lagged { resume_from });
}

#[tokio::test]
async fn views_come_in_order_and_the_stream_ends_with_the_result() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "views", GroupConfig::default()).await;
    let reading = tokio::spawn(groups[1].approved_from(Index(1)).try_collect::<Vec<_>>());
    for at in 0..10 {
        drop(groups[at % 2].broadcast(format!("{at}")).await.unwrap());
    }
    groups[0].flush().await.unwrap();
    groups[1].flush().await.unwrap();
    groups[0].end();
    let items = within("the stream ends", reading).await.unwrap().unwrap();
    let views: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(at, item)| match item {
            ApprovedItem::View(installed) => Some((at, installed.id(), installed.view.last)),
            ApprovedItem::Batch(_) => None,
        })
        .collect();
    assert_eq!(views, [(0, ViewId(1), false), (items.len() - 1, ViewId(2), true)]);
    let streamed: Vec<_> = items.into_iter().flat_map(messages).collect();
    assert_eq!(streamed.len(), 10);
    assert_eq!(read_final(&groups[0]).await, streamed);
    // After the end there is nothing, however often one asks.
    let mut past = groups[0].approved_from(Index(11));
    while let Some(item) = within("the end", past.next_batch()).await {
        assert!(matches!(item, Ok(ApprovedItem::View(_))), "{item:?}");
    }
    assert!(past.next_batch().await.is_none());
}

#[tokio::test]
async fn typed_readers_get_messages_views_and_undecodable_payloads() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "typed", GroupConfig::default()).await;
    let typed: TypedGroup<(u32, String)> = TypedGroup::new(groups[0].clone());
    typed.broadcast(&(1, "one".to_owned())).await.unwrap().await.unwrap();
    drop(groups[1].broadcast([1, 9, b'x']).await.unwrap().await.unwrap());
    typed.try_broadcast(&(2, "two".to_owned())).unwrap().await.unwrap();

    let other: TypedGroup<(u32, String)> = TypedGroup::new(groups[1].clone());
    let mut approved = other.approved_from(Index(1));
    let mut read = Vec::new();
    for _ in 0..4 {
        read.push(match within("the next", approved.next()).await.unwrap().unwrap() {
            TypedItem::View(view) => format!("view {}", view.id()),
            TypedItem::Message { index, origin, message: Ok((number, text)) } => {
                assert_eq!(origin, groups[0].node_id());
                format!("{index}: {number} {text}")
            }
            TypedItem::Message { index, origin, message: Err(error) } => {
                assert_eq!(origin, groups[1].node_id());
                format!("{index}: {error}")
            }
        });
    }
    assert_eq!([&read[0], &read[1], &read[3]], ["view 1", "1: 1 one", "3: 2 two"]);
    assert!(read[2].starts_with("2: a payload that is not a message of this type"), "{}", read[2]);
}
