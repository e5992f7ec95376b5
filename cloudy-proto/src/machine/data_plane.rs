//! This node's part in the present view: its lanes and results as a member, or the stored ones of an earlier
//! incarnation.

use core::time::Duration;

use crate::id::{Round, ViewId};
use crate::machine::slow_learners::SlowDown;
use crate::member::Member;
use crate::outbox::Outbox;
use crate::result_log::ResultLog;
use crate::time::Time;
use crate::wire::Heartbeat;

/// The data plane of this node.
#[derive(Debug, Default)]
pub(super) struct DataPlane {
    /// This node as a member of the present view.
    member: Option<Member>,
    /// This node's place in the present view, as an earlier incarnation left it on its disk.
    former: Option<Member>,
    /// The latest view that this node has frozen, in any incarnation on its disk.
    wedged: ViewId,
    /// Payloads without a slot.
    outbox: Outbox,
    /// The view for which this member has reported its links up.
    ready_reported: ViewId,
    /// The time after which a wait of the result is reported next.
    next_wait: Duration,
    /// The limit on what this member sends, while the group slows down.
    pub(super) slow_down: SlowDown,
    /// Number of confirmations in the views before.
    earlier_confirmations: u64,
}

impl DataPlane {
    #[inline]
    pub(super) fn is_member(&self) -> bool {
        self.member.is_some()
    }

    #[inline]
    pub(super) fn member(&self) -> Option<&Member> {
        self.member.as_ref()
    }

    #[inline]
    pub(super) fn member_mut(&mut self) -> Option<&mut Member> {
        self.member.as_mut()
    }

    /// The member, with the outbox that it uses.
    #[inline]
    pub(super) fn parts_mut(&mut self) -> (Option<&mut Member>, &mut Outbox) {
        (self.member.as_mut(), &mut self.outbox)
    }

    /// This node's place in the present view, in this incarnation or an earlier one.
    #[inline]
    pub(super) fn place(&self) -> Option<&Member> {
        self.member.as_ref().or(self.former.as_ref())
    }

    /// The same; that of an earlier incarnation only if it may answer.
    pub(super) fn place_mut(&mut self, former_answers: bool) -> Option<&mut Member> {
        self.member.as_mut().or(self.former.as_mut().filter(|_| former_answers))
    }

    /// The member's view, and the end of each lane's messages in the output.
    pub(super) fn message_ends(&self) -> Option<(ViewId, Vec<Round>)> {
        self.member.as_ref().map(|member| (member.view.id, member.message_ends()))
    }

    pub(super) fn former(&self) -> Option<&Member> {
        self.former.as_ref()
    }

    #[inline]
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    #[inline]
    pub(super) fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Enters a view with this node on its ring.
    pub(super) fn enter(&mut self, member: Member) {
        self.member = Some(member);
    }

    /// Enters a view with an earlier incarnation of this node on its ring.
    pub(super) fn enter_as_former(&mut self, former: Member) {
        self.former = Some(former);
    }

    /// Leaves the view. Returns this node's place in it, and whether that was an earlier incarnation's.
    pub(super) fn leave(&mut self) -> Option<(Member, bool)> {
        let former = self.former.take();
        let is_former = self.member.is_none();
        let member = self.member.take().or(former)?;
        self.earlier_confirmations += member.confirmations_given();
        Some((member, is_former))
    }

    pub(super) fn take_former(&mut self) -> Option<Member> {
        self.former.take()
    }

    /// The latest view that this node has frozen.
    pub(super) fn wedged(&self) -> ViewId {
        self.wedged
    }

    /// Notes a frozen view. True if it is the latest.
    pub(super) fn on_wedged(&mut self, view: ViewId) -> bool {
        let is_new = self.wedged < view;
        self.wedged = self.wedged.max(view);
        is_new
    }

    /// This node's heartbeat for the others.
    pub(super) fn heartbeat(&self, result: &ResultLog, sync_ms: u32, now: Time) -> Heartbeat {
        Heartbeat {
            index: result.state().index(),
            checkpoint: result.state().latest_checkpoint(),
            waiting: self.outbox.reports_due(now),
            complete: self.member.as_ref().is_some_and(Member::is_complete),
            begins: self.member.as_ref().map(Member::before).unwrap_or_default(),
            sync_ms,
        }
    }

    /// The view for which this member has to report its links up: they are, and it has not.
    #[inline]
    pub(super) fn unreported_ready(&self) -> Option<ViewId> {
        let member = self.member.as_ref().filter(|member| member.view.id != self.ready_reported)?;
        member.all_linked().then_some(member.view.id)
    }

    pub(super) fn note_ready_reported(&mut self, view: ViewId) {
        self.ready_reported = view;
    }

    /// Forgets the report, because a new coordinator, or one on a new link, may not have it.
    pub(super) fn forget_ready_report(&mut self) {
        self.ready_reported = ViewId(0);
    }

    /// Notes the time for which the result has waited, if it does. True if that has to be reported: first after a time,
    /// and whenever it has doubled.
    pub(super) fn report_wait(&mut self, age: Option<Duration>, first_after: Duration) -> bool {
        match age.filter(|age| *age >= first_after) {
            None => self.next_wait = first_after,
            Some(age) if age >= self.next_wait => {
                self.next_wait = age * 2;
                return true;
            }
            Some(_) => {}
        }
        false
    }

    /// Number of messages of others that were confirmed to their owners, in all views.
    pub(super) fn confirmations_given(&self) -> u64 {
        self.member.as_ref().map_or(self.earlier_confirmations, |member| member.confirmations_given())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_reported_whenever_it_has_doubled() {
        let mut plane = DataPlane::default();
        let mut report = |ms: u64| plane.report_wait(Some(Duration::from_millis(ms)), Duration::from_millis(250));
        assert_eq!([249, 250, 499, 500, 999, 1_000].map(&mut report), [false, true, false, true, false, true]);
        assert!(!plane.report_wait(None, Duration::from_millis(250)));
        assert!(plane.report_wait(Some(Duration::from_millis(250)), Duration::from_millis(250)), "another wait");
    }

    #[test]
    fn a_view_is_frozen_once_and_an_earlier_one_never_again() {
        let mut plane = DataPlane::default();
        assert_eq!([2, 2, 1, 3].map(|view| plane.on_wedged(ViewId(view))), [true, false, false, true]);
        assert_eq!(plane.wedged(), ViewId(3));
    }
}
