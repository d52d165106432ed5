//! All states of the specification within bounds, as TLC finds them.

use super::logs::{Entry, Log, Logs};
use super::node::{Action, Node, Part, Record};
use super::said::{Message, Said};
use super::walk::{Walk, hash128};
use duraft_core::{Membership, NodeId};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The constants of `DurableRaft.tla`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Number of nodes.
    pub nodes: u64,
    /// `MaxTerm`.
    pub terms: u64,
    /// `MaxLen`.
    pub len: u64,
    /// `MaxCrash`.
    pub crashes: u64,
    /// `Coarse`.
    pub coarse: bool,
}

/// A state of the whole.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The nodes; their names are their places.
    pub nodes: Vec<Node>,
    /// `msgs` and `committed`.
    pub said: Said,
    /// `crashes`.
    pub crashes: u64,
}

/// Enumerates.
#[derive(Clone, Debug)]
pub struct Space {
    bounds: Bounds,
    voters: Membership,
    /// All ways to name the nodes.
    namings: Vec<Vec<u64>>,
    /// The logs that the states name.
    pub logs: Logs,
}

impl Space {
    /// The states within these bounds.
    pub fn new(bounds: Bounds) -> Space {
        Space {
            bounds,
            voters: Membership::new((0..bounds.nodes).map(NodeId), []).expect("a few voters"),
            namings: permutations(bounds.nodes),
            logs: Logs::default(),
        }
    }

    /// Every action with every parameter that might be possible for a node.
    fn actions(&mut self, state: &State, me: u64) -> Vec<Action> {
        let Bounds { terms, len, .. } = self.bounds;
        let coarse = self.bounds.coarse;
        let node = &state.nodes[place(me)];
        let Record { term, log, .. } = node.record;
        let mut actions = Vec::new();
        if term < terms {
            actions.push(Action::Timeout);
        }
        actions.extend((term + 1..=terms).map(|term| Action::Learn { term }));
        if coarse {
            actions.push(Action::Resign);
        }
        let room = self.logs.len(log) < len;
        if node.part == Part::Candidate {
            let log = if room {
                self.append(log, 10 * term)
            } else {
                log
            };
            actions.push(Action::Lead { log });
        }
        if node.part == Part::Leader && room {
            let log = self.append(log, 10 * term + 1 + state.crashes);
            actions.push(Action::Client { log });
        }
        for message in &state.said.messages {
            match *message {
                Message::Request { term, from, .. } => {
                    actions.push(Action::Grant { term, to: from });
                }
                Message::Entries { term, log, .. } => {
                    self.receptions(state, me, (term, log), &mut actions);
                }
                Message::Vote { .. } | Message::Ack { .. } => {}
            }
        }
        let voters = &self.voters;
        let commits = |after: &Node| {
            let from = node.commit + 1..=self.logs.len(log);
            let all: Vec<u64> = from
                .filter(|upto| {
                    let commit = Action::Commit { upto: *upto };
                    after.part == Part::Leader
                        && state.said.permits(me, after, commit, &self.logs, voters)
                })
                .collect();
            all
        };
        let least = if coarse { usize::MAX } else { 1 };
        let countable = commits(node).into_iter().take(least);
        actions.extend(countable.map(|upto| Action::Commit { upto }));
        for writes in 1..=node.writes.len().min(least) {
            let commit = node.commit;
            let done = Action::Done { writes, commit };
            actions.push(done);
            if coarse && let Some(after) = node.act(me, done, &self.logs) {
                let counted = commits(&after).into_iter();
                actions.extend(counted.map(|commit| Action::Done { writes, commit }));
            }
        }
        if state.crashes < self.bounds.crashes {
            let most = if coarse { node.writes.len() } else { 0 };
            let known = if coarse { node.commit } else { 0 };
            for kept in 0..=most {
                let crash = |commit| Action::Crash { kept, commit };
                actions.extend((0..=known).map(crash));
            }
        }
        actions
    }

    fn append(&mut self, log: Log, value: u64) -> Log {
        let entry = Entry {
            last: self.logs.len(log) + 1,
            term: value / 10,
            payload: value,
        };
        self.logs.extend(log, entry)
    }

    /// A leader's entries, as many of them as came, with a commit index that was told.
    fn receptions(
        &self,
        state: &State,
        me: u64,
        (term, log): (u64, Log),
        actions: &mut Vec<Action>,
    ) {
        let node = &state.nodes[place(me)];
        let verified = if term > node.record.term {
            0
        } else {
            node.verified
        };
        let of_term = (term, Log::EMPTY)..(term + 1, Log::EMPTY);
        let told = state.said.committed.range(of_term);
        let told: Vec<u64> = told.map(|(_, log)| self.logs.len(*log)).collect();
        for upto in 0..=self.logs.len(log) {
            if self.bounds.coarse || upto <= verified + 1 {
                let log = self.logs.prefix(log, upto);
                for commit in [0].into_iter().chain(told.iter().copied()) {
                    let action = Action::RecvAE { term, log, commit };
                    // A word that brings nothing new is no action.
                    if node.act(me, action, &self.logs).as_ref() != Some(node) {
                        actions.push(action);
                    }
                }
            }
        }
    }

    /// The state after a node's action.
    fn after(&self, state: &State, me: u64, action: Action, new: Node) -> State {
        let mut next = state.clone();
        match action {
            Action::Crash { .. } => next.crashes += 1,
            Action::Timeout
            | Action::Learn { .. }
            | Action::Resign
            | Action::Grant { .. }
            | Action::Lead { .. }
            | Action::Client { .. }
            | Action::RecvAE { .. }
            | Action::Commit { .. }
            | Action::Done { .. } => {}
        }
        next.said
            .note(me, &state.nodes[place(me)], &new, &self.logs);
        next.nodes[place(me)] = new;
        next
    }

    fn renamed(&self, state: &State, naming: &[u64]) -> State {
        let to = |id: u64| naming[place(id)];
        let vote = |record: Record| Record {
            vote: record.vote.map(to),
            ..record
        };
        let mut nodes = state.nodes.clone();
        for (id, node) in (0..).zip(&state.nodes) {
            nodes[place(to(id))] = Node {
                record: vote(node.record),
                durable: vote(node.durable),
                writes: node.writes.iter().copied().map(vote).collect(),
                ..node.clone()
            };
        }
        let messages = state.said.messages.iter().map(|message| {
            let mut message = *message;
            match &mut message {
                Message::Vote {
                    to: candidate,
                    from,
                    ..
                } => {
                    (*candidate, *from) = (to(*candidate), to(*from));
                }
                Message::Request { from, .. }
                | Message::Entries { from, .. }
                | Message::Ack { from, .. } => *from = to(*from),
            }
            message
        });
        State {
            nodes,
            said: Said {
                messages: messages.collect(),
                ..state.said.clone()
            },
            crashes: state.crashes,
        }
    }
}

impl Walk for Space {
    type State = State;

    /// `Init`.
    fn initial(&self) -> State {
        let fresh = Record {
            term: 0,
            vote: None,
            log: Log::EMPTY,
        };
        State {
            nodes: (0..self.bounds.nodes)
                .map(|_| Node::booted(fresh))
                .collect(),
            said: Said::default(),
            crashes: 0,
        }
    }

    /// `Next`: the actions and what they lead to.
    fn successors(&mut self, state: &State) -> Vec<(&'static str, State)> {
        let mut found = Vec::new();
        for me in 0..self.bounds.nodes {
            for action in self.actions(state, me) {
                let node = &state.nodes[place(me)];
                let allowed = state
                    .said
                    .permits(me, node, action, &self.logs, &self.voters);
                if let Some(new) = node.act(me, action, &self.logs)
                    && allowed
                {
                    found.push((action.name(), self.after(state, me, action, new)));
                }
            }
        }
        found
    }

    fn describe(&self, state: &State) -> String {
        let mut text = String::new();
        let log = |log: Log| {
            let entries = self.logs.entries(log);
            let values: Vec<String> = entries.iter().map(|e| e.payload.to_string()).collect();
            values.join(" ")
        };
        let name = |id: u64| char::from(b'a' + u8::try_from(id).unwrap_or(25)).to_string();
        let vote = |vote: Option<u64>| vote.map_or("Nil".to_string(), name);
        let record = |r: &Record| format!("{},{},[{}]", r.term, vote(r.vote), log(r.log));
        for (id, node) in (0..).zip(&state.nodes) {
            let part = match node.part {
                Part::Follower => "F",
                Part::Candidate => "C",
                Part::Leader => "L",
            };
            let writes: Vec<String> = node.writes.iter().map(&record).collect();
            let _ = write!(
                text,
                "{}:{},{part},{},{};{};{}|",
                name(id),
                record(&node.record),
                node.verified,
                node.commit,
                record(&node.durable),
                writes.join("/"),
            );
        }
        let messages = state.said.messages.iter().map(|message| match *message {
            Message::Vote { term, to, from } => format!("v {term} {} {}", name(from), name(to)),
            Message::Request { term, from, last } => {
                format!("rv {term} {} {} {}", name(from), last.0, last.1)
            }
            Message::Entries {
                term,
                from,
                log: led,
            } => format!("ae {term} {} [{}]", name(from), log(led)),
            Message::Ack { term, from, upto } => format!("a {term} {} {upto}", name(from)),
        });
        let messages: BTreeSet<String> = messages.collect();
        let messages: Vec<String> = messages.into_iter().collect();
        let committed = state.said.committed.iter();
        let committed: BTreeSet<String> = committed
            .map(|(term, c)| format!("{term} [{}]", log(*c)))
            .collect();
        let committed: Vec<String> = committed.into_iter().collect();
        let _ = write!(
            text,
            "{}|{}|{}",
            messages.join(","),
            committed.join(","),
            state.crashes
        );
        text
    }

    /// The least of all namings: which node is which makes no difference.
    fn key(&self, state: &State) -> u128 {
        let namings = self.namings.iter();
        let keys = namings.map(|naming| hash128(&self.renamed(state, naming)));
        keys.min().unwrap_or(0)
    }

    fn broken_invariant(&self, state: &State) -> Option<&'static str> {
        super::broken_invariant(state, &self.voters, &self.logs)
    }
}

fn place(id: u64) -> usize {
    usize::try_from(id).expect("few nodes")
}

fn permutations(nodes: u64) -> Vec<Vec<u64>> {
    let mut all = vec![Vec::new()];
    for id in 0..nodes {
        let grown = all.iter().flat_map(|shorter: &Vec<u64>| {
            (0..=shorter.len()).map(move |at| {
                let mut longer = shorter.clone();
                longer.insert(at, id);
                longer
            })
        });
        all = grown.collect();
    }
    all
}
