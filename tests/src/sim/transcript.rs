//! A digest of every input and output of every machine in a run: two builds that behave the same have equal ones.
//!
//! Frames are hashed as the bytes of the wire, records and the rest as numbers and bytes, so that a renamed type changes
//! nothing. The exception is [`Output::Event`], which is hashed as its `Debug` text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use cloudy_proto::slot::Batch;
use cloudy_proto::{ApprovedItem, Entry, Frame, Input, Output, Record, Request, StoredBody, Time, wire};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::sim::plan::Plan;
use crate::sim::run::record;

/// The inputs and outputs of the machines of a run, in order.
#[derive(Clone, Default)]
pub struct Transcript {
    hasher: Xxh3,
    inputs: u64,
    outputs: u64,
}

/// The number of inputs and outputs, and the digest of all of them.
impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:032x}", self.inputs, self.outputs, self.hasher.digest128())
    }
}

impl Transcript {
    /// A machine takes an input.
    pub fn input(&mut self, node: usize, now: Time, input: &Input) {
        self.inputs += 1;
        let mut item = Item::of(&('i', node, now));
        match input {
            Input::LinkUp { peer, addresses, advertised } => item.add(&(0, peer, addresses, advertised)),
            Input::LinkDown { peer } => item.add(&(1, peer)),
            Input::Frame { from, incarnation, stream, frame } => {
                item.add(&(2, from, incarnation, stream));
                item.add_frame(frame);
            }
            Input::Broadcast(batch) => {
                item.add(&3);
                item.add_batch(batch);
            }
            Input::Request(request) => {
                item.add(&4);
                item.add_request(request);
            }
            Input::Persisted { ticket } => item.add(&(5, ticket)),
            Input::ResultRead { to, items } => {
                item.add(&(6, to, items.as_ref().map(Vec::len)));
                items.iter().flatten().for_each(|read| item.add_item(read));
            }
            Input::SnapshotRead { to, id, offset, part } => item.add(&(11, to, id, offset, part)),
            Input::Timeout => item.add(&7),
            Input::Arriving { from, stream, bytes } => item.add(&(8, from, stream, bytes)),
            Input::Alive { peer, since } => item.add(&(9, peer, since)),
            Input::Waits { cost_bytes } => item.add(&(10, cost_bytes)),
        }
        self.hash(&item);
    }

    /// A machine gives an output.
    pub fn output(&mut self, node: usize, output: &Output) {
        self.outputs += 1;
        let mut item = Item::of(&('o', node));
        match output {
            Output::Send { to, stream, frame } => {
                item.add(&(0, to, stream));
                item.add_frame(frame);
            }
            Output::CloseLink { peer, reason } => item.add(&(1, peer, reason)),
            Output::Redial { peer } => item.add(&(2, peer)),
            Output::Persist { ticket, records } => {
                item.add(&(3, ticket, records.len()));
                records.iter().for_each(|record| item.add_record(record));
            }
            Output::ReadResult { to, from, bytes_max } => item.add(&(4, to, from, bytes_max)),
            Output::ReadSnapshot { to, id, offset, bytes_max } => item.add(&(10, to, id, offset, bytes_max)),
            Output::Approved(approval) => {
                item.add(&(5, approval.first_seq, approval.count, approval.first_index, approval.view));
                item.add(&approval.confirmed);
            }
            Output::Restore { index, state, view } => item.add(&(6, index, state, view)),
            Output::Resumed { after, view } => item.add(&(7, after, view)),
            Output::Deliver(delivered) => {
                item.add(&8);
                item.add_item(delivered);
            }
            Output::Event(event) => item.add(&(9, format!("{event:?}"))),
        }
        self.hash(&item);
    }

    fn hash(&mut self, item: &Item) {
        self.hasher.update(&(item.0.len() as u64).to_le_bytes());
        self.hasher.update(&item.0);
    }
}

/// One input or output as bytes.
struct Item(Vec<u8>);

impl Item {
    fn of(head: &impl Serialize) -> Self {
        let mut item = Self(Vec::new());
        item.add(head);
        item
    }

    /// Every value here has an encoding: no map has keys, and no sequence a length, that is not known.
    fn add(&mut self, part: &impl Serialize) {
        let bytes = postcard::to_stdvec(part).expect("plain data is encoded");
        self.0.extend_from_slice(&bytes);
    }

    fn add_frame(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        let body = match frame {
            Frame::Lane(frame) => wire::encode_lane(frame, &mut bytes),
            Frame::Tally(frame) => {
                wire::encode_tally(frame, &mut bytes);
                None
            }
            Frame::Control(frame) => {
                wire::encode_control(frame, &mut bytes);
                None
            }
        };
        self.add(&(&bytes[..], body));
    }

    fn add_batch(&mut self, batch: &Batch) {
        self.add(&(batch.first_seq, batch.count, &batch.body));
    }

    fn add_item(&mut self, item: &ApprovedItem) {
        match item {
            ApprovedItem::Batch(entry) => self.add_entry(entry),
            ApprovedItem::View(view) => self.add(view),
        }
    }

    fn add_entry(&mut self, entry: &Entry) {
        self.add(&(entry.first_index, entry.view, entry.origin, entry.incarnation));
        self.add_batch(&entry.batch);
    }

    fn add_request(&mut self, request: &Request) {
        match request {
            Request::Invite { node } => self.add(&(0, node)),
            Request::Uninvite { node } => self.add(&(1, node)),
            Request::Create { session } => self.add(&(2, session)),
            Request::End => self.add(&3),
            Request::Leave => self.add(&4),
            Request::Suspend => self.add(&7),
            Request::Snapshot { index, state } => self.add(&(5, index, state)),
            Request::Report(report) => self.add(&(6, report)),
        }
    }

    fn add_record(&mut self, record: &Record) {
        match record {
            Record::Vote(vote) => self.add(&(0, vote.voter, vote.term, vote.voted_for, vote.commit)),
            Record::Entries(entries) => self.add(&(1, entries)),
            Record::Base { base, alone } => self.add(&(2, base, alone)),
            Record::Log { index, term, state } => self.add(&(3, index, term, state)),
            Record::Command { index, term, command } => self.add(&(4, index, term, command)),
            Record::Slot { view, lane, slot } => {
                self.add(&(5, view, lane, slot.round, slot.prev));
                self.add_batch(&slot.batch);
            }
            Record::Entry(entry) => {
                self.add(&(6, entry.first_index, entry.view, entry.origin, entry.incarnation));
                self.add(&(entry.first_seq, entry.count));
                match &entry.body {
                    StoredBody::Here(body) => self.add(&(0, body)),
                    StoredBody::Slot { lane, round } => self.add(&(1, lane, round)),
                }
            }
            Record::Snapshot(snapshot) => self.add(&(7, snapshot)),
            Record::SnapshotPart { id, offset, part } => self.add(&(14, id, offset, part)),
            Record::Checkpoint { base, instead_of } => self.add(&(8, base, instead_of)),
            Record::Begin(base) => self.add(&(9, base)),
            Record::Complete { view, first } => self.add(&(10, view, first)),
            Record::Wedged { view } => self.add(&(11, view)),
            Record::View(view) => self.add(&(12, view)),
            #[cfg(feature = "next-version")]
            Record::Next => self.add(&13),
        }
    }
}

/// Runs seeds on several threads and gives one line for each, in order: seed, inputs, outputs, digest.
#[must_use]
pub fn transcripts(from: u64, seeds: u64, threads: usize) -> Vec<String> {
    let (next, end) = (AtomicU64::new(from), from.saturating_add(seeds));
    let lines = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let line = format!("{seed} {}", record(Plan::of(seed)));
            let Ok(mut lines) = lines.lock() else { break };
            lines.insert(seed, line);
        }
    };
    std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
    lines.into_inner().unwrap_or_default().into_values().collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cloudy_proto::wire::{ControlFrame, Stream};
    use cloudy_proto::{Event, Index, NodeId, SnapshotState, ViewId};

    use super::*;

    fn digest(items: &[(usize, Output)]) -> String {
        let mut transcript = Transcript::default();
        transcript.input(0, Time(1), &Input::Timeout);
        items.iter().for_each(|(node, output)| transcript.output(*node, output));
        transcript.to_string()
    }

    #[test]
    fn a_digest_changes_with_one_output_and_with_the_order_of_two() {
        let ready = |view| Output::Send {
            to: NodeId([1; 32]),
            stream: Stream::Control,
            frame: Frame::Control(ControlFrame::Ready { view: ViewId(view) }),
        };
        let wedged = |view| Output::Persist { ticket: 1, records: vec![Record::Wedged { view: ViewId(view) }] };
        let restore = |state: &'static [u8]| {
            let state = SnapshotState::Here(Bytes::from_static(state));
            Output::Restore { index: Index(1), state, view: None }
        };
        let first = [(0, ready(1)), (0, wedged(1)), (0, restore(b"a")), (0, Output::Event(Event::Grace))];
        assert_eq!(digest(&first), digest(&first));
        let others = [(0, ready(2)), (0, wedged(2)), (0, restore(b"b")), (0, Output::Event(Event::Stop))];
        for (at, other) in others.into_iter().enumerate() {
            let mut changed = first.clone();
            changed[at] = other;
            assert_ne!(digest(&first), digest(&changed), "output {at}");
            changed = first.clone();
            changed[at].0 = 1;
            assert_ne!(digest(&first), digest(&changed), "the node of output {at}");
        }
        let mut swapped = first.clone();
        swapped.swap(0, 1);
        assert_ne!(digest(&first), digest(&swapped));
    }

    #[test]
    fn equal_seeds_have_equal_transcripts_and_others_do_not() {
        let (first, second) = (transcripts(0, 4, 2), transcripts(0, 4, 1));
        assert_eq!(first, second);
        assert_ne!(record(Plan::of(0)).to_string(), record(Plan::of(1)).to_string());
    }
}
