//! The outputs of the machine, in order.

use std::collections::VecDeque;

use crate::id::NodeId;
use crate::io::{Event, Frame, Output};
use crate::wire::Stream;

/// Outputs that the driver has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    queue: VecDeque<Output>,
    /// The result here differs from the others', or the control log is unreadable: nothing leaves but the reason.
    is_halted: bool,
}

impl Outputs {
    #[inline]
    pub(crate) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    #[inline]
    pub(crate) fn send(&mut self, to: NodeId, stream: Stream, frame: Frame) {
        self.queue.push_back(Output::Send { to, stream, frame });
    }

    /// Closes the link to a peer that broke the protocol.
    #[cold]
    #[inline(never)]
    pub(crate) fn close_link(&mut self, peer: NodeId, reason: String) {
        self.push(Output::CloseLink { peer, reason });
    }

    #[inline]
    pub(crate) fn event(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Output> {
        let output = self.queue.pop_front();
        if self.is_halted && matches!(output, Some(Output::Event(Event::Diverged { .. } | Event::UnreadableLog { .. })))
        {
            // Later outputs of the same turn came from a machine that has stopped.
            self.queue.clear();
        }
        output
    }

    /// The machine stops for good.
    pub(crate) fn halt(&mut self) {
        self.is_halted = true;
    }

    #[inline]
    pub(crate) fn is_halted(&self) -> bool {
        self.is_halted
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Frames that were not taken are lost with their link: on the next one they would come before what they build on.
    pub(crate) fn on_link_changed(&mut self, peer: NodeId) {
        self.queue.retain(|output| !matches!(output, Output::Send { to, .. } if *to == peer));
    }
}
