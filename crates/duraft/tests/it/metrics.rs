//! The metrics: one table of names, and all that is written about them.

use crate::common::{Cluster, DEADLINE, Journal, scratch, single};
use bytes::Bytes;
use duraft::metrics::{METRICS, MetricKind, render};
use duraft::{Node, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn document(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    fs::read_to_string(docs.join(name)).expect("the document is there")
}

/// Every word in a text that looks like a metric of a node.
fn names_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = ["duraft_node_", "duraft_transport_", "duraft_stage_"];
    words
        .filter(|word| ours.iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

/// The metric that a word in a query means: histograms have three series each.
fn is_known(word: &str) -> bool {
    METRICS.iter().any(|metric| match metric.kind {
        MetricKind::Counter | MetricKind::Gauge => metric.name == word,
        MetricKind::Histogram => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|series| word.strip_suffix(series) == Some(metric.name)),
    })
}

#[test]
fn table_in_the_documentation_is_that_of_the_code() {
    let mut table = String::from("| name | kind | unit | what it says |\n|---|---|---|---|\n");
    for metric in METRICS {
        let (name, kind, unit, help) = (metric.name, metric.kind.name(), metric.unit, metric.help);
        table.push_str(&format!("| `{name}` | {kind} | {unit} | {help} |\n"));
    }
    let page = document("metrics.md");
    assert!(
        page.contains(&table),
        "docs/metrics.md lacks this table:\n{table}"
    );
    let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len(), "every name is there once");
    let unknown: Vec<_> = names_in(&page)
        .into_iter()
        .filter(|word| !names.contains(word) && !is_known(word))
        .collect();
    assert_eq!(unknown, Vec::<&str>::new());
}

#[test]
fn dashboard_and_alerts_use_metrics_that_exist() {
    let dashboard = document("grafana/dashboard.json");
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).expect("it is JSON");
    let panels = parsed["panels"].as_array().expect("panels");
    let mut queries = 0;
    for panel in panels {
        assert!(panel["title"].is_string(), "{panel}");
        for target in panel["targets"].as_array().expect("queries") {
            let query = target["expr"].as_str().expect("a query");
            assert!(
                !names_in(query).is_empty(),
                "{query} asks for nothing of ours"
            );
            queries += 1;
        }
    }
    assert!(queries >= 12, "{queries} queries");
    let alerts = document("grafana/alerts.yml");
    assert!(alerts.matches("- alert:").count() >= 6);
    assert_eq!(
        alerts.matches("- alert:").count(),
        alerts.matches("expr:").count()
    );
    assert_eq!(
        alerts.matches("- alert:").count(),
        alerts.matches("summary:").count()
    );
    for text in [&dashboard, &alerts] {
        let unknown: Vec<_> = names_in(text)
            .into_iter()
            .filter(|w| !is_known(w))
            .collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }
    // A stage that nobody looks at need not be timed.
    assert!(dashboard.contains("by (stage"), "all stages are shown");
}

/// The samples of a page in Prometheus' format.
fn samples(page: &str) -> BTreeMap<&str, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').expect("name and value"));
    pairs
        .map(|(name, value)| (name, value.parse().expect("a number")))
        .collect()
}

#[test]
fn page_has_every_metric_and_its_histograms_add_up() {
    let cluster = Cluster::start(3);
    for i in 0..20 {
        cluster.apply(&i.to_string());
    }
    let node = &cluster.nodes[&cluster.leader()];
    let page = render(&node.status(), &node.stats());
    for metric in METRICS {
        let family = format!("# TYPE {} {}\n", metric.name, metric.kind.name());
        assert_eq!(page.matches(&family).count(), 1, "{family}");
    }
    let samples = samples(&page);
    assert!(samples["duraft_node_commit_index"] >= 20.0);
    assert!(samples["duraft_node_flushes_total"] >= 1.0);
    assert!(samples["duraft_transport_frames_sent_total"] >= 20.0);
    assert_eq!(
        samples["duraft_transport_tls_refusals_total{reason=\"expired\"}"],
        0.0
    );
    for stage in Stage::ALL {
        let bucket = format!(
            "duraft_stage_seconds_bucket{{stage=\"{}\",le=",
            stage.name()
        );
        let mut buckets: Vec<f64> = samples
            .iter()
            .filter(|(name, _)| name.starts_with(&bucket))
            .map(|(_, value)| *value)
            .collect();
        assert_eq!(buckets.len(), 26, "{stage:?}");
        buckets.sort_by(f64::total_cmp);
        let series = |end| format!("duraft_stage_seconds_{end}{{stage=\"{}\"}}", stage.name());
        let count = samples[series("count").as_str()];
        assert_eq!(buckets.last(), Some(&count), "{stage:?}");
        assert_eq!(
            count > 0.0,
            samples[series("sum").as_str()] > 0.0,
            "{stage:?}"
        );
    }
}

/// Remembers what it is told.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeMap<String, f64>>>);

struct Cell(Recorder, String);

impl Cell {
    fn set(&self, value: f64) {
        let mut values = self.0.0.lock().expect("unpoisoned");
        values.insert(self.1.clone(), value);
    }

    fn add(&self, value: f64) {
        let mut values = self.0.0.lock().expect("unpoisoned");
        *values.entry(self.1.clone()).or_default() += value;
    }
}

impl metrics::CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }
    fn absolute(&self, value: u64) {
        self.set(value as f64);
    }
}

impl metrics::GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.add(value);
    }
    fn decrement(&self, value: f64) {
        self.add(-value);
    }
    fn set(&self, value: f64) {
        Cell::set(self, value);
    }
}

impl metrics::HistogramFn for Cell {
    fn record(&self, _value: f64) {
        self.add(1.0);
    }
    fn record_many(&self, value: f64, count: usize) {
        assert!(value > 0.0 && value < 60.0, "{value} seconds");
        self.add(count as f64);
    }
}

impl Recorder {
    fn cell(&self, key: &metrics::Key) -> Arc<Cell> {
        let labels: Vec<_> = key
            .labels()
            .map(|l| format!("{}={}", l.key(), l.value()))
            .collect();
        Arc::new(Cell(
            self.clone(),
            format!("{} {}", key.name(), labels.join(" ")),
        ))
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(
        &self,
        _key: metrics::KeyName,
        _unit: Option<metrics::Unit>,
        _description: metrics::SharedString,
    ) {
    }
    fn describe_gauge(
        &self,
        _key: metrics::KeyName,
        _unit: Option<metrics::Unit>,
        _description: metrics::SharedString,
    ) {
    }
    fn describe_histogram(
        &self,
        _key: metrics::KeyName,
        _unit: Option<metrics::Unit>,
        _description: metrics::SharedString,
    ) {
    }
    fn register_counter(
        &self,
        key: &metrics::Key,
        _metadata: &metrics::Metadata<'_>,
    ) -> metrics::Counter {
        metrics::Counter::from_arc(self.cell(key))
    }
    fn register_gauge(
        &self,
        key: &metrics::Key,
        _metadata: &metrics::Metadata<'_>,
    ) -> metrics::Gauge {
        metrics::Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(
        &self,
        key: &metrics::Key,
        _metadata: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        metrics::Histogram::from_arc(self.cell(key))
    }
}

#[test]
fn facade_is_told_the_same_numbers() {
    // The recorder is the process's: other tests' nodes use it too, under other ids.
    const ID: u64 = 987_654;
    let recorder = Recorder::default();
    metrics::set_global_recorder(recorder.clone()).expect("the only one");
    let dir = scratch();
    let mut settings = crate::common::options(ID, &dir);
    settings.metrics_interval = Some(Duration::from_millis(1));
    let alone = duraft::Membership::new([duraft::NodeId(ID)], []).expect("one");
    Node::bootstrap(&settings, &alone).expect("bootstrapped");
    let node = Node::start(settings, Box::new(Journal::default())).expect("started");
    for _ in 0..10 {
        node.propose_wait(Bytes::from("x"), DEADLINE)
            .expect("applied");
    }
    // It hands everything over a last time when it ends.
    node.shutdown();
    let (status, stats) = (node.status(), node.stats());
    let values = recorder.0.lock().expect("unpoisoned");
    let value = |name: &str| {
        values
            .get(&name.replace('@', &format!("node={ID}")))
            .copied()
    };
    let number = |number: u64| Some(number as f64);
    assert_eq!(value("duraft_node_commit_index @"), number(status.commit.0));
    assert_eq!(
        value("duraft_node_entries_applied_total @"),
        number(status.counters.commands_applied)
    );
    for stage in Stage::ALL {
        let told = value(&format!("duraft_stage_seconds @ stage={}", stage.name()));
        let counted = stats.stage(stage).count();
        // The log proves its last commit after the last word; that is no commit.
        assert_eq!(told.unwrap_or_default(), counted as f64, "{stage:?}");
    }
    let of_stage =
        |values: &BTreeMap<String, f64>| values.keys().filter(|k| k.contains("tls")).count();
    assert!(of_stage(&values) >= 7, "one for each reason");
}

#[test]
fn node_without_an_interval_hands_nothing_over() {
    let dir = scratch();
    let mut settings = single(&dir);
    settings.metrics_interval = None;
    assert_eq!(settings.validate(), []);
    let node = Node::start(settings.clone(), Box::new(Journal::default())).expect("started");
    node.shutdown();
    settings.metrics_interval = Some(Duration::ZERO);
    let fields: Vec<_> = settings.validate().into_iter().map(|p| p.field).collect();
    assert_eq!(fields, ["metrics_interval"]);
}
