//! Three nodes of duraft with default options, over channels and over the TCP that it comes with.

use super::{Cluster, NODES, wait_for};
use crate::Result;
use bytes::Bytes;
use duraft::{
    ApplyContext, ClusterId, Inbox, Local, Membership, Network, Node, NodeId, NodeOptions, Parcel,
    Responder, RoleKind, SnapshotWork, StateMachine, TcpOptions, Transport,
};
use duraft_core::Envelope;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};

/// It counts.
struct Machine(u64);

impl StateMachine for Machine {
    fn apply(&mut self, _context: ApplyContext, _command: &[u8]) -> Bytes {
        self.0 += 1;
        Bytes::new()
    }

    fn snapshot(&self) -> SnapshotWork {
        let view = self.0.to_le_bytes();
        Box::new(move |out| out.write_all(&view))
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        source.read_exact(&mut bytes)?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

/// A mailbox for each node, with a thread that empties it, as the transport must not block.
#[derive(Default)]
struct Hub(Mutex<BTreeMap<NodeId, Sender<Envelope>>>);

struct Channels {
    hub: Arc<Hub>,
    /// Peers that were looked up, so that a message takes no lock.
    peers: OnceLock<BTreeMap<NodeId, Sender<Envelope>>>,
}

impl Transport for Channels {
    fn start(&self, local: Local, inbox: Inbox) -> io::Result<()> {
        let (mailbox, letters) = channel();
        self.hub
            .0
            .lock()
            .expect("no panic")
            .insert(local.node, mailbox);
        std::thread::spawn(move || {
            letters
                .into_iter()
                .try_for_each(|letter| inbox.deliver(letter))
        });
        Ok(())
    }

    fn send(&self, envelope: Envelope) {
        let peers = match self.peers.get() {
            Some(peers) => peers,
            None => {
                let all = self.hub.0.lock().expect("no panic").clone();
                if all.len() < NODES as usize {
                    return;
                }
                self.peers.get_or_init(|| all)
            }
        };
        if let Some(peer) = peers.get(&envelope.to) {
            // A node that has stopped hears nothing.
            let _ = peer.send(envelope);
        }
    }

    fn send_parcel(&self, _parcel: Parcel) {
        // Nobody falls behind a snapshot here.
    }

    fn stop(&self) {
        self.hub.0.lock().expect("no panic").clear();
    }
}

struct Nodes {
    nodes: Vec<Node>,
    leader: usize,
}

pub(super) fn start(dir: &Path) -> Result<Box<dyn Cluster>> {
    let hub = Arc::new(Hub::default());
    let channels = |_| -> Result<Network> {
        let (hub, peers) = (Arc::clone(&hub), OnceLock::new());
        Ok(Network::Custom(Arc::new(Channels { hub, peers })))
    };
    start_with(dir, channels)
}

pub(super) fn start_tcp(dir: &Path) -> Result<Box<dyn Cluster>> {
    let listeners = (0..NODES).map(|_| TcpListener::bind(("127.0.0.1", 0)));
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    let mut addresses = BTreeMap::new();
    for (id, listener) in (1..).zip(&listeners) {
        addresses.insert(NodeId(id), listener.local_addr()?.to_string());
    }
    drop(listeners);
    start_with(dir, |id| {
        Ok(Network::Tcp {
            listen: addresses[&id].clone(),
            options: TcpOptions::new(addresses.clone()),
        })
    })
}

fn start_with(dir: &Path, network: impl Fn(NodeId) -> Result<Network>) -> Result<Box<dyn Cluster>> {
    let ids = (1..=NODES).map(NodeId);
    let members = Membership::new(ids.clone(), [])?;
    let mut nodes = Vec::new();
    for id in ids {
        let place = dir.join(format!("node-{}", id.0));
        let mut options = NodeOptions::in_dir(id, ClusterId(*b"duraft as rival "), place)?;
        options.network = network(id)?;
        Node::bootstrap(&options, &members)?;
        nodes.push(Node::start(options, Box::new(Machine(0)))?);
    }
    let leads = |node: &Node| node.status().role == RoleKind::Leader;
    let leader = wait_for(|| nodes.iter().position(leads))?;
    Ok(Box::new(Nodes { nodes, leader }))
}

impl Cluster for Nodes {
    fn propose(&self, client: u32, command: Bytes, done: &Sender<u32>) -> Result<()> {
        let done = done.clone();
        let answer = Responder::call(move |outcome: duraft::Outcome| {
            // A command that failed is missed by its client, who reports it.
            if outcome.is_ok() {
                let _ = done.send(client);
            }
        });
        self.nodes[self.leader].submit(command, answer);
        Ok(())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.shutdown();
        }
    }
}
