//! `duraft force-new-configuration` on stores that real nodes have written.

use bytes::Bytes;
use duraft::{
    ApplyContext, ClusterId, Membership, Network, Node, NodeId, NodeOptions, ReadBasis, RoleKind,
    SnapshotWork, StateMachine, TcpOptions, TcpTransport,
};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Only a fault reaches it.
const DEADLINE: Duration = Duration::from_secs(60);
const CLUSTER: &str = "forced by hand..";
const DANGER: &str = "--i-accept-that-acknowledged-commands-may-be-lost";
const COMMANDS: u64 = 40;

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

fn options(dir: &Path, id: u64) -> NodeOptions {
    let cluster = ClusterId(CLUSTER.as_bytes().try_into().expect("16 characters"));
    let folder = dir.join(id.to_string());
    let mut options = NodeOptions::in_dir(NodeId(id), cluster, folder).expect("a folder");
    options.core.seed = id;
    options.wal.slot_bytes = 4 << 20;
    options.wal.slots_ready_min = 1;
    options
}

fn text_of(i: u64) -> String {
    format!("the command with number {i:04}, whole and readable")
}

fn expected(upto: u64) -> Vec<String> {
    (0..upto).map(text_of).collect()
}

fn propose(node: &Node, i: u64) -> bool {
    node.propose_wait(Bytes::from(text_of(i)), DEADLINE).is_ok()
}

fn lines_of(node: &Node) -> Vec<String> {
    let read = node.read_wait(ReadBasis::Quorum, DEADLINE, |lines: &Lines| lines.0.clone());
    read.expect("a read")
}

/// Three nodes that have all applied all commands, stopped; node 1 has a snapshot of the first half.
fn three_stores(dir: &Path) {
    let listeners: BTreeMap<u64, TcpListener> = (1..=3)
        .map(|id| (id, TcpListener::bind("127.0.0.1:0").expect("a free port")))
        .collect();
    let peers: BTreeMap<NodeId, String> = listeners
        .iter()
        .map(|(id, listener)| {
            (
                NodeId(*id),
                listener.local_addr().expect("bound").to_string(),
            )
        })
        .collect();
    let membership = Membership::new((1..=3).map(NodeId), []).expect("three voters");
    let mut nodes = Vec::new();
    for (id, listener) in listeners {
        let mut options = options(dir, id);
        Node::bootstrap(&options, &membership).expect("bootstrapped");
        let transport = TcpTransport::new(listener, TcpOptions::new(peers.clone()));
        options.network = Network::Custom(Arc::new(transport.expect("a transport")));
        nodes.push(Node::start(options, Box::<Lines>::default()).expect("started"));
    }
    for i in 0..COMMANDS {
        // Whoever leads takes it; the others refuse, which loses nothing.
        let until = Instant::now() + DEADLINE;
        while !nodes.iter().any(|node| propose(node, i)) {
            assert!(Instant::now() < until, "nobody takes command {i}");
        }
        if i == COMMANDS / 2 {
            let taken = nodes[0].snapshot().wait_until(Instant::now() + DEADLINE);
            taken.expect("a snapshot");
        }
    }
    assert_eq!(
        lines_of(&nodes[0]),
        expected(COMMANDS),
        "node 1 has applied all"
    );
    for node in nodes {
        node.shutdown();
    }
}

fn force(dir: &Path, node: u64, voters: &str, more: &[&str]) -> Output {
    force_in(&dir.join("1"), CLUSTER, node, voters, more)
}

fn force_in(store: &Path, cluster: &str, node: u64, voters: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_duraft"))
        .args(["force-new-configuration", "--cluster", cluster])
        .args(["--node", &node.to_string(), "--voters", voters])
        .arg("--dir")
        .arg(store)
        .args(more)
        .output()
        .expect("the program runs")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Every file below a folder, with its bytes and the time of its last change.
fn image(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("metadata");
        if meta.is_dir() {
            found.extend(image(&entry.path()));
            found.insert(entry.path(), (Vec::new(), meta.modified().expect("a time")));
        } else {
            let bytes = std::fs::read(entry.path()).expect("readable");
            found.insert(entry.path(), (bytes, meta.modified().expect("a time")));
        }
    }
    found
}

fn unchanged(dir: &Path, before: &BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)>) {
    let after = image(dir);
    let names = |image: &BTreeMap<PathBuf, _>| image.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(before));
    for (name, content) in before {
        assert!(after[name] == *content, "{} was changed", name.display());
    }
}

#[test]
fn one_survivor_of_three_serves_again_and_holds_what_it_held() {
    let dir = scratch();
    three_stores(dir.path());
    for lost in ["2", "3"] {
        std::fs::remove_dir_all(dir.path().join(lost)).expect("lost for good");
    }

    // A report alone changes no byte and says what would happen.
    let before = image(dir.path());
    let json = dir.path().with_extension("json").display().to_string();
    let dry = force(dir.path(), 1, "1", &["--json", &json]);
    assert_eq!(dry.status.code(), Some(2), "{}", said(&dry));
    for part in [
        "NOTHING WAS CHANGED",
        "voters 1, 2, 3, learners none",
        "must never come back nodes 2, 3",
        DANGER,
    ] {
        assert!(
            said(&dry).contains(part),
            "{part} is missing in:\n{}",
            said(&dry)
        );
    }
    unchanged(dir.path(), &before);
    let report = std::fs::read_to_string(&json).expect("the JSON file is there");
    let report: serde_json::Value = serde_json::from_str(&report).expect("it is JSON");
    assert_eq!(report["done"], false);
    assert_eq!(report["must_never_come_back"], serde_json::json!([2, 3]));
    assert_eq!(report["snapshot"], report["snapshot_readable"]);
    assert!(report["snapshot"]["index"].as_u64().expect("a snapshot") > 0);
    let last = report["last"]["index"].as_u64().expect("a last entry");
    assert!(last >= COMMANDS);
    assert_eq!(report["forced"]["index"], last + 1);

    let done = force(dir.path(), 1, "1", &[DANGER, "--json", &json]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).starts_with("A NEW CONFIGURATION WAS FORCED"));
    let after = std::fs::read_to_string(&json).expect("the JSON file is there");
    let after: serde_json::Value = serde_json::from_str(&after).expect("it is JSON");
    assert_eq!(after["done"], true);
    assert_eq!(after["forced"], report["forced"], "what was announced");

    let node = Node::start(options(dir.path(), 1), Box::<Lines>::default()).expect("started");
    let leads = node.wait_for(DEADLINE, |status| status.role == RoleKind::Leader);
    let leads = leads.expect("it elects itself");
    assert_eq!(leads.membership.voters().collect::<Vec<_>>(), [NodeId(1)]);
    assert_eq!(
        lines_of(&node),
        expected(COMMANDS),
        "nothing it held is gone"
    );
    assert!(propose(&node, COMMANDS), "it serves");
    assert_eq!(lines_of(&node), expected(COMMANDS + 1));
    let busy = force(dir.path(), 1, "1", &[DANGER]);
    assert_eq!(
        busy.status.code(),
        Some(1),
        "the store is in use: {}",
        said(&busy)
    );
    node.shutdown();
    std::fs::remove_file(json).expect("removed");
}

#[test]
fn a_damaged_survivor_is_refused_and_left_as_it_is() {
    let dir = scratch();
    three_stores(dir.path());
    let wanted = text_of(COMMANDS / 2 + 5).into_bytes();
    let mut flipped = 0;
    for entry in std::fs::read_dir(dir.path().join("1/wal")).expect("the slots") {
        let name = entry.expect("an entry").path();
        let mut bytes = std::fs::read(&name).expect("readable");
        let at = bytes
            .windows(wanted.len())
            .position(|window| window == wanted);
        if let Some(at) = at {
            bytes[at + 3] ^= 1;
            std::fs::write(&name, bytes).expect("written");
            flipped += 1;
        }
    }
    assert!(flipped > 0, "the command stands somewhere");
    let before = image(dir.path());
    for more in [&[][..], &[DANGER]] {
        let refused = force(dir.path(), 1, "1", more);
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        let text = said(&refused);
        assert!(text.contains("durable records cannot be read"), "{text}");
        unchanged(dir.path(), &before);
    }
}

/// Store, cluster, node, voters, more flags, and what the refusal says.
type Case<'a> = (&'a Path, &'a str, u64, &'a str, &'a [&'a str], &'a str);

#[test]
fn a_wrong_wish_is_a_usage_error_and_changes_nothing() {
    let dir = scratch();
    three_stores(dir.path());
    let before = image(dir.path());
    let (own, empty) = (dir.path().join("1"), scratch());
    let nowhere = dir.path().join("nowhere");
    let cases: &[Case<'_>] = &[
        (&own, CLUSTER, 1, "2,3", &[], "must be one of the voters"),
        (&own, CLUSTER, 2, "2", &[], "node 1"),
        (&own, CLUSTER, 1, "1", &["--group", "7"], "no group 7"),
        (
            &own,
            CLUSTER,
            1,
            "1",
            &["--max-batch-bytes", "4096"],
            "4096",
        ),
        (&own, CLUSTER, 1, "one", &[], "--voters"),
        (&own, "another cluster.", 1, "1", &[], "cluster"),
        (&own, "too short", 1, "1", &[], "32 hexadecimal digits"),
        (&nowhere, CLUSTER, 1, "1", &[], "nowhere"),
        (empty.path(), CLUSTER, 1, "1", &[], "no store"),
    ];
    for (store, cluster, node, voters, more, part) in cases {
        let more = [more, &[DANGER][..]].concat();
        let refused = force_in(store, cluster, *node, voters, &more);
        let said = said(&refused);
        assert_eq!(refused.status.code(), Some(2), "{part}: {said}");
        assert!(said.contains(part), "{part} is missing in: {said}");
        unchanged(dir.path(), &before);
    }
    assert!(image(empty.path()).is_empty(), "no store was begun");
}

#[test]
fn the_help_is_loud() {
    let output = Command::new(env!("CARGO_BIN_EXE_duraft"))
        .args(["force-new-configuration", "--help"])
        .output()
        .expect("the program runs");
    let help = said(&output);
    for part in ["DANGEROUS", "MAY BE LOST", "THERE ARE TWO CLUSTERS", DANGER] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
}
