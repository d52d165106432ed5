//! One node in a process of its own, serving registers over its standard input and output.

use super::machine::{Registers, encode};
use super::words::{Answer, Op, Order, Report, Request, Seen, State};
use crate::bench::BenchError;
use clap::{Args, ValueEnum};
use duraft::{
    ClusterId, Events, EventsError, Network, Node, NodeEvent, NodeId, NodeOptions, Outcome,
    ReadBasis, RequestError, Responder, RoleKind, TcpOptions,
};
use duraft_core::Membership;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// What the parent tells its child.
#[derive(Args, Clone)]
pub(crate) struct TortureChildArgs {
    #[arg(long)]
    pub(super) place: usize,
    #[arg(long)]
    pub(super) dir: PathBuf,
    /// Where this node listens.
    #[arg(long)]
    pub(super) listen: String,
    /// How this node reaches each node, by place.
    #[arg(long, value_delimiter = ',')]
    pub(super) peers: Vec<String>,
    #[arg(long)]
    pub(super) seed: u64,
    #[arg(long, value_enum)]
    pub(super) plant: Option<Plant>,
    /// Small slots, and a snapshot whenever so many bytes were applied. Without it the whole log stays.
    #[arg(long)]
    pub(super) snapshot_log_bytes: Option<u64>,
}

/// A way in which the service is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Plant {
    /// Reads show what the node has applied, without asking anybody.
    StaleReads,
    /// One write in a hundred is acknowledged and never proposed.
    ForgottenWrites,
    /// Snapshots leave out the first register, and what was applied. Needs --snapshots.
    ForgottenState,
}

impl Plant {
    /// The argument that plants it in a child.
    pub(super) fn flag(self) -> String {
        match self {
            Plant::StaleReads => "--plant=stale-reads".into(),
            Plant::ForgottenWrites => "--plant=forgotten-writes".into(),
            Plant::ForgottenState => "--plant=forgotten-state".into(),
        }
    }
}

/// Time in which an operation must end, one way or another.
const PATIENCE: Duration = Duration::from_secs(2);
/// A forgotten write is one whose number this divides.
const FORGOTTEN: u64 = 100;

pub(super) const CLUSTER: ClusterId = ClusterId(*b"duraft-torture..");

/// Nodes are counted from 0 here and named from 1.
pub(super) fn node_id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

/// The folder of one node.
pub(super) fn folder(dir: &Path, place: usize) -> PathBuf {
    dir.join(format!("node-{}", place + 1))
}

/// The largest batch of a store, small where its slots are.
pub(super) fn max_batch_bytes(snapshots: bool) -> u32 {
    if snapshots { 4096 } else { 1 << 20 }
}

fn options(args: &TortureChildArgs) -> Result<NodeOptions, BenchError> {
    let mut options = NodeOptions::in_dir(node_id(args.place), CLUSTER, &args.dir)?;
    options.core.seed = args.seed + args.place as u64;
    options.core.max_batch_bytes = max_batch_bytes(args.snapshot_log_bytes.is_some());
    options.wal.slot_bytes = 4 << 20;
    options.wal.slots_ready_min = 1;
    // Where it stays, every acknowledged write can be looked up in it.
    options.snapshot_log_bytes = args.snapshot_log_bytes;
    if let Some(bytes) = args.snapshot_log_bytes {
        options.core.append_bytes_max = u64::from(options.core.max_batch_bytes);
        options.core.trailing_bytes_max = bytes;
        options.wal.slot_bytes = 64 << 10;
    }
    options.propose_timeout = Some(PATIENCE);
    let peers = args.peers.iter().cloned().enumerate();
    let peers = peers.map(|(place, address)| (node_id(place), address));
    options.network = Network::Tcp {
        listen: args.listen.clone(),
        options: TcpOptions::new(peers.collect()),
    };
    Ok(options)
}

/// Makes the store of one node.
pub(super) fn bootstrap(args: &TortureChildArgs) -> Result<(), BenchError> {
    let voters = (0..args.peers.len()).map(node_id);
    let membership = Membership::new(voters, []).map_err(BenchError::cluster)?;
    Node::bootstrap(&options(args)?, &membership).map_err(BenchError::cluster)
}

/// Serves until standard input ends.
pub(crate) fn run(args: &TortureChildArgs) -> Result<ExitCode, BenchError> {
    let forgets = args.plant == Some(Plant::ForgottenState);
    let machine = Box::new(Registers::new(forgets));
    let node = Node::start(options(args)?, machine).map_err(BenchError::cluster)?;
    let (reports, outgoing) = channel();
    std::thread::spawn(move || write_out(outgoing));
    // Nobody reads any more once the parent is gone: then there is nothing left to do.
    let _ = reports.send(Report::Ready);
    let (events, hears) = (node.subscribe_from(0), reports.clone());
    std::thread::spawn(move || tell_snapshots(events, &hears));
    for line in io::stdin().lock().lines() {
        let line = line.map_err(BenchError::cluster)?;
        match serde_json::from_str(&line).map_err(BenchError::cluster)? {
            Order::Do(request) => serve(&node, args.plant, request, &reports),
            Order::Tell => {
                let _ = reports.send(Report::State(state(&node)));
            }
        }
    }
    node.shutdown();
    Ok(ExitCode::SUCCESS)
}

fn serve(node: &Node, plant: Option<Plant>, request: Request, reports: &Sender<Report>) {
    let reports = reports.clone();
    let id = request.id;
    if request.op == Op::Get {
        let (node, stale) = (node.clone(), plant == Some(Plant::StaleReads));
        // Few are under way at once.
        std::thread::spawn(move || {
            let _ = reports.send(Report::Answer(id, read(&node, request.key, stale)));
        });
        return;
    }
    if plant == Some(Plant::ForgottenWrites)
        && id.number.is_multiple_of(FORGOTTEN)
        && matches!(request.op, Op::Put { .. })
    {
        let _ = reports.send(Report::Answer(id, Answer::Done(Seen::Written)));
        return;
    }
    let responder = Responder::call(move |outcome: Outcome| {
        let answer = match outcome {
            Ok(applied) => match serde_json::from_slice(&applied.response) {
                Ok(Some(seen)) => Answer::Done(seen),
                Ok(None) | Err(_) => Answer::Unknown,
            },
            Err(error) => answer_of(&error),
        };
        let _ = reports.send(Report::Answer(id, answer));
    });
    node.submit(encode(&request), responder);
}

fn read(node: &Node, key: u32, stale: bool) -> Answer {
    let look = move |registers: &Registers| registers.value(key);
    let seen = if stale {
        node.read_stale_wait(PATIENCE, look)
    } else {
        node.read_wait(ReadBasis::Quorum, PATIENCE, look)
    };
    match seen {
        Ok(value) => Answer::Done(Seen::Value(value)),
        Err(error) => answer_of(&error),
    }
}

/// Until the node or the parent is gone.
fn tell_snapshots(mut events: Events, reports: &Sender<Report>) {
    loop {
        let installed = match events.next_wait(PATIENCE).map(|next| next.event) {
            Ok(NodeEvent::SnapshotInstalled { .. }) => true,
            Ok(NodeEvent::SnapshotDurable { .. }) => false,
            Ok(_) | Err(EventsError::TimedOut | EventsError::Lagged { .. }) => continue,
            Err(EventsError::Closed) => return,
        };
        if reports.send(Report::Snapshot { installed }).is_err() {
            return;
        }
    }
}

fn answer_of(error: &RequestError) -> Answer {
    match error {
        RequestError::Busy { .. } => Answer::Refused { leader: None },
        RequestError::Rejected { leader, .. } => Answer::Refused {
            leader: leader.map(|id| id.0),
        },
        // Unknown, or a kind that a later version adds: nothing may be concluded.
        RequestError::OutcomeUnknown { .. } | _ => Answer::Unknown,
    }
}

fn state(node: &Node) -> State {
    let status = node.status();
    State {
        leads: status.role == RoleKind::Leader,
        term: status.term.0,
        commit: status.commit.0,
        applied: status.applied.0,
        last: status.last.index.0,
        stopped: status.stopped.map(|reason| reason.to_string()),
    }
}

fn write_out(reports: Receiver<Report>) {
    let mut out = io::stdout().lock();
    for report in reports {
        let Ok(line) = serde_json::to_string(&report) else {
            return;
        };
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
