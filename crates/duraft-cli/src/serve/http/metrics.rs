//! `/metrics`: the text format that Prometheus reads. The library's metrics come from the library;
//! what the server counts besides stands in one table here.

use crate::serve::engine::Engine;
use crate::serve::stats::Stats;
use std::fmt::Write;

/// Name, kind, what it says, and where it comes from.
type Own = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Stats, (u64, u64)) -> u64,
);

/// What the server counts; the pair is the keys and the bytes of the state.
#[rustfmt::skip]
const OWN: &[Own] = &[
    ("duraft_kv_keys", "gauge", "Keys in the state of this node.", |_, size| size.0),
    ("duraft_kv_bytes", "gauge", "Bytes of keys and values.", |_, size| size.1),
    ("duraft_serve_connections", "gauge", "Redis connections.", |s, _| s.connections.get()),
    ("duraft_serve_connections_accepted_total", "counter", "Redis connections accepted.", |s, _| s.accepted.get()),
    ("duraft_serve_connections_refused_total", "counter", "Connections over the limit.", |s, _| s.refused_connections.get()),
    ("duraft_serve_commands_total", "counter", "Commands of Redis clients.", |s, _| s.commands.get()),
    ("duraft_serve_writes_total", "counter", "Operations in entries of the log.", |s, _| s.writes.get()),
    ("duraft_serve_reads_total", "counter", "Reads of the state.", |s, _| s.reads.get()),
    ("duraft_serve_stale_reads_total", "counter", "Reads that asked this node alone.", |s, _| s.stale_reads.get()),
    ("duraft_serve_entries_total", "counter", "Entries that were answered.", |s, _| s.entries.get()),
    ("duraft_serve_passed_on_total", "counter", "Entries passed on to the leader.", |s, _| s.passed_on.get()),
    ("duraft_serve_redirected_total", "counter", "Entries answered with MOVED.", |s, _| s.redirected.get()),
    ("duraft_serve_refused_total", "counter", "Entries refused, without effect.", |s, _| s.refused.get()),
    ("duraft_serve_unknown_outcomes_total", "counter", "Entries whose outcome is unknown.", |s, _| s.unknown.get()),
    ("duraft_serve_bad_requests_total", "counter", "Connections closed for what they sent.", |s, _| s.bad_requests.get()),
    ("duraft_serve_slow_clients_total", "counter", "Clients cut off for not reading.", |s, _| s.slow_clients.get()),
    ("duraft_serve_partial_requests_total", "counter", "Clients cut off for half a request.", |s, _| s.partial_requests.get()),
    ("duraft_serve_out_of_memory_total", "counter", "Clients cut off for lack of memory.", |s, _| s.out_of_memory.get()),
    ("duraft_serve_http_requests_total", "counter", "HTTP requests.", |s, _| s.http_requests.get()),
];

pub(super) async fn render(engine: &Engine) -> String {
    let size = engine.sizes().await;
    let node = &engine.node;
    let mut page = duraft::metrics::render(&node.status(), &node.stats());
    for (name, kind, help, value) in OWN {
        let value = value(&engine.stats, size);
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::OWN;
    use std::fmt::Write;
    use std::path::Path;

    #[test]
    fn table_of_the_servers_metrics_in_the_documentation_is_that_of_the_code() {
        let mut table = String::from("| name | kind | what it says |\n|---|---|---|\n");
        for (name, kind, help, _) in OWN {
            writeln!(table, "| `{name}` | {kind} | {help} |").expect("a string takes it");
        }
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let page = std::fs::read_to_string(page).expect("the page");
        assert!(
            page.contains(&table),
            "docs/metrics.md lacks this table:\n{table}"
        );
    }
}
