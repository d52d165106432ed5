//! `duraft sim` as a user runs it.

use crate::common::{json_file, path, program, run, scratch, text};
use std::process::Output;

fn sim(args: &[&str]) -> Output {
    run(program().arg("sim").args(args))
}

#[test]
fn wrong_flags_are_refused_with_exit_code_2() {
    let cases: &[&[&str]] = &[
        &["run"],
        &["run", "seven"],
        &["run", "7", "--nodes", "8"],
        &["run", "7", "--without", "bad-luck"],
        &["swarm", "--shard", "3/2"],
        &["show", "7"],
    ];
    for args in cases {
        assert_eq!(sim(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn same_seed_same_trace_byte_for_byte() {
    let first = sim(&["replay", "11", "--ticks", "200"]);
    let second = sim(&["replay", "11", "--ticks", "200"]);
    assert_eq!(first.status.code(), Some(0));
    assert!(first.stdout.len() > 100_000, "a trace has many events");
    assert!(first.stdout == second.stdout);
}

#[test]
fn violation_is_told_with_the_command_that_shows_it_again() {
    // Disks that lie: the program finds something, says how to see it again, and that shows the same.
    let found = sim(&["run", "3", "--lies", "--ticks", "300"]);
    assert_eq!(found.status.code(), Some(1));
    let found = text(&found.stdout);
    let (_, command) = found.split_once("again: duraft sim ").expect("a command");
    let mut args: Vec<&str> = command.split_whitespace().collect();
    args.push("--quiet");
    let again = sim(&args);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stdout).contains(found.lines().next().expect("a violation")));
}

#[test]
fn shrinking_keeps_what_fails() {
    let shrunk = sim(&[
        "shrink",
        "3",
        "--lies",
        "--ticks",
        "300",
        "--runs-max",
        "60",
    ]);
    assert_eq!(shrunk.status.code(), Some(1));
    let shrunk = text(&shrunk.stdout);
    let (_, command) = shrunk.split_once("again: duraft sim ").expect("a command");
    assert!(
        command.contains("--without") && command.contains("--lies"),
        "{command}"
    );
    let args: Vec<&str> = command.split_whitespace().chain(["--quiet"]).collect();
    assert_eq!(sim(&args).status.code(), Some(1));
}

#[test]
fn swarm_writes_its_result() {
    let folder = scratch();
    let path = path(folder.path(), "result.json");
    let swarm = sim(&[
        "swarm", "--seeds", "4", "--ticks", "100", "--shard", "2/2", "--json", &path,
    ]);
    assert_eq!(swarm.status.code(), Some(0), "{}", text(&swarm.stdout));
    let result = json_file(&path);
    assert_eq!(result["seeds_run"], 2);
    assert_eq!(result["violations"].as_array().map(Vec::len), Some(0));
    assert!(result["facts"]["cores"].as_u64() > Some(0));
    assert!(result["rate"]["steps_per_second"].as_f64() > Some(0.0));
    assert!(result["counts"]["promises"].as_u64() > Some(100));
}

#[test]
fn parts_of_a_swarm_add_up_to_the_whole() {
    let folder = scratch();
    let path = |name: &str| path(folder.path(), name);
    let (first, second, whole, sum) = (path("1"), path("2"), path("whole"), path("sum"));
    let swarm = |shard: &str, json: &str| {
        sim(&[
            "swarm",
            "--seeds",
            "6",
            "--ticks",
            "60",
            "--recover-every",
            "2",
            "--shard",
            shard,
            "--json",
            json,
        ])
    };
    for (shard, json) in [("1/2", &first), ("2/2", &second), ("1/1", &whole)] {
        assert_eq!(swarm(shard, json).status.code(), Some(0), "{shard}");
    }
    let added = sim(&["tally", &second, &first, "--json", &sum]);
    assert_eq!(added.status.code(), Some(0), "{}", text(&added.stdout));
    let (whole, sum) = (json_file(&whole), json_file(&sum));
    for key in [
        "counts",
        "seeds_run",
        "seeds_recovering",
        "shard",
        "violations",
    ] {
        assert_eq!(whole[key], sum[key], "{key}");
    }
    let recovering = whole["seeds_recovering"].as_u64();
    assert!(
        recovering > Some(0) && recovering < Some(6),
        "{recovering:?}"
    );
    for parts in [vec!["tally", &first], vec!["tally", &first, &first]] {
        assert_eq!(sim(&parts).status.code(), Some(2), "{parts:?}");
    }
}

#[test]
fn pictures_are_written_in_all_formats() {
    let folder = scratch();
    for (format, mark) in [
        ("html", "<!DOCTYPE html>"),
        ("shiviz", "node1 {"),
        ("perfetto", "traceEvents"),
    ] {
        let path = path(folder.path(), format);
        let shown = sim(&[
            "show", "5", "--ticks", "60", "--format", format, "--out", &path,
        ]);
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stdout));
        let written = std::fs::read_to_string(&path).expect("a picture");
        assert!(written.contains(mark), "{format}");
        if format == "perfetto" {
            serde_json::from_str::<serde_json::Value>(&written).expect("JSON");
        }
    }
}
