//! `duraft bench soak`: very many commands, and what they leave on the disk and in memory.
//!
//! Snapshots are taken as the log grows, and the log is compacted behind them, so the files and the
//! memory must stay within bounds that follow from the options and not from the number of commands.
//! At the end every node must hold exactly the commands that were acknowledged, and again after all
//! nodes were started anew from their files.

mod limits;
mod machine;
mod report;

use super::args::{LoadArgs, SoakArgs};
use super::error::BenchError;
use super::folder::Folder;
use super::memory::{Memory, files_below};
use crate::bench::limits::restrict;
use crate::ports::ReservedPorts;
use duraft::{
    ClusterId, Index, Membership, Network, Node, NodeId, NodeOptions, Outcome, RequestError,
    Responder, RoleKind, TcpOptions,
};
use limits::Limits;
use machine::{Registers, command};
use report::{Report, Sample};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: u32 = 1024;

/// Runs the benchmark.
pub(crate) fn run(load: &LoadArgs, args: &SoakArgs) -> Result<ExitCode, BenchError> {
    let folder = Folder::prepare(load.dir.as_deref())?;
    let facts = super::facts(folder.path())?;
    let mut soak = Soak::begin(load, args, folder.path())?;
    let mut report = Report::new(facts, args, load, soak.limits);
    report.begin();
    let begun = Instant::now();
    for line in 1..=u64::from(args.lines) {
        soak.submit_until(args.commands * line / u64::from(args.lines))?;
        report.sample(soak.sample(begun)?);
    }
    report.wrong_before = soak.nodes_that_differ()?;
    let restarted = Instant::now();
    soak.restart()?;
    report.wrong_after = soak.nodes_that_differ()?;
    report.restart_ms = u64::try_from(restarted.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.sample(soak.sample(begun)?);
    for node in soak.nodes {
        node.shutdown();
    }
    report.publish(load)?;
    if report.passed() {
        return Ok(ExitCode::SUCCESS);
    }
    folder.keep();
    Ok(ExitCode::from(1))
}

struct Soak {
    dir: PathBuf,
    ports: ReservedPorts,
    seed: u64,
    snapshot_log_bytes: u64,
    value_bytes: usize,
    window: u64,
    limits: Limits,
    nodes: Vec<Node>,
    leader: usize,
    expected: Registers,
    submitted: u64,
    answered: u64,
    answers_to: Sender<(u64, Outcome)>,
    answers: Receiver<(u64, Outcome)>,
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Cluster(error.to_string())
}

impl Soak {
    fn begin(load: &LoadArgs, args: &SoakArgs, dir: &Path) -> Result<Soak, BenchError> {
        let ports = ReservedPorts::new(args.nodes.into()).map_err(failed)?;
        let (answers_to, answers) = channel();
        let mut soak = Soak {
            dir: dir.to_path_buf(),
            ports,
            seed: load.seed,
            snapshot_log_bytes: args.snapshot_log_bytes,
            value_bytes: load.value_bytes as usize,
            window: load.clients.unwrap_or(CLIENTS).into(),
            limits: Limits::default(),
            nodes: Vec::new(),
            leader: 0,
            expected: Registers::new(),
            submitted: 0,
            answered: 0,
            answers_to,
            answers,
        };
        let nodes = u64::from(args.nodes);
        soak.limits = Limits::of(&soak.options(0)?, nodes);
        let membership = Membership::new((1..=nodes).map(NodeId), []).map_err(failed)?;
        for place in 0..soak.ports.addresses().len() {
            Node::bootstrap(&soak.options(place)?, &membership).map_err(failed)?;
        }
        soak.start()?;
        Ok(soak)
    }

    fn folder(&self, place: usize) -> PathBuf {
        self.dir.join(format!("node-{}", place + 1))
    }

    fn options(&self, place: usize) -> Result<NodeOptions, BenchError> {
        let id = |place: usize| NodeId(place as u64 + 1);
        let cluster = ClusterId(*b"duraft-soak.....");
        let mut options = NodeOptions::in_dir(id(place), cluster, self.folder(place))?;
        options.core.seed = self.seed + place as u64;
        restrict(&mut options, self.snapshot_log_bytes);
        if self.ports.addresses().len() > 1 {
            let peers: BTreeMap<_, _> = (0..self.ports.addresses().len())
                .map(|place| (id(place), self.ports.addresses()[place].clone()))
                .collect();
            options.network = Network::Tcp {
                listen: self.ports.addresses()[place].clone(),
                options: TcpOptions::new(peers),
            };
        }
        Ok(options)
    }

    fn start(&mut self) -> Result<(), BenchError> {
        for place in 0..self.ports.addresses().len() {
            let machine = Box::new(Registers::new());
            let node = Node::start(self.options(place)?, machine).map_err(failed)?;
            self.nodes.push(node);
        }
        self.find_leader()
    }

    fn restart(&mut self) -> Result<(), BenchError> {
        for node in self.nodes.drain(..) {
            node.shutdown();
        }
        self.start()
    }

    /// Waits until somebody leads whom everybody knows.
    fn find_leader(&mut self) -> Result<(), BenchError> {
        let known = self.nodes[0].wait_for(PATIENCE, |status| status.leader.is_some());
        let leader = known.and_then(|status| status.leader);
        let place = leader.and_then(|id| usize::try_from(id.0.checked_sub(1)?).ok());
        let deadline = BenchError::Deadline {
            what: "an election",
            seconds: PATIENCE.as_secs(),
        };
        self.leader = place.ok_or(deadline)?;
        let leads = |status: &duraft::Status| status.role == RoleKind::Leader;
        // Where it has lost leadership meanwhile, its refusals bring us here again.
        let _ = self.nodes[self.leader].wait_for(Duration::from_secs(1), leads);
        Ok(())
    }

    /// Proposes commands up to this number, a window of them at a time, and waits for all of them.
    fn submit_until(&mut self, number: u64) -> Result<(), BenchError> {
        while self.answered < number {
            while self.submitted < number && self.submitted - self.answered < self.window {
                self.submit(self.submitted);
                self.submitted += 1;
            }
            let answer = self.answers.recv_timeout(PATIENCE);
            let (answered, outcome) = answer.map_err(|_| BenchError::Deadline {
                what: "an answer",
                seconds: PATIENCE.as_secs(),
            })?;
            match outcome {
                Ok(_) => {
                    self.expected.take(answered);
                    self.answered += 1;
                }
                Err(RequestError::Busy { .. }) => self.submit(answered),
                Err(RequestError::Rejected { .. }) => {
                    self.find_leader()?;
                    self.submit(answered);
                }
                // Nothing crashes here, and a command that may be there twice could not be told.
                Err(error) => return Err(failed(format!("command {answered}: {error}"))),
            }
        }
        Ok(())
    }

    fn submit(&self, number: u64) {
        let answers = self.answers_to.clone();
        // The receiver outlives the nodes but for a run that has failed.
        let responder = Responder::call(move |outcome| {
            let _ = answers.send((number, outcome));
        });
        self.nodes[self.leader].submit(command(number, self.value_bytes), responder);
    }

    /// Nodes whose state is not exactly what was acknowledged.
    fn nodes_that_differ(&self) -> Result<u64, BenchError> {
        let last = self.nodes[self.leader]
            .read_wait(duraft::ReadBasis::Quorum, PATIENCE, |_: &Registers| ())
            .map(|()| self.nodes[self.leader].status().commit)
            .map_err(failed)?;
        let mut differ = 0;
        for node in &self.nodes {
            let applied = node.wait_for(PATIENCE, |status| status.applied >= last);
            let same = applied.is_some() && {
                let state = node.read_stale_wait(PATIENCE, |state: &Registers| state.clone());
                state.map_err(failed)? == self.expected
            };
            differ += u64::from(!same);
        }
        Ok(differ)
    }

    fn sample(&self, begun: Instant) -> Result<Sample, BenchError> {
        let mut sample = Sample {
            commands: self.answered,
            seconds: begun.elapsed().as_secs_f64(),
            memory_peak_bytes: Memory::of("self")?.peak,
            ..Sample::default()
        };
        for (place, node) in self.nodes.iter().enumerate() {
            let (slots, log_bytes) = files_below(&self.folder(place).join("wal"));
            let (_, snapshot_bytes) = files_below(&self.folder(place).join("snap"));
            let status = node.status();
            let upto = status
                .snapshot
                .map_or(Index(0), |snapshot| snapshot.upto.index);
            sample.slots = sample.slots.max(slots);
            sample.log_bytes = sample.log_bytes.max(log_bytes);
            sample.snapshot_bytes = sample.snapshot_bytes.max(snapshot_bytes);
            sample.written_bytes = sample.written_bytes.max(status.counters.bytes_written);
            sample.behind_snapshot = sample.behind_snapshot.max(status.last.index.0 - upto.0);
        }
        Ok(sample)
    }
}
