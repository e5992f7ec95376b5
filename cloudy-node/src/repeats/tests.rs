use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

/// Keeps the written lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(format!("{} {}", event.metadata().level(), message.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn address(last: u32) -> Source {
    Source::Address(IpAddr::from((0x0a00_0000 + last).to_be_bytes()))
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_dials_for_an_hour_leaves_a_dozen_lines_with_counts() {
    const A_SECOND: u64 = 800;
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let repeats = Repeats::new(Health::default());
    for _second in 0..3_600 {
        for _ in 0..A_SECOND {
            repeats.say(Level::WARN, "a node was turned away", address(1), "a node was turned away: another key");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    repeats.finish();
    let written = lines.take();
    assert_eq!(written[0], "WARN a node was turned away: another key (from 10.0.0.1)");
    assert!(written[1].contains("repeated ") && written[1].ends_with(", from 1 address (10.0.0.1)"), "{written:#?}");
    assert!((5..12).contains(&written.len()), "{written:#?}");
    let counted: u64 = written[1..].iter().map(|line| count_of(line)).sum();
    assert_eq!(counted + 1, 3_600 * A_SECOND, "every attempt is counted");
}

fn count_of(line: &str) -> u64 {
    line.split("repeated ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn lines_are_bounded_for_any_number_of_sources_and_causes() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let repeats = Repeats::new(Health::default());
    for at in 0..100_000 {
        repeats.say(Level::WARN, "refused", address(at), "refused");
    }
    assert_eq!(lines.take().len(), SOURCES_NAMED_MAX);
    tokio::time::sleep(SUMMARY_AFTER + Duration::from_secs(1)).await;
    let summary = lines.take();
    assert_eq!(summary.len(), 1, "{summary:?}");
    assert!(summary[0].starts_with("WARN refused: repeated 99992 times in 60 s, from more than 256 addresses ("));
    assert!(summary[0].ends_with(", …)"), "{summary:?}");
    for at in 0..1_000 {
        repeats.say(Level::WARN, &format!("cause {at}"), address(1), "refused");
    }
    assert!(lines.take().len() <= CAUSES_MAX + 1);
    assert!(lock(&repeats.table).causes.len() <= CAUSES_MAX + 1);
}

#[tokio::test(start_paused = true)]
async fn a_cause_that_ended_is_forgotten_and_logged_again_when_it_returns() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let repeats = Repeats::new(Health::default());
    let say = || repeats.say(Level::INFO, "it moved", Source::Here("it".to_owned()), "it moved to node 1");
    say();
    assert_eq!(lines.take(), ["INFO it moved to node 1"]);
    tokio::time::sleep(SUMMARY_AFTER + Duration::from_secs(1)).await;
    assert!(!lock(&repeats.table).watched, "nothing waits for a quiet log");
    say();
    say();
    assert_eq!(lines.take(), ["INFO it moved to node 1"]);
    repeats.finish();
    assert_eq!(lines.take(), ["INFO it moved: repeated once more in 0 s"]);
}
