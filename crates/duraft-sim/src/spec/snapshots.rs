//! `DurableRaftSnapshots.tla`: the specification with snapshots, within bounds.
//!
//! What the logs say is in `Node`, as without snapshots. Beside it stands where each log begins (what lies
//! before is in a file) and which files there are: a file becomes durable by itself, in no order with the
//! writes of the log.

use super::enumerate::{Bounds, Space, State};
use super::logs::Log;
use super::node::{Node, Part, Record};
use super::said::Message;
use super::walk::{Walk, hash128};
use duraft_core::{Membership, NodeId};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Where a node's log begins, and its files.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Files {
    /// `ds`: the start of the durable log.
    pub start: u64,
    /// `qs`: the start after each write under way.
    pub starts: Vec<u64>,
    /// `file`: what the newest durable snapshot holds.
    pub file: Log,
    /// `fw`: what the file that is being written holds; the empty log: none is.
    pub writing: Log,
}

impl Files {
    const NONE: Files = Files {
        start: 0,
        starts: Vec::new(),
        file: Log::EMPTY,
        writing: Log::EMPTY,
    };

    fn latest(&self) -> u64 {
        self.starts.last().copied().unwrap_or(self.start)
    }
}

/// A state of the whole.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Whole {
    /// What `DurableRaft.tla` has.
    pub logs: State,
    /// What is new, by node.
    pub files: Vec<Files>,
}

/// Enumerates. The switches make `CompactFirst`, `RecordFirst` and `InstallAnyway` true.
#[derive(Clone, Debug)]
pub struct Snapshots {
    space: Space,
    bounds: Bounds,
    voters: Membership,
    /// Entries are dropped while the file that holds them is being written.
    pub compact_first: bool,
    /// A leader's snapshot takes the log's place while its file is being written.
    pub record_first: bool,
    /// So does one that is older than what is committed here.
    pub install_anyway: bool,
}

impl Snapshots {
    /// The states within these bounds, all of whose actions are one step at a time.
    pub fn new(bounds: Bounds) -> Snapshots {
        // A crash is another one here.
        let without_crashes = Bounds {
            crashes: 0,
            coarse: false,
            ..bounds
        };
        Snapshots {
            space: Space::new(without_crashes),
            bounds,
            voters: Membership::new((0..bounds.nodes).map(NodeId), []).expect("a few voters"),
            compact_first: false,
            record_first: false,
            install_anyway: false,
        }
    }

    /// `Take`, `Receive` and `Written`.
    fn write_files(&self, state: &Whole, me: usize, found: &mut Vec<(&'static str, Whole)>) {
        let logs = &self.space.logs;
        let (node, files) = (&state.logs.nodes[me], &state.files[me]);
        let changed = |change: &dyn Fn(&mut Files)| {
            let mut next = state.clone();
            change(&mut next.files[me]);
            next
        };
        if files.writing != Log::EMPTY {
            let written = changed(&|files| {
                files.file = std::mem::replace(&mut files.writing, Log::EMPTY);
            });
            found.push(("Written", written));
            return;
        }
        let applied = node.commit.min(node.held(logs));
        if applied > logs.len(files.file) {
            let taken = logs.prefix(node.record.log, applied);
            found.push(("Take", changed(&|files| files.writing = taken)));
        }
        for (_, _, committed) in self.offered(state, me) {
            if logs.len(committed) > logs.len(files.file) {
                found.push(("Receive", changed(&|files| files.writing = committed)));
            }
        }
    }

    /// What leaders have committed and this node may take from them: the leader's term and name, and the
    /// committed part of its log.
    fn offered(&self, state: &Whole, me: usize) -> BTreeSet<(u64, u64, Log)> {
        let logs = &self.space.logs;
        let node = &state.logs.nodes[me];
        let mut offered = BTreeSet::new();
        for message in &state.logs.said.messages {
            let Message::Entries { term, from, log } = *message else {
                continue;
            };
            let leads_itself = term == node.record.term && node.part == Part::Leader;
            if from == me as u64 || term < node.record.term || leads_itself {
                continue;
            }
            let told = state.logs.said.committed.iter();
            let told = told.filter(|(of, _)| *of == term);
            let lens = told.map(|(_, committed)| logs.len(*committed));
            let lens = lens.filter(|len| *len <= logs.len(log));
            offered.extend(lens.map(|len| (term, from, logs.prefix(log, len))));
        }
        offered
    }

    /// One write that changes the node and where its log begins.
    fn restarts(&self, state: &Whole, me: usize, new: Node, start: u64) -> Whole {
        let mut next = state.clone();
        let mut new = new;
        new.writes.push(new.record);
        let old = &state.logs.nodes[me];
        (next.logs.said).note(me as u64, old, &new, &self.space.logs);
        next.logs.nodes[me] = new;
        next.files[me].starts.push(start);
        next
    }

    fn compact(&self, state: &Whole, me: usize, found: &mut Vec<(&'static str, Whole)>) {
        let logs = &self.space.logs;
        let (node, files) = (&state.logs.nodes[me], &state.files[me]);
        let mut covered = logs.len(files.file);
        if self.compact_first {
            covered = covered.max(logs.len(files.writing));
        }
        let start = node.commit.min(covered);
        if start > files.latest() {
            found.push(("Compact", self.restarts(state, me, node.clone(), start)));
        }
    }

    fn install(&self, state: &Whole, me: usize, found: &mut Vec<(&'static str, Whole)>) {
        let logs = &self.space.logs;
        let (node, files) = (&state.logs.nodes[me], &state.files[me]);
        let mut sources = BTreeSet::from([files.file]);
        if self.record_first {
            sources.insert(files.writing);
        }
        let offered: BTreeSet<(u64, Log)> = (self.offered(state, me).into_iter())
            .map(|(term, _, log)| (term, log))
            .collect();
        for (term, log) in offered {
            if log == Log::EMPTY || !sources.contains(&log) {
                continue;
            }
            let upto = logs.len(log);
            let mut new = node.clone();
            if term > node.record.term {
                new.record.term = term;
                new.record.vote = None;
                new.verified = 0;
            }
            new.part = Part::Follower;
            new.verified = new.verified.max(upto);
            new.commit = new.commit.max(upto);
            new.record.log = match self.install_anyway {
                true => log,
                false => logs.merge(log, node.record.log),
            };
            let due = match self.install_anyway {
                true => new != *node,
                false => upto > node.commit,
            };
            if due {
                found.push(("Install", self.restarts(state, me, new, upto)));
            }
        }
    }

    fn fail(&self, state: &Whole, me: usize) -> Whole {
        let mut next = state.clone();
        let files = &mut next.files[me];
        let old = &state.logs.nodes[me];
        let whole = files.start <= self.space.logs.len(files.file);
        let log = if whole { old.durable.log } else { Log::EMPTY };
        let mut booted = Node::booted(Record { log, ..old.durable });
        files.start = if whole { files.start } else { 0 };
        booted.commit = files.start;
        files.starts.clear();
        files.writing = Log::EMPTY;
        next.logs.crashes += 1;
        // It says what it may; what it knows to be committed was called so before.
        let said = booted.promises(me as u64, &self.space.logs);
        next.logs.said.messages.extend(said);
        next.logs.nodes[me] = booted;
        next
    }
}

impl Walk for Snapshots {
    type State = Whole;

    /// `SInit`.
    fn initial(&self) -> Whole {
        let logs = self.space.initial();
        let files = vec![Files::NONE; logs.nodes.len()];
        Whole { logs, files }
    }

    /// `SNext`: the actions and what they lead to.
    fn successors(&mut self, state: &Whole) -> Vec<(&'static str, Whole)> {
        let mut found = Vec::new();
        for (_, logs) in self.space.successors(&state.logs) {
            let files = follow(&state.logs, &logs, &state.files);
            found.push(("Without", Whole { logs, files }));
        }
        for me in 0..state.files.len() {
            self.write_files(state, me, &mut found);
            self.compact(state, me, &mut found);
            self.install(state, me, &mut found);
            if state.logs.crashes < self.bounds.crashes {
                found.push(("Fail", self.fail(state, me)));
            }
        }
        found
    }

    fn describe(&self, state: &Whole) -> String {
        let logs = &self.space.logs;
        let mut text = self.space.describe(&state.logs);
        let log = |log: Log| {
            let entries = logs.entries(log);
            let values: Vec<String> = entries.iter().map(|e| e.payload.to_string()).collect();
            values.join(" ")
        };
        for files in &state.files {
            let starts: Vec<String> = files.starts.iter().map(u64::to_string).collect();
            let (file, writing) = (log(files.file), log(files.writing));
            let _ = write!(
                text,
                "#{};{};[{file}];[{writing}]",
                files.start,
                starts.join("/")
            );
        }
        text
    }

    fn key(&self, state: &Whole) -> u128 {
        hash128(state)
    }

    fn broken_invariant(&self, state: &Whole) -> Option<&'static str> {
        let logs = &self.space.logs;
        let there = |(node, files): (&Node, &Files)| {
            let prefix = |log: Log| logs.prefix(log, files.start);
            files.start <= logs.len(files.file)
                && files.start <= logs.len(node.durable.log)
                && prefix(node.durable.log) == prefix(files.file)
        };
        let committed = |file: Log| {
            let mut known = state.logs.said.committed.iter();
            file == Log::EMPTY || known.any(|(_, log)| logs.is_prefix(file, *log))
        };
        let pairs = || state.logs.nodes.iter().zip(&state.files);
        if !pairs().all(there) {
            return Some("SnapshotThere");
        }
        if !pairs().all(|(_, files)| committed(files.file) && committed(files.writing)) {
            return Some("SnapshotCommitted");
        }
        if !pairs().all(|(node, files)| files.latest() <= node.commit) {
            return Some("StartCommitted");
        }
        super::broken_invariant(&state.logs, &self.voters, logs)
    }
}

/// `Follow`: each write that was issued has the log's start, and completions take them off.
fn follow(before: &State, after: &State, files: &[Files]) -> Vec<Files> {
    let mut files = files.to_vec();
    let pairs = before.nodes.iter().zip(&after.nodes);
    for (files, (old, new)) in files.iter_mut().zip(pairs) {
        let (was, is) = (old.writes.len(), new.writes.len());
        if is > was {
            files.starts.push(files.latest());
        } else if let Some(done) = (was - is).checked_sub(1) {
            files.start = files.starts[done];
            files.starts.drain(..=done);
        }
    }
    files
}

/// What falls first where an optimisation is allowed.
pub fn falls(bounds: Bounds, switch: impl FnOnce(&mut Snapshots)) -> Result<usize, String> {
    let mut snapshots = Snapshots::new(bounds);
    switch(&mut snapshots);
    snapshots.exhaust()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_orders_of_files_and_records_are_found() {
        let bounds = Bounds {
            nodes: 2,
            terms: 2,
            len: 2,
            crashes: 1,
            coarse: false,
        };
        let name = |found: Result<usize, String>| {
            let found = found.expect_err("a forbidden order");
            found.split(' ').next().unwrap_or_default().to_string()
        };
        let compact = falls(bounds, |space| space.compact_first = true);
        assert_eq!(name(compact), "SnapshotThere");
        let record = falls(bounds, |space| space.record_first = true);
        assert_eq!(name(record), "SnapshotThere");
        let install = falls(bounds, |space| space.install_anyway = true);
        assert_ne!(name(install), "SnapshotThere");
    }
}
