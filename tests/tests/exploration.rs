//! Every order of events in a group of three, within bounds.

use cloudy_proto::RingKind;
use cloudy_tests::explore::{Scenario, explore};

#[test]
fn try_it() {
    for scenario in [
        Scenario::new("one", RingKind::Pipelined).broadcasts([1, 0, 0]),
        Scenario::new("two", RingKind::Pipelined).broadcasts([1, 1, 0]),
        Scenario::new("leave", RingKind::Pipelined).leaves(2),
        Scenario::new("one leave", RingKind::Pipelined).broadcasts([0, 1, 0]).leaves(2).within(200_000),
    ] {
        let begun = std::time::Instant::now();
        let report = explore(&scenario);
        if let Some(c) = &report.counterexample {
            println!("{c}");
        }
        println!("{} {:?} {:?}", scenario.name, report, begun.elapsed());
    }
}
