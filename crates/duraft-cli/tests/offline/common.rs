//! Stores that real nodes have written, for commands that work on them.

use bytes::Bytes;
use duraft::{
    ApplyContext, ClusterId, Membership, Network, Node, NodeId, NodeOptions, ReadBasis,
    SnapshotWork, StateMachine, TcpOptions, TcpTransport,
};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Only a fault reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const CLUSTER: &str = "forced by hand..";
pub(crate) const COMMANDS: u64 = 40;

/// Remembers commands, one per line.
#[derive(Default)]
pub(crate) struct Lines(pub(crate) Vec<String>);

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

pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch folder")
}

pub(crate) fn options(dir: &Path, id: u64) -> NodeOptions {
    let cluster = ClusterId(CLUSTER.as_bytes().try_into().expect("16 characters"));
    let folder = dir.join(id.to_string());
    let mut options = NodeOptions::in_dir(NodeId(id), cluster, folder).expect("a folder");
    options.core.seed = id;
    options.wal.slot_bytes = 4 << 20;
    options.wal.slots_ready_min = 1;
    options
}

pub(crate) fn text_of(i: u64) -> String {
    format!("the command with number {i:04}, whole and readable")
}

pub(crate) fn expected(upto: u64) -> Vec<String> {
    (0..upto).map(text_of).collect()
}

pub(crate) fn propose(node: &Node, i: u64) -> bool {
    node.propose_wait(Bytes::from(text_of(i)), DEADLINE).is_ok()
}

pub(crate) fn lines_of(node: &Node) -> Vec<String> {
    let read = node.read_wait(ReadBasis::Quorum, DEADLINE, |lines: &Lines| lines.0.clone());
    read.expect("a read")
}

/// Starts these nodes, whose stores are made, on free ports.
pub(crate) fn start_all(dir: &Path, ids: &[u64]) -> Vec<Node> {
    let listeners: BTreeMap<u64, TcpListener> = ids
        .iter()
        .map(|id| (*id, TcpListener::bind("127.0.0.1:0").expect("a free port")))
        .collect();
    let peers: BTreeMap<NodeId, String> = listeners
        .iter()
        .map(|(id, listener)| {
            let address = listener.local_addr().expect("bound").to_string();
            (NodeId(*id), address)
        })
        .collect();
    let start = |(id, listener): (u64, TcpListener)| {
        let transport = TcpTransport::new(listener, TcpOptions::new(peers.clone()));
        let mut options = options(dir, id);
        options.network = Network::Custom(Arc::new(transport.expect("a transport")));
        Node::start(options, Box::<Lines>::default()).expect("started")
    };
    listeners.into_iter().map(start).collect()
}

/// Whoever leads takes it; the others refuse, which loses nothing.
pub(crate) fn propose_to_any(nodes: &[Node], i: u64) {
    let until = Instant::now() + DEADLINE;
    while !nodes.iter().any(|node| propose(node, i)) {
        assert!(Instant::now() < until, "nobody takes command {i}");
    }
}

/// Nodes 1 to `count`, which have all applied all commands, stopped; node 1 has a snapshot of the
/// first half.
pub(crate) fn stores(dir: &Path, count: u64) {
    let ids: Vec<u64> = (1..=count).collect();
    let membership = Membership::new(ids.iter().copied().map(NodeId), []).expect("voters");
    for id in &ids {
        Node::bootstrap(&options(dir, *id), &membership).expect("bootstrapped");
    }
    let nodes = start_all(dir, &ids);
    for i in 0..COMMANDS {
        propose_to_any(&nodes, i);
        if i == COMMANDS / 2 {
            let taken = nodes[0].snapshot().wait_until(Instant::now() + DEADLINE);
            taken.expect("a snapshot");
        }
    }
    for node in &nodes {
        assert_eq!(lines_of(node), expected(COMMANDS), "it has applied all");
    }
    for node in nodes {
        node.shutdown();
    }
}

pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Every file below a folder, with its bytes and the time of its last change.
pub(crate) fn image(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
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

pub(crate) fn unchanged(dir: &Path, before: &BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)>) {
    let after = image(dir);
    let names = |image: &BTreeMap<PathBuf, _>| image.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(before));
    for (name, content) in before {
        assert!(after[name] == *content, "{} was changed", name.display());
    }
}
