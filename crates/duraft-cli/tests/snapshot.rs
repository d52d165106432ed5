//! `duraft snapshot` as a user runs it: on the store of a real node, on damaged files, and all the way
//! to a new cluster that begins with an exported state.

use bytes::Bytes;
use duraft::{
    ApplyContext, ClusterId, Membership, Node, NodeId, NodeOptions, ReadBasis, RoleKind,
    SnapshotWork, StateMachine,
};
use serde_json::Value;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Only a fault reaches it.
const DEADLINE: Duration = Duration::from_secs(60);
const OLD: &str = "the old cluster.";
const NEW: &str = "the new cluster.";

/// Remembers commands, one per line.
#[derive(Default)]
struct Lines(Vec<String>);

impl StateMachine for Lines {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        self.0.push(String::from_utf8_lossy(command).into_owned());
        Bytes::new()
    }

    fn snapshot(&self) -> SnapshotWork {
        let view = self.0.join("\n");
        Box::new(move |out| out.write_all(view.as_bytes()))
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let text = io::read_to_string(source)?;
        self.0 = text.lines().map(str::to_owned).collect();
        Ok(())
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch folder")
}

fn options(dir: &Path, cluster: &str) -> NodeOptions {
    let cluster = ClusterId(cluster.as_bytes().try_into().expect("16 characters"));
    let mut options = NodeOptions::in_dir(NodeId(1), cluster, dir).expect("a folder");
    options.wal.slot_bytes = 4 << 20;
    options.wal.slots_ready_min = 1;
    options
}

fn start(dir: &Path, cluster: &str) -> Node {
    // Another test may be starting a program just now: until that is on its way, its process holds what
    // this one has open, the store's lock among it.
    let mut started = Node::start(options(dir, cluster), Box::<Lines>::default());
    while matches!(&started, Err(error) if error.to_string().contains("in use")) {
        std::thread::yield_now();
        started = Node::start(options(dir, cluster), Box::<Lines>::default());
    }
    let node = started.expect("started");
    let leads = node.wait_for(DEADLINE, |status| status.role == RoleKind::Leader);
    leads.expect("it elects itself");
    node
}

fn say(node: &Node, text: &str) {
    let said = node.propose_wait(Bytes::from(text.to_owned()), DEADLINE);
    said.expect("applied");
}

fn lines_of(node: &Node) -> Vec<String> {
    let read = node.read_wait(ReadBasis::Quorum, DEADLINE, |lines: &Lines| lines.0.clone());
    read.expect("a read")
}

/// A node's store with a snapshot of twenty commands, and five more behind it.
fn store(dir: &Path) {
    let membership = Membership::new([NodeId(1)], []).expect("one voter");
    Node::bootstrap(&options(dir, OLD), &membership).expect("bootstrapped");
    let node = start(dir, OLD);
    (0..20).for_each(|i| say(&node, &format!("line {i}")));
    let taken = node.snapshot().wait_until(Instant::now() + DEADLINE);
    taken.expect("a snapshot");
    (20..25).for_each(|i| say(&node, &format!("line {i}")));
    // The record that names the snapshot is in the log once a later command is.
    node.shutdown();
}

fn expected() -> Vec<String> {
    (0..20).map(|i| format!("line {i}")).collect()
}

fn duraft(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_duraft"))
        .arg("snapshot")
        .args(args)
        .output()
        .expect("the program runs")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

fn text(path: &Path) -> String {
    path.display().to_string()
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
            let output = duraft(&[what, &text(path)]);
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            assert!(
                said(&output).contains("group 1 of cluster"),
                "{}",
                said(&output)
            );
        }
    }
    let report = json(&duraft(&["verify", &text(&node), "--json"]));
    let found = &report["snapshots"][0];
    assert_eq!(
        (&found["verdict"], &found["counted_on"]),
        (&"clean".into(), &true.into())
    );
    assert_eq!(found["facts"]["members"]["voters"][0], 1);
    // A copy under another name somewhere else says the same.
    let copy = dir.path().join("any.name");
    std::fs::copy(&file, &copy).expect("copied");
    let alone = json(&duraft(&["verify", &text(&copy), "--json"]));
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
        let output = duraft(&["verify", &text(&node), "--json"]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "byte {at}: {}",
            said(&output)
        );
        assert_eq!(json(&output)["snapshots"][0]["verdict"], "damaged");
        let to = dir.path().join("state");
        let export = duraft(&["export", &text(&node), "--to", &text(&to)]);
        assert_eq!(
            export.status.code(),
            Some(1),
            "byte {at}: {}",
            said(&export)
        );
        assert!(!to.exists(), "half a state is left");
    }
    std::fs::write(&file, &good[..good.len() - 1]).expect("written");
    let output = duraft(&["verify", &text(&file)]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    std::fs::remove_file(&file).expect("removed");
    for what in ["inspect", "verify"] {
        let output = duraft(&[what, &text(&node)]);
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
    let export = duraft(&["export", &text(&node), "--to", &text(&state)]);
    assert_eq!(export.status.code(), Some(0), "{}", said(&export));
    let content = std::fs::read_to_string(&state).expect("the state");
    assert_eq!(
        content,
        expected().join("\n"),
        "the state machine's bytes and nothing else"
    );
    let again = duraft(&["export", &text(&node), "--to", &text(&state)]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));

    let fresh = dir.path().join("fresh");
    let import = |to: &Path, more: &[&str]| {
        let (state, to) = (text(&state), text(to));
        let mut args = vec!["import", &state, "--dir", &to, "--node", "1"];
        args.extend(more);
        duraft(&args)
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
        (vec!["--voters", "1", "--cluster", "short"], "16 characters"),
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
    let verified = duraft(&["verify", &text(&fresh)]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));

    // It lives: the state is there, the log goes on behind it, and a restart keeps both.
    let node = start(&fresh, NEW);
    assert_eq!(lines_of(&node), expected());
    say(&node, "and on");
    let index = node.status().applied;
    node.shutdown();
    let node = start(&fresh, NEW);
    let mut lines = expected();
    lines.push(String::from("and on"));
    assert_eq!(lines_of(&node), lines);
    assert!(
        node.status().applied >= index,
        "indices go on from the snapshot's"
    );
    node.shutdown();
}

#[test]
fn all_members_of_a_new_cluster_get_the_same_file_and_a_changed_state_is_said_to_be() {
    let dir = scratch();
    let node = dir.path().join("node");
    store(&node);
    let state = dir.path().join("state");
    let export = duraft(&["export", &text(&node), "--to", &text(&state)]);
    assert_eq!(export.status.code(), Some(0), "{}", said(&export));
    let import = |n: &str, more: &[&str]| {
        let (state, to) = (text(&state), text(&dir.path().join(n)));
        let mut args = vec!["import", &state, "--dir", &to, "--node", n];
        args.extend(["--voters", "1,2,3", "--cluster", NEW]);
        args.extend(more);
        duraft(&args)
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
    let nowhere = text(&dir.path().join("nowhere"));
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
        let output = duraft(&args);
        let code = output.status.code();
        // A file that is not there is a snapshot that is missing.
        let expected = if args[0] == "import" { 2 } else { 1 };
        assert_eq!(code, Some(expected), "{args:?}: {}", said(&output));
        assert!(
            said(&output).contains("nowhere"),
            "{args:?}: {}",
            said(&output)
        );
        let help = said(&duraft(&[args[0], "--help"]));
        assert!(
            help.contains("Examples:\n") && help.contains("Exit codes"),
            "{help}"
        );
    }
    let empty = duraft(&["verify", &text(dir.path())]);
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
    let newer = duraft(&["verify", &text(&file)]);
    assert_eq!(newer.status.code(), Some(2), "{}", said(&newer));
    assert!(said(&newer).contains("newer"), "{}", said(&newer));
}
