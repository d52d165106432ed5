//! The node processes, and the way of clients' requests to them and back.

use super::TortureArgs;
use super::child::{Plant, TortureChildArgs, bootstrap, folder};
use super::links::Links;
use super::words::{Answer, OpId, Order, Report, Request, State};
use crate::bench::BenchError;
use crate::ports::ReservedPorts;
use crate::process::{Process, Said};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Longest wait for a process to start or to answer a question.
const PATIENCE: Duration = Duration::from_secs(60);
/// Log bytes after which a node takes a snapshot, and that it keeps for others. A node that is away for
/// a second or two has missed more.
const SNAPSHOT_LOG_BYTES: u64 = 8 << 10;

/// See the module documentation. Shared by the clients and by who breaks things.
pub(super) struct Cluster {
    pub(super) links: Links,
    dir: PathBuf,
    ports: ReservedPorts,
    seed: u64,
    plant: Option<Plant>,
    snapshot_log_bytes: Option<u64>,
    nodes: Vec<Mutex<Option<Running>>>,
    snapshots: Arc<Mutex<Snapshots>>,
}

/// What the nodes said of their snapshots, over all lives.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Snapshots {
    /// Those that a node's log counts on, taken or installed.
    pub(super) durable: u64,
    /// Those that took the place of a node's state.
    pub(super) installed: u64,
}

struct Running {
    process: Process,
    waiting: Arc<Mutex<Waiting>>,
    states: Receiver<State>,
}

type Waiting = BTreeMap<OpId, Sender<Answer>>;

impl Cluster {
    /// Makes the stores and starts all nodes.
    pub(super) fn start(dir: &Path, args: &TortureArgs) -> Result<Cluster, BenchError> {
        let nodes = usize::from(args.nodes);
        let ports = ReservedPorts::new(nodes).map_err(BenchError::cluster)?;
        let cluster = Cluster {
            links: Links::between(ports.addresses()).map_err(BenchError::cluster)?,
            dir: dir.to_path_buf(),
            ports,
            seed: args.seed,
            plant: args.plant,
            snapshot_log_bytes: args.snapshots.then_some(SNAPSHOT_LOG_BYTES),
            snapshots: Arc::default(),
            nodes: (0..nodes).map(|_| Mutex::new(None)).collect(),
        };
        for place in 0..nodes {
            bootstrap(&cluster.args(place))?;
        }
        for place in 0..nodes {
            cluster.restart(place)?;
        }
        Ok(cluster)
    }

    pub(super) fn takes_snapshots(&self) -> bool {
        self.snapshot_log_bytes.is_some()
    }

    /// What became of snapshots, where the run has any.
    pub(super) fn snapshots(&self) -> Option<Snapshots> {
        self.takes_snapshots().then(|| *self.snapshots.lock())
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn args(&self, place: usize) -> TortureChildArgs {
        TortureChildArgs {
            place,
            dir: folder(&self.dir, place),
            listen: self.ports.addresses()[place].clone(),
            peers: self.links.seen_from(place),
            seed: self.seed,
            plant: self.plant,
            snapshot_log_bytes: self.snapshot_log_bytes,
        }
    }

    /// Starts a node that does not run.
    pub(super) fn restart(&self, place: usize) -> Result<(), BenchError> {
        let mut slot = self.nodes[place].lock();
        if slot.is_none() {
            let snapshots = Arc::clone(&self.snapshots);
            *slot = Some(Running::start(&self.args(place), snapshots)?);
        }
        Ok(())
    }

    /// SIGKILL. What it had not answered is unknown.
    pub(super) fn kill(&self, place: usize) -> Result<(), BenchError> {
        match self.nodes[place].lock().take() {
            Some(running) => running.process.kill().map_err(|e| broken(place, e)),
            None => Ok(()),
        }
    }

    /// SIGKILL to all, at nearly the same moment.
    pub(super) fn kill_all(&self) -> Result<(), BenchError> {
        let taken: Vec<Option<Running>> = self.nodes.iter().map(|n| n.lock().take()).collect();
        for running in taken.iter().flatten() {
            // Stopped first, so that none outlives another for long.
            running.process.pause().map_err(BenchError::cluster)?;
        }
        for running in taken.into_iter().flatten() {
            running.process.kill().map_err(BenchError::cluster)?;
        }
        Ok(())
    }

    pub(super) fn pause(&self, place: usize) -> Result<(), BenchError> {
        self.on_process(place, Process::pause)
    }

    pub(super) fn resume(&self, place: usize) -> Result<(), BenchError> {
        self.on_process(place, Process::resume)
    }

    fn on_process(
        &self,
        place: usize,
        act: fn(&Process) -> io::Result<()>,
    ) -> Result<(), BenchError> {
        match &*self.nodes[place].lock() {
            Some(running) => act(&running.process).map_err(|e| broken(place, e)),
            None => Ok(()),
        }
    }

    /// Asks a node for an operation; `None` where it certainly does not hear of it. Who waits hears
    /// that nothing comes any more when the process ends.
    pub(super) fn ask(&self, place: usize, request: Request) -> Option<Receiver<Answer>> {
        let mut slot = self.nodes[place].lock();
        let running = slot.as_mut()?;
        let (answered, answer) = channel();
        running.waiting.lock().insert(request.id, answered);
        if running.say(Order::Do(request)).is_err() {
            // It may have heard: it is ending, and nobody will answer.
            running.waiting.lock().remove(&request.id);
        }
        Some(answer)
    }

    /// Nobody waits for this any more.
    pub(super) fn forget(&self, place: usize, id: OpId) {
        if let Some(running) = &*self.nodes[place].lock() {
            running.waiting.lock().remove(&id);
        }
    }

    /// What a node that runs says of itself.
    pub(super) fn state(&self, place: usize) -> Result<Option<State>, BenchError> {
        let mut slot = self.nodes[place].lock();
        let Some(running) = slot.as_mut() else {
            return Ok(None);
        };
        running.say(Order::Tell).map_err(|e| broken(place, e))?;
        let told = running.states.recv_timeout(PATIENCE);
        told.map(Some).map_err(|_| BenchError::Deadline {
            what: "a node's answer",
            seconds: PATIENCE.as_secs(),
        })
    }
}

fn broken(place: usize, source: io::Error) -> BenchError {
    BenchError::Child {
        node: place as u64 + 1,
        source,
    }
}

impl Running {
    fn start(
        args: &TortureChildArgs,
        counts: Arc<Mutex<Snapshots>>,
    ) -> Result<Running, BenchError> {
        let mut arguments = vec![
            String::from("torture-node"),
            format!("--place={}", args.place),
            format!("--dir={}", args.dir.display()),
            format!("--listen={}", args.listen),
            format!("--peers={}", args.peers.join(",")),
            format!("--seed={}", args.seed),
        ];
        arguments.extend(args.plant.map(Plant::flag));
        let bytes = args.snapshot_log_bytes;
        arguments.extend(bytes.map(|bytes| format!("--snapshot-log-bytes={bytes}")));
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let hears = Arc::clone(&waiting);
        let (ready_to, ready) = channel();
        let (states_to, states) = channel();
        let process = Process::start(&arguments, move |said| match said {
            // Channels whose other end is gone belong to a run that is over.
            Said::Line(line) => match serde_json::from_str(&line) {
                Ok(Report::Ready) => drop(ready_to.send(())),
                Ok(Report::State(state)) => drop(states_to.send(state)),
                Ok(Report::Snapshot { installed }) => {
                    let mut counts = counts.lock();
                    if installed {
                        counts.installed += 1;
                    } else {
                        counts.durable += 1;
                    }
                }
                Ok(Report::Answer(id, answer)) => {
                    if let Some(waits) = hears.lock().remove(&id) {
                        let _ = waits.send(answer);
                    }
                }
                Err(_) => {}
            },
            Said::End => hears.lock().clear(),
        });
        let process = process.map_err(|e| broken(args.place, e))?;
        let running = Running {
            process,
            waiting,
            states,
        };
        let started = ready.recv_timeout(PATIENCE);
        started.map_err(|_| broken(args.place, io::Error::other("it did not start")))?;
        Ok(running)
    }

    fn say(&mut self, order: Order) -> io::Result<()> {
        self.process.say(&serde_json::to_string(&order)?)
    }
}
