//! `duraft snapshot` as a user runs it: on the store of a real node, on damaged files, and all the way
//! to a new cluster that begins with an exported state.

use crate::common::{json, program, run, said, scratch, shown};
use crate::nodes::{DEADLINE, begin, bootstrap, lines_of, stop};
use bytes::Bytes;
use duraft::{ClusterId, Membership, Node, NodeId, NodeOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

const OLD: &str = "the old cluster.";
const NEW: &str = "the new cluster.";

fn options(dir: &Path, cluster: &str) -> NodeOptions {
    let cluster = ClusterId(cluster.as_bytes().try_into().expect("16 characters"));
    let mut options = NodeOptions::in_dir(NodeId(1), cluster, dir).expect("a folder");
    options.wal.slot_bytes = 4 << 20;
    options.wal.slots_ready_min = 1;
    options
}

fn say(node: &Node, text: &str) {
    let said = node.propose_wait(Bytes::from(text.to_owned()), DEADLINE);
    said.expect("applied");
}

/// A node's store with a snapshot of twenty commands, and five more behind it.
fn store(dir: &Path) {
    let membership = Membership::new([NodeId(1)], []).expect("one voter");
    bootstrap(&options(dir, OLD), &membership);
    let node = begin(options(dir, OLD));
    (0..20).for_each(|i| say(&node, &format!("line {i}")));
    let taken = node.snapshot().wait_until(Instant::now() + DEADLINE);
    taken.expect("a snapshot");
    (20..25).for_each(|i| say(&node, &format!("line {i}")));
    // The record that names the snapshot is in the log once a later command is.
    stop(node);
}

fn expected() -> Vec<String> {
    (0..20).map(|i| format!("line {i}")).collect()
}

fn snapshot(args: &[&str]) -> Output {
    run(program().arg("snapshot").args(args))
}

/// The snapshot files of a store.
fn files(dir: &Path) -> Vec<PathBuf> {
    let folder = dir.join("snap/0000000000000001");
    let names = std::fs::read_dir(folder).expect("snapshots");
    names.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_snapshot_is_shown_and_checked_alone_and_in_its_store() {
    let dir = scratch();
    let node = dir.path().join("node");
    store(&node);
    let file = files(&node).pop().expect("a snapshot");
    for path in [&node, &file] {
        for what in ["inspect", "verify"] {
            let output = snapshot(&[what, &shown(path)]);
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            assert!(
                said(&output).contains("group 1 of cluster"),
                "{}",
                said(&output)
            );
        }
    }
    let report = json(&snapshot(&["verify", &shown(&node), "--json"]));
    let found = &report["snapshots"][0];
    assert_eq!(
        (&found["verdict"], &found["counted_on"]),
        (&"clean".into(), &true.into())
    );
    assert_eq!(found["facts"]["members"]["voters"][0], 1);
    // A copy under another name somewhere else says the same.
    let copy = dir.path().join("any.name");
    std::fs::copy(&file, &copy).expect("copied");
    let alone = json(&snapshot(&["verify", &shown(&copy), "--json"]));
    assert_eq!(alone["snapshots"][0]["facts"], found["facts"]);
    assert_eq!(alone["snapshots"][0]["counted_on"], Value::Null);
}

#[test]
fn every_flipped_byte_of_a_snapshot_is_found() {
    let dir = scratch();
    let node = dir.path().join("node");
    store(&node);
    let file = files(&node).pop().expect("a snapshot");
    let good = std::fs::read(&file).expect("readable");
    let content_at = 4096 + 12;
    let places = [
        20,
        90,
        4000,
        4095,
        4097,
        content_at + 5,
        good.len() - 41,
        good.len() - 30,
    ];
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 16;
        std::fs::write(&file, &bad).expect("written");
        let output = snapshot(&["verify", &shown(&node), "--json"]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "byte {at}: {}",
            said(&output)
        );
        assert_eq!(json(&output)["snapshots"][0]["verdict"], "damaged");
        let to = dir.path().join("state");
        let export = snapshot(&["export", &shown(&node), "--to", &shown(&to)]);
        assert_eq!(
            export.status.code(),
            Some(1),
            "byte {at}: {}",
            said(&export)
        );
        assert!(!to.exists(), "half a state is left");
    }
    std::fs::write(&file, &good[..good.len() - 1]).expect("written");
    let output = snapshot(&["verify", &shown(&file)]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    std::fs::remove_file(&file).expect("removed");
    for what in ["inspect", "verify"] {
        let output = snapshot(&[what, &shown(&node)]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("MISSING"), "{}", said(&output));
    }
}

#[test]
fn a_new_cluster_begins_with_an_exported_state() {
    let dir = scratch();
    let node = dir.path().join("node");
    store(&node);
    let state = dir.path().join("state");
    let export = snapshot(&["export", &shown(&node), "--to", &shown(&state)]);
    assert_eq!(export.status.code(), Some(0), "{}", said(&export));
    let content = std::fs::read_to_string(&state).expect("the state");
    assert_eq!(
        content,
        expected().join("\n"),
        "the state machine's bytes and nothing else"
    );
    let again = snapshot(&["export", &shown(&node), "--to", &shown(&state)]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));

    let fresh = dir.path().join("fresh");
    let import = |to: &Path, more: &[&str]| {
        let (state, to) = (shown(&state), shown(to));
        let mut args = vec!["import", &state, "--dir", &to, "--node", "1"];
        args.extend(more);
        snapshot(&args)
    };
    let refused = [
        (
            vec!["--voters", "1", "--cluster", OLD],
            "that of the old cluster",
        ),
        (
            vec!["--voters", "2,3", "--cluster", NEW],
            "not among the --voters",
        ),
        (
            vec!["--voters", "1", "--cluster", "a name that is too long"],
            "1 to 16 bytes",
        ),
    ];
    for (more, reason) in refused {
        let output = import(&fresh, &more);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(reason), "{}", said(&output));
        assert!(!fresh.exists());
    }
    let done = import(&fresh, &["--voters", "1", "--cluster", NEW]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(
        said(&done).contains("THE STORE OF A NEW CLUSTER"),
        "{}",
        said(&done)
    );
    let once_more = import(&fresh, &["--voters", "1", "--cluster", NEW]);
    assert_eq!(
        once_more.status.code(),
        Some(2),
        "an existing store is never touched"
    );
    let verified = snapshot(&["verify", &shown(&fresh)]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));

    // It lives: the state is there, the log goes on behind it, and a restart keeps both.
    let node = begin(options(&fresh, NEW));
    assert_eq!(lines_of(&node), expected());
    say(&node, "and on");
    let index = node.status().applied;
    stop(node);
    let node = begin(options(&fresh, NEW));
    let mut lines = expected();
    lines.push(String::from("and on"));
    assert_eq!(lines_of(&node), lines);
    assert!(
        node.status().applied >= index,
        "indices go on from the snapshot's"
    );
    stop(node);
}

#[test]
fn all_members_of_a_new_cluster_get_the_same_file_and_a_changed_state_is_said_to_be() {
    let dir = scratch();
    let node = dir.path().join("node");
    store(&node);
    let state = dir.path().join("state");
    let export = snapshot(&["export", &shown(&node), "--to", &shown(&state)]);
    assert_eq!(export.status.code(), Some(0), "{}", said(&export));
    let import = |n: &str, more: &[&str]| {
        let (state, to) = (shown(&state), shown(&dir.path().join(n)));
        let mut args = vec!["import", &state, "--dir", &to, "--node", n];
        args.extend(["--voters", "1,2,3", "--cluster", NEW]);
        args.extend(more);
        snapshot(&args)
    };
    let mut images = Vec::new();
    for n in ["1", "2"] {
        let done = import(n, &[]);
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        let file = files(&dir.path().join(n)).pop().expect("a snapshot");
        images.push((
            file.file_name().map(ToOwned::to_owned),
            std::fs::read(&file).expect("read"),
        ));
    }
    assert!(images[0] == images[1], "the same file on every node");

    std::fs::write(&state, "line 0\nchanged by hand").expect("written");
    let refused = import("3", &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("--changed"), "{}", said(&refused));
    assert!(!dir.path().join("3").exists() && !dir.path().join("3.importing").exists());
    let done = import("3", &["--changed"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
}

#[test]
fn what_cannot_be_told_is_exit_code_2_with_a_reason() {
    let dir = scratch();
    let nowhere = shown(&dir.path().join("nowhere"));
    for args in [
        vec!["inspect", &nowhere],
        vec!["verify", &nowhere],
        vec!["export", &nowhere, "--to", "x"],
        vec![
            "import",
            &nowhere,
            "--dir",
            "x",
            "--node",
            "1",
            "--voters",
            "1",
            "--cluster",
            NEW,
        ],
    ] {
        let output = snapshot(&args);
        let code = output.status.code();
        // A file that is not there is a snapshot that is missing.
        let expected = if args[0] == "import" { 2 } else { 1 };
        assert_eq!(code, Some(expected), "{args:?}: {}", said(&output));
        assert!(
            said(&output).contains("nowhere"),
            "{args:?}: {}",
            said(&output)
        );
        let help = said(&snapshot(&[args[0], "--help"]));
        assert!(
            help.contains("Examples:\n") && help.contains("Exit codes"),
            "{help}"
        );
    }
    let empty = snapshot(&["verify", &shown(dir.path())]);
    assert_eq!(empty.status.code(), Some(2), "{}", said(&empty));
    // A newer version's file: the version field, with its checksum.
    let node = dir.path().join("node");
    store(&node);
    let file = files(&node).pop().expect("a snapshot");
    let mut bytes = std::fs::read(&file).expect("readable");
    bytes[4] = 9;
    let sum = duraft_storage::body_checksum(&bytes[..4092]);
    bytes[4092..4096].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&file, &bytes).expect("written");
    let newer = snapshot(&["verify", &shown(&file)]);
    assert_eq!(newer.status.code(), Some(2), "{}", said(&newer));
    assert!(said(&newer).contains("newer"), "{}", said(&newer));
}
