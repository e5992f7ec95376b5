use super::*;
use crate::config::{Parameters, RingKind};
use crate::digest::Digest;
use crate::id::{Incarnation, Index, NodeId, ViewId};
use crate::view::{Origin, Place, RingMember};
use crate::wire::Findings;

fn view(members: u8) -> View {
    let member = |at| RingMember {
        node: NodeId([at; 32]),
        incarnation: Incarnation(u64::from(at) + 1),
        origin: Origin::Joiner,
        addresses: vec![],
        advertised: None,
    };
    View { id: ViewId(1), ring: (0..members).map(member).collect(), parameters: Parameters::default(), last: false }
}

fn answer(frontiers: &[u64]) -> Wedged {
    Wedged {
        view: ViewId(1),
        incarnation: Incarnation(1),
        frontiers: frontiers.iter().copied().map(Round).collect(),
        complete: true,
        first: Index(1),
        digest: Digest(0),
        cursor: Place::default(),
        findings: Findings::default(),
    }
}

fn down(frontiers: &[u64], down: &[u16]) -> Wedged {
    let findings = Findings { down: down.iter().copied().map(Rank).collect(), stalled: vec![], quiet: vec![] };
    Wedged { findings, ..answer(frontiers) }
}

fn stalled(frontiers: &[u64], accused: u16, stall: Stall) -> Wedged {
    let findings = Findings { down: vec![], stalled: vec![(Rank(accused), stall)], quiet: vec![] };
    Wedged { findings, ..answer(frontiers) }
}

fn survivors(answers: Vec<Option<Wedged>>) -> Vec<u16> {
    let cut = cut_of(&view(answers.len() as u8), &answers, &vec![false; answers.len()], false, Rules::default());
    cut.map(|cut| cut.survivors.iter().map(|rank| rank.0).collect()).unwrap_or_default()
}

#[test]
fn lanes_end_at_the_minimum_of_the_answers() {
    let answers = [Some(answer(&[5, 2, 9])), None, Some(answer(&[4, 3, 9]))];
    let cut = cut_of(&view(3), &answers, &[false; 3], false, Rules::default());
    let rounds = vec![Round(4), Round(2), Round(9)];
    assert_eq!(
        cut,
        Some(Cut { survivors: vec![Rank(0), Rank(2)], rounds, ring: RingKind::Pipelined, from_disks: false })
    );
}

#[test]
fn there_is_no_cut_without_a_complete_survivor() {
    let incomplete = Wedged { complete: false, ..answer(&[1, 1, 1]) };
    assert_eq!(cut_of(&view(3), &[None, Some(incomplete), None], &[false; 3], false, Rules::default()), None);
    assert_eq!(cut_of(&view(3), &[None, None, None], &[false; 3], false, Rules::default()), None);
}

#[test]
fn a_member_down_for_most_is_dropped_and_one_broken_pair_costs_one_member() {
    let all = [3, 3, 3];
    assert_eq!(survivors(vec![Some(down(&all, &[2])), Some(down(&all, &[2])), Some(answer(&all))]), [0, 1]);
    assert_eq!(survivors(vec![Some(down(&all, &[1])), Some(answer(&all)), Some(answer(&all))]), [0, 2]);
    // The one whose lane fewer others hold is excluded first.
    assert_eq!(
        survivors(vec![Some(down(&[3, 3, 3], &[1])), Some(answer(&[0, 3, 3])), Some(answer(&[0, 3, 3]))]),
        [1, 2]
    );
}

#[test]
fn the_last_view_includes_every_member_that_answered() {
    let answers = [Some(down(&[1, 1], &[1])), Some(answer(&[1, 1]))];
    let cut = cut_of(&view(2), &answers, &[false; 2], true, Rules::default()).expect("all answered");
    assert_eq!(cut.survivors, [Rank(0), Rank(1)]);
}

#[test]
fn the_last_complete_member_stays() {
    let incomplete = |wedged| Wedged { complete: false, ..wedged };
    let all = [3, 3, 3];
    let answers = vec![Some(incomplete(down(&all, &[2]))), Some(incomplete(down(&all, &[2]))), Some(answer(&all))];
    assert_eq!(survivors(answers), [2]);
}

#[test]
fn a_stall_counts_against_a_member_only_where_another_made_progress() {
    let place = Place { round: Round(2), rank: Rank(1) };
    // (a) member 2 holds the reporter's whole lane, so member 1 could.
    let slow =
        vec![Some(stalled(&[5, 3, 3], 1, Stall::Unconfirmed)), Some(answer(&[2, 3, 3])), Some(answer(&[5, 3, 3]))];
    assert_eq!(survivors(slow), [0, 2]);
    // (b) the reported member does not hold its own slot, so it has sent it to no member.
    let silent =
        vec![Some(stalled(&[5, 2, 3], 1, Stall::Missing(place))), Some(answer(&[5, 2, 3])), Some(answer(&[5, 2, 3]))];
    assert_eq!(survivors(silent), [0, 2]);
    // (c) the reported member waits for an approval itself.
    let waiting = vec![
        Some(stalled(&[5, 3, 3], 1, Stall::Unapproved(place))),
        Some(answer(&[5, 3, 3])),
        Some(answer(&[5, 3, 3])),
    ];
    assert_eq!(survivors(waiting), [0, 1, 2]);
}

#[test]
fn a_stall_of_a_relay_drops_no_member_and_ends_relaying() {
    let relay =
        |members| View { parameters: Parameters { ring: RingKind::Relay, ..Parameters::default() }, ..view(members) };
    let cut = |answers: &[Option<Wedged>]| {
        cut_of(&relay(3), answers, &[false; 3], false, Rules::default()).expect("all are complete")
    };
    let all = [3, 3, 3];
    // Each of these excludes a member that sends directly.
    for stall in [Stall::Unconfirmed, Stall::Missing(Place { round: Round(3), rank: Rank(1) })] {
        let answers = [Some(stalled(&all, 1, stall)), Some(answer(&all)), Some(answer(&all))];
        assert_eq!(survivors(answers.to_vec()), [0, 2]);
        let cut = cut(&answers);
        assert_eq!((cut.survivors.len(), cut.ring), (3, RingKind::Pipelined), "{stall:?}");
    }
    let own_disk = cut(&[Some(stalled(&all, 0, Stall::Unsynced)), Some(answer(&all)), Some(answer(&all))]);
    assert_eq!((own_disk.survivors.len(), own_disk.ring), (3, RingKind::Pipelined));
    // A member that is gone, or whose link is, is excluded as usual, and the others continue to relay.
    let down = cut(&[Some(down(&all, &[1])), Some(down(&all, &[])), None]);
    assert_eq!((down.survivors.len(), down.ring), (1, RingKind::Relay));
}

#[test]
fn while_a_complete_member_runs_on_no_disk_decides() {
    let cut = |answers: &[Option<Wedged>], restarted: [bool; 3]| {
        let cut = cut_of(&view(3), answers, &restarted, false, Rules::default()).expect("a member is complete");
        (cut.survivors.iter().map(|rank| rank.0).collect::<Vec<_>>(), cut.rounds[0].0, cut.from_disks)
    };
    let answers = [Some(answer(&[5, 5, 5])), Some(answer(&[2, 2, 2])), Some(answer(&[4, 4, 4]))];
    assert_eq!(cut(&answers, [false, true, false]), (vec![0, 1, 2], 4, false));
    assert_eq!(cut(&answers, [true, true, false]), (vec![0, 1, 2], 4, false));
    assert_eq!(cut(&answers, [true, true, true]), (vec![0, 1, 2], 2, true), "all were started again");
    let incomplete = Some(Wedged { complete: false, ..answer(&[4, 4, 4]) });
    let answers = [answers[0].clone(), answers[1].clone(), incomplete];
    assert_eq!(cut(&answers, [true, true, false]), (vec![0, 1, 2], 2, true), "who runs on knows nothing");
}

#[test]
fn the_last_running_complete_member_stays_for_any_content_of_disks() {
    let blamed = [Some(down(&[5, 5], &[1])), Some(answer(&[9, 9]))];
    for (restarted, stays) in [([false, true], Rank(0)), ([true, false], Rank(1))] {
        let cut = cut_of(&view(2), &blamed, &restarted, false, Rules::default()).expect("both are complete");
        assert_eq!(cut.survivors, [stays]);
    }
}
