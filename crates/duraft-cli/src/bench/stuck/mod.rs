//! `duraft bench stuck`: three nodes under more load than they have room for, one part of which
//! sticks for a while. What they take of memory must stay within a bound that follows from their
//! limits, whatever waits for the part; and when it is released everybody must go on.

mod child;
mod machine;
mod report;
mod words;

pub(crate) use child::{StuckChildArgs, run as run_child};
pub(crate) use words::Part;

use super::args::{LoadArgs, StuckArgs, Whose};
use super::error::BenchError;
use super::folder::Folder;
use super::limits::memory_of;
use super::memory::Memory;
use crate::ports::ReservedPorts;
use crate::process::{Process, Said};
use report::{NodeReport, Outcome, Report};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use words::{DONE, Order, Report as Word, State};

const NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Load before the part sticks, and after it is released.
const AROUND: Duration = Duration::from_secs(2);
/// Commands offered at once: with the smallest values that are allowed, more than a node admits.
const CLIENTS: u32 = 1 << 16;
/// What the program takes besides its node: code, stacks, buffers of its connections, commands that
/// are refused.
const PROGRAM_BYTES: u64 = 32 << 20;

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Cluster(error.to_string())
}

/// Runs the benchmark.
pub(crate) fn run(load: &LoadArgs, args: &StuckArgs) -> Result<ExitCode, BenchError> {
    let folder = Folder::prepare(load.dir.as_deref())?;
    let facts = super::facts(folder.path())?;
    let mut cluster = Cluster::start(load, folder.path())?;
    let mut outcome = Outcome::default();
    let bound = cluster.bound;
    cluster.look_for(AROUND, None)?;
    let sticks = cluster.choose(args)?;
    outcome.before = cluster.acknowledged();
    for node in &mut cluster.nodes {
        node.before = node.memory.now;
    }
    cluster.stick(sticks, args.part)?;
    let stopped = (args.part == Part::Follower).then_some(sticks);
    cluster.look_for(Duration::from_secs(load.seconds), stopped)?;
    outcome.during = cluster.acknowledged() - outcome.before;
    outcome.refused = cluster.refused();
    cluster.release(sticks, args.part)?;
    let released = Instant::now();
    let at_release = cluster.acknowledged();
    while cluster.acknowledged() == at_release && released.elapsed() < PATIENCE {
        cluster.look_for(LOOK, None)?;
    }
    cluster.look_for(AROUND, None)?;
    outcome.after = cluster.acknowledged() - at_release;
    outcome.agreed = cluster.agree()?;
    let nodes = cluster.nodes.iter().map(|node| NodeReport {
        stuck: node.place == sticks,
        before_bytes: node.before,
        peak_bytes: node.memory.peak,
        most_command_bytes_waiting: node.most_bytes,
        most_commands_waiting: node.most_commands,
        furthest_apart: node.furthest_apart,
        answers: node.state.answers.clone(),
        stopped: node.state.stopped.clone(),
    });
    let report = Report::new(facts, load, args, bound, nodes.collect(), outcome);
    report.publish(load)?;
    drop(cluster);
    if report.passed() {
        return Ok(ExitCode::SUCCESS);
    }
    folder.keep();
    Ok(ExitCode::from(1))
}

struct Running {
    place: usize,
    process: Process,
    words: Receiver<Word>,
    /// What it last said of itself.
    state: State,
    memory: Memory,
    before: u64,
    most_commands: usize,
    most_bytes: usize,
    /// Most entries between the end of its log and what it has applied.
    furthest_apart: u64,
}

struct Cluster {
    nodes: Vec<Running>,
    clients: u32,
    bound: u64,
    /// Nodes take their ports when they start.
    _ports: ReservedPorts,
}

impl Cluster {
    fn start(load: &LoadArgs, dir: &Path) -> Result<Cluster, BenchError> {
        let ports = ReservedPorts::new(NODES).map_err(failed)?;
        let args = |place: usize| StuckChildArgs {
            place,
            dir: dir.join(format!("node-{}", place + 1)),
            addresses: ports.addresses().to_vec(),
            seed: load.seed,
            value_bytes: load.value_bytes as usize,
        };
        let bound = PROGRAM_BYTES + memory_of(&child::options(&args(0))?, NODES as u64);
        let nodes = (0..NODES).map(|place| Running::start(&args(place)));
        Ok(Cluster {
            nodes: nodes.collect::<Result<_, _>>()?,
            clients: load.clients.unwrap_or(CLIENTS),
            bound,
            _ports: ports,
        })
    }

    /// Samples all nodes for a while and keeps the load at the leader. `stopped` cannot be asked.
    fn look_for(&mut self, time: Duration, stopped: Option<usize>) -> Result<(), BenchError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for node in &mut self.nodes {
                if Some(node.place) != stopped {
                    node.ask(false)?;
                }
                node.sample()?;
            }
            self.direct(stopped)?;
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }

    /// Clients go where the leader of the latest term is.
    fn direct(&mut self, stopped: Option<usize>) -> Result<(), BenchError> {
        let leader = self.leader();
        for node in &mut self.nodes {
            let order = if Some(node.place) == leader {
                Order::Load {
                    outstanding: self.clients,
                }
            } else {
                Order::Quiet
            };
            if Some(node.place) != stopped {
                node.tell(order)?;
            }
        }
        Ok(())
    }

    fn leader(&self) -> Option<usize> {
        let leads = self.nodes.iter().filter(|node| node.state.leads);
        let latest = leads.max_by_key(|node| node.state.term);
        latest.map(|node| node.place)
    }

    /// The node whose part sticks.
    fn choose(&mut self, args: &StuckArgs) -> Result<usize, BenchError> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(leader) = self.leader()
                && self.acknowledged() > 0
            {
                let follower = args.part == Part::Follower || args.on == Whose::Follower;
                return Ok((leader + usize::from(follower)) % NODES);
            }
            self.look_for(LOOK, None)?;
        }
        Err(BenchError::Deadline {
            what: "an election",
            seconds: PATIENCE.as_secs(),
        })
    }

    fn stick(&mut self, place: usize, part: Part) -> Result<(), BenchError> {
        match part {
            Part::Follower => self.nodes[place].process.pause().map_err(failed),
            Part::Disk | Part::StateMachine => self.nodes[place].tell(Order::Stick(part)),
        }
    }

    fn release(&mut self, place: usize, part: Part) -> Result<(), BenchError> {
        match part {
            Part::Follower => self.nodes[place].process.resume().map_err(failed),
            Part::Disk | Part::StateMachine => self.nodes[place].tell(Order::Release),
        }
    }

    fn acknowledged(&self) -> u64 {
        let done = |node: &Running| node.state.answers.get(DONE).copied().unwrap_or(0);
        self.nodes.iter().map(done).sum()
    }

    /// Answers that a limit gave.
    fn refused(&self) -> u64 {
        let answers = self.nodes.iter().flat_map(|node| &node.state.answers);
        let busy = answers.filter(|(name, _)| name.starts_with("busy"));
        busy.map(|(_, count)| count).sum()
    }

    /// Without load, do all nodes come to the same state?
    fn agree(&mut self) -> Result<bool, BenchError> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            for node in &mut self.nodes {
                node.tell(Order::Quiet)?;
                node.ask(true)?;
                node.sample()?;
            }
            let leader = self.leader().map(|place| &self.nodes[place].state);
            let agreed = leader.is_some_and(|leader| {
                let same = |node: &Running| {
                    node.state.applied == leader.last && node.state.digest == leader.digest
                };
                leader.digest.is_some() && self.nodes.iter().all(same)
            });
            if agreed {
                return Ok(true);
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(false)
    }
}

impl Running {
    fn start(args: &StuckChildArgs) -> Result<Running, BenchError> {
        let broken = |source| BenchError::Child {
            node: args.place as u64 + 1,
            source,
        };
        let arguments = [
            String::from("bench-stuck-node"),
            format!("--place={}", args.place),
            format!("--dir={}", args.dir.display()),
            format!("--addresses={}", args.addresses.join(",")),
            format!("--seed={}", args.seed),
            format!("--value-bytes={}", args.value_bytes),
        ];
        let (heard, words) = channel();
        let process = Process::start(&arguments, move |said| {
            if let Said::Line(line) = said
                && let Ok(word) = serde_json::from_str(&line)
            {
                // The receiver is there until the process is gone.
                let _ = heard.send(word);
            }
        });
        let running = Running {
            place: args.place,
            process: process.map_err(broken)?,
            words,
            state: State::default(),
            memory: Memory { now: 0, peak: 0 },
            before: 0,
            most_commands: 0,
            most_bytes: 0,
            furthest_apart: 0,
        };
        match running.words.recv_timeout(PATIENCE) {
            Ok(Word::Ready) => Ok(running),
            Ok(Word::State(_)) | Err(_) => Err(broken(std::io::Error::other(
                "it ended before it was ready",
            ))),
        }
    }

    fn tell(&mut self, order: Order) -> Result<(), BenchError> {
        let line = serde_json::to_string(&order).map_err(failed)?;
        self.process.say(&line).map_err(|source| BenchError::Child {
            node: self.place as u64 + 1,
            source,
        })
    }

    fn ask(&mut self, digest: bool) -> Result<(), BenchError> {
        self.tell(Order::Tell { digest })?;
        let Ok(Word::State(state)) = self.words.recv_timeout(PATIENCE) else {
            return Err(BenchError::Deadline {
                what: "a child's answer",
                seconds: PATIENCE.as_secs(),
            });
        };
        self.most_commands = self.most_commands.max(state.commands_waiting);
        self.most_bytes = self.most_bytes.max(state.command_bytes_waiting);
        let apart = state.last.saturating_sub(state.applied);
        self.furthest_apart = self.furthest_apart.max(apart);
        self.state = *state;
        Ok(())
    }

    fn sample(&mut self) -> Result<(), BenchError> {
        self.memory = Memory::of(&self.process.id().to_string())?;
        Ok(())
    }
}
