//! Recipes: locks with fencing tokens, maps and queues.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudy_node::recipes::{Locks, Map, Queue};
use cloudy_node::{Group, GroupConfig, Index};
use futures_util::future::join_all;

use crate::common::{create, key, start_all, until, within};
use crate::path::{Path, address};

/// Never over in a test.
const LEASE: Duration = Duration::from_secs(3_600);

/// A resource that refuses a smaller token than one that it has seen.
#[derive(Clone, Debug, Default)]
struct Store(Arc<Mutex<Vec<Index>>>);

impl Store {
    fn write(&self, token: Index) -> bool {
        let mut written = self.0.lock().unwrap();
        let accepts = written.last().is_none_or(|last| *last <= token);
        if accepts {
            written.push(token);
        }
        accepts
    }
}

async fn locks(groups: &[Group]) -> Vec<Locks> {
    join_all(groups.iter().map(|group| Locks::start(group.clone()))).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn contenders_hold_a_lock_one_after_the_other() {
    const ROUNDS: usize = 10;
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "locks", GroupConfig::default()).await;
    let (locks, store, holders) = (locks(&groups).await, Store::default(), Arc::new(Mutex::new(())));
    let contend = locks.iter().map(async |locks| {
        for _ in 0..ROUNDS {
            let guard = within("the lock", locks.acquire("a", LEASE)).await.unwrap();
            let alone = holders.try_lock().expect("nobody else holds it");
            assert!(store.write(guard.token()), "tokens rise");
            drop(alone);
            within("the release", guard.release()).await.unwrap();
        }
    });
    join_all(contend).await;
    assert_eq!(store.0.lock().unwrap().len(), 3 * ROUNDS);
    assert_eq!(within("the holder", locks[0].holder("a")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_not_renewed_ends_and_a_request_that_is_dropped_does_not_wait() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "locks", GroupConfig::default()).await;
    let locks = locks(&groups).await;
    let lease = Duration::from_millis(300);
    let kept = within("the lock", locks[0].acquire("a", lease)).await.unwrap();
    let late = locks[1].acquire("a", lease).timeout(2 * lease).await;
    assert!(late.is_err() && kept.is_held().await.unwrap(), "the guard renews it");
    let forgotten = within("the lock", locks[0].acquire("b", lease)).await.unwrap();
    // As if its process had stopped: nothing renews or releases it.
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || drop(forgotten)).join().unwrap();
    drop(runtime);
    let next = within("the end of the lease", locks[1].acquire("b", lease)).await.unwrap();
    within("the release", kept.release()).await.unwrap();
    let after = within("the lock", locks[0].acquire("a", lease)).await.unwrap();
    assert!(after.token() > next.token(), "the request that timed out is gone");
}

/// A holder that is cut off beyond its eviction believes to hold the lock; the store refuses its token.
#[tokio::test(start_paused = true)]
async fn a_store_refuses_the_token_of_a_holder_that_was_evicted() {
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let (nodes, groups) = path.group_of(3, &network, &key).await;
    let (locks, store) = (locks(&groups).await, Store::default());
    let old = within("the lock", locks[2].acquire("a", LEASE)).await.unwrap();
    assert!(store.write(old.token()));
    assert_eq!(locks[0].holder("a").await.unwrap(), Some((nodes[2].id(), old.token())));
    [1, 2].iter().for_each(|other| network.cut(address(3), address(*other)));
    let new = within("the eviction releases it", locks[0].acquire("a", LEASE)).await.unwrap();
    assert!(store.write(new.token()));
    assert!(old.is_held().await.unwrap(), "it cannot know");
    assert!(!store.write(old.token()), "an old token is refused");
    [1, 2].iter().for_each(|other| network.heal(address(3), address(*other)));
    within("it learns that it lost the lock", old.lost()).await;
    drop(old);
    assert!(new.is_held().await.unwrap());
    until("all know the new holder", async || {
        locks[2].holder("a").await.is_ok_and(|holder| holder == Some((nodes[0].id(), new.token())))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_is_the_same_at_all_members_and_a_replacement_takes_effect_once() {
    const EACH: u64 = 20;
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "map", GroupConfig::default()).await;
    let maps = join_all(groups.iter().map(|group| Map::start(group.clone()))).await;
    let maps: Vec<Map> = maps.into_iter().map(Result::unwrap).collect();
    assert_eq!(within("a put", maps[0].put("a", "1")).await.unwrap(), None);
    let first = within("a read", maps[1].get("a")).await.unwrap().unwrap();
    assert_eq!(first.value, "1");
    let watching = tokio::spawn({
        let map = maps[2].clone();
        async move { map.changed("a", Some(first.revision)).await }
    });
    assert_eq!(within("a removal", maps[1].remove("a")).await.unwrap(), Some(first.clone()));
    assert_eq!(within("the change", watching).await.unwrap(), Ok(None));
    let conflict = within("an answer", maps[0].replace("a", Some(first.revision), None)).await.unwrap();
    assert_eq!(conflict.unwrap_err().found, None);
    // Members count by replacements.
    let counts = maps.iter().map(async |map| {
        let mut counted = 0;
        while counted < EACH {
            let entry = within("a read", map.get("count")).await.unwrap();
            let count = entry.as_ref().map_or(0, |entry| String::from_utf8_lossy(&entry.value).parse::<u64>().unwrap());
            let next = (count + 1).to_string().into();
            let replaced = map.replace("count", entry.map(|entry| entry.revision), Some(next));
            counted += u64::from(within("an answer", replaced).await.unwrap().is_ok());
        }
    });
    join_all(counts).await;
    let count = within("a read", maps[0].get("count")).await.unwrap().unwrap();
    assert_eq!(count.value, (3 * EACH).to_string());
    until("all know it", async || maps[2].get_local("count").await.unwrap().as_ref() == Some(&count)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_of_a_queue_is_finished_by_one_worker_and_returns_when_it_is_dropped() {
    const TASKS: u64 = 60;
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "queue", GroupConfig::default()).await;
    let queues = join_all(groups.iter().map(|group| Queue::start(group.clone()))).await;
    let queues: Vec<Queue> = queues.into_iter().map(Result::unwrap).collect();
    let dropped = queues[0].clone();
    let waiting = tokio::spawn(async move { dropped.claim().await.map(drop) });
    for at in 0..TASKS {
        within("a push", queues[1].push(at.to_string())).await.unwrap();
    }
    within("the first claim", waiting).await.unwrap().unwrap();
    let finished = Mutex::new(Vec::new());
    let work = queues.iter().map(async |queue| {
        while finished.lock().unwrap().len() < TASKS as usize {
            let Ok(claim) = queue.claim().timeout(Duration::from_millis(100)).await else { continue };
            let task: u64 = String::from_utf8_lossy(claim.task()).parse().unwrap();
            assert!(within("an answer", claim.finish()).await.unwrap(), "nobody else has it");
            finished.lock().unwrap().push(task);
        }
    });
    within("the work", join_all(work)).await;
    let mut finished = finished.into_inner().unwrap();
    finished.sort_unstable();
    assert_eq!(finished, (0..TASKS).collect::<Vec<_>>());
    until("all know it", async || queues[2].counts().await.unwrap() == (0, 0)).await;
}

/// The task of a worker whose member is evicted goes to another, and the first one learns that it was late.
#[tokio::test(start_paused = true)]
async fn a_task_of_an_evicted_member_goes_to_another_worker() {
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let (_nodes, groups) = path.group_of(3, &network, &key).await;
    let queues = join_all(groups.iter().map(|group| Queue::start(group.clone()))).await;
    let queues: Vec<Queue> = queues.into_iter().map(Result::unwrap).collect();
    queues[0].push("task").await.unwrap();
    let late = within("the claim", queues[2].claim()).await.unwrap();
    [1, 2].iter().for_each(|other| network.cut(address(3), address(*other)));
    let next = within("the eviction returns it", queues[0].claim()).await.unwrap();
    assert_eq!((next.task(), next.token() > late.token()), (late.task(), true));
    [1, 2].iter().for_each(|other| network.heal(address(3), address(*other)));
    assert!(!within("the answer", late.finish()).await.unwrap(), "another worker has it");
    assert!(within("the answer", next.finish()).await.unwrap());
}
