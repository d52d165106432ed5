//! `/metrics`: the text format that Prometheus reads.

use crate::serve::engine::Engine;
use duraft::RoleKind;
use std::fmt::Write;

/// Upper ends of the histogram of syncs, in microseconds.
const SYNC_BOUNDS_US: [u64; 14] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 5_000_000,
];

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }
}

pub(super) async fn render(engine: &Engine) -> String {
    let mut page = Page(String::new());
    let (keys, bytes) = engine.sizes().await;
    node(&mut page, engine);
    page.one(
        "duraft_kv_keys",
        "gauge",
        "Keys in the state of this node.",
        keys,
    );
    page.one(
        "duraft_kv_bytes",
        "gauge",
        "Bytes of keys and values.",
        bytes,
    );
    syncs(&mut page, engine);
    clients(&mut page, engine);
    page.0
}

fn node(page: &mut Page, engine: &Engine) {
    let status = engine.node.status();
    let counters = status.counters;
    let leads = u64::from(status.role == RoleKind::Leader);
    let has_leader = u64::from(status.leader.is_some());
    let stopped = u64::from(status.stopped.is_some());
    let damaged = u64::from(status.damage.is_some());
    let gauges = [
        (
            "duraft_node_term",
            "The latest term this node knows.",
            status.term.0,
        ),
        ("duraft_node_leads", "1 where this node leads.", leads),
        (
            "duraft_node_has_leader",
            "1 where a leader is known.",
            has_leader,
        ),
        (
            "duraft_node_stopped",
            "1 where the node has stopped for good.",
            stopped,
        ),
        (
            "duraft_node_damaged",
            "1 until peers have repaired what was lost.",
            damaged,
        ),
        (
            "duraft_node_last_index",
            "Last entry of the log.",
            status.last.index.0,
        ),
        (
            "duraft_node_durable_index",
            "Last entry that survives power loss.",
            status.durable.0,
        ),
        (
            "duraft_node_commit_index",
            "Last entry known to be committed.",
            status.commit.0,
        ),
        (
            "duraft_node_applied_index",
            "Last entry applied.",
            status.applied.0,
        ),
        (
            "duraft_node_voters",
            "Voters of the membership in use.",
            status.membership.voters().count() as u64,
        ),
        (
            "duraft_node_commands_waiting",
            "Commands that wait for an outcome.",
            status.commands_waiting as u64,
        ),
        (
            "duraft_node_snapshot_index",
            "Last entry in the latest snapshot.",
            status.snapshot.map_or(0, |snapshot| snapshot.upto.index.0),
        ),
    ];
    for (name, help, value) in gauges {
        page.one(name, "gauge", help, value);
    }
    let totals = [
        (
            "duraft_node_entries_applied_total",
            "Entries applied.",
            counters.commands_applied,
        ),
        (
            "duraft_node_batches_applied_total",
            "Batches applied.",
            counters.batches_applied,
        ),
        (
            "duraft_node_group_commits_total",
            "Group commits of the log.",
            counters.commits,
        ),
        (
            "duraft_node_flushes_total",
            "Flushes of the log.",
            counters.fsyncs,
        ),
        (
            "duraft_node_bytes_written_total",
            "Bytes written to the log.",
            counters.bytes_written,
        ),
    ];
    for (name, help, value) in totals {
        page.one(name, "counter", help, value);
    }
}

fn syncs(page: &mut Page, engine: &Engine) {
    let (times, micros) = engine.times.all();
    let name = "duraft_sync_seconds";
    page.family(name, "histogram", "How long fdatasync took.");
    for bound in SYNC_BOUNDS_US {
        let below = if times.is_empty() {
            0
        } else {
            times.count_between(0, bound)
        };
        let _ = writeln!(page.0, "{name}_bucket{{le=\"{}\"}} {below}", seconds(bound));
    }
    let count = times.len();
    let _ = writeln!(page.0, "{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(
        page.0,
        "{name}_sum {}\n{name}_count {count}",
        seconds(micros)
    );
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn clients(page: &mut Page, engine: &Engine) {
    let stats = &engine.stats;
    page.one(
        "duraft_serve_connections",
        "gauge",
        "Redis connections.",
        stats.connections.get(),
    );
    let totals = [
        (
            "connections_accepted",
            "Redis connections accepted.",
            &stats.accepted,
        ),
        (
            "connections_refused",
            "Connections over the limit.",
            &stats.refused_connections,
        ),
        ("commands", "Commands of Redis clients.", &stats.commands),
        ("writes", "Operations in entries of the log.", &stats.writes),
        ("reads", "Reads of the state.", &stats.reads),
        (
            "stale_reads",
            "Reads that asked this node alone.",
            &stats.stale_reads,
        ),
        ("entries", "Entries that were answered.", &stats.entries),
        (
            "passed_on",
            "Entries passed on to the leader.",
            &stats.passed_on,
        ),
        (
            "redirected",
            "Entries answered with MOVED.",
            &stats.redirected,
        ),
        (
            "refused",
            "Entries refused, without effect.",
            &stats.refused,
        ),
        (
            "unknown_outcomes",
            "Entries whose outcome is unknown.",
            &stats.unknown,
        ),
        (
            "bad_requests",
            "Connections closed for what they sent.",
            &stats.bad_requests,
        ),
        (
            "slow_clients",
            "Clients cut off for not reading.",
            &stats.slow_clients,
        ),
        (
            "partial_requests",
            "Clients cut off for half a request.",
            &stats.partial_requests,
        ),
        (
            "out_of_memory",
            "Clients cut off for lack of memory.",
            &stats.out_of_memory,
        ),
        ("http_requests", "HTTP requests.", &stats.http_requests),
    ];
    for (name, help, count) in totals {
        let name = format!("duraft_serve_{name}_total");
        page.one(&name, "counter", help, count.get());
    }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn seconds_are_exact() {
        assert_eq!(seconds(100), "0.0001");
        assert_eq!(seconds(1_000_000), "1");
        assert_eq!(seconds(12_500_000), "12.5");
        assert_eq!(seconds(0), "0");
    }
}
