//! One node in a process of its own, with a disk and a state machine that can be made to stick.

use super::machine::{Clients, Digest};
use super::words::{Order, Part, Report, State};
use crate::bench::error::BenchError;
use crate::bench::limits::restrict;
use clap::Args;
use duraft::{ClusterId, Network, Node, NodeId, NodeOptions, RoleKind, TcpOptions};
use duraft_core::Membership;
use duraft_disk::{DiskOp, Gate, StallDisk};
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What the parent tells its child.
#[derive(Args)]
pub(crate) struct StuckChildArgs {
    #[arg(long)]
    pub(super) place: usize,
    #[arg(long)]
    pub(super) dir: PathBuf,
    #[arg(long, value_delimiter = ',')]
    pub(super) addresses: Vec<String>,
    #[arg(long)]
    pub(super) seed: u64,
    #[arg(long)]
    pub(super) value_bytes: usize,
}

/// Bytes of log between snapshots, and as many kept behind one.
const SNAPSHOT_LOG_BYTES: u64 = 4 << 20;
/// Longest wait for the state machine to tell its state.
const PATIENCE: Duration = Duration::from_secs(10);

/// The options of the node at `place`: small limits, so that a short run reaches them.
pub(super) fn options(args: &StuckChildArgs) -> Result<NodeOptions, BenchError> {
    let id = |place: usize| NodeId(place as u64 + 1);
    let cluster = ClusterId(*b"duraft-stuck....");
    let mut options = NodeOptions::in_dir(id(args.place), cluster, &args.dir)?;
    options.core.seed = args.seed + args.place as u64;
    restrict(&mut options, SNAPSHOT_LOG_BYTES);
    // Let everything through to the limits of the core: they are what is looked at here.
    options.commands_max = 1 << 15;
    options.command_bytes_max = 32 << 20;
    options.batches_in_flight_max = 1024;
    options.propose_timeout = Some(Duration::from_secs(5));
    let peers = args.addresses.iter().cloned().enumerate();
    let peers = peers.map(|(place, address)| (id(place), address)).collect();
    options.network = Network::Tcp {
        listen: args.addresses[args.place].clone(),
        options: TcpOptions::new(peers),
    };
    Ok(options)
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Cluster(error.to_string())
}

/// Serves until standard input ends.
pub(crate) fn run(args: &StuckChildArgs) -> Result<ExitCode, BenchError> {
    if args.place >= args.addresses.len() {
        let text = format!("no address was given for the node at place {}", args.place);
        return Err(failed(text));
    }
    let mut options = options(args)?;
    let voters = (1..=args.addresses.len() as u64).map(NodeId);
    let membership = Membership::new(voters, []).map_err(failed)?;
    Node::bootstrap(&options, &membership).map_err(failed)?;
    let gate = Gate::default();
    options.disk = Arc::new(StallDisk::new(Arc::clone(&options.disk), gate.clone()));
    let machine = Digest::default();
    let barrier = machine.barrier.clone();
    let node = Node::start(options, Box::new(machine)).map_err(failed)?;
    let clients = Arc::new(Clients::default());
    let proposing = (Arc::clone(&clients), node.clone());
    let (seed, value_bytes) = (args.seed ^ (args.place as u64) << 32, args.value_bytes);
    std::thread::spawn(move || proposing.0.run(&proposing.1, seed, value_bytes));
    say(&Report::Ready)?;
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line.map_err(failed)?).map_err(failed)?;
        match order {
            Order::Load { outstanding } => clients.wanted.store(outstanding, Ordering::Relaxed),
            Order::Quiet => clients.wanted.store(0, Ordering::Relaxed),
            Order::Stick(Part::Disk) => {
                gate.close(&[DiskOp::Write, DiskOp::SyncData, DiskOp::SyncAll]);
            }
            Order::Stick(Part::StateMachine) => barrier.set_closed(true),
            // The parent stops the process itself.
            Order::Stick(Part::Follower) => {}
            Order::Release => {
                gate.open();
                barrier.set_closed(false);
            }
            Order::Tell { digest } => {
                let digest = digest.then(|| digest_of(&node)).flatten();
                let state = state(&node, &clients, &gate, digest);
                say(&Report::State(Box::new(state)))?;
            }
        }
    }
    gate.open();
    barrier.set_closed(false);
    node.shutdown();
    Ok(ExitCode::SUCCESS)
}

fn digest_of(node: &Node) -> Option<(u64, u64)> {
    let read = node.read_stale_wait(PATIENCE, |machine: &Digest| machine.state);
    read.ok()
}

fn state(node: &Node, clients: &Clients, gate: &Gate, digest: Option<(u64, u64)>) -> State {
    let status = node.status();
    State {
        leads: status.role == RoleKind::Leader,
        leader: status.leader.map(|id| id.0),
        term: status.term.0,
        commit: status.commit.0,
        applied: status.applied.0,
        durable: status.durable.0,
        last: status.last.index.0,
        commands_waiting: status.commands_waiting,
        command_bytes_waiting: status.command_bytes_waiting,
        answers: clients.answers.lock().clone(),
        stuck_operations: gate.waiting(),
        digest,
        stopped: status.stopped.map(|reason| reason.to_string()),
    }
}

/// What a child says goes to the parent, which reads its standard output.
fn say(report: &Report) -> Result<(), BenchError> {
    let line = serde_json::to_string(report).map_err(failed)?;
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(failed)
}
