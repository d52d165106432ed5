//! The metrics of a node: one table of names, and two ways out of it.
//!
//! [`METRICS`] is the only place where a metric has a name. [`render`] writes all of them in the text
//! format that Prometheus reads, for whoever serves it. With the feature `metrics` every node also
//! hands them to the recorder of the [`metrics`](https://docs.rs/metrics) facade, if the program has
//! installed one, every [`NodeOptions::metrics_interval`](crate::NodeOptions::metrics_interval) on a
//! thread of its own: nothing of that is on a command's way.

use crate::stats::{Histogram, Stage, Stats};
use crate::status::Status;
use crate::transport::{TcpStats, TlsStats};
use duraft_core::RoleKind;
use std::fmt::Write;
use std::time::Duration;

/// What kind of number a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// Only grows in a node's life; begins at 0 in the next.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl MetricKind {
    /// Its name in Prometheus' text format.
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: MetricKind,
    /// What one of it is.
    pub unit: &'static str,
    /// What it says.
    pub help: &'static str,
    source: Source,
}

/// Where a metric's values come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Status(fn(&Status) -> u64),
    Transport(fn(&TcpStats) -> u64),
    /// One value for each reason.
    Tls,
    /// One histogram for each stage.
    Stages,
}

const fn metric(
    name: &'static str,
    kind: MetricKind,
    unit: &'static str,
    source: Source,
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        unit,
        help,
        source,
    }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    read: fn(&Status) -> u64,
    help: &'static str,
) -> Metric {
    metric(name, MetricKind::Gauge, unit, Source::Status(read), help)
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    read: fn(&Status) -> u64,
    help: &'static str,
) -> Metric {
    metric(name, MetricKind::Counter, unit, Source::Status(read), help)
}

const fn transport(
    name: &'static str,
    unit: &'static str,
    read: fn(&TcpStats) -> u64,
    help: &'static str,
) -> Metric {
    metric(
        name,
        MetricKind::Counter,
        unit,
        Source::Transport(read),
        help,
    )
}

/// Every metric of a node.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    gauge("duraft_node_term", "terms", |s| s.term.0, "The latest term this node knows."),
    gauge("duraft_node_leads", "yes or no", |s| u64::from(s.role == RoleKind::Leader), "1 where this node leads."),
    gauge("duraft_node_has_leader", "yes or no", |s| u64::from(s.leader.is_some()), "1 where a leader is known."),
    gauge("duraft_node_stopped", "yes or no", |s| u64::from(s.stopped.is_some()), "1 where the node has stopped for good."),
    gauge("duraft_node_damaged", "yes or no", |s| u64::from(s.damage.is_some()), "1 until peers have repaired what was lost."),
    gauge("duraft_node_last_index", "entries", |s| s.last.index.0, "Last entry of the log."),
    gauge("duraft_node_durable_index", "entries", |s| s.durable.0, "Last entry that survives power loss."),
    gauge("duraft_node_commit_index", "entries", |s| s.commit.0, "Last entry known to be committed."),
    gauge("duraft_node_applied_index", "entries", |s| s.applied.0, "Last entry applied."),
    gauge("duraft_node_snapshot_index", "entries", |s| s.snapshot.map_or(0, |s| s.upto.index.0), "Last entry in the latest snapshot."),
    gauge("duraft_node_snapshot_bytes", "bytes", |s| s.snapshot.map_or(0, |s| s.bytes), "Bytes of the latest snapshot."),
    gauge("duraft_node_voters", "nodes", |s| s.membership.voters().count() as u64, "Voters of the membership in use."),
    gauge("duraft_node_commands_waiting", "commands", |s| s.commands_waiting as u64, "Commands that wait for an outcome."),
    gauge("duraft_node_command_bytes_waiting", "bytes", |s| s.command_bytes_waiting as u64, "Bytes of commands that wait for an outcome."),
    counter("duraft_node_entries_applied_total", "entries", |s| s.counters.commands_applied, "Entries applied."),
    counter("duraft_node_batches_applied_total", "batches", |s| s.counters.batches_applied, "Batches applied."),
    counter("duraft_node_turns_total", "turns", |s| s.counters.turns, "Turns of the raft thread."),
    counter("duraft_node_group_commits_total", "commits", |s| s.counters.commits, "Group commits of the log."),
    counter("duraft_node_flushes_total", "flushes", |s| s.counters.fsyncs, "Flushes of the log."),
    counter("duraft_node_bytes_written_total", "bytes", |s| s.counters.bytes_written, "Bytes written to the log."),
    transport("duraft_transport_frames_sent_total", "frames", |t| t.frames_sent, "Frames sent to peers."),
    transport("duraft_transport_bytes_sent_total", "bytes", |t| t.bytes_sent, "Bytes sent to peers."),
    transport("duraft_transport_writes_total", "calls", |t| t.writes, "Calls of the system that sent them."),
    transport("duraft_transport_frames_received_total", "frames", |t| t.frames_received, "Frames received from peers."),
    transport("duraft_transport_dropped_total", "messages", |t| t.dropped, "Messages dropped because a queue was full or no connection stood."),
    transport("duraft_transport_connects_total", "connections", |t| t.connects, "Connections opened to peers."),
    transport("duraft_transport_refusals_total", "connections", |t| t.refusals, "Connections of peers that were refused after their hello."),
    metric("duraft_transport_tls_refusals_total", MetricKind::Counter, "connections", Source::Tls,
        "Connections refused for a certificate, by reason, on either side."),
    metric("duraft_stage_seconds", MetricKind::Histogram, "seconds", Source::Stages,
        "How long each stage of a command takes: queue, encode, write, sync, replicate, commit, apply."),
];

/// A value of a metric, with the label that tells it from its siblings.
struct Sample<'a> {
    label: Option<(&'static str, &'static str)>,
    value: Value<'a>,
}

enum Value<'a> {
    Number(u64),
    Times(&'a Histogram),
}

impl Metric {
    fn samples<'a>(&self, status: &Status, stats: &'a Stats) -> Vec<Sample<'a>> {
        let one = |number| Sample {
            label: None,
            value: Value::Number(number),
        };
        match self.source {
            Source::Status(read) => vec![one(read(status))],
            Source::Transport(read) => vec![one(read(&stats.transport))],
            Source::Tls => {
                let reasons = reasons(&stats.transport.tls).into_iter();
                reasons
                    .map(|(reason, count)| Sample {
                        label: Some(("reason", reason)),
                        value: Value::Number(count),
                    })
                    .collect()
            }
            Source::Stages => Stage::ALL
                .into_iter()
                .map(|stage| Sample {
                    label: Some(("stage", stage.name())),
                    value: Value::Times(stats.stage(stage)),
                })
                .collect(),
        }
    }
}

fn reasons(tls: &TlsStats) -> [(&'static str, u64); 7] {
    [
        ("no_certificate", tls.no_certificate),
        ("unknown_issuer", tls.unknown_issuer),
        ("expired", tls.expired),
        ("wrong_cluster", tls.wrong_cluster),
        ("wrong_node", tls.wrong_node),
        ("by_peer", tls.by_peer),
        ("other", tls.other),
    ]
}

/// Buckets of histograms in Prometheus' format end at powers of two of nanoseconds, from 2^10, about a
/// microsecond, to 2^34, about 17 seconds.
const EXPONENTS: std::ops::RangeInclusive<u32> = 10..=34;

/// All metrics in the text format that Prometheus reads.
pub fn render(status: &Status, stats: &Stats) -> String {
    let mut page = String::new();
    for metric in METRICS {
        let (name, kind) = (metric.name, metric.kind.name());
        // Writing to a string does not fail.
        let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
        for sample in metric.samples(status, stats) {
            let label = sample
                .label
                .map(|(key, value)| format!("{key}=\"{value}\""));
            match sample.value {
                Value::Number(number) => {
                    let label = label
                        .map(|label| format!("{{{label}}}"))
                        .unwrap_or_default();
                    let _ = writeln!(page, "{name}{label} {number}");
                }
                Value::Times(times) => {
                    render_times(&mut page, name, &label.unwrap_or_default(), times);
                }
            }
        }
    }
    page
}

fn render_times(page: &mut String, name: &str, label: &str, times: &Histogram) {
    let mut buckets = times.buckets().peekable();
    let mut below = 0;
    for exponent in EXPONENTS {
        let bound = Duration::from_nanos(1 << exponent);
        while let Some((_, count)) = buckets.next_if(|(end, _)| *end <= bound) {
            below += count;
        }
        let _ = writeln!(
            page,
            "{name}_bucket{{{label},le=\"{}\"}} {below}",
            bound.as_secs_f64()
        );
    }
    let count = times.count();
    let _ = writeln!(page, "{name}_bucket{{{label},le=\"+Inf\"}} {count}");
    let _ = writeln!(page, "{name}_sum{{{label}}} {}", times.sum().as_secs_f64());
    let _ = writeln!(page, "{name}_count{{{label}}} {count}");
}

/// Hands the metrics of a node to the facade's recorder.
#[cfg(feature = "metrics")]
pub(crate) struct Exporter {
    node: String,
    /// What histograms were when they were last handed over.
    before: Stats,
}

#[cfg(feature = "metrics")]
impl Exporter {
    pub(crate) fn new(node: String) -> Exporter {
        for metric in METRICS {
            match metric.kind {
                MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
                MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                MetricKind::Histogram => {
                    let unit = metrics::Unit::Seconds;
                    metrics::describe_histogram!(metric.name, unit, metric.help);
                }
            }
        }
        Exporter {
            node,
            before: Stats::default(),
        }
    }

    /// Hands over what has changed.
    pub(crate) fn export(&mut self, status: &Status, stats: Stats) {
        for metric in METRICS {
            let earlier = metric.samples(status, &self.before);
            for (sample, earlier) in metric.samples(status, &stats).into_iter().zip(earlier) {
                let mut labels = vec![metrics::Label::new("node", self.node.clone())];
                labels.extend(sample.label.map(|(k, v)| metrics::Label::new(k, v)));
                match (metric.kind, sample.value, earlier.value) {
                    (MetricKind::Counter, Value::Number(number), _) => {
                        metrics::counter!(metric.name, labels).absolute(number);
                    }
                    (_, Value::Number(number), _) => {
                        #[allow(clippy::cast_precision_loss, reason = "the facade has no other")]
                        metrics::gauge!(metric.name, labels).set(number as f64);
                    }
                    (_, Value::Times(times), Value::Times(earlier)) => {
                        let histogram = metrics::histogram!(metric.name, labels);
                        for (end, count) in times.since(earlier).buckets() {
                            let count = usize::try_from(count).unwrap_or(usize::MAX);
                            // The middle of the bucket, whose width is a fifth of its end at most.
                            histogram.record_many(end.as_secs_f64() * 0.9, count);
                        }
                    }
                    (_, Value::Times(_), Value::Number(_)) => {}
                }
            }
        }
        self.before = stats;
    }
}
