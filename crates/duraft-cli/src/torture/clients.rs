//! Clients: each has one operation under way, takes what it is told for true, and asks again under
//! another number.

use super::cluster::Cluster;
use super::history::Event;
use super::words::{Answer, Op, OpId, Request};
use duraft_core::mix64;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for an answer; what takes longer is unknown.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest pause between two operations of a client.
const PAUSE_MICROS_MAX: u64 = 4000;
/// Pause after an operation that came to nothing.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// All clients, until they are told to stop.
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Outcome>>,
}

/// What clients went through.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) events: Vec<Event>,
    pub(super) refused: u64,
}

impl Clients {
    pub(super) fn start(
        cluster: &Arc<Cluster>,
        clients: u32,
        keys: u32,
        seed: u64,
        begun: Instant,
    ) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |id: u32| {
            let client = Client {
                cluster: Arc::clone(cluster),
                id,
                keys,
                begun,
                random: mix64(seed ^ u64::from(id) << 40),
                target: id as usize % cluster.len(),
                last_seen: BTreeMap::new(),
                outcome: Outcome::default(),
            };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || client.run(&stop))
        };
        Clients {
            threads: (0..clients).map(spawn).collect(),
            stop,
        }
    }

    /// Waits for what is under way, and tells everything.
    pub(super) fn finish(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for thread in self.threads {
            let outcome = thread.join().expect("clients do not panic");
            all.events.extend(outcome.events);
            all.refused += outcome.refused;
        }
        all
    }
}

struct Client {
    cluster: Arc<Cluster>,
    id: u32,
    keys: u32,
    begun: Instant,
    random: u64,
    target: usize,
    /// What it last saw of each register, to swap it.
    last_seen: BTreeMap<u32, u64>,
    outcome: Outcome,
}

impl Client {
    fn draw(&mut self, below: u64) -> u64 {
        self.random = mix64(self.random);
        self.random % below
    }

    fn now(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    fn run(mut self, stop: &AtomicBool) -> Outcome {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let key = u32::try_from(self.draw(u64::from(self.keys))).expect("few keys");
            let op = self.choose(key, number);
            let id = OpId {
                client: self.id,
                number,
            };
            let pause = if self.attempt(Request { id, key, op }) {
                Duration::from_micros(self.draw(PAUSE_MICROS_MAX))
            } else {
                AFTER_FAILURE
            };
            std::thread::park_timeout(pause);
        }
        self.outcome
    }

    fn choose(&mut self, key: u32, number: u64) -> Op {
        let value = u64::from(self.id) << 32 | number;
        match self.draw(10) {
            0..5 => Op::Get,
            5..8 => Op::Put { value },
            _ => Op::Swap {
                from: self.last_seen.get(&key).copied(),
                to: value,
            },
        }
    }

    /// Asks once; true where something was answered.
    fn attempt(&mut self, request: Request) -> bool {
        // Any node answers reads.
        let place = if request.op == Op::Get {
            usize::try_from(self.draw(self.cluster.len() as u64)).expect("few nodes")
        } else {
            self.target
        };
        let called = self.now();
        let Some(answer) = self.cluster.ask(place, request) else {
            self.look_elsewhere();
            return false;
        };
        let answer = answer.recv_timeout(PATIENCE).unwrap_or(Answer::Unknown);
        let heard = match answer {
            Answer::Done(seen) => Some((self.now(), seen)),
            Answer::Refused { leader } => {
                self.outcome.refused += 1;
                match leader.and_then(|id| usize::try_from(id - 1).ok()) {
                    Some(leader) if leader < self.cluster.len() => self.target = leader,
                    Some(_) | None => self.look_elsewhere(),
                }
                return false;
            }
            Answer::Unknown => {
                self.cluster.forget(place, request.id);
                self.look_elsewhere();
                None
            }
        };
        if let Some((_, super::words::Seen::Value(Some(value)))) = heard {
            self.last_seen.insert(request.key, value);
        }
        self.outcome.events.push(Event {
            id: request.id,
            key: request.key,
            op: request.op,
            called,
            heard,
        });
        heard.is_some()
    }

    fn look_elsewhere(&mut self) {
        self.target = usize::try_from(self.draw(self.cluster.len() as u64)).expect("few nodes");
    }
}
