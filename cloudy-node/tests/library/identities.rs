//! Two processes with one identity, as by a copied data directory.

use cloudy_node::{
    ApprovedError, ConnectError, CreateGroupError, EndReason, GroupConfig, Identity, Index, JoinError, Node,
};

use crate::common::{create, impatient, key, start, until, within};

async fn start_as(identity: &Identity) -> Node {
    Node::builder().identity(identity.clone()).limits(impatient()).start().await.unwrap()
}

#[tokio::test]
async fn of_two_processes_with_one_identity_the_later_one_stops_and_the_group_continues() {
    let key = key();
    let identity = Identity::generate(&key).unwrap();
    let (creator, first) = (start(&key).await, start_as(&identity).await);
    let groups = create(&[creator.clone(), first], "copied", GroupConfig::default()).await;
    let second = start_as(&identity).await;
    let joined =
        within("the copy learns of the other process", second.join_group_at("copied", creator.local_addr())).await;
    match joined {
        Err(error) => assert_eq!(error, JoinError::SameIdentity),
        // It was let in before it was told.
        Ok(group) => {
            let ended = async {
                let mut approved = group.approved_from(Index(1));
                loop {
                    if let Some(Err(ApprovedError::Ended(reason))) = approved.next_batch().await {
                        return reason;
                    }
                }
            };
            assert_eq!(within("the copy ends", ended).await, EndReason::SameIdentity);
        }
    }
    let words = second.prepare_group("own", GroupConfig::default()).await.unwrap_err();
    assert_eq!(words, CreateGroupError::SameIdentity);
    assert!(words.to_string().contains("another process has this node's identity"), "{words}");
    let receipt = within("the first process broadcasts", groups[1].broadcast("continues")).await.unwrap();
    within("it is approved", receipt.into_future()).await.unwrap();
}

#[tokio::test]
async fn processes_with_one_identity_are_found_by_a_node_that_is_in_no_group_with_them() {
    let key = key();
    let identity = Identity::generate(&key).unwrap();
    let (other, first, second) = (start(&key).await, start_as(&identity).await, start_as(&identity).await);
    // Both wait to be invited, as slaves do.
    let waiting = [first.join_group("any").await.unwrap(), second.join_group("any").await.unwrap()];
    other.connect(first.local_addr()).await.unwrap();
    other.connect(second.local_addr()).await.unwrap();
    let [first_waits, second_waits] = waiting;
    assert_eq!(within("the later one is notified", second_waits.joined()).await.unwrap_err(), JoinError::SameIdentity);
    drop(first_waits);
    assert!(first.join_group("another").await.is_ok());
    until("it links again", async || other.connect(first.local_addr()).await == Ok(first.id())).await;
}

#[tokio::test]
async fn a_process_that_dials_another_one_of_its_identity_finds_out_and_so_does_that_one() {
    let identity = Identity::generate(&key()).unwrap();
    let (first, second) = (start_as(&identity).await, start_as(&identity).await);
    let waiting = second.join_group("any").await.unwrap();
    let address = second.local_addr();
    assert_eq!(first.connect(address).await, Err(ConnectError::SameIdentity { address }));
    assert_eq!(within("the later one is notified", waiting.joined()).await.unwrap_err(), JoinError::SameIdentity);
    let address = first.local_addr();
    assert_eq!(first.connect(address).await, Err(ConnectError::Itself { address }));
}

#[tokio::test]
async fn a_process_that_is_started_again_after_a_crash_is_not_one_of_two() {
    let key = key();
    let identity = Identity::generate(&key).unwrap();
    let other = start(&key).await;
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let identity = identity.clone();
        let process = runtime.spawn(async move { start_as(&identity).await }).await.unwrap();
        assert_eq!(other.connect(process.local_addr()).await, Ok(process.id()));
        runtime.shutdown_background();
    }
    let last = start_as(&identity).await;
    assert_eq!(other.connect(last.local_addr()).await, Ok(last.id()));
    assert!(last.prepare_group("own", GroupConfig::default()).await.is_ok());
}
