//! A durable, networked key-value service of three nodes: `cargo run -p duraft --example kv`.
#![allow(clippy::print_stdout)]
use bytes::Bytes;
use duraft::{ApplyContext, ClusterId, Membership, Network, Node, NodeId, NodeOptions};
use duraft::{ReadBasis, Session, SessionLimits, SnapshotWork, StateMachine, TcpOptions};
use std::io::{self, Read};
use std::{collections::BTreeMap, error::Error, time::Duration};

/// Commands are `key=value`; the answer is the value before.
#[derive(Default)]
struct Store(BTreeMap<String, String>);

impl StateMachine for Store {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let command = String::from_utf8_lossy(command);
        let (key, value) = command.split_once('=').unwrap_or((&command, ""));
        Bytes::from(self.0.insert(key.into(), value.into()).unwrap_or_default())
    }

    fn snapshot(&self) -> SnapshotWork {
        let view = self.0.clone();
        Box::new(move |out| view.iter().try_for_each(|(k, v)| writeln!(out, "{k}={v}")))
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let pairs = io::read_to_string(source)?;
        let pairs = pairs.lines().filter_map(|line| line.split_once('='));
        self.0 = pairs.map(|(k, v)| (k.into(), v.into())).collect();
        Ok(())
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
        let (listen, options_tcp) = (address(id), TcpOptions::new(peers.clone()));
        options.network = Network::Tcp {
            listen,
            options: options_tcp,
        };
        Node::bootstrap(&options, &membership)?;
        nodes.push(Node::start(options, Box::<Store>::default())?);
    }
    let patience = Duration::from_secs(10);
    let session = Session::open(&nodes, SessionLimits::default(), patience)?;
    for command in ["color=green", "shape=round", "color=blue"] {
        let applied = session.propose(&nodes, command.into(), patience)?; // exactly once
        println!(
            "{command} at {}, before: {:?}",
            applied.log_id, applied.response
        );
    }
    let all = nodes[2].read_wait(ReadBasis::Quorum, patience, |store: &Store| store.0.clone())?;
    println!("{all:?}");
    nodes.iter().for_each(|node| drop(node.shutdown()));
    Ok(())
}
