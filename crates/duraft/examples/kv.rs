//! A durable, networked key-value service of three nodes: `cargo run -p duraft --example kv`.
#![allow(clippy::print_stdout)]

use bytes::Bytes;
use duraft::{
    ApplyContext, ClusterId, Membership, Network, Node, NodeId, NodeOptions, StateMachine,
    TcpOptions,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

/// Commands are `key=value` to write and `key` to read; the answer is the value.
#[derive(Default)]
struct Store(BTreeMap<Vec<u8>, Bytes>);

impl StateMachine for Store {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let mut parts = command.splitn(2, |byte| *byte == b'=');
        let key = parts.next().unwrap_or_default().to_vec();
        if let Some(value) = parts.next() {
            self.0.insert(key.clone(), Bytes::copy_from_slice(value));
        }
        self.0.get(&key).cloned().unwrap_or_default()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let address = |id: u64| format!("127.0.0.1:{}", 47_100 + id);
    let peers: BTreeMap<_, _> = (1..=3).map(|id| (NodeId(id), address(id))).collect();
    let membership = Membership::new(peers.keys().copied(), [])?;
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let folder = dir.path().join(id.to_string());
        let mut options = NodeOptions::in_dir(NodeId(id), ClusterId(*b"key-value sample"), folder)?;
        options.core.seed = id;
        options.network = Network::Tcp {
            listen: address(id),
            options: TcpOptions::new(peers.clone()),
        };
        Node::bootstrap(&options, &membership)?;
        nodes.push(Node::start(options, Box::<Store>::default())?);
    }
    for command in ["color=green", "color", "shape=round", "shape"] {
        let mut at = 0;
        let applied = loop {
            match nodes[at].propose_wait(Bytes::from(command), Duration::from_secs(10)) {
                Ok(applied) => break applied,
                Err(error) if error.is_retryable() => {
                    let leader = nodes.iter().position(|n| Some(n.id()) == error.leader());
                    at = leader.unwrap_or(at + 1) % nodes.len();
                }
                Err(error) => return Err(error.into()),
            }
        };
        println!("{command} -> {:?} at {}", applied.response, applied.log_id);
    }
    nodes.iter().for_each(|node| drop(node.shutdown()));
    Ok(())
}
