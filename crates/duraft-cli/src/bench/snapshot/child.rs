//! One of the two nodes, in a process of its own. Orders come in on standard input, one per line, and
//! each is answered with one line: `ok` and numbers, or `failed` and why. The process ends when its
//! standard input does.

use super::machine::Stream;
use crate::bench::error::BenchError;
use bytes::Bytes;
use clap::Args;
use duraft::{
    ClusterId, JoinAs, MemberChange, Membership, Network, Node, NodeId, NodeOptions, Promotion,
    RoleKind, TcpOptions, TcpTransport,
};
use std::io::{self, BufRead, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for one order.
const PATIENCE: Duration = Duration::from_secs(1800);
pub(super) const LEADER: NodeId = NodeId(1);
pub(super) const FOLLOWER: NodeId = NodeId(2);
/// Commands in the log that the snapshot covers.
const COMMANDS: u64 = 64;

/// What the parent tells its child.
#[derive(Args)]
pub(crate) struct SnapshotChildArgs {
    #[arg(long)]
    pub(super) node: u64,
    #[arg(long)]
    pub(super) dir: PathBuf,
    #[arg(long, value_delimiter = ',')]
    pub(super) addresses: Vec<String>,
    #[arg(long)]
    pub(super) bytes: u64,
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Cluster(error.to_string())
}

/// Makes the node's store, starts it, and does what it is told.
pub(crate) fn run(args: &SnapshotChildArgs) -> Result<ExitCode, BenchError> {
    let id = NodeId(args.node);
    let place = usize::try_from(args.node - 1).map_err(failed)?;
    let address = args.addresses.get(place);
    let address = address.ok_or_else(|| failed("no address was given"))?;
    let peers = [LEADER, FOLLOWER].into_iter().zip(args.addresses.clone());
    let listener = TcpListener::bind(address).map_err(failed)?;
    let transport = TcpTransport::new(listener, TcpOptions::new(peers.collect()));
    let transport = Arc::new(transport.map_err(failed)?);
    let cluster = ClusterId(*b"duraft-snapshot.");
    let mut options = NodeOptions::in_dir(id, cluster, args.dir.join(format!("node-{id}")))?;
    options.core.seed = args.node;
    // Nothing of the log stays behind a snapshot: whoever has none of it needs the snapshot.
    options.core.trailing_bytes_max = 0;
    options.snapshot_log_bytes = None;
    options.network = Network::Custom(Arc::clone(&transport) as _);
    if id == LEADER {
        let alone = Membership::new([LEADER], []).map_err(failed)?;
        Node::bootstrap(&options, &alone).map_err(failed)?;
    } else {
        Node::bootstrap_joining(&options, JoinAs::New).map_err(failed)?;
    }
    let machine = Box::new(Stream { bytes: args.bytes });
    let node = Node::start(options, machine).map_err(failed)?;
    say("ok").map_err(failed)?;
    for order in io::stdin().lock().lines() {
        let answer = match obey(&node, &transport, &order.map_err(failed)?) {
            Ok(numbers) => format!("ok {numbers}"),
            Err(error) => format!("failed {error}"),
        };
        say(&answer).map_err(failed)?;
    }
    node.shutdown();
    Ok(ExitCode::SUCCESS)
}

fn say(answer: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{answer}")?;
    out.flush()
}

fn obey(node: &Node, transport: &TcpTransport, order: &str) -> Result<String, BenchError> {
    let late = || failed(format!("'{order}' took too long"));
    let until = Instant::now() + PATIENCE;
    match order.split_once(' ').unwrap_or((order, "")) {
        // Commands, a snapshot of them, and a log that begins behind it.
        ("prepare", _) => {
            let leads = |status: &duraft::Status| status.role == RoleKind::Leader;
            node.wait_for(PATIENCE, leads).ok_or_else(late)?;
            for i in 0..COMMANDS {
                let command = Bytes::from(i.to_le_bytes().to_vec());
                node.propose_wait(command, PATIENCE).map_err(failed)?;
            }
            let taken = node.snapshot().wait_until(until).map_err(failed)?;
            let counted =
                |status: &duraft::Status| status.snapshot.is_some_and(|s| s.upto == taken.upto);
            node.wait_for(PATIENCE, counted).ok_or_else(late)?;
            Ok(format!("{} {}", taken.bytes, taken.upto.index))
        }
        // Lets the other node join.
        ("add", _) => {
            let learner = MemberChange::AddLearner {
                id: FOLLOWER,
                promotion: Promotion::Never,
            };
            let change = node.change_membership(vec![learner]);
            let changed = change.wait_until(until).map_err(failed)?;
            Ok(changed.log_id.index.to_string())
        }
        // Waits until so much is applied; tells which snapshot it counts on.
        ("applied", index) => {
            let index: u64 = index.parse().map_err(failed)?;
            let applied = node.wait_for(PATIENCE, |status| status.applied.0 >= index);
            let snapshot = applied.ok_or_else(late)?.snapshot;
            Ok(snapshot.map_or(0, |s| s.upto.index.0).to_string())
        }
        ("sent", _) => Ok(transport.stats().bytes_sent.to_string()),
        (other, _) => Err(failed(format!("unknown order {other}"))),
    }
}
