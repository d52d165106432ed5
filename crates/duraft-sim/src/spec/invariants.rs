//! The invariants of `DurableRaft.tla`.

use super::enumerate::State;
use super::logs::{Log, Logs};
use super::node::{Node, Part};
use super::said::Message;
use duraft_core::{Membership, NodeId};

/// The name of an invariant that does not hold in this state, if there is one.
pub fn broken_invariant(state: &State, voters: &Membership, logs: &Logs) -> Option<&'static str> {
    let checks: [(&str, bool); 8] = [
        ("ElectionSafety", is_election_safe(state)),
        ("StateMachineSafety", is_committed_one(state, logs)),
        ("LeaderCompleteness", are_leaders_complete(state, logs)),
        (
            "CommittedDurable",
            is_committed_durable(state, voters, logs),
        ),
        ("LogMatching", do_logs_match(state, logs)),
        ("VoteDurable, RequestDurable", are_votes_durable(state)),
        ("AckDurable", are_acks_durable(state, logs)),
        ("CommitInLog", is_commit_in_log(state, logs)),
    ];
    checks
        .into_iter()
        .find(|(_, holds)| !holds)
        .map(|(name, _)| name)
}

fn leaders(state: &State) -> impl Iterator<Item = (u64, u64, Log)> + '_ {
    state
        .said
        .messages
        .iter()
        .filter_map(|message| match *message {
            Message::Entries { term, from, log } => Some((term, from, log)),
            Message::Vote { .. } | Message::Request { .. } | Message::Ack { .. } => None,
        })
}

fn is_election_safe(state: &State) -> bool {
    leaders(state).all(|(term, from, _)| leaders(state).all(|(t, f, _)| t != term || f == from))
}

fn is_committed_one(state: &State, logs: &Logs) -> bool {
    let committed = &state.said.committed;
    let agree = |a: Log, b: Log| logs.is_prefix(a, b) || logs.is_prefix(b, a);
    committed
        .iter()
        .all(|(_, a)| committed.iter().all(|(_, b)| agree(*a, *b)))
}

fn are_leaders_complete(state: &State, logs: &Logs) -> bool {
    let complete = |node: &Node| {
        let earlier = state
            .said
            .committed
            .iter()
            .filter(|(t, _)| *t < node.record.term);
        earlier
            .map(|(_, log)| *log)
            .all(|log| logs.is_prefix(log, node.record.log))
    };
    let leaders = state.nodes.iter().filter(|node| node.part == Part::Leader);
    leaders.into_iter().all(complete)
}

fn is_committed_durable(state: &State, voters: &Membership, logs: &Logs) -> bool {
    state.said.committed.iter().all(|(_, log)| {
        let nodes = (0..).zip(&state.nodes);
        let holders = nodes.filter(|(_, node)| logs.is_prefix(*log, node.durable.log));
        voters.is_quorum(holders.map(|(id, _)| NodeId(id)))
    })
}

fn do_logs_match(state: &State, logs: &Logs) -> bool {
    state.nodes.iter().all(|a| {
        state.nodes.iter().all(|b| {
            let (a, b) = (a.record.log, b.record.log);
            (1..=logs.len(a).min(logs.len(b))).all(|k| {
                let (a, b) = (logs.prefix(a, k), logs.prefix(b, k));
                logs.last(a).term != logs.last(b).term || a == b
            })
        })
    })
}

fn are_votes_durable(state: &State) -> bool {
    let kept = |of: u64, term: u64, to: u64| {
        let durable = usize::try_from(of).ok().map(|of| state.nodes[of].durable);
        durable.is_some_and(|d| d.term > term || (d.term == term && d.vote == Some(to)))
    };
    state.said.messages.iter().all(|message| match *message {
        Message::Vote { term, to, from } => kept(from, term, to),
        Message::Request { term, from, .. } => kept(from, term, from),
        Message::Entries { .. } | Message::Ack { .. } => true,
    })
}

fn are_acks_durable(state: &State, logs: &Logs) -> bool {
    state.said.messages.iter().all(|message| match *message {
        Message::Ack { term, from, upto } => {
            let durable = usize::try_from(from)
                .ok()
                .map(|from| state.nodes[from].durable);
            durable.is_some_and(|d| {
                let held = |led: Log| logs.len(logs.common(led, d.log)) >= upto;
                d.term > term
                    || (d.term == term && leaders(state).any(|(t, _, led)| t == term && held(led)))
            })
        }
        Message::Vote { .. } | Message::Request { .. } | Message::Entries { .. } => true,
    })
}

fn is_commit_in_log(state: &State, logs: &Logs) -> bool {
    state
        .nodes
        .iter()
        .all(|node| node.commit <= logs.len(node.record.log))
}
