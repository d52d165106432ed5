//! Folders, addresses and options of the benchmark's nodes, the same in every process.

use super::command::Ledger;
use crate::bench::error::BenchError;
use crate::bench::timed::{TimedDisk, Watch};
use bytes::Bytes;
use duraft::{
    ApplyContext, ClusterId, Network, Node, NodeOptions, SnapshotWork, StateMachine, TcpOptions,
};
use duraft_core::{Membership, NodeId};
use parking_lot::Mutex;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Number of nodes.
pub(crate) const NODES: usize = 3;

/// What all nodes share.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) dir: PathBuf,
    pub(crate) addresses: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) value_bytes: usize,
    /// Where each node's disk notes what the log does to it; empty where nobody looks.
    pub(crate) watches: Vec<Watch>,
}

impl Setup {
    /// A set-up of nodes at these addresses, with their folders under `dir`.
    pub(crate) fn new(dir: &Path, addresses: &[String], seed: u64, value_bytes: u32) -> Setup {
        Setup {
            dir: dir.to_path_buf(),
            addresses: addresses.to_vec(),
            seed,
            value_bytes: value_bytes as usize,
            watches: Vec::new(),
        }
    }

    /// The seed that marks this run's commands.
    pub(crate) fn command_seed(&self) -> u32 {
        // The low half is enough to tell runs apart.
        let [a, b, c, d, ..] = self.seed.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// The options of one node.
    pub(crate) fn options(&self, node: usize) -> Result<NodeOptions, BenchError> {
        let id = node_id(node);
        let dir = self.dir.join(format!("node-{id}"));
        let mut cluster = *b"duraft-bench\0\0\0\0";
        cluster[12..].copy_from_slice(&self.command_seed().to_le_bytes());
        let mut options = NodeOptions::in_dir(id, ClusterId(cluster), dir)?;
        options.core.seed = self.seed;
        let peers = (0..self.addresses.len()).map(|i| (node_id(i), self.addresses[i].clone()));
        options.network = Network::Tcp {
            listen: self.addresses[node].clone(),
            options: TcpOptions::new(peers.collect()),
        };
        Ok(options)
    }

    /// Makes the store of one node.
    pub(crate) fn bootstrap(&self, node: usize) -> Result<(), BenchError> {
        let voters = (0..self.addresses.len()).map(node_id);
        let membership = Membership::new(voters, []).map_err(cluster_error)?;
        Node::bootstrap(&self.options(node)?, &membership).map_err(cluster_error)
    }

    /// Starts one node with an empty ledger.
    pub(crate) fn start(&self, node: usize) -> Result<(Node, Arc<Mutex<Ledger>>), BenchError> {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let machine = Machine {
            ledger: Arc::clone(&ledger),
            seed: self.command_seed(),
        };
        let mut options = self.options(node)?;
        if let Some(watch) = self.watches.get(node) {
            options.disk = Arc::new(TimedDisk::new(options.disk, watch.clone()));
        }
        let node = Node::start(options, Box::new(machine)).map_err(cluster_error)?;
        Ok((node, ledger))
    }
}

/// Nodes are counted from 0 here and named from 1.
pub(crate) fn node_id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

/// The place of a named node.
pub(crate) fn node_place(id: NodeId) -> Option<usize> {
    usize::try_from(id.0.checked_sub(1)?).ok()
}

pub(crate) fn cluster_error(error: impl std::fmt::Display) -> BenchError {
    BenchError::Cluster(error.to_string())
}

struct Machine {
    ledger: Arc<Mutex<Ledger>>,
    seed: u32,
}

impl StateMachine for Machine {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        self.ledger.lock().apply(command, self.seed);
        Bytes::new()
    }

    fn snapshot(&self) -> SnapshotWork {
        let ledger = self.ledger.lock().clone();
        Box::new(move |out| ledger.write(out))
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        *self.ledger.lock() = Ledger::read(source)?;
        Ok(())
    }
}
