//! Recipes: locks with fencing tokens, elections, maps, counters, barriers and queues.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudy_node::recipes::{BarrierError, Barriers, Counters, Locks, Map, Queue, Transaction};
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
async fn transactions_of_all_members_keep_a_sum_and_an_entry_with_a_lifetime_ends() {
    const EACH: u64 = 10;
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "map", GroupConfig::default()).await;
    let maps = join_all(groups.iter().map(|group| Map::start(group.clone()))).await;
    let maps: Vec<Map> = maps.into_iter().map(Result::unwrap).collect();
    let opening = Transaction::new().put("a", "100").put("b", "0");
    let index = within("an answer", maps[0].commit(opening)).await.unwrap().unwrap();
    let balance = async |map: &Map, key: &str| {
        let entry = within("a read", map.get(key)).await.unwrap().unwrap();
        (String::from_utf8_lossy(&entry.value).parse::<u64>().unwrap(), entry.revision)
    };
    assert_eq!(balance(&maps[1], "b").await, (0, index), "both have the index of the transaction");
    let transfers = maps.iter().map(async |map| {
        let mut transferred = 0;
        while transferred < EACH {
            let ((a, at_a), (b, at_b)) = (balance(map, "a").await, balance(map, "b").await);
            let transfer = Transaction::new().require("a", Some(at_a)).require("b", Some(at_b));
            let transfer = transfer.put("a", (a - 1).to_string()).put("b", (b + 1).to_string());
            transferred += u64::from(within("an answer", map.commit(transfer)).await.unwrap().is_ok());
        }
    });
    join_all(transfers).await;
    assert_eq!((balance(&maps[0], "a").await.0, balance(&maps[2], "b").await.0), (100 - 3 * EACH, 3 * EACH));
    within("a put", maps[0].put_for("session", "alice", Duration::from_millis(200))).await.unwrap();
    let session = within("a read", maps[1].get("session")).await.unwrap();
    assert!(session.is_none_or(|entry| entry.value == "alice"));
    until("it expires at all", async || {
        let left = maps.iter().map(|map| map.get_local("session"));
        join_all(left).await.into_iter().all(|entry| entry.unwrap().is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_gives_each_number_once() {
    const EACH: usize = 40;
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "counters", GroupConfig::default()).await;
    let counters = join_all(groups.iter().map(|group| Counters::start(group.clone()))).await;
    let counters: Vec<Counters> = counters.into_iter().map(Result::unwrap).collect();
    let numbers = counters.iter().map(async |counters| {
        let numbers = (0..EACH).map(|_| counters.add("orders", 1));
        join_all(numbers).await.into_iter().map(Result::unwrap).collect::<Vec<i64>>()
    });
    let mut numbers = within("the numbers", join_all(numbers)).await.concat();
    numbers.sort_unstable();
    let count = 3 * EACH as i64;
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
    assert_eq!(within("a read", counters[1].get("orders")).await, Ok(count));
    assert_eq!(within("an answer", counters[2].add("orders", -count)).await.unwrap(), 0);
    assert_eq!(within("a read", counters[0].get("others")).await, Ok(0));
    until("all know it", async || counters[1].get_local("orders").await == Ok(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parties_pass_a_barrier_together_and_one_that_gives_up_is_not_counted() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "barriers", GroupConfig::default()).await;
    let barriers = join_all(groups.iter().map(|group| Barriers::start(group.clone()))).await;
    let barriers: Vec<Barriers> = barriers.into_iter().map(Result::unwrap).collect();
    let late = barriers[0].wait("a", 3).timeout(Duration::from_millis(50)).await;
    assert!(matches!(late, Err(BarrierError::TimedOut(_) | BarrierError::Submit(_))), "{late:?}");
    let mut steps = Vec::new();
    for _ in 0..5 {
        until("no party waits", async || barriers[2].waiting("a").await == Ok(0)).await;
        let [one, two] = [0, 1].map(|at| {
            let barriers = barriers[at].clone();
            tokio::spawn(async move { barriers.wait("a", 3).await.unwrap() })
        });
        until("two wait", async || barriers[2].waiting("a").await == Ok(2)).await;
        assert!(!one.is_finished() && !two.is_finished(), "they wait for the third");
        let step = within("all pass", barriers[2].wait("a", 3)).await.unwrap();
        for party in [one, two] {
            assert_eq!(within("the others pass", party).await.unwrap(), step);
        }
        steps.push(step);
    }
    assert!(steps.is_sorted_by(|one, next| one < next), "{steps:?}");
}

/// A party that is paused is removed with its member, and arrives again.
#[tokio::test(start_paused = true)]
async fn a_party_of_an_evicted_member_is_not_counted_and_arrives_again() {
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let (_nodes, groups) = path.group_of(3, &network, &key).await;
    let barriers = join_all(groups.iter().map(|group| Barriers::start(group.clone()))).await;
    let barriers: Vec<Barriers> = barriers.into_iter().map(Result::unwrap).collect();
    let wait = |at: usize| {
        let barriers = barriers[at].clone();
        tokio::spawn(async move { barriers.wait("a", 3).without_timeout().await.unwrap() })
    };
    let paused = wait(2);
    until("it waits", async || barriers[0].waiting("a").await == Ok(1)).await;
    [1, 2].iter().for_each(|other| network.cut(address(3), address(*other)));
    until("it is removed", async || barriers[0].waiting("a").await == Ok(0)).await;
    let others = [wait(0), wait(1)];
    until("the others wait", async || barriers[0].waiting("a").await == Ok(2)).await;
    assert!(!paused.is_finished());
    [1, 2].iter().for_each(|other| network.heal(address(3), address(*other)));
    let step = within("it arrives again", paused).await.unwrap();
    for other in others {
        assert_eq!(within("all pass", other).await.unwrap(), step);
    }
}

/// A leader that is paused beyond its eviction is replaced, and its term is refused.
#[tokio::test(start_paused = true)]
async fn the_term_of_a_leader_that_was_evicted_is_refused() {
    let (path, key) = (Path::of(2, None), key());
    let network = path.network();
    let (nodes, groups) = path.group_of(3, &network, &key).await;
    let (locks, store) = (locks(&groups).await, Store::default());
    let elections: Vec<_> = locks.iter().map(|locks| locks.election("a", LEASE)).collect();
    let old = within("it leads", elections[2].campaign()).await.unwrap();
    assert!(store.write(old.term()));
    let leader = elections[0].leader().await.unwrap().unwrap();
    assert_eq!((leader.node, leader.term), (nodes[2].id(), old.term()));
    let campaign = tokio::spawn({
        let election = elections[0].clone();
        async move { election.campaign().without_timeout().await }
    });
    [1, 2].iter().for_each(|other| network.cut(address(3), address(*other)));
    let new = within("another is elected", campaign).await.unwrap().unwrap();
    let changed = within("it is known", elections[1].changed(Some(leader))).await.unwrap().unwrap();
    assert_eq!((changed.node, changed.term), (nodes[0].id(), new.term()));
    assert!(store.write(new.term()));
    assert!(old.is_held().await.unwrap(), "it cannot know");
    assert!(!store.write(old.term()), "an old term is refused");
    [1, 2].iter().for_each(|other| network.heal(address(3), address(*other)));
    within("it learns that it lost", old.lost()).await;
    new.resign().await.unwrap();
    assert_eq!(within("no leader", elections[1].changed(Some(changed))).await.unwrap(), None);
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
