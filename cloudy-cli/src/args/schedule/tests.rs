use super::*;

use Who::{Master, Slave};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A schedule of texts, for four slaves, with STOP at 3 s.
fn schedule(kills: &[&str], pauses: &[&str], partitions: &[&str]) -> Result<Schedule, ScheduleError> {
    let kills: Vec<_> = kills.iter().map(|text| kill(text).expect(text)).collect();
    let pauses: Vec<_> = pauses.iter().map(|text| pause(text).expect(text)).collect();
    let partitions: Vec<_> = partitions.iter().map(|text| partition(text).expect(text)).collect();
    Schedule::new(&kills, &pauses, &partitions, 4, millis(3_000))
}

#[test]
fn faults_are_read_in_every_spelling_of_a_name() {
    for text in ["slave2@500ms", "slave-2@500ms", "2@500000", "2@0.5s"] {
        assert_eq!(kill(text), Ok(At { what: Slave(2), at: millis(500) }), "{text}");
    }
    assert_eq!(kill("master@1s"), Ok(At { what: Master, at: millis(1_000) }));
    assert_eq!(pause("slave3@1s..1500ms"), Ok(During { what: Slave(3), from: millis(1_000), to: millis(1_500) }));
    let sides = Sides(vec![vec![Slave(1), Slave(2)], vec![Slave(3), Slave(4), Master]]);
    let expected = During { what: sides.clone(), from: millis(700), to: millis(1_200) };
    assert_eq!(partition("1,2/3,slave4,master@700ms..1200ms"), Ok(expected));
    assert_eq!(sides.to_string(), "slave-1,slave-2 / slave-3,slave-4,master");
    assert_eq!(partition("1/2/3@0..1").map(|partition| partition.what.0.len()), Ok(3));
}

#[test]
fn texts_that_are_no_fault_name_what_to_write() {
    for (text, part) in [
        ("slave2", "slave2@500ms"),
        ("slave2@", "``: not a duration"),
        ("@1s", "`` is not a process of the demo"),
        ("slave0@1s", "`slave0` is not a process of the demo; write master, or a slave as 2, slave2 or slave-2"),
        ("65@1s", "`65` is not a process of the demo"),
        ("+2@1s", "`+2` is not a process of the demo"),
        ("slave--2@1s", "`slave--2` is not a process of the demo"),
        ("Master@1s", "`Master` is not a process of the demo"),
        ("2@soon", "`soon`: not a duration; write for example 2s"),
        ("2@-1s", "`-1s`: not a duration"),
        ("2@1s@2s", "`1s@2s`: not a duration"),
    ] {
        let error = kill(text).map(|_| ()).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    for (text, part) in [
        ("slave3", "WHO@FROM..TO; write for example slave3@1s..1500ms"),
        ("slave3@1s", "WHO@FROM..TO"),
        ("slave3@1s..1s", "it ends at 1s, not after it begins at 1s"),
        ("slave3@2s..1s", "it ends at 1s, not after it begins at 2s"),
        ("slave3@1s..2s..3s", "`2s..3s`: not a duration"),
    ] {
        let error = pause(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    for (text, part) in [
        ("1,2/3,4", "SIDE/SIDE@FROM..TO"),
        ("1,2@1s..2s", "two sides or more"),
        ("1,2/@1s..2s", "`` is not a process of the demo"),
        ("1,,2/3@1s..2s", "`` is not a process of the demo"),
        ("1,2/2,3@1s..2s", "slave-2 is named twice"),
        ("1,1/2@1s..2s", "slave-1 is named twice"),
        ("master/1,master@1s..2s", "master is named twice"),
        ("1/2@2s..1s", "it ends at 1s"),
    ] {
        let error = partition(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_schedule_is_in_order_of_time_and_what_ends_goes_first() {
    let found = schedule(&["2@1s"], &["3@0..500ms", "3@500ms..1s"], &["1/4@500ms..2s"]).expect("possible");
    let texts: Vec<String> = found.0.iter().map(|At { what, at }| format!("{} {what}", duration::show(*at))).collect();
    assert_eq!(
        texts,
        [
            "0s pause slave-3",
            "500ms resume slave-3",
            "500ms partition slave-1 / slave-4",
            "500ms pause slave-3",
            "1s resume slave-3",
            "1s kill slave-2",
            "2s heal slave-1 / slave-4"
        ]
    );
    assert!(found.has_faults() && found.has_partitions());
    let none = schedule(&[], &[], &[]).expect("nothing");
    assert!(!none.has_faults() && !none.has_partitions());
    assert!(!schedule(&["1@0"], &[], &[]).expect("possible").has_partitions());
}

#[test]
fn faults_that_cannot_happen_are_refused_in_words() {
    for (kills, pauses, partitions, words) in [
        (
            &["5@1s"][..],
            &[][..],
            &[][..],
            "there is no slave-5: the demo has 4; name one of those, or start more with --nodes",
        ),
        (&[], &[], &["1/5@1s..2s"], "there is no slave-5"),
        (&["1@3s"], &[], &[], "kill slave-1 at 3s: STOP begins at 3s; choose an earlier time, or a longer --send"),
        (&[], &["1@1s..4s"], &[], "resume slave-1 at 4s: STOP begins at 3s"),
        (&[], &[], &["1/2@5s..6s"], "partition slave-1 / slave-2 at 5s"),
        (&["1@1s", "1@2s"], &[], &[], "slave-1 is killed at 1s: no other fault is possible"),
        (&["1@1s"], &["1@500ms..2s"], &[], "slave-1 is killed at 1s"),
        (&["master@0"], &["master@1s..2s"], &[], "master is killed at 0s"),
        (&[], &["1@1s..2s", "1@1500ms..2500ms"], &[], "slave-1 is paused while it is paused already"),
        (&["1@1s", "2@1s", "3@1s", "4@2s"], &[], &[], "all slaves are killed; leave one alive"),
    ] {
        let error = schedule(kills, pauses, partitions).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    schedule(&["1@1s", "2@1s", "3@1s", "master@2s"], &["4@1s..2s"], &["1/4@1500ms..2s"]).expect("possible");
}

#[test]
fn whoever_is_on_no_side_reaches_all() {
    let During { what: sides, .. } = partition("1,2/3/master@0..1s").expect("a partition");
    let beyond = |who| sides.beyond(who).collect::<Vec<_>>();
    assert_eq!(beyond(Slave(1)), [Slave(3), Master]);
    assert_eq!(beyond(Slave(3)), [Slave(1), Slave(2), Master]);
    assert_eq!(beyond(Master), [Slave(1), Slave(2), Slave(3)]);
    assert_eq!(beyond(Slave(4)), []);
}
