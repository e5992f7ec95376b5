//! Slots, and the statements about them: one slot has one content, and a skipped round is never used. No member
//! confirms a slot that it does not have, or forwards one that it has not received. A slot is approved only if every
//! member has confirmed it (`protocol.md` §3.1 to §3.3, §5, P1).

use std::collections::BTreeMap;

use cloudy_proto::slot::Slot;
use cloudy_proto::wire::LaneFrame;

use super::Broken;

/// All lanes of one view, by rank.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<LaneLog>,
}

/// The checkers' record of one lane.
#[derive(Debug, Default)]
struct LaneLog {
    /// Its message slots by round.
    slots: BTreeMap<u64, Slot>,
    /// Their rounds by the first payload's number.
    rounds: BTreeMap<u64, u64>,
    /// All rounds below were said to be messages or skips.
    end: u64,
    /// By node: the slots received without a gap.
    received: Vec<u64>,
    /// By node: the round after the last message slot of that.
    received_messages: Vec<u64>,
    /// By node: the confirmed slots.
    confirmed: Vec<u64>,
    /// By node: the confirmations that the owner has received.
    tallied: Vec<u64>,
    /// By node with a disk: the round after the last message slot that is synced there.
    synced: BTreeMap<usize, u64>,
}

impl Lanes {
    pub(super) fn new(nodes: usize, members: usize) -> Self {
        let lane = |_| LaneLog {
            received: vec![0; nodes],
            received_messages: vec![0; nodes],
            confirmed: vec![0; nodes],
            tallied: vec![0; nodes],
            ..LaneLog::default()
        };
        Self { lanes: (0..members).map(lane).collect() }
    }

    /// The owner sends a frame of its lane. Gives the round of a message slot that was not sent before.
    pub(super) fn sent(&mut self, lane: usize, frame: &LaneFrame) -> Result<Option<u64>, Broken> {
        let lane = &mut self.lanes[lane];
        match frame {
            LaneFrame::Slot(slot) => lane.sent_slot(slot),
            LaneFrame::Skip { prev, frontier } => {
                if let Some((round, _)) = lane.slots.range(prev.0..frontier.0).next() {
                    return Err(("a message slot is never skipped", format!("round {round} in {prev}..{frontier}")));
                }
                lane.check_prev(prev.0, frontier.0)?;
                lane.end = lane.end.max(frontier.0);
                Ok(None)
            }
        }
    }

    /// A member forwards a slot of a lane unchanged, and only if it has received it.
    pub(super) fn forwarded(&self, node: usize, lane: usize, frame: &LaneFrame) -> Result<(), Broken> {
        let rule = "what is passed on is what was handed over";
        let log = &self.lanes[lane];
        let end = match frame {
            LaneFrame::Slot(slot) => {
                if log.slots.get(&slot.round.0) != Some(slot) {
                    return Err((rule, format!("round {} of lane {lane} has another content", slot.round)));
                }
                slot.round.0 + 1
            }
            LaneFrame::Skip { prev, frontier } => {
                log.check_prev(prev.0, frontier.0)?;
                frontier.0
            }
        };
        if end > log.received[node] {
            return Err((rule, format!("{end} of lane {lane} with {} received", log.received[node])));
        }
        Ok(())
    }

    /// A node is handed a frame of a lane.
    pub(super) fn received(&mut self, node: usize, lane: usize, frame: &LaneFrame) {
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        let (prev, frontier) = match frame {
            LaneFrame::Slot(slot) => (slot.prev.0, slot.round.0 + 1),
            LaneFrame::Skip { prev, frontier } => (prev.0, frontier.0),
        };
        if prev <= lane.received[node] && frontier > lane.received[node] {
            lane.received[node] = frontier;
            if matches!(frame, LaneFrame::Slot(_)) {
                lane.received_messages[node] = frontier;
            }
        }
    }

    /// The slots of a lane that a node has received.
    pub(super) fn received_by(&self, node: usize, lane: usize) -> u64 {
        self.lanes[lane].received[node]
    }

    /// The round after the last message slot that a node was handed of a lane.
    pub(super) fn messages_received_by(&self, node: usize, lane: usize) -> u64 {
        self.lanes[lane].received_messages[node]
    }

    /// The slots of a lane that a node has confirmed.
    pub(super) fn confirmed_by(&self, node: usize, lane: usize) -> u64 {
        self.lanes[lane].confirmed[node]
    }

    /// A message slot is on a node's disk.
    pub(super) fn synced(&mut self, home: usize, lane: usize, slot: &Slot) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            let synced = lane.synced.entry(home).or_default();
            *synced = slot.round.0.saturating_add(1).max(*synced);
        }
    }

    /// The round after the last message slot of a lane that is on a node's disk.
    pub(super) fn synced_by(&self, home: usize, lane: usize) -> u64 {
        self.lanes[lane].synced.get(&home).copied().unwrap_or_default()
    }

    /// The round after the last message slot below a frontier.
    pub(super) fn messages_below(&self, lane: usize, frontier: u64) -> u64 {
        self.lanes[lane].slots.range(..frontier).next_back().map_or(0, |(round, _)| round + 1)
    }

    /// Every message slot of a lane below a frontier is on a node's disk.
    pub(super) fn is_synced(&self, rule: &'static str, lane: usize, home: usize, frontier: u64) -> Result<(), Broken> {
        let (messages, synced) = (self.messages_below(lane, frontier), self.synced_by(home, lane));
        if messages > synced {
            return Err((rule, format!("lane {lane} up to {frontier}: messages to {messages}, synced to {synced}")));
        }
        Ok(())
    }

    /// The end of the lane, as its owner has announced it.
    pub(super) fn end(&self, lane: usize) -> u64 {
        self.lanes[lane].end
    }

    /// A node confirms a lane to its owner.
    pub(super) fn confirmed(&mut self, node: usize, lane: usize, frontier: u64) -> Result<(), Broken> {
        let lane = &mut self.lanes[lane];
        if frontier > lane.received[node] {
            let what = format!("{frontier} with {} received", lane.received[node]);
            return Err(("nobody confirms what it does not have", what));
        }
        lane.confirmed[node] = lane.confirmed[node].max(frontier);
        Ok(())
    }

    /// The owner of a lane is about to be handed a confirmation.
    pub(super) fn tallied(&mut self, lane: usize, node: usize, frontier: u64) {
        if let Some(log) = self.lanes.get_mut(lane) {
            log.tallied[node] = log.tallied[node].max(frontier);
        }
    }

    /// Every member but the owner has confirmed a lane up to a round, and the owner knows.
    pub(super) fn all_confirmed(&self, lane: usize, ring: &[usize], frontier: u64) -> Result<(), Broken> {
        let others = ring.iter().enumerate().filter(|(rank, _)| *rank != lane).map(|(_, &node)| node);
        for node in others {
            let confirmed = self.lanes[lane].tallied[node];
            if confirmed < frontier {
                let what = format!("lane {lane} up to {frontier}, node {node} only up to {confirmed}");
                return Err(("every member confirms before approval", what));
            }
        }
        Ok(())
    }

    /// The place of the slot that holds a payload of a lane.
    pub(super) fn place_of(&self, lane: usize, seq: u64) -> Option<(u64, usize)> {
        let log = self.lanes.get(lane)?;
        let (_, &round) = log.rounds.range(..=seq).next_back()?;
        (log.slots[&round].batch.last_seq().0 >= seq).then_some((round, lane))
    }

    /// The message slots of a lane from a payload on, in their order.
    pub(super) fn slots_after(&self, lane: usize, seq: u64) -> impl Iterator<Item = &Slot> {
        let log = &self.lanes[lane];
        log.rounds.range(seq + 1..).map(|(_, round)| &log.slots[round])
    }

    /// The last payload of a lane below a round.
    pub(super) fn last_seq_below(&self, lane: usize, round: u64) -> u64 {
        let last = self.lanes[lane].slots.range(..round).next_back();
        last.map_or(0, |(_, slot)| slot.batch.last_seq().0)
    }

    /// No known message slot that is not in the result lies before a place. `through` is, by rank, the last payload
    /// that is.
    pub(super) fn nothing_before(&self, place: Option<(u64, usize)>, through: &[u64]) -> Result<(), Broken> {
        for (lane, &seq) in through.iter().enumerate() {
            let open = self.slots_after(lane, seq).next().map(|slot| (slot.round.0, lane));
            if open.is_some() && open < place {
                return Err(("the result goes by (round, rank)", format!("{place:?} enters before {open:?}")));
            }
        }
        Ok(())
    }
}

impl LaneLog {
    fn check_prev(&self, prev: u64, round: u64) -> Result<(), Broken> {
        let before = self.slots.range(..round).next_back().map_or(0, |(round, _)| round + 1);
        if prev != before {
            return Err(("prev is the round after the last message", format!("prev {prev}, messages to {before}")));
        }
        Ok(())
    }

    fn sent_slot(&mut self, slot: &Slot) -> Result<Option<u64>, Broken> {
        let round = slot.round.0;
        if let Some(known) = self.slots.get(&round) {
            let same = known == slot;
            return if same { Ok(None) } else { Err(("a slot has one content", format!("round {round} has two"))) };
        }
        if round < self.end {
            return Err(("a skipped round is never used", format!("round {round}, said before up to {}", self.end)));
        }
        self.check_prev(slot.prev.0, round)?;
        self.end = round + 1;
        self.rounds.insert(slot.batch.first_seq.0, round);
        self.slots.insert(round, slot.clone());
        Ok(Some(round))
    }
}
