//! Slow and healthy parts of a run: paths, disks, processes.

/// From a time on, at one node or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spell {
    /// Which node; none for every node.
    pub home: Option<usize>,
    /// From then on.
    pub since_us: u64,
    /// The time that it takes on each occasion.
    pub takes_us: u64,
}

/// The slow parts of a run.
#[derive(Clone, Debug, Default)]
pub struct Slowness {
    /// The additional delay of a frame, from one node to another.
    pub delays: Vec<(usize, usize, u64)>,
    /// The additional times of syncs.
    pub syncs: Vec<Spell>,
    /// The times for which a process does not run after each run.
    pub rests: Vec<Spell>,
}

fn of(spells: &[Spell], home: usize, now_us: u64) -> u64 {
    let counts = |spell: &&Spell| spell.home.is_none_or(|of| of == home) && now_us >= spell.since_us;
    spells.iter().filter(counts).map(|spell| spell.takes_us).sum()
}

impl Slowness {
    /// The additional delay of a frame in one direction.
    #[must_use]
    pub fn delay_us(&self, from: usize, to: usize) -> u64 {
        self.delays.iter().filter(|(a, b, _)| (*a, *b) == (from, to)).map(|(.., delay_us)| delay_us).sum()
    }

    /// The additional time of a sync of a node's disk.
    #[must_use]
    pub fn sync_us(&self, home: usize, now_us: u64) -> u64 {
        of(&self.syncs, home, now_us)
    }

    /// The time for which a node's process rests after it ran.
    #[must_use]
    pub fn rest_us(&self, home: usize, now_us: u64) -> u64 {
        of(&self.rests, home, now_us)
    }
}
