//! `/metrics`: the status as OpenMetrics. Labels are groups, members and peers of the moment, so their number is bounded.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::status::{GroupStatus, MemberEntry, NodeStatus, PeerStatus};
use crate::histogram::Histogram;

/// The media type of OpenMetrics.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of the older text format.
pub(super) const PLAIN_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// The status as text.
pub(super) fn text_of(status: Arc<NodeStatus>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("cloudy");
    registry.register_collector(Box::new(Collected(status)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// The same metrics in the older text format, which names a family like its samples and has neither units nor infos.
pub(super) fn plain_of(open_metrics: &str) -> String {
    let mut plain = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), Some(text)) => help = Some(text),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    kind => ("", kind),
                };
                let help = help.take().unwrap_or_default();
                // Writing to a string cannot fail.
                let _ = writeln!(plain, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
            }
            (Some("#"), ..) => {}
            _ => plain.extend([line, "\n"]),
        }
    }
    plain
}

#[derive(Debug)]
struct Collected(Arc<NodeStatus>);

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = &*self.0;
        let mut page = Page(encoder);
        node(&mut page, status)?;
        disk(&mut page, status)?;
        peers(&mut page, &status.peers)?;
        groups(&mut page, &status.groups)?;
        counters(&mut page, &status.groups)?;
        members(&mut page, &status.groups)
    }
}

/// Writes families of metrics.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn family(
        &mut self,
        (name, unit, help): (&str, Option<&str>, &str),
        kind: MetricType,
        samples: impl IntoIterator<Item = (Labels, impl EncodeMetric)>,
    ) -> fmt::Result {
        let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, metric) in samples {
            if labels.is_empty() {
                return metric.encode(family);
            }
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges(
        &mut self,
        about: (&str, Option<&str>, &str),
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let samples = samples.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(about, MetricType::Gauge, samples)
    }

    fn counters(
        &mut self,
        about: (&str, Option<&str>, &str),
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let samples = samples.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(about, MetricType::Counter, samples)
    }

    fn histograms<'a>(
        &mut self,
        about: (&str, Option<&str>, &str),
        samples: impl IntoIterator<Item = (Labels, &'a Histogram)>,
    ) -> fmt::Result {
        let samples = samples.into_iter().map(|(labels, histogram)| (labels, Buckets(histogram)));
        self.family(about, MetricType::Histogram, samples)
    }

    fn info(&mut self, name: &str, help: &str, labels: &Labels) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }
}

struct Buckets<'a>(&'a Histogram);

impl EncodeMetric for Buckets<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = self.0.bounds_seconds.iter().copied().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.0.counts.iter().copied()).collect();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum_seconds, self.0.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn node(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let own = |value: f64| [(Labels::new(), value)];
    let labels = vec![
        ("version", status.version.clone()),
        ("wire_version", status.wire_version.to_string()),
        ("disk_format", status.disk_format.to_string()),
        ("node", status.node.clone()),
    ];
    page.info("build", "Versions of this node, and its id", &labels)?;
    let fingerprint = |of: &Option<String>| of.clone().unwrap_or_default();
    let keys =
        vec![("fingerprint", fingerprint(&status.keys.fingerprint)), ("accepted", fingerprint(&status.keys.accepted))];
    page.info("cluster_key", "Fingerprints of the primary and the other accepted cluster key", &keys)?;
    page.gauges(("ready", None, "Whether /readyz returns 200"), own(flag(status.ready)))?;
    page.gauges(("uptime", Some("seconds"), "Time since the node started"), own(status.uptime_ms as f64 / 1e3))?;
    page.gauges(("groups", None, "Groups that run at this node"), own(status.groups.len() as f64))?;
    page.gauges(("links", None, "Nodes with a link to this one"), own(status.peers.len() as f64))
}

fn disk(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let Some(disk) = &status.disk else { return Ok(()) };
    let own = |value: f64| [(Labels::new(), value)];
    page.gauges(("disk_ok", None, "Whether the data directory can be used"), own(flag(disk.error.is_none())))?;
    page.gauges(("disk_backlog", Some("bytes"), "Bytes that wait for the disk"), own(disk.backlog_bytes as f64))?;
    let about = ("disk_sync", Some("seconds"), "Times of transactions with their syncs");
    page.histograms(about, [(Labels::new(), &disk.syncs)])
}

fn peers(page: &mut Page<'_>, peers: &[PeerStatus]) -> fmt::Result {
    let labels = |peer: &PeerStatus| vec![("peer", peer.node.clone())];
    page.gauges(
        ("peer_round_trip", Some("seconds"), "Round trip to a peer, as the transport measures it"),
        peers.iter().map(|peer| (labels(peer), peer.round_trip_us as f64 / 1e6)),
    )?;
    type Value = fn(&PeerStatus) -> u64;
    let families: [(&str, &str, &str, Value); 4] = [
        ("peer_sent", "packets", "Packets sent on the present link", |peer| peer.sent_packets),
        ("peer_lost", "packets", "Packets lost on the present link", |peer| peer.lost_packets),
        ("peer_sent", "bytes", "Bytes of datagrams sent on the present link", |peer| peer.sent_bytes),
        ("peer_received", "bytes", "Bytes of datagrams received on the present link", |peer| peer.received_bytes),
    ];
    for (name, unit, help, value) in families {
        page.counters((name, Some(unit), help), peers.iter().map(|peer| (labels(peer), value(peer))))?;
    }
    Ok(())
}

fn of_group(group: &GroupStatus) -> Labels {
    vec![("group", group.name.clone())]
}

fn groups(page: &mut Page<'_>, groups: &[GroupStatus]) -> fmt::Result {
    type Value = fn(&GroupStatus) -> f64;
    let families: [(&str, Option<&str>, &str, Value); 13] = [
        ("group_ready", None, "Whether this node takes part in the group as it should", |group| flag(group.ready)),
        ("members", None, "Members of the view in force", |group| group.members.len() as f64),
        ("view_id", None, "The id of the view in force", |group| {
            group.view.as_ref().map_or(0.0, |view| view.id as f64)
        }),
        ("voters", None, "Nodes that vote on views", |group| group.voters.len() as f64),
        ("voters_in_reach", None, "Voters that this node hears from", |group| group.voters_in_reach as f64),
        ("coordinator_known", None, "Whether a coordinator is in reach", |group| flag(group.coordinator.is_some())),
        ("result_index", None, "Length of the result here", |group| group.index as f64),
        ("lag", Some("messages"), "Messages that this node lacks", |group| group.lag as f64),
        ("outbox", Some("messages"), "Own messages without a slot", |group| group.outbox_messages as f64),
        ("outbox", Some("bytes"), "Bytes of own messages that the protocol has not taken", |group| {
            group.outbox_bytes as f64
        }),
        ("window", Some("bytes"), "Maximum of own bytes outside the result here", |group| group.window_bytes as f64),
        ("pending_slots", None, "Own slots that wait for confirmations", |group| group.pending_slots as f64),
        ("result_waits", Some("seconds"), "For how long the result has waited for its next message", |group| {
            group.waits_for.as_ref().map_or(0.0, |waits| waits.age_ms as f64 / 1e3)
        }),
    ];
    for (name, unit, help, value) in families {
        page.gauges((name, unit, help), groups.iter().map(|group| (of_group(group), value(group))))?;
    }
    let roles = groups.iter().flat_map(|group| {
        let own = group.members.iter().find(|member| member.this_node);
        let (votes, coordinates) = own.map_or((false, false), |own| (own.votes, own.coordinates));
        let role = |role: &str, is: bool| {
            let mut labels = of_group(group);
            labels.push(("role", role.to_owned()));
            (labels, flag(is))
        };
        [role("coordinator", coordinates), role("voter", votes && !coordinates), role("none", !votes && !coordinates)]
    });
    page.gauges(("consensus_role", None, "This node's role in the consensus on views"), roles)?;
    page.histograms(
        ("receipt_latency", Some("seconds"), "Time from the slot of an own message to its approval, by message"),
        groups.iter().map(|group| (of_group(group), &group.receipt_latency)),
    )
}

fn counters(page: &mut Page<'_>, groups: &[GroupStatus]) -> fmt::Result {
    type Value = fn(&GroupStatus) -> u64;
    let families: [(&str, Option<&str>, &str, Value); 6] = [
        ("broadcast", Some("messages"), "Own messages that got a slot", |group| group.counters.broadcast_messages),
        ("broadcast", Some("bytes"), "Their bytes", |group| group.counters.broadcast_bytes),
        ("approved", Some("messages"), "Messages of all nodes that entered the result here", |group| {
            group.counters.approved_messages
        }),
        ("approved", Some("bytes"), "Their bytes", |group| group.counters.approved_bytes),
        ("confirmations", None, "Messages of others that this node confirmed", |group| group.counters.confirmations),
        ("views", None, "Views that came into force here", |group| group.counters.views),
    ];
    for (name, unit, help, value) in families {
        page.counters((name, unit, help), groups.iter().map(|group| (of_group(group), value(group))))?;
    }
    let removed = groups.iter().flat_map(|group| {
        let counts = &group.counters;
        let reasons = [
            ("silent", counts.removed_silent),
            ("blamed", counts.removed_blamed),
            ("left", counts.removed_left),
            ("suspended", counts.removed_suspended),
        ];
        reasons.map(|(reason, count)| {
            let mut labels = of_group(group);
            labels.push(("reason", reason.to_owned()));
            (labels, count)
        })
    });
    page.counters(("members_removed", None, "Members that view changes removed, as far as this node decided"), removed)
}

fn members(page: &mut Page<'_>, groups: &[GroupStatus]) -> fmt::Result {
    type Value = fn(&MemberEntry) -> Option<f64>;
    let families: [(&str, Option<&str>, &str, Value); 3] = [
        ("member_alive", None, "Whether this node hears from a member", |member| Some(flag(member.alive))),
        ("member_lag", Some("messages"), "Messages that a member lacks of the longest known result", |member| {
            Some(member.lag as f64)
        }),
        (
            "member_confirmation",
            Some("seconds"),
            "Smoothed time from sending a slot to a member's confirmation",
            |member| member.confirmation_us.map(|us| us as f64 / 1e6),
        ),
    ];
    for (name, unit, help, value) in families {
        let samples = groups.iter().flat_map(|group| {
            group.members.iter().filter_map(move |member| {
                let mut labels = of_group(group);
                labels.push(("member", member.node.clone()));
                value(member).map(|value| (labels, value))
            })
        });
        page.gauges((name, unit, help), samples)?;
    }
    Ok(())
}
