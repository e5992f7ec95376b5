//! What follows from the inputs so far and has not been derived yet. Handlers name the cause; a derivation consumes it.

/// Why something is to be derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// An input came from which outputs may follow. Most confirmations and approvals move one number, and nothing follows.
    Outputs = 1 << 0,
    /// A lane frame was taken: a skip may be due.
    LaneFrame = 1 << 1,
    /// What may be confirmed has changed: the lane of another member, what is synced of one, or the cursor.
    Confirmable = 1 << 2,
    /// Skips of other members came, which this one may pass on.
    Skips = 1 << 3,
}

/// The causes that were not consumed yet.
#[derive(Debug, Default)]
pub(crate) struct Due(u8);

impl Due {
    #[inline]
    pub(crate) fn set(&mut self, cause: Cause) {
        self.0 |= cause as u8;
    }

    #[inline]
    pub(crate) fn set_if(&mut self, cause: Cause, is_due: bool) {
        self.0 |= (cause as u8) * u8::from(is_due);
    }

    #[inline]
    pub(crate) fn has(&self, cause: Cause) -> bool {
        self.0 & cause as u8 != 0
    }

    /// Consumes a cause. True if it was set.
    #[inline]
    pub(crate) fn take(&mut self, cause: Cause) -> bool {
        let was_set = self.has(cause);
        self.0 &= !(cause as u8);
        was_set
    }

    /// This node is a member of another view: what was due in the one before is not due in this one.
    pub(crate) fn on_view(&mut self) {
        self.0 &= Cause::Outputs as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_consumed_once_and_alone() {
        let mut due = Due::default();
        due.set(Cause::LaneFrame);
        due.set_if(Cause::Skips, true);
        due.set_if(Cause::Confirmable, false);
        assert!(!due.has(Cause::Confirmable) && due.has(Cause::Skips));
        assert!(due.take(Cause::LaneFrame) && !due.take(Cause::LaneFrame));
        due.set_if(Cause::Skips, false);
        assert!(due.take(Cause::Skips), "setting nothing takes nothing back");
    }

    #[test]
    fn a_view_begins_with_nothing_due_but_outputs() {
        let mut due = Due::default();
        [Cause::Outputs, Cause::LaneFrame, Cause::Confirmable, Cause::Skips]
            .into_iter()
            .for_each(|cause| due.set(cause));
        due.on_view();
        assert!(due.take(Cause::Outputs));
        assert!(![Cause::LaneFrame, Cause::Confirmable, Cause::Skips].iter().any(|cause| due.has(*cause)));
    }
}
