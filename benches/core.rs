//! Cost of the consensus core alone: three nodes in one loop, disks that complete at once, a network
//! that is a queue. What is measured is `Raft::step` and the loop around it: no encoding, no
//! checksums, no copies of bodies, no system calls.
//!
//! One iteration is one batch committed **and applied on all three nodes**; the throughput line
//! counts its commands. `closed` proposes the next batch when the last one is committed everywhere;
//! `pipelined` keeps 64 batches under way.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use duraft_core::{
    BatchKind, Body, Boot, Completion, Config, Event, GroupId, HardState, Incarnation, Index,
    Input, Membership, NodeId, Output, Position, ProposalId, Raft, RoleKind,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A cluster keeps its whole log's shape in memory; a fresh one after so many batches bounds that.
const BATCHES_PER_CLUSTER: u64 = 50_000;

struct Cluster {
    nodes: Vec<Raft>,
    queue: VecDeque<(usize, Input)>,
    outputs: Vec<Output>,
}

impl Cluster {
    fn new() -> Cluster {
        let ids = [1, 2, 3].map(NodeId);
        let membership = Membership::new(ids, []).expect("three voters");
        let nodes = ids
            .map(|id| {
                let boot = Boot::healthy(
                    Incarnation(1),
                    HardState::default(),
                    Position::START,
                    Vec::new(),
                    membership.clone(),
                );
                Raft::new(Config::new(id, GroupId(1), 1), boot).expect("a fresh node")
            })
            .into();
        let mut cluster = Cluster {
            nodes,
            queue: VecDeque::new(),
            outputs: Vec::new(),
        };
        while cluster.nodes[0].role() != RoleKind::Leader {
            cluster.queue.push_back((0, Input::Tick));
            cluster.run();
        }
        cluster
    }

    /// Steps until nothing is left to do.
    fn run(&mut self) {
        while let Some((at, input)) = self.queue.pop_front() {
            self.nodes[at].step(input, &mut self.outputs);
            for output in self.outputs.drain(..) {
                let next = match output {
                    Output::Persist(write) => {
                        let completion = Completion::Persisted { upto: write.seq };
                        (at, Input::Completed(completion))
                    }
                    Output::Send(envelope) => {
                        let to = usize::try_from(envelope.to.0 - 1).expect("nodes 1 to 3");
                        (to, Input::Received(envelope))
                    }
                    Output::Apply(batches) => {
                        let upto = batches.last().map_or(Index(0), |batch| batch.header.last());
                        (at, Input::Completed(Completion::Applied { upto }))
                    }
                    Output::Respond(_)
                    | Output::Changed(
                        Event::Role { .. } | Event::Membership { .. } | Event::Healed,
                    ) => continue,
                    Output::Load(_)
                    | Output::ReadReady { .. }
                    | Output::SendSnapshot { .. }
                    | Output::InstallSnapshot(_)
                    | Output::TakeSnapshot
                    | Output::Changed(Event::Halted(_)) => {
                        unreachable!("the cache is large, nobody reads, nothing fails")
                    }
                };
                self.queue.push_back(next);
            }
        }
    }

    /// Commits `batches` times this body, at most `depth` of them under way.
    fn commit(&mut self, body: &Body, batches: u64, depth: u64) {
        let before = self.nodes[0].commit().0;
        let mut left = batches;
        while left > 0 {
            let burst = left.min(depth);
            for _ in 0..burst {
                let input = Input::Propose {
                    id: ProposalId(0),
                    body: body.clone(),
                };
                self.queue.push_back((0, input));
            }
            self.run();
            left -= burst;
        }
        for node in &self.nodes {
            let committed = node.applied().0 - before;
            assert_eq!(committed, batches * u64::from(body.count));
        }
    }
}

fn body(count: u32, command_bytes: u32) -> Body {
    let mut bytes = Vec::new();
    for i in 1..=count {
        bytes.extend_from_slice(&(i * command_bytes).to_le_bytes());
    }
    bytes.resize(bytes.len() + (count * command_bytes) as usize, 7);
    Body {
        kind: BatchKind::Commands,
        codec: 0,
        count,
        checksum: 1,
        bytes: Bytes::from(bytes),
    }
}

fn time(body: &Body, iterations: u64, depth: u64) -> Duration {
    let mut left = iterations;
    let mut spent = Duration::ZERO;
    while left > 0 {
        let batches = left.min(BATCHES_PER_CLUSTER);
        let mut cluster = Cluster::new();
        let start = Instant::now();
        cluster.commit(body, batches, depth);
        spent += start.elapsed();
        left -= batches;
    }
    spent
}

fn core(criterion: &mut Criterion) {
    for (name, depth) in [("closed", 1), ("pipelined", 64)] {
        let mut group = criterion.benchmark_group(format!("core/three_nodes/{name}"));
        for command_bytes in [16, 256] {
            for count in [1, 64, 1024] {
                let body = body(count, command_bytes);
                let id = BenchmarkId::new(format!("{command_bytes}B"), count);
                group.throughput(Throughput::Elements(u64::from(count)));
                group.bench_with_input(id, &body, |bencher, body| {
                    bencher.iter_custom(|iterations| time(body, iterations, depth));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, core);
criterion_main!(benches);
