//! `duraft torture`, briefly: with nothing planted it finds nothing, with faults planted it does.

use crate::common::{program, run, said, scratch, try_run};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Only a fault reaches it.
const DEADLINE: Duration = Duration::from_secs(240);

/// Exit code, text and JSON of a run.
fn torture(arguments: &[&str]) -> (Option<i32>, String, serde_json::Value) {
    let folder = scratch();
    let (dir, json) = (folder.path().join("stores"), folder.path().join("result"));
    let mut torture = program();
    torture.args(["torture", "--nodes", "3"]).args(arguments);
    torture.arg("--dir").arg(&dir).arg("--json").arg(&json);
    let child = torture
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the program runs");
    let (ended, end) = channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let output = end.recv_timeout(DEADLINE).expect("it ends in time");
    let output = output.expect("it ran");
    let said = said(&output);
    let result = std::fs::read_to_string(&json).unwrap_or_else(|_| panic!("no result: {said}"));
    let result = serde_json::from_str(&result).expect("it is JSON");
    (output.status.code(), said, result)
}

#[test]
fn processes_that_are_killed_stopped_and_cut_off_lose_nothing() {
    let (code, said, result) = torture(&["--seconds", "6", "--seed", "3"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(result["agreed"], true);
    assert_eq!(result["logs_complete"], 3);
    assert!(result["acknowledged"].as_u64().expect("a count") >= 500);
    let faults = result["faults"].as_object().expect("counts");
    assert!(faults.len() >= 2, "several kinds: {said}");
}

#[test]
fn nodes_that_take_and_are_sent_snapshots_lose_nothing() {
    let (code, said, result) = torture(&["--snapshots", "--seconds", "6", "--seed", "4"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(result["logs_complete"], 3);
    assert!(result["snapshots"]["installed"].as_u64().expect("a count") >= 1);
    let (code, said, _) = torture(&[
        "--snapshots",
        "--seconds",
        "3",
        "--plant",
        "forgotten-state",
    ]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("are not in a quorum of logs"), "{said}");
}

#[test]
fn stale_reads_are_found() {
    let (code, said, _) = torture(&["--seconds", "4", "--plant", "stale-reads"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("VIOLATION      not linearizable"), "{said}");
}

#[test]
fn acknowledged_writes_that_are_in_no_log_are_found() {
    let (code, said, _) = torture(&["--seconds", "4", "--plant", "forgotten-writes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("are not in a quorum of logs"), "{said}");
}

/// Exit code and text of a sweep; `None` where there is no strace.
fn sweep(arguments: &[&str]) -> Option<(Option<i32>, String)> {
    try_run(Command::new("strace").arg("-V")).ok()?;
    let folder = scratch();
    let mut sweep = program();
    sweep.arg("kill-sweep").args(arguments);
    let output = run(sweep.arg("--dir").arg(folder.path().join("store")));
    let said = said(&output);
    Some((output.status.code(), said))
}

#[test]
fn a_node_killed_at_any_sync_holds_what_it_acknowledged() {
    for more in [&[][..], &["--error", "EIO"]] {
        let range = ["--call", "fdatasync", "--first", "3", "--last", "6"];
        let Some((code, said)) = sweep(&[&range[..], more].concat()) else {
            return;
        };
        assert_eq!(code, Some(0), "{said}");
        let ended = if more.is_empty() {
            "4 while serving"
        } else {
            "4 stopped"
        };
        assert!(said.contains(ended), "{said}");
    }
}

#[test]
fn a_sweep_notices_an_acknowledged_write_that_is_gone() {
    // The hundredth write is the last of the life, acknowledged and never proposed.
    let forgets = ["--plant", "forgotten-writes", "--writes", "100"];
    let Some((code, said)) =
        sweep(&[&forgets[..], &["--first", "9999", "--last", "9999"]].concat())
    else {
        return;
    };
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("was acknowledged"), "{said}");
}
