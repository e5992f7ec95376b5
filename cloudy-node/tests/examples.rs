//! The examples behave as they say.

#[expect(dead_code, reason = "main only prints")]
#[path = "../examples/counter.rs"]
mod counter;
#[expect(dead_code, reason = "main only prints")]
#[path = "../examples/hello.rs"]
mod hello;

#[tokio::test]
async fn hello_is_exchanged_in_one_order() {
    let lines = hello::run().await.unwrap();
    let results: Vec<_> = lines[1..].iter().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(results.len(), 3);
    assert!(results.iter().all(|&result| result == results[0]), "{lines:?}");
    let mut texts: Vec<_> = results[0].trim_matches(['[', ']']).split(", ").collect();
    let index = 1 + texts.iter().position(|&text| text == "\"from a\"").unwrap();
    assert_eq!(lines[0], format!("\"from a\" has index {index}, confirmed by 3"));
    texts.sort_unstable();
    assert_eq!(texts, ["\"from a\"", "\"from b\"", "\"from c\""]);
}

#[tokio::test]
async fn counters_take_the_same_way_to_the_same_value() {
    let values = counter::run().await.unwrap();
    assert_eq!(values[0].last(), Some(&15));
    assert!(values.iter().all(|of| *of == values[0]), "{values:?}");
}
