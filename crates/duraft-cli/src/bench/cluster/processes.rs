//! Three nodes in three child processes, spoken to over pipes.

use super::child::ChildArgs;
use super::command::CommandId;
use super::load::{Answer, Cluster, Counters, Outcome};
use super::protocol::{Order, Report, flush};
use super::setup::{NODES, Setup};
use crate::bench::error::BenchError;
use crate::bench::stages::StageCounts;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io::{self, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for a child to start or to answer a question.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module documentation.
pub(crate) struct Processes {
    setup: Setup,
    children: Vec<Option<Running>>,
    answers: Sender<Answer>,
}

struct Running {
    child: Child,
    orders: ChildStdin,
    queued: Vec<u8>,
    pending: Arc<Mutex<Pending>>,
    counters: Receiver<Counters>,
    stages: Receiver<StageCounts>,
    reader: JoinHandle<()>,
}

/// Commands that the child has not answered.
#[derive(Default)]
struct Pending {
    commands: BTreeSet<CommandId>,
    /// The child's output has ended: nothing will be answered any more.
    ended: bool,
}

impl Processes {
    /// Makes the stores and starts the children.
    pub(crate) fn start(setup: Setup, answers: Sender<Answer>) -> Result<Processes, BenchError> {
        for node in 0..NODES {
            setup.bootstrap(node)?;
        }
        let children = (0..NODES)
            .map(|node| Running::start(&setup, node, &answers).map(Some))
            .collect::<Result<_, _>>()?;
        Ok(Processes {
            setup,
            children,
            answers,
        })
    }
}

impl Running {
    fn start(setup: &Setup, node: usize, answers: &Sender<Answer>) -> Result<Running, BenchError> {
        let failed = |source| BenchError::Child {
            node: node as u64 + 1,
            source,
        };
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("bench-node")
            .args(ChildArgs::of(setup, node))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(orders), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::Error::other("its pipes are missing")));
        };
        let pending = Arc::new(Mutex::new(Pending::default()));
        let (ready_to, ready) = channel();
        let (counters_to, counters) = channel();
        let (stages_to, stages) = channel();
        let listener = Listener {
            pending: Arc::clone(&pending),
            answers: answers.clone(),
            ready: ready_to,
            counters: counters_to,
            stages: stages_to,
        };
        let reader = std::thread::spawn(move || listener.listen(output));
        let running = Running {
            child,
            orders,
            queued: Vec::new(),
            pending,
            counters,
            stages,
            reader,
        };
        match ready.recv_timeout(PATIENCE) {
            Ok(()) => Ok(running),
            Err(RecvTimeoutError::Disconnected) => {
                running.kill(node)?;
                Err(failed(io::Error::other("it ended before it was ready")))
            }
            Err(RecvTimeoutError::Timeout) => {
                running.kill(node)?;
                Err(BenchError::Deadline {
                    what: "a child's start",
                    seconds: PATIENCE.as_secs(),
                })
            }
        }
    }

    /// SIGKILL, then waits until the process and its pipe are gone.
    fn kill(mut self, node: usize) -> Result<(), BenchError> {
        let failed = |source| BenchError::Child {
            node: node as u64 + 1,
            source,
        };
        self.child.kill().map_err(failed)?;
        self.child.wait().map_err(failed)?;
        self.reader
            .join()
            .map_err(|_| failed(io::Error::other("its reader thread panicked")))
    }
}

/// Reads what a child says until it says no more.
struct Listener {
    pending: Arc<Mutex<Pending>>,
    answers: Sender<Answer>,
    ready: Sender<()>,
    counters: Sender<Counters>,
    stages: Sender<StageCounts>,
}

impl Listener {
    // A channel whose other end is gone belongs to a run that has already failed.
    fn listen(self, output: ChildStdout) {
        let mut output = BufReader::new(output);
        let mut stages = StageCounts::default();
        while let Ok(Some(report)) = Report::read(&mut output) {
            match report {
                Report::Ready => {
                    let _ = self.ready.send(());
                }
                Report::Answer(answer) => {
                    if self.pending.lock().commands.remove(&answer.id) {
                        let _ = self.answers.send(answer);
                    }
                }
                Report::Counters(counters) => {
                    let _ = self.counters.send(counters);
                }
                Report::Stage { place, end, count } => stages.add(place, end, count),
                Report::StagesEnd => {
                    let _ = self.stages.send(std::mem::take(&mut stages));
                }
            }
        }
        let mut pending = self.pending.lock();
        pending.ended = true;
        for id in std::mem::take(&mut pending.commands) {
            let _ = self.answers.send(Answer {
                id,
                outcome: Outcome::Unknown,
            });
        }
    }
}

impl Cluster for Processes {
    fn nodes(&self) -> usize {
        self.children.len()
    }

    fn submit(&mut self, node: usize, id: CommandId) {
        if let Some(running) = &mut self.children[node] {
            let mut pending = running.pending.lock();
            if !pending.ended {
                pending.commands.insert(id);
                Order::Submit(id).encode(&mut running.queued);
                return;
            }
        }
        // Nobody has seen the command, so it is certainly not done.
        let _ = self.answers.send(Answer {
            id,
            outcome: Outcome::Refused { leader: None },
        });
    }

    fn flush(&mut self) {
        for running in self.children.iter_mut().flatten() {
            if !running.queued.is_empty()
                && flush(&mut running.orders, &mut running.queued).is_err()
            {
                // The child is gone; its reader answers for everything that was sent.
                running.queued.clear();
            }
        }
    }

    fn counters(&mut self, node: usize) -> Option<Counters> {
        let running = self.children[node].as_mut()?;
        Order::Count.encode(&mut running.queued);
        flush(&mut running.orders, &mut running.queued).ok()?;
        running.counters.recv_timeout(PATIENCE).ok()
    }

    fn stages(&mut self, node: usize) -> Option<StageCounts> {
        let running = self.children[node].as_mut()?;
        Order::Stages.encode(&mut running.queued);
        flush(&mut running.orders, &mut running.queued).ok()?;
        running.stages.recv_timeout(PATIENCE).ok()
    }

    fn kill(&mut self, node: usize) -> Result<(), BenchError> {
        match self.children[node].take() {
            Some(running) => running.kill(node),
            None => Ok(()),
        }
    }

    fn restart(&mut self, node: usize) -> Result<(), BenchError> {
        self.children[node] = Some(Running::start(&self.setup, node, &self.answers)?);
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for node in 0..self.children.len() {
            // Nothing is left to report to.
            let _ = self.kill(node);
        }
    }
}
