//! `duraft bench` as a user runs it: open loop, the page with charts, the comparison of results.

use crate::common::{json_file, memory, path, program, said, scratch};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

fn bench(args: &[&str]) -> Output {
    crate::common::run(program().arg("bench").args(args))
}

/// Runs a benchmark of three short rounds with these flags; its result and its page.
fn run(folder: &Path, name: &str, args: &[&str]) -> (Value, String) {
    let (dir, json, page) = (
        path(folder, name),
        path(folder, &format!("{name}.json")),
        path(folder, &format!("{name}.html")),
    );
    let more = [
        "--seconds",
        "3",
        "--rounds",
        "3",
        "--dir",
        &dir,
        "--json",
        &json,
        "--report",
        &page,
    ];
    let output = bench(&[args, &more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let page = std::fs::read_to_string(&page).expect("the page");
    (json_file(&json), page)
}

fn total(bins: &Value) -> u64 {
    let bins = bins.as_array().expect("bins");
    bins.iter()
        .map(|bin| bin["count"].as_u64().expect("a count"))
        .sum()
}

/// The parts of a command's way in a cluster, in their order.
const STAGES: [&str; 8] = [
    "queue",
    "encode",
    "write",
    "sync",
    "replicate",
    "commit",
    "apply",
    "whole request",
];

#[test]
fn an_open_loop_begins_as_many_as_it_was_asked_and_counts_each_once() {
    let folder = scratch();
    let inside: Vec<&str> = STAGES.to_vec();
    for (name, args, expected) in [
        (
            "wal",
            &["wal", "--rate", "300", "--clients", "8"][..],
            &vec!["write", "sync", "whole request"],
        ),
        (
            "cluster",
            &["cluster", "--rate", "300", "--clients", "300"][..],
            &inside,
        ),
    ] {
        let (result, page) = run(folder.path(), name, args);
        assert_eq!(result["workload"]["rate"], 300, "{name}");
        // Three rounds of a second each; whoever shares the machine, no command is left out: those
        // that never began are counted too.
        let counted = total(&result["histograms"]["latency_us"]);
        assert!((895..=905).contains(&counted), "{name}: {counted}");
        let missed = result["missed"].as_u64().expect("a count");
        let points = result["series"]["points"].as_array().expect("points");
        let answers: u64 = points
            .iter()
            .map(|p| p["answers"].as_u64().expect("a count"))
            .sum();
        assert_eq!(answers + missed, counted, "{name}");
        assert!(total(&result["histograms"]["log_sync_us"]) > 0, "{name}");
        assert!(total(&result["histograms"]["commit_bytes"]) > 0, "{name}");
        let stages = result["stages"].as_array().expect("stages");
        let stages: Vec<&str> = stages.iter().filter_map(|s| s["name"].as_str()).collect();
        assert_eq!(stages, *expected, "{name}");
        for fact in ["cpu", "kernel", "file_system", "mount_options", "sync"] {
            assert!(result["facts"][fact].is_string(), "{name}: {fact}");
        }
        let latency = &result["latency"];
        let us = |field: &str| latency[field].as_f64().expect("a latency");
        assert!(
            us("p50_us") <= us("p9999_us") && us("p9999_us") <= us("max_us"),
            "{latency}"
        );
        // The page holds the same result, and nothing from elsewhere.
        let embedded = page
            .split("id=\"result\">")
            .nth(1)
            .expect("the result in the page");
        let embedded = embedded.split("</script>").next().expect("its end");
        let embedded: Value = serde_json::from_str(embedded).expect("JSON");
        assert_eq!(embedded, result, "{name}");
        assert!(
            !page
                .replace("http://www.w3.org/2000/svg", "")
                .contains("http"),
            "{name}"
        );
    }
}

#[test]
fn a_rate_that_cannot_be_kept_is_said_and_its_wait_is_counted() {
    // One batch in flight at a rate that no disk reaches with it: most never begin, and latencies count
    // from when they were to.
    let folder = scratch();
    let args = ["wal", "--rate", "2000000", "--clients", "1"];
    let (result, _) = run(folder.path(), "wal", &args);
    let missed = result["missed"].as_u64().expect("a count");
    assert!(missed > 1_000_000, "{missed}");
    let p50 = result["latency"]["p50_us"].as_f64().expect("a latency");
    assert!(
        p50 > 100_000.0,
        "half of the commands were due long ago: {p50}"
    );
}

#[test]
fn results_are_compared_with_their_noise_and_unlike_ones_are_refused() {
    let folder = scratch();
    let (result, _) = run(folder.path(), "one", &["disk"]);
    let write = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut result = result.clone();
        change(&mut result);
        let file = path(folder.path(), name);
        std::fs::write(&file, result.to_string()).expect("written");
        file
    };
    let same = write("same", &|_| {});
    let worse = write("worse", &|result| {
        let spread = &mut result["summary"]["commands_per_second"];
        for field in ["median", "min", "max"] {
            spread[field] = serde_json::json!(spread[field].as_f64().expect("a figure") / 1e3);
        }
    });
    let unlike = write("unlike", &|result| result["facts"]["cores"] = 999.into());
    let old = write("old", &|result| result["schema"] = 1.into());
    let compare =
        |one: &str, other: &str, more: &[&str]| bench(&[&["compare", one, other], more].concat());

    let output = compare(&same, &same, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        said(&output).contains("within the noise"),
        "{}",
        said(&output)
    );
    let json = path(folder.path(), "comparison.json");
    let output = compare(&same, &worse, &["--result", &json]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("WORSE"), "{}", said(&output));
    let written = json_file(&json);
    assert_eq!(written["metrics"][0]["verdict"], "worse");
    assert_eq!(
        compare(&worse, &same, &[]).status.code(),
        Some(0),
        "better is no failure"
    );

    let output = compare(&same, &unlike, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("cores"), "{}", said(&output));
    let output = compare(&same, &unlike, &["--unlike"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        said(&output).contains("UNLIKE MACHINES OR SETTINGS"),
        "{}",
        said(&output)
    );
    for wrong in [
        &old,
        &path(folder.path(), "missing"),
        &path(folder.path(), "one.html"),
    ] {
        let output = compare(&same, wrong, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    }
}

#[test]
fn flags_that_mean_nothing_are_refused() {
    for args in [
        &["soak", "--rate", "5"][..],
        &["stuck", "--part", "disk", "--report", "x.html"],
        &["snapshot", "--report", "x.html"],
        &["disk", "--rate", "5"],
        &["wal", "--rate", "0"],
        &["compare", "only-one.json"],
    ] {
        let output = bench(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
    }
    let help = said(&bench(&["compare", "--help"]));
    assert!(
        help.contains("Examples:\n") && help.contains("Exit codes"),
        "{help}"
    );
}

#[test]
fn a_folder_in_memory_is_called_not_durable_on_the_page() {
    let Some(folder) = memory() else {
        return;
    };
    let (result, _) = run(folder.path(), "disk", &["disk"]);
    assert_eq!(result["facts"]["durable"], false);
    assert!(
        result["title"]
            .as_str()
            .is_some_and(|title| title.starts_with("NOT DURABLE"))
    );
}
