//! Stores that real nodes have written, for commands that work on them.

use bytes::Bytes;
use duraft::{
    ApplyContext, ClusterId, JoinAs, Membership, Network, Node, NodeId, NodeOptions, ReadBasis,
    RoleKind, SnapshotWork, StateMachine, TcpOptions, TcpTransport,
};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::TcpListener;
use std::path::Path;
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

pub(crate) fn bootstrap(options: &NodeOptions, membership: &Membership) {
    Node::bootstrap(options, membership).expect("bootstrapped");
}

pub(crate) fn bootstrap_joining(options: &NodeOptions) {
    Node::bootstrap_joining(options, JoinAs::New).expect("an empty store");
}

/// Starts a node whose cluster needs nobody else, and waits until it leads.
pub(crate) fn begin(options: NodeOptions) -> Node {
    let node = Node::start(options, Box::<Lines>::default()).expect("started");
    let leads = node.wait_for(DEADLINE, |status| status.role == RoleKind::Leader);
    leads.expect("it elects itself");
    node
}

/// Ends a node; its store can be opened by anybody.
pub(crate) fn stop(node: Node) {
    node.shutdown();
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
        bootstrap(&options(dir, *id), &membership);
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
    nodes.into_iter().for_each(stop);
}
