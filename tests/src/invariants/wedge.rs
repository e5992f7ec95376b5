//! A wedged member sends nothing more of its view, answers with what it holds, and no slot of any result lies beyond
//! the cut (`protocol.md` §6.2, §6.3).

use cloudy_proto::wire::Wedged;
use cloudy_proto::{InstallView, Origin, Round, View};

use super::Broken;
use super::lanes::Lanes;

/// The members that have wedged, and their answers.
#[derive(Debug)]
pub(super) struct Wedges {
    /// By process.
    frozen: Vec<bool>,
    /// By rank: who answered, and the frontiers that it named.
    answers: Vec<Option<(usize, Vec<Round>)>>,
    /// The ends of the lanes, by rank.
    cut: Option<Vec<Round>>,
}

impl Wedges {
    pub(super) fn new(nodes: usize, members: usize) -> Self {
        Self { frozen: vec![false; nodes], answers: vec![None; members], cut: None }
    }

    pub(super) fn freeze(&mut self, node: usize) {
        self.frozen[node] = true;
    }

    pub(super) fn is_frozen(&self, node: usize) -> bool {
        self.frozen[node]
    }

    /// A member answers `Wedge`; or a later run of its node does, which knows from its disk of messages only.
    pub(super) fn answered(
        &mut self,
        (rank, run, same_disk): (usize, usize, bool),
        node: usize,
        wedged: &Wedged,
        lanes: &Lanes,
    ) -> Result<(), Broken> {
        self.freeze(node);
        let before = self.answers[rank].as_ref().filter(|(who, _)| *who == node);
        if before.is_some_and(|(_, before)| *before != wedged.frontiers) {
            return Err(("a wedged member takes nothing", format!("{:?} after {:?}", wedged, self.answers[rank])));
        }
        let restarted = node != run;
        let known =
            |lane: usize, frontier: u64| if restarted { lanes.messages_below(lane, frontier) } else { frontier };
        for (lane, frontier) in wedged.frontiers.iter().enumerate() {
            if lane != rank && frontier.0 > lanes.received_by(run, lane) {
                return Err(("an answer names what is held", format!("lane {lane} up to {frontier}")));
            }
            if lane == rank && !restarted && frontier.0 < lanes.end(lane) {
                return Err(("an owner holds its lane", format!("{frontier} of {}", lanes.end(lane))));
            }
            if same_disk && frontier.0 < known(lane, lanes.confirmed_by(run, lane)) {
                return Err(("a member holds what it confirmed", format!("lane {lane} up to {frontier}")));
            }
        }
        self.answers[rank] = Some((node, wedged.frontiers.clone()));
        Ok(())
    }

    /// The coordinator's log ends the view. `through` is, by rank, the last payload that entered any result in it.
    pub(super) fn cut(
        &mut self,
        install: InstallView,
        view: &View,
        through: &[u64],
        lanes: &Lanes,
    ) -> Result<(), Broken> {
        self.check_cut(&install, view, through, lanes)?;
        self.cut = Some(install.cut);
        Ok(())
    }

    fn check_cut(&self, install: &InstallView, view: &View, through: &[u64], lanes: &Lanes) -> Result<(), Broken> {
        for (lane, cut) in install.cut.iter().enumerate() {
            let in_result = lanes.place_of(lane, through[lane]).filter(|_| through[lane] > 0);
            if in_result.is_some_and(|(round, _)| round >= cut.0) {
                return Err(("no result reaches beyond the cut", format!("lane {lane}: {in_result:?}, cut {cut}")));
            }
            for survivor in install
                .ring
                .iter()
                .filter_map(|member| view.rank_of(member.node).filter(|_| member.origin == Origin::Survivor))
            {
                let held = self.answers[survivor.at()].as_ref().map(|(_, frontiers)| frontiers[lane]);
                if held.is_some_and(|held| held.0 < lanes.messages_below(lane, cut.0)) {
                    let what = format!("lane {lane}: cut {cut}, rank {survivor} holds up to {held:?}");
                    return Err(("survivors hold all below the cut", what));
                }
            }
        }
        Ok(())
    }

    /// A result that reached the cut has every message below the cut. `through` is, by rank, the last payload in it.
    pub(super) fn reached_cut(&self, through: &[u64], lanes: &Lanes) -> Result<(), Broken> {
        for (lane, cut) in self.cut.iter().flatten().enumerate() {
            let last = lanes.last_seq_below(lane, cut.0);
            if through[lane] < last {
                let what = format!("lane {lane}: payload {} of {last}", through[lane]);
                return Err(("a final result is complete to the cut", what));
            }
        }
        Ok(())
    }
}
