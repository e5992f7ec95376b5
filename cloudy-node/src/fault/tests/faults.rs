use std::time::Duration;

use super::super::{DELAY_MAX, Faults, FaultsError, dice::Dice, dice::Treatment};

#[test]
fn bounds_are_within_range_and_values_beyond_them_are_named() {
    let widest =
        Faults { loss: 1.0, latency: DELAY_MAX, jitter: DELAY_MAX, reorder: 1.0, duplicate: 1.0, seed: u64::MAX };
    assert_eq!(widest.validate(), Ok(()));
    assert_eq!(Faults::none().validate(), Ok(()));

    let none = Faults::none();
    for (faults, field) in [
        (Faults { loss: 1.1, ..none }, "loss"),
        (Faults { loss: f64::NAN, ..none }, "loss"),
        (Faults { reorder: -0.1, ..none }, "reorder"),
        (Faults { duplicate: f64::INFINITY, ..none }, "duplicate"),
    ] {
        let error = faults.validate().expect_err(field).to_string();
        assert!(error.contains(field) && error.contains("from 0 to 1"), "{error}");
    }
    let value = DELAY_MAX + Duration::from_nanos(1);
    for (faults, field) in
        [(Faults { latency: value, ..none }, "latency"), (Faults { jitter: value, ..none }, "jitter")]
    {
        assert_eq!(faults.validate(), Err(FaultsError::Delay { field, value }));
        let error = faults.validate().expect_err(field).to_string();
        assert!(error.contains("from 0 to 60s"), "{error}");
    }
}

#[test]
fn json_round_trips_and_is_validated() {
    let faults = Faults {
        loss: 0.1,
        latency: Duration::from_micros(20_500),
        jitter: Duration::from_millis(3),
        reorder: 0.25,
        duplicate: 0.5,
        seed: u64::MAX,
    };
    let json = serde_json::to_string(&faults).expect("serialise");
    assert_eq!(
        json,
        r#"{"loss":0.1,"latency_us":20500,"jitter_us":3000,"reorder":0.25,"duplicate":0.5,"seed":18446744073709551615}"#
    );
    assert_eq!(serde_json::from_str::<Faults>(&json).expect("deserialise"), faults);
    assert_eq!(serde_json::from_str::<Faults>("{}").expect("defaults"), Faults::none());

    let error = serde_json::from_str::<Faults>(r#"{"loss":2}"#).expect_err("out of range");
    assert!(error.to_string().contains("loss is 2"), "{error}");
    let error = serde_json::from_str::<Faults>(r#"{"los":0.1}"#).expect_err("unknown field");
    assert!(error.to_string().contains("los"), "{error}");
}

#[test]
fn jitter_spreads_evenly_around_the_latency_and_not_below_zero() {
    let spread = |latency, jitter| {
        let faults =
            Faults { latency: Duration::from_millis(latency), jitter: Duration::from_millis(jitter), ..Faults::none() };
        let mut dice = Dice::new(faults).expect("valid");
        let mut delays: Vec<_> = (0..1_000)
            .map(|_| match dice.roll() {
                Treatment::Pass { delay, .. } => delay,
                Treatment::Lost => panic!("no loss was asked for"),
            })
            .collect();
        delays.sort();
        delays
    };
    let ms = Duration::from_millis;

    let delays = spread(20, 5);
    assert!(delays[0] >= ms(15) && delays[0] < ms(16), "{:?}", delays[0]);
    assert!(delays[999] < ms(25) && delays[999] > ms(24), "{:?}", delays[999]);
    assert!(delays[500] > ms(19) && delays[500] < ms(21), "{:?}", delays[500]);

    let delays = spread(0, 5);
    assert_eq!(delays[0], Duration::ZERO);
    assert!(delays[999] > ms(4));
}

#[test]
fn one_share_leaves_the_dice_of_the_others_as_they_were() {
    let reordered = |duplicate| {
        let faults = Faults { reorder: 0.5, duplicate, ..Faults::none() };
        let mut dice = Dice::new(faults).expect("valid");
        (0..100).map(|_| matches!(dice.roll(), Treatment::Pass { reordered: true, .. })).collect::<Vec<_>>()
    };
    assert_eq!(reordered(0.0), reordered(0.7));
}
