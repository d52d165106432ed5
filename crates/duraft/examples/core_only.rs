//! The consensus core alone: three nodes in one loop, without thread, disk, socket or clock.
#![allow(clippy::print_stdout, clippy::wildcard_enum_match_arm)]
use duraft_core::{BatchKind, Body, Boot, Completion as Done, Config, GroupId, HardState};
use duraft_core::{Incarnation, Input, Membership, NodeId, Output, Position, ProposalId, Raft};
use std::collections::{BTreeMap, VecDeque};

fn main() {
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let voters = Membership::new(ids, []).expect("three voters");
    let mut nodes = BTreeMap::from(ids.map(|id| {
        let (life, state, log) = (Incarnation(1), HardState::default(), Vec::new());
        let boot = Boot::healthy(life, state, Position::START, log, voters.clone());
        let config = Config::new(id, GroupId(1), 0);
        (id, Raft::new(config, boot).expect("a sound beginning"))
    }));
    let (kind, codec, count, id) = (BatchKind::Commands, 0, 1, ProposalId(1));
    let bytes = bytes::Bytes::from_static(b"\x05\0\0\0hello"); // where the command ends, the command
    let checksum = crc32fast::hash(&bytes);
    #[rustfmt::skip]
    let propose = Input::Propose { id, body: Body { kind, codec, count, checksum, bytes } };
    let mut inputs = VecDeque::new();
    for tick in 1..30 {
        inputs.push_back((ids[0], Input::Tick)); // its clock alone runs: it will lead
        inputs.extend((tick == 25).then(|| (ids[0], propose.clone())));
        while let Some((id, input)) = inputs.pop_front() {
            let mut outputs = Vec::new();
            nodes.get_mut(&id).expect("known").step(input, &mut outputs);
            let done = |completion| Some((id, Input::Completed(completion)));
            inputs.extend(outputs.into_iter().filter_map(|output| match output {
                Output::Send(message) => Some((message.to, Input::Received(message))),
                Output::Persist(write) => done(Done::Persisted { upto: write.seq }), // after a sync
                Output::Apply(batches) => {
                    println!("node {id} applies {batches:?}");
                    let upto = batches.last().expect("not empty").header.last();
                    done(Done::Applied { upto })
                }
                _ => None,
            }));
        }
    }
}
