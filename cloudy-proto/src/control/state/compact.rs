//! The state that replaces the log's older entries (`protocol.md` §6).

use std::sync::Arc;

use bytes::Bytes;

use super::entries::Entries;
use super::{ControlState, SessionCommands};
use crate::command::{InstallView, LogState};
use crate::id::{LogIndex, ViewId};
use crate::rules::Rules;
use crate::view::View;

impl ControlState {
    /// The state after the entry at a position, as another node, or an earlier incarnation, encoded it.
    pub(crate) fn resumed(rules: Rules, index: LogIndex, state: LogState, encoded: Bytes) -> Self {
        let (mut view, mut cut, mut dropped) = (None, Vec::new(), Vec::new());
        if let Some(install) = state.installed {
            let InstallView { from, ring, parameters, last, .. } = install;
            view = Some(Arc::new(View { id: from.next(), ring, parameters, last }));
            (cut, dropped) = (install.cut, install.dropped);
        }
        Self {
            rules,
            entries: Entries::after(index, encoded),
            #[cfg(feature = "mutations")]
            history: Default::default(),
            creator: state.creator,
            incarnations: state.incarnations.into_iter().map(|(node, run, name)| (node, (run, name))).collect(),
            view,
            cut,
            dropped,
            session: SessionCommands { plan: state.session, kickstarted: state.kickstarted, grace: state.grace },
            electors: state.electors.into_iter().map(|(id, node, role)| (id, (node, role))).collect(),
            members_ever: state.members_ever.into_iter().collect(),
            reports: state.reports.into_iter().map(|(node, result, report)| (node, (result, report))).collect(),
            closed: state.closed,
            left: state.left.into_iter().collect(),
            streams: state.streams.into_iter().map(|(node, run, stream)| ((node, run), stream)).collect(),
            level: state.level,
        }
    }

    /// The state of the log so far.
    pub(crate) fn log_state(&self) -> LogState {
        let installed = self.view.as_ref().map(|view| InstallView {
            from: ViewId(view.id.0 - 1),
            ring: view.ring.clone(),
            parameters: view.parameters.clone(),
            cut: self.cut.clone(),
            last: view.last,
            dropped: self.dropped.clone(),
        });
        LogState {
            creator: self.creator,
            session: self.session.plan,
            incarnations: self.incarnations.iter().map(|(node, (run, name))| (*node, *run, *name)).collect(),
            installed,
            electors: self.electors().collect(),
            members_ever: self.members_ever.iter().copied().collect(),
            left: self.left.iter().copied().collect(),
            streams: self.streams.iter().map(|((node, run), stream)| (*node, *run, *stream)).collect(),
            kickstarted: self.session.kickstarted,
            grace: self.session.grace,
            reports: self.reports().map(|(node, result, report)| (node, result, report.clone())).collect(),
            closed: self.closed,
            level: self.level,
        }
    }
}
