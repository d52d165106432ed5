//! L2 and L6: every symmetric pattern of working links between three and between five nodes.
//!
//! Some node must be linked to a majority, itself included, or nobody can lead. From equal logs and any
//! node as the leader that was, such a cluster finds a leader that commits, and keeps it, whatever the
//! pattern; and it does so without a storm of messages. Disks are immediate, a tick admits a few
//! exchanges.

use super::rig::{GROUP, body};
use crate::*;
use alloc::vec;
use alloc::vec::Vec;
use std::eprintln;

const TICKS: u32 = 10;

#[derive(Clone)]
struct Mesh {
    nodes: Vec<Raft>,
    /// Node i hears node j.
    links: Vec<Vec<bool>>,
    network: Vec<Envelope>,
    /// Messages sent on working links in this tick, from and to each node.
    sent: Vec<Vec<u32>>,
    /// Most messages on one link in one tick.
    peak: u32,
    next: u64,
}

impl Mesh {
    fn new(n: usize, seed: u64, change: fn(&mut Config)) -> Mesh {
        let id = |i: usize| NodeId(i as u64 + 1);
        let membership = Membership::new((0..n).map(id), []).unwrap();
        let nodes = (0..n).map(|i| {
            let boot = Boot::healthy(
                Incarnation(1),
                HardState::default(),
                Position::START,
                Vec::new(),
                membership.clone(),
            );
            let mut config = Config {
                election_ticks: TICKS,
                ..Config::new(id(i), GROUP, seed)
            };
            change(&mut config);
            Raft::new(config, boot).unwrap()
        });
        Mesh {
            nodes: nodes.collect(),
            links: vec![vec![true; n]; n],
            network: Vec::new(),
            sent: vec![vec![0; n]; n],
            peak: 0,
            next: 1,
        }
    }

    fn step(&mut self, i: usize, input: Input) {
        let mut inputs = vec![input];
        let mut out = Vec::new();
        while let Some(input) = inputs.pop() {
            self.nodes[i].step(input, &mut out);
            for output in out.drain(..) {
                match output {
                    Output::Persist(write) => {
                        let upto = write.seq;
                        inputs.push(Input::Completed(Completion::Persisted { upto }));
                    }
                    Output::Apply(batches) => {
                        let upto = batches.last().unwrap().header.last();
                        inputs.push(Input::Completed(Completion::Applied { upto }));
                    }
                    Output::Send(envelope) => self.network.push(envelope),
                    _ => {}
                }
            }
        }
    }

    fn tick(&mut self) {
        self.sent.iter_mut().flatten().for_each(|count| *count = 0);
        for i in 0..self.nodes.len() {
            self.step(i, Input::Tick);
        }
        for _ in 0..6 {
            for envelope in core::mem::take(&mut self.network) {
                let (from, to) = (envelope.from.0 as usize - 1, envelope.to.0 as usize - 1);
                if self.links[from][to] {
                    self.sent[from][to] += 1;
                    self.step(to, Input::Received(envelope));
                }
            }
        }
        let peak = self.sent.iter().flatten().max().unwrap();
        self.peak = self.peak.max(*peak);
    }

    fn leaders(&self) -> Vec<usize> {
        let leads = |i: &usize| self.nodes[*i].role() == RoleKind::Leader;
        (0..self.nodes.len()).filter(leads).collect()
    }

    fn propose(&mut self, i: usize) {
        let id = ProposalId(self.next);
        let body = body(self.next);
        self.next += 1;
        self.step(i, Input::Propose { id, body });
    }

    /// All links work, node `first` leads and everybody holds the same.
    fn led_by(n: usize, seed: u64, first: usize, change: fn(&mut Config)) -> Mesh {
        let mut mesh = Mesh::new(n, seed, change);
        while mesh.nodes[first].role() == RoleKind::Follower {
            mesh.step(first, Input::Tick);
        }
        for _ in 0..6 {
            mesh.tick();
        }
        assert_eq!(mesh.leaders(), [first]);
        let last = mesh.nodes[first].last();
        assert!(mesh.nodes.iter().all(|node| node.last() == last));
        mesh
    }

    fn set_links(&mut self, pattern: u32) {
        let mut bit = 0;
        for i in 0..self.nodes.len() {
            for j in 0..i {
                let works = pattern >> bit & 1 == 1;
                (self.links[i][j], self.links[j][i]) = (works, works);
                bit += 1;
            }
        }
    }

    /// Is somebody linked to a majority?
    fn can_be_led(&self) -> bool {
        let n = self.nodes.len();
        (self.links.iter()).any(|row| row.iter().filter(|works| **works).count() > n / 2)
    }
}

/// What was seen of a run.
struct Seen {
    /// Tick in which the leader that stays was elected, 0 if it is the one that was.
    elected: u32,
    /// Most messages on one link in one tick.
    peak: u32,
    /// Messages on all links in the last ten timeouts.
    steady: u32,
}

/// Runs one pattern. `load`: whoever leads is given a command in each tick.
fn run(base: &Mesh, pattern: u32, load: bool) -> Option<Seen> {
    let mut mesh = base.clone();
    mesh.set_links(pattern);
    mesh.peak = 0;
    let (lasts, mut elected, mut steady) = (40 * TICKS, 0, 0);
    let mut leads = (mesh.leaders(), mesh.nodes[mesh.leaders()[0]].term());
    for now in 1..=lasts {
        if load {
            mesh.leaders().into_iter().for_each(|i| mesh.propose(i));
        }
        mesh.tick();
        let leaders = mesh.leaders();
        let term = leaders.first().map_or(Term(0), |i| mesh.nodes[*i].term());
        if (&leaders, &term) != (&leads.0, &leads.1) {
            elected = now;
            leads = (leaders, term);
        }
        if now > lasts - 10 * TICKS {
            steady += mesh.sent.iter().flatten().sum::<u32>();
        }
    }
    let peak = mesh.peak;
    let [leader] = leads.0[..] else {
        return None;
    };
    mesh.propose(leader);
    mesh.tick();
    mesh.tick();
    let raft = &mesh.nodes[leader];
    let seen = Seen {
        elected,
        peak,
        steady,
    };
    (raft.commit() == raft.last().index() && elected < lasts / 2).then_some(seen)
}

/// All patterns that can be led, from each node as the first leader. Returns the runs, those that found
/// no leader, and the worst that was seen.
fn every_pattern(n: usize, seeds: u64, load: bool, change: fn(&mut Config)) -> (u32, u32, Seen) {
    let (mut runs, mut lost) = (0, 0);
    let mut worst = Seen {
        elected: 0,
        peak: 0,
        steady: 0,
    };
    for seed in 0..seeds {
        for first in 0..n {
            let base = Mesh::led_by(n, seed, first, change);
            for pattern in 0..1u32 << (n * (n - 1) / 2) {
                let mut mesh = base.clone();
                mesh.set_links(pattern);
                if !mesh.can_be_led() {
                    continue;
                }
                runs += 1;
                match run(&base, pattern, load) {
                    Some(seen) => {
                        worst.elected = worst.elected.max(seen.elected);
                        worst.peak = worst.peak.max(seen.peak);
                        worst.steady = worst.steady.max(seen.steady);
                    }
                    None => lost += 1,
                }
            }
        }
    }
    eprintln!(
        "{n} nodes: {runs} runs, {lost} lost; at most {} ticks, {} messages on a link in a tick, {} in \
         the last {} ticks",
        worst.elected,
        worst.peak,
        worst.steady,
        10 * TICKS
    );
    (runs, lost, worst)
}

#[test]
fn three_nodes_find_a_leader_under_every_pattern_of_links() {
    let (runs, lost, worst) = every_pattern(3, 50, false, |_| ());
    assert_eq!((runs, lost), (50 * 3 * 7, 0));
    assert!(worst.elected <= 8 * TICKS && worst.peak <= 6);
    // A heartbeat and its answer for each of two peers, every other tick.
    assert_eq!(worst.steady, 2 * 2 * 10 * TICKS / 2);
}

#[test]
fn five_nodes_find_a_leader_under_every_pattern_of_links() {
    let (runs, lost, worst) = every_pattern(5, 1, false, |_| ());
    assert_eq!((runs, lost), (5 * 998, 0));
    assert!(worst.elected <= 8 * TICKS && worst.peak <= 6);
    assert_eq!(worst.steady, 2 * 4 * 10 * TICKS / 2);
}

#[test]
fn five_nodes_find_a_leader_while_commands_keep_coming() {
    // Then logs are not equal: a leader without a quorum has given entries to whom it reaches. Of five,
    // whoever got them and stands between it and the others is linked to a majority himself.
    let (runs, lost, worst) = every_pattern(5, 1, true, |_| ());
    assert_eq!((runs, lost), (5 * 998, 0));
    assert!(worst.elected <= 8 * TICKS && worst.peak <= 6);
    // A tick has one command: an append and one for the commit index, each with its answer.
    assert_eq!(worst.steady, (1 + 4) * 4 * 10 * TICKS);
}

#[test]
fn without_check_quorum_or_pre_vote_some_patterns_find_none() {
    // The patterns bite: a leader without a quorum stays and keeps the others quiet, or a node that
    // cannot win deposes whoever leads.
    let (_, lost, _) = every_pattern(3, 1, false, |config| config.check_quorum = false);
    assert!(lost > 0);
    let (_, lost, _) = every_pattern(5, 1, false, |config| config.pre_vote = false);
    assert!(lost > 0);
}
