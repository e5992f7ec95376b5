//! Derivations that are due after the inputs so far. Handlers name the cause; a derivation consumes it.

/// The cause of a derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// An input that outputs may follow. Most confirmations and approvals change one number, and nothing follows.
    Outputs = 1 << 0,
    /// A lane frame was received: a skip may be due.
    LaneFrame = 1 << 1,
    /// The confirmable part of a lane has changed: by a frame of another member, by a sync, or by the cursor.
    Confirmable = 1 << 2,
    /// Skips of other members were received, which this one may forward.
    Skips = 1 << 3,
}

/// The causes that are not consumed.
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

    /// Drops all causes, because this node is a member of another view.
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
