//! What is done to the nodes, drawn from the seed: one thing after another, each undone after a while.

use super::LOOK;
use super::cluster::Cluster;
use super::links::Mode;
use crate::bench::BenchError;
use duraft_core::mix64;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often each kind of thing was done.
#[derive(Clone, Default, Serialize)]
pub(super) struct Counts(pub(super) BTreeMap<&'static str, u32>);

/// Draws and does.
pub(super) struct Faults<'a> {
    cluster: &'a Cluster,
    random: u64,
    pub(super) counts: Counts,
}

/// Everything that can be done, once per round in an order that is drawn.
const KINDS: [&str; 10] = [
    "kill a node",
    "kill the leader",
    "kill all",
    "stop a node",
    "stop the leader",
    "isolate a node",
    "isolate the leader",
    "one direction",
    "split",
    "slow link",
];

/// Where nodes take snapshots, a round begins with this.
const LEFT_BEHIND: &str = "leave a node behind";
/// Entries that are committed without the node that is left behind: several times what the others keep.
const BEHIND: u64 = 600;
/// Longest wait for them.
const PATIENCE: Duration = Duration::from_secs(30);

impl<'a> Faults<'a> {
    pub(super) fn new(cluster: &'a Cluster, seed: u64) -> Faults<'a> {
        Faults {
            cluster,
            random: mix64(seed ^ 0xFA17),
            counts: Counts::default(),
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random = mix64(self.random);
        usize::try_from(self.random % below as u64).expect("below a small number")
    }

    fn millis(&mut self, least: usize, most: usize) -> Duration {
        Duration::from_millis((least + self.draw(most - least)) as u64)
    }

    /// Goes on until the time has come; at the end everything is as it was.
    pub(super) fn run(&mut self, until: Instant) -> Result<(), BenchError> {
        let mut round: Vec<&'static str> = Vec::new();
        while Instant::now() < until {
            let left_behind = round.is_empty() && self.cluster.takes_snapshots();
            if round.is_empty() {
                round.extend(KINDS);
            }
            let kind = if left_behind {
                LEFT_BEHIND
            } else {
                let next = self.draw(round.len());
                round.swap_remove(next)
            };
            self.go_through(kind)?;
            *self.counts.0.entry(kind).or_default() += 1;
            // Long enough, mostly, for an election.
            let calm = self.millis(100, 900);
            rest(calm);
        }
        Ok(())
    }

    fn go_through(&mut self, kind: &'static str) -> Result<(), BenchError> {
        let nodes = self.cluster.len();
        let time = self.millis(100, 1500);
        let place = if kind.ends_with("the leader") {
            self.leader()?
        } else {
            self.draw(nodes)
        };
        // What is cut off says so, or says nothing.
        let mode = if self.draw(2) == 0 {
            Mode::Held
        } else {
            Mode::Cut
        };
        let links = &self.cluster.links;
        match kind {
            "kill a node" | "kill the leader" => {
                self.cluster.kill(place)?;
                rest(time);
                self.cluster.restart(place)?;
            }
            LEFT_BEHIND => {
                self.cluster.kill(place)?;
                let (begun, until) = (Instant::now(), self.commit()? + BEHIND);
                while self.commit()? < until && begun.elapsed() < PATIENCE {
                    rest(LOOK);
                }
                self.cluster.restart(place)?;
            }
            "kill all" => {
                self.cluster.kill_all()?;
                for place in 0..nodes {
                    self.cluster.restart(place)?;
                }
            }
            "stop a node" | "stop the leader" => {
                self.cluster.pause(place)?;
                rest(time * 2);
                self.cluster.resume(place)?;
            }
            "isolate a node" | "isolate the leader" => {
                for other in 0..nodes {
                    links.set(place, other, mode);
                    links.set(other, place, mode);
                }
                rest(time);
            }
            "one direction" => {
                // It hears everybody, or everybody hears it.
                let deaf = self.draw(2) == 0;
                for other in 0..nodes {
                    let (from, to) = if deaf { (other, place) } else { (place, other) };
                    links.set(from, to, mode);
                }
                rest(time);
            }
            "split" => {
                // The nodes from `place` on, a minority of them, against the others.
                let minority = |node: usize| (node + nodes - place) % nodes < nodes / 2;
                for from in 0..nodes {
                    for to in 0..nodes {
                        if minority(from) != minority(to) {
                            links.set(from, to, mode);
                        }
                    }
                }
                rest(time);
            }
            _ => {
                let slow = Mode::Slow(self.millis(5, 120));
                for other in 0..nodes {
                    links.set(place, other, slow);
                }
                rest(time);
            }
        }
        links.heal();
        Ok(())
    }

    /// How far nodes that run say that the log is committed.
    fn commit(&self) -> Result<u64, BenchError> {
        let mut commit = 0;
        for place in 0..self.cluster.len() {
            commit = commit.max(self.cluster.state(place)?.map_or(0, |state| state.commit));
        }
        Ok(commit)
    }

    /// Who leads in the latest term, as far as nodes that run say; else anybody.
    fn leader(&mut self) -> Result<usize, BenchError> {
        let mut latest = None;
        for place in 0..self.cluster.len() {
            if let Some(state) = self.cluster.state(place)?
                && state.leads
            {
                latest = latest.max(Some((state.term, place)));
            }
        }
        Ok(match latest {
            Some((_, place)) => place,
            None => self.draw(self.cluster.len()),
        })
    }
}

/// Lets time pass.
pub(super) fn rest(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now())
        && !left.is_zero()
    {
        std::thread::park_timeout(left);
    }
}
