//! Whether a node does its work: the reasons that `/readyz` returns.

use super::status::{GroupRole, GroupStatus, NodeStatus};

/// The result may wait for this many failure timeouts before the node is not ready. A view change takes less.
const WAIT_FAILURE_TIMEOUTS: u64 = 4;
/// An observer is up to date if it lacks at most this number of messages: it learns of others' results by heartbeats.
const OBSERVER_LAG_MAX: u64 = 100_000;

/// Sets whether a node is ready, and why not.
pub(super) fn judge(status: &mut NodeStatus) {
    let mut reasons = Vec::new();
    if let Some(error) = status.disk.as_ref().and_then(|disk| disk.error.as_ref()) {
        reasons.push(format!("the disk of this node failed: {error}"));
    }
    let is_open = |name: &str| status.groups.iter().any(|group| group.name == name);
    let mut failed: Vec<&str> = Vec::new();
    // The latest end of each name counts.
    for ended in status.ended.iter().rev().filter(|ended| !is_open(&ended.name)) {
        if !failed.contains(&ended.name.as_str()) {
            failed.push(&ended.name);
            if ended.failed {
                reasons.push(format!("group {:?}: {}", ended.name, ended.reason));
            }
        }
    }
    if status.groups.is_empty() && reasons.is_empty() {
        reasons.push("this node is in no group".to_owned());
    }
    for group in &status.groups {
        reasons.extend(group.reasons.iter().map(|reason| format!("group {:?}: {reason}", group.name)));
    }
    status.ready = reasons.is_empty();
    status.reasons = reasons;
}

/// Why a node does not take part in a group as it should.
pub(super) fn of_group(group: &GroupStatus) -> Vec<String> {
    let Some(view) = &group.view else {
        return vec!["it has no view yet: this node waits for the first one, or joins".to_owned()];
    };
    if let Some(lost) = &group.votes_lost {
        return vec![lost.clone()];
    }
    let mut reasons = Vec::new();
    match group.role {
        GroupRole::Joining => reasons.push(format!(
            "this node is not a member of view {}: it was evicted, or joins; it returns once it is up to date and reaches all members",
            view.id
        )),
        GroupRole::Member if group.window_bytes == 0 && !view.last => reasons.push(format!(
            "this node is a member of view {} and not active in it: it catches up, or the view changes",
            view.id
        )),
        GroupRole::Member => {}
        GroupRole::Observer if group.lag > OBSERVER_LAG_MAX => {
            reasons.push(format!("this node lacks {} messages of the result", group.lag));
        }
        GroupRole::Observer => {
            if !group.members.iter().any(|member| member.alive && !member.this_node) {
                reasons.push("this node hears from no member".to_owned());
            }
            return reasons;
        }
    }
    let majority = group.voters.len() / 2 + 1;
    if !group.voters.is_empty() && group.voters_in_reach < majority {
        let silent = silent_voters(group);
        reasons.push(format!(
            "this node hears from {} of {} voters, and a majority is {majority}; silent: {silent}",
            group.voters_in_reach,
            group.voters.len()
        ));
    }
    if let Some(waits) = &group.waits_for
        && waits.age_ms > WAIT_FAILURE_TIMEOUTS * view.failure_timeout_ms.max(250)
    {
        reasons.push(format!("nothing is approved: {}", waits.text));
    }
    reasons
}

fn silent_voters(group: &GroupStatus) -> String {
    let alive =
        |voter: &str| group.members.iter().any(|member| member.node == voter && (member.alive || member.this_node));
    let silent = group.voters.iter().filter(|voter| !alive(voter)).map(|voter| &voter[..voter.len().min(8)]);
    silent.collect::<Vec<_>>().join(", ")
}
