//! Nodes on real files and real loopback sockets, for tests. Nothing sleeps: tests wait for
//! conditions, up to a deadline that only a fault reaches.

use bytes::Bytes;
use duraft::{
    ApplyContext, ClusterId, JoinAs, Membership, Network, Node, NodeId, NodeOptions, Outcome,
    RoleKind, SnapshotWork, StateMachine, TcpOptions, TcpTransport,
};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Only a fault reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const CLUSTER: ClusterId = ClusterId(*b"duraft's  tests.");

/// Remembers commands; answers with how many came before.
#[derive(Clone, Default)]
pub(crate) struct Journal(pub(crate) Arc<Mutex<Vec<Bytes>>>);

impl Journal {
    pub(crate) fn commands(&self) -> Vec<Bytes> {
        self.0.lock().expect("unpoisoned").clone()
    }
}

impl StateMachine for Journal {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let mut commands = self.0.lock().expect("unpoisoned");
        commands.push(Bytes::copy_from_slice(command));
        Bytes::from((commands.len() as u64 - 1).to_string())
    }

    fn snapshot(&self) -> SnapshotWork {
        let commands = self.commands();
        Box::new(move |out| write_list(&commands, out))
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        *self.0.lock().expect("unpoisoned") = read_list(source)?;
        Ok(())
    }
}

/// A list of commands as bytes.
pub(crate) fn write_list(commands: &[Bytes], out: &mut dyn Write) -> io::Result<()> {
    for command in commands {
        out.write_all(&(command.len() as u64).to_le_bytes())?;
        out.write_all(command)?;
    }
    Ok(())
}

/// What [`write_list`] wrote.
pub(crate) fn read_list(source: &mut dyn Read) -> io::Result<Vec<Bytes>> {
    let mut commands = Vec::new();
    let mut len = [0; 8];
    loop {
        match source.read_exact(&mut len) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(commands),
            other => other?,
        }
        let len = usize::try_from(u64::from_le_bytes(len)).expect("small");
        let mut command = vec![0; len];
        source.read_exact(&mut command)?;
        commands.push(Bytes::from(command));
    }
}

pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch folder")
}

/// Small slots, so that a test does not write many megabytes.
pub(crate) fn options(id: u64, dir: &TempDir) -> NodeOptions {
    let folder = dir.path().join(id.to_string());
    let mut options = NodeOptions::in_dir(NodeId(id), CLUSTER, folder).expect("a folder");
    options.wal.slot_bytes = 4 << 20;
    options.wal.slots_ready_min = 1;
    options.core.seed = id;
    // A disk that stands still for seconds, as those of shared machines do, delays the first
    // election; that is not what these tests are about.
    options.leaderless_ticks_max = ticks(&options, DEADLINE);
    options
}

fn ticks(options: &NodeOptions, time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / options.tick.as_nanos()).expect("few")
}

pub(crate) fn membership(nodes: u64) -> Membership {
    Membership::new((1..=nodes).map(NodeId), []).expect("a valid membership")
}

/// A cluster of one, bootstrapped.
pub(crate) fn single(dir: &TempDir) -> NodeOptions {
    let options = options(1, dir);
    Node::bootstrap(&options, &membership(1)).expect("bootstrapped");
    options
}

/// A connection of a port to itself, with which the system gives the port to nobody else, though who
/// names it can listen there.
pub(crate) type Reservation = [TcpStream; 2];

/// To be called before anybody else may accept.
pub(crate) fn reserve(listener: &TcpListener) -> Reservation {
    let address = listener.local_addr().expect("bound");
    let connection = TcpStream::connect(address).expect("it listens");
    [connection, listener.accept().expect("a connection").0]
}

pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) addresses: BTreeMap<NodeId, SocketAddr>,
    /// While a node is down, its port is given to nobody else.
    reserved: Vec<Reservation>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) journals: BTreeMap<NodeId, Journal>,
    pub(crate) tune: fn(&mut NodeOptions),
}

impl Cluster {
    /// Nodes 1..=n, started.
    pub(crate) fn start(n: u64) -> Cluster {
        Cluster::start_with(n, |_| {})
    }

    /// The same, with other options.
    pub(crate) fn start_with(n: u64, tune: fn(&mut NodeOptions)) -> Cluster {
        let listeners: BTreeMap<NodeId, TcpListener> = (1..=n)
            .map(|id| {
                (
                    NodeId(id),
                    TcpListener::bind("127.0.0.1:0").expect("a free port"),
                )
            })
            .collect();
        let addresses = listeners
            .iter()
            .map(|(id, listener)| (*id, listener.local_addr().expect("bound")))
            .collect();
        let reserved = listeners.values().map(reserve).collect();
        let mut cluster = Cluster {
            dir: scratch(),
            addresses,
            reserved,
            nodes: BTreeMap::new(),
            journals: BTreeMap::new(),
            tune,
        };
        for (id, listener) in listeners {
            let options = cluster.options(id);
            Node::bootstrap(&options, &membership(n)).expect("bootstrapped");
            cluster.start_on(id, listener);
        }
        cluster
    }

    pub(crate) fn peers(&self) -> BTreeMap<NodeId, String> {
        let text = |(id, address): (&NodeId, &SocketAddr)| (*id, address.to_string());
        self.addresses.iter().map(text).collect()
    }

    fn options(&self, id: NodeId) -> NodeOptions {
        let mut options = options(id.0, &self.dir);
        (self.tune)(&mut options);
        options
    }

    /// Starts a node that was never a member and tells everybody where it is.
    pub(crate) fn join(&mut self, id: NodeId, join: JoinAs) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        self.addresses.insert(id, address);
        self.reserved.push(reserve(&listener));
        Node::bootstrap_joining(&self.options(id), join).expect("a new store");
        for node in self.nodes.values() {
            node.set_peer_address(id, Some(address.to_string()))
                .expect("TCP can");
        }
        self.start_on(id, listener);
    }

    fn start_on(&mut self, id: NodeId, listener: TcpListener) {
        let mut options = self.options(id);
        let tcp = TcpOptions::new(self.peers());
        let transport = TcpTransport::new(listener, tcp).expect("a transport");
        options.network = Network::Custom(Arc::new(transport));
        let journal = Journal::default();
        let node = Node::start(options, Box::new(journal.clone())).expect("started");
        self.nodes.insert(id, node);
        self.journals.insert(id, journal);
    }

    /// Starts a node that was down, at its old address.
    pub(crate) fn restart(&mut self, id: NodeId) {
        let listener = TcpListener::bind(self.addresses[&id]).expect("the port is free again");
        self.start_on(id, listener);
    }

    /// Ends a node abruptly.
    pub(crate) fn kill(&mut self, id: NodeId) {
        drop(self.nodes.remove(&id).expect("it runs"));
    }

    /// Waits until some running node leads and its peers know it.
    pub(crate) fn leader(&self) -> NodeId {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            for (id, node) in &self.nodes {
                if node.status().role == RoleKind::Leader {
                    return *id;
                }
            }
            // Wait for any change on the first node, but not for long: others change too.
            let first = self.nodes.values().next().expect("a running node");
            let term = first.status().term;
            first.wait_for(Duration::from_millis(20), |s| s.term > term);
        }
        let found: Vec<_> = self.nodes.values().map(Node::status).collect();
        panic!("no leader within {DEADLINE:?}: {found:#?}");
    }

    /// Proposes at the leader, wherever it is, until the command is applied. For commands whose
    /// repetition does no harm.
    pub(crate) fn apply(&self, command: &str) -> LogOutcome {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            let leader = &self.nodes[&self.leader()];
            if let Ok(applied) = leader.propose_wait(Bytes::from(command.to_owned()), DEADLINE) {
                return applied;
            }
        }
        panic!("'{command}' was not applied within {DEADLINE:?}");
    }

    /// Waits until all running nodes have applied everything up to `index`.
    pub(crate) fn wait_applied(&self, index: duraft::Index) {
        for (id, node) in &self.nodes {
            node.wait_for(DEADLINE, |status| status.applied >= index)
                .unwrap_or_else(|| panic!("node {id} never applied {index}: {:?}", node.status()));
        }
    }
}

pub(crate) type LogOutcome = duraft::Applied;

/// Submits a command with a callback that hands its outcome to the receiver.
pub(crate) fn submit(node: &Node, command: &[u8]) -> std::sync::mpsc::Receiver<Outcome> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let responder = duraft::Responder::call(move |outcome| {
        let _ = sender.send(outcome);
    });
    node.submit(Bytes::copy_from_slice(command), responder);
    receiver
}
