use super::*;
use crate::id::Seq;

const MIN: u64 = 64 << 10;
const MAX: u64 = 2 << 20;
const SLOT: u64 = 8 << 10;

/// A sender that always has more messages, and a path: slots wait for each other at its narrowest place.
struct Path {
    window: Window,
    bytes_per_s: u64,
    trip: Duration,
    now: Time,
    /// The time at which the narrowest place is free again.
    free: Time,
    in_flight: VecDeque<(Record, Time)>,
    /// Each slot waits for a sync.
    syncs: bool,
    slot_bytes: u64,
    round: Round,
    entered_bytes: u64,
}

impl Path {
    fn new(bytes_per_s: u64, trip: Duration) -> Self {
        let parameters = Parameters { window_bytes: MAX, window_bytes_min: MIN, ..Parameters::default() };
        Self {
            window: Window::new(&parameters, 4),
            bytes_per_s,
            trip,
            now: Time(1_000_000),
            free: Time(0),
            in_flight: VecDeque::new(),
            syncs: false,
            slot_bytes: SLOT,
            round: Round(0),
            entered_bytes: 0,
        }
    }

    fn send(&mut self, cost_bytes: u64) {
        let busy = Duration::from_micros(cost_bytes * 1_000_000 / self.bytes_per_s);
        self.free = self.free.max(self.now) + busy;
        let record = Record::new(self.round, (Seq(1), 1), cost_bytes, self.now, 1);
        self.window.sent(self.round, self.now);
        let arrives = self.free + self.trip;
        self.in_flight.push_back((record, if self.syncs { synced(arrives) } else { arrives }));
        self.round = self.round.next();
    }

    /// A group of this durability, whose members sync.
    fn syncing(mut self, durability: Durability) -> Self {
        let parameters = Parameters { window_bytes: MAX, window_bytes_min: MIN, durability, ..Parameters::default() };
        (self.window, self.syncs) = (Window::new(&parameters, 4), true);
        self
    }

    /// Ends the next slot's trip.
    fn enter(&mut self) {
        let (record, at) = self.in_flight.pop_front().expect("a slot is on its way");
        self.now = self.now.max(at);
        self.entered_bytes += record.cost_bytes;
        let before = self.window.bytes();
        self.window.entered(&record, self.now);
        assert!(self.window.bytes() <= 2 * before, "a trip doubles it at most");
    }

    fn flight(&self) -> u64 {
        self.in_flight.iter().map(|(record, _)| record.cost_bytes).sum()
    }

    /// Sends within the window, for some time.
    fn run(&mut self, time: Duration) -> u64 {
        let (end, before) = (self.now + time, self.entered_bytes);
        while self.now < end {
            while self.window.has_capacity(self.flight(), self.slot_bytes) {
                self.send(self.slot_bytes);
            }
            self.window.on_shortage();
            self.enter();
        }
        while !self.in_flight.is_empty() {
            self.enter();
        }
        self.entered_bytes - before
    }

    /// The length of a trip under load, in steady state.
    fn loaded_trip(&mut self) -> Duration {
        self.run(Duration::from_secs(1));
        Duration::from_micros(self.window.bytes() * 1_000_000 / self.bytes_per_s)
    }
}

/// The end of the first sync that begins then or later: after ten of one millisecond each follows one of 20.
fn synced(arrives: Time) -> Time {
    let cycle_us = arrives.0 / 30_000 * 30_000;
    let begins_us = (arrives.0 - cycle_us).div_ceil(1_000) * 1_000;
    let ends_us = match begins_us {
        ..10_000 => begins_us + 1_000,
        10_000 => 30_000,
        // The sync in flight, and the first of the next ten.
        _ => 31_000,
    };
    Time(cycle_us + ends_us)
}

const LAN: Duration = Duration::from_micros(300);
const FAR: Duration = Duration::from_millis(50);

#[test]
fn on_a_short_path_it_stays_small_and_keeps_the_path_busy() {
    for (bytes_per_s, settles) in [(5_000_000, MIN..MIN + 1), (50_000_000, 100 << 10..140 << 10)] {
        let mut path = Path::new(bytes_per_s, LAN);
        path.run(Duration::from_secs(1));
        assert!(settles.contains(&path.window.bytes()), "{}", path.window.bytes());
        let entered = path.run(Duration::from_secs(1));
        assert!(entered >= bytes_per_s / 100 * 95, "{entered} of {bytes_per_s}");
        assert!(path.loaded_trip() <= (3 * HEADROOM_MIN).max(Duration::from_micros(MIN * 1_000_000 / bytes_per_s)));
    }
}

#[test]
fn on_a_long_path_it_grows_each_round_trip_up_to_the_capacity_of_the_path() {
    let mut path = Path::new(15_000_000, FAR);
    let needed = 15_000_000 / 20;
    path.run(FAR * 8);
    assert!(path.window.bytes() >= needed, "{} after eight trips", path.window.bytes());
    let entered = path.run(Duration::from_secs(1));
    assert!(entered >= 15_000_000 * 9 / 10, "{entered}");
    assert!(path.window.bytes() <= 2 * needed + needed / 20, "{}", path.window.bytes());
}

#[test]
fn on_disk_it_covers_a_long_sync_despite_a_short_minimum() {
    const BYTES_PER_S: u64 = 20_000_000;
    let entered = |durability| {
        let mut path = Path::new(BYTES_PER_S, LAN).syncing(durability);
        path.run(Duration::from_secs(3));
        path.run(Duration::from_secs(1))
    };
    let (on_disk, in_memory) = (entered(Durability::Disk), entered(Durability::Memory));
    assert!(on_disk >= BYTES_PER_S / 10 * 9, "{on_disk}");
    assert!(in_memory < BYTES_PER_S / 2, "the path shows nothing: {in_memory}");
}

#[test]
fn the_views_window_is_its_bound() {
    let mut path = Path::new(1_000_000_000, FAR);
    path.run(Duration::from_secs(1));
    assert_eq!(path.window.bytes(), MAX);
    let mut fixed = Path::new(1_000_000_000, FAR);
    let parameters = Parameters { window_bytes: MAX, window_bytes_min: u64::MAX, ..Parameters::default() };
    fixed.window = Window::new(&parameters, 4);
    assert_eq!(fixed.window.bytes(), MAX);
    fixed.bytes_per_s = 1_000;
    fixed.send(SLOT);
    fixed.enter();
    assert_eq!(fixed.window.bytes(), MAX, "it is fixed");
}

#[test]
fn it_shrinks_with_the_capacity_of_the_path_and_grows_again() {
    let mut path = Path::new(15_000_000, FAR);
    path.run(Duration::from_secs(1));
    let before = path.window.bytes();
    // A long time of losses: the transport sends a tenth.
    path.bytes_per_s = 1_500_000;
    path.run(Duration::from_secs(15));
    let lossy = path.window.bytes();
    assert!(lossy < before / 4, "{lossy} of {before}");
    path.bytes_per_s = 15_000_000;
    path.run(FAR * 20);
    assert!(path.window.bytes() >= before * 9 / 10, "{} of {before}", path.window.bytes());
}

#[test]
fn a_stall_does_not_take_the_window_away() {
    let mut path = Path::new(15_000_000, FAR);
    path.run(Duration::from_secs(1));
    let before = path.window.bytes();
    path.free = path.now + Duration::from_millis(400);
    path.run(FAR * 12);
    assert!(path.window.bytes() >= before * 9 / 10, "{} of {before}", path.window.bytes());
}

#[test]
fn a_path_that_became_longer_is_noticed() {
    let mut path = Path::new(15_000_000, LAN);
    path.run(Duration::from_secs(1));
    path.trip = FAR;
    path.run(2 * LEAST_TIME_MAX);
    let entered = path.run(Duration::from_secs(1));
    assert!(entered >= 15_000_000 * 9 / 10, "{entered}");
}

#[test]
fn estimates_survive_an_idle_time_and_lone_messages_do_not_change_the_rate() {
    let mut path = Path::new(15_000_000, FAR);
    path.run(Duration::from_secs(1));
    let before = path.window.bytes();
    for _ in 0..1_000 {
        path.now = path.now + Duration::from_secs(1);
        path.send(100);
        path.enter();
    }
    assert!(path.window.bytes() >= before * 9 / 10, "{} of {before}", path.window.bytes());
    let entered = path.run(Duration::from_secs(1));
    assert!(entered >= 15_000_000 * 9 / 10, "{entered}");
}

/// Others' bytes in flight fill the same queues, so the shortest trip of a busy time is that of full ones.
#[test]
fn full_queues_do_not_count_as_a_long_path() {
    let mut path = Path::new(50_000_000, LAN);
    for _ in 0..60 {
        // Three others, with the same behaviour.
        path.bytes_per_s = 50_000_000 / 4;
        path.run(Duration::from_secs(1));
    }
    assert!(path.window.bytes() <= 2 * MIN, "{}", path.window.bytes());
    let entered = path.run(Duration::from_secs(10));
    assert!(entered >= 50_000_000 / 4 * 95 / 10, "{entered}");
}

/// Each of few large slots in flight would be received, and answered, separately.
#[test]
fn eight_slots_fit_up_to_a_size() {
    let mut path = Path::new(5_000_000, LAN);
    for (slot_bytes, settles) in [(SLOT, MIN), (64 << 10, 512 << 10), (1 << 20, 512 << 10), (SLOT, MIN)] {
        path.slot_bytes = slot_bytes;
        path.run(Duration::from_secs(3));
        assert_eq!(path.window.bytes(), settles, "in slots of {slot_bytes}");
    }
}

/// A member receives the windows of all others.
#[test]
fn many_members_begin_with_less() {
    let parameters = Parameters { window_bytes: MAX, window_bytes_min: MIN, ..Parameters::default() };
    let least = [1, 8, 16, 32].map(|members| Window::new(&parameters, members).bytes());
    assert_eq!(least, [MIN, MIN, MIN / 2, MIN / 4]);
    let fixed = Parameters { window_bytes_min: MAX, ..parameters };
    assert_eq!(Window::new(&fixed, 32).bytes(), MAX, "it is fixed");
}

#[test]
fn one_slot_always_fits() {
    let path = Path::new(1_000_000, LAN);
    assert!(path.window.has_capacity(0, 16 << 20));
    assert!(path.window.has_capacity(MIN - SLOT, SLOT));
    assert!(!path.window.has_capacity(MIN - SLOT, SLOT + 1) && !path.window.has_capacity(1, 16 << 20));
}

/// Equal times give equal windows; a clock that stands still, or a trip of no time, causes no division by zero.
#[test]
fn the_ends_of_the_numbers_are_harmless() {
    let parameters = Parameters { window_bytes: 1 << 30, window_bytes_min: 1, ..Parameters::default() };
    for mut window in [4, 32].map(|members| Window::new(&parameters, members)) {
        for at in 0..100 {
            let record = Record::new(Round(at), (Seq(1), 1), 1 << 30, Time(u64::MAX), 1);
            window.on_shortage();
            window.sent(record.round, Time(u64::MAX));
            window.entered(&record, Time(if at % 2 == 0 { 0 } else { u64::MAX }));
            assert!((1..=1 << 30).contains(&window.bytes()));
        }
    }
}
