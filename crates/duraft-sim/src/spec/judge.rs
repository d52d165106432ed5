//! Follows a whole cluster, step by step of every core, as the specification sees it.
//!
//! The history of what was said is the cluster's own: an action that needs others' words is allowed only
//! where a core has said them. Of several acknowledgements, logs and commit indices of one node in one
//! term the furthest is kept, since it stands for the others.
//!
//! Damaged disks are not in the specification: a cluster in which one was damaged is not judged any more.

use super::logs::Log;
use super::node::{Action, Node, Part, Record};
use super::refine::{Names, may_say, path};
use super::said::{Message, Said};
use duraft_core::{Membership, Output, Raft, RoleKind, WriteSeq};
use std::collections::BTreeMap;

/// Most actions that one step of a core may be.
const ACTIONS_MAX: usize = 3;
/// Words of terms that are over are forgotten after so many steps.
const FORGET_EVERY: u64 = 1024;

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    names: Names,
    said: Said,
    nodes: BTreeMap<u64, Judged>,
    retired: bool,
    steps: u64,
    actions: u64,
}

#[derive(Clone, Debug)]
struct Judged {
    node: Node,
    /// The numbers of the writes under way that the specification knows.
    seqs: Vec<WriteSeq>,
    membership: Membership,
    /// It has stopped, and what it does not do any more is not judged.
    halted: bool,
}

impl Judge {
    /// A disk was damaged.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    /// Steps judged, and actions of the specification among them.
    pub fn counts(&self) -> (u64, u64) {
        (self.steps, self.actions)
    }

    /// A life begins: with what the one before left on the disk, or a node's first.
    pub fn boots(&mut self, raft: &Raft) -> Result<(), String> {
        if self.retired {
            return Ok(());
        }
        let me = raft.id().0;
        let Some(log) = self.names.name(&raft.start(), raft.headers()) else {
            return Err(format!("spec: node {me} begins with an unknown log"));
        };
        if raft.role() != RoleKind::Follower {
            return Err(format!("spec: node {me} begins as {:?}", raft.role()));
        }
        let mut booted = Node::booted(Record {
            term: raft.term().0,
            vote: raft.vote().map(|id| id.0),
            log,
        });
        booted.commit = raft.commit().0;
        if let Some(before) = self.nodes.get(&me) {
            let before = before.node.clone();
            let commit = booted.commit;
            let crash = |kept: usize| Action::Crash { kept, commit };
            let crashed = |kept| before.act(me, crash(kept), &self.names.logs);
            let known =
                (0..=before.writes.len()).any(|kept| crashed(kept).as_ref() == Some(&booted));
            if !known {
                return Err(format!(
                    "spec: no crash of node {me} in {before:?} leads to {booted:?}"
                ));
            }
            self.note(me, &before, &booted);
        } else {
            self.note(me, &booted, &booted);
        }
        let judged = Judged {
            node: booted,
            seqs: Vec::new(),
            membership: raft.membership().clone(),
            halted: false,
        };
        self.nodes.insert(me, judged);
        Ok(())
    }

    /// A core has made a step.
    pub fn stepped(&mut self, raft: &Raft, outputs: &[Output]) -> Result<(), String> {
        let me = raft.id().0;
        if self.retired {
            return Ok(());
        }
        let Some(mut judged) = self.nodes.remove(&me) else {
            return Err(format!("spec: node {me} never began"));
        };
        let verdict = self.judge(me, raft, outputs, &mut judged);
        self.nodes.insert(me, judged);
        self.steps += 1;
        if self.steps.is_multiple_of(FORGET_EVERY) {
            self.forget();
        }
        verdict.map_err(|why| format!("spec: no action of the specification: node {me}: {why}"))
    }

    fn judge(
        &mut self,
        me: u64,
        raft: &Raft,
        outputs: &[Output],
        judged: &mut Judged,
    ) -> Result<(), String> {
        if judged.halted || raft.halted().is_some() {
            judged.halted = true;
            return Ok(());
        }
        let before = judged.node.clone();
        let durable = raft.last_durable();
        let done = judged
            .seqs
            .iter()
            .take_while(|seq| **seq <= durable)
            .count();
        judged.seqs.drain(..done);
        let mut writes = before.writes.clone();
        let on_disk = writes.drain(..done).next_back().unwrap_or(before.durable);
        for output in outputs {
            let Output::Persist(write) = output else {
                continue;
            };
            let last = writes.last().copied().unwrap_or(on_disk);
            let Some(after) = self.names.written(last, write) else {
                return Err("it writes what follows nothing known".into());
            };
            if after != last {
                writes.push(after);
                judged.seqs.push(write.seq);
            }
        }
        let Some(seen) = self.names.observe(raft, on_disk, writes) else {
            return Err("its log follows nothing known".into());
        };
        let steps = self.explain(me, raft, (&before, seen), &judged.membership, outputs)?;
        let mut last = before;
        for (_, node) in steps {
            self.actions += 1;
            self.note(me, &last, &node);
            last = node;
        }
        judged.node = last;
        if judged.membership != *raft.membership() {
            judged.membership = raft.membership().clone();
        }
        Ok(())
    }

    /// The actions that were taken, if what was sent may be said in one of their states.
    ///
    /// A core whose log begins behind the first entry calls the beginning verified, for no other leader's
    /// log can lack it; the specification calls it so when the leader has been heard.
    fn explain(
        &self,
        me: u64,
        raft: &Raft,
        (before, seen): (&Node, Node),
        voters: &Membership,
        outputs: &[Output],
    ) -> Result<Vec<(Action, Node)>, String> {
        let logs = &self.names.logs;
        let allowed =
            |node: &Node, action: Action| self.said.permits(me, node, action, logs, voters);
        let mut readings = vec![seen.verified];
        if seen.part == Part::Follower && seen.verified <= raft.start().index().0 {
            readings.extend([before.verified, 0]);
        }
        let mut why = String::new();
        for verified in readings {
            let mut after = seen.clone();
            after.verified = verified;
            let Some(steps) = path(me, (before, &after), ACTIONS_MAX, logs, &allowed) else {
                if why.is_empty() {
                    why = format!("{before:?} became {after:?}");
                }
                continue;
            };
            match self.may_send(me, before, &steps, outputs) {
                Ok(()) => return Ok(steps),
                Err(what) => why = what,
            }
        }
        Err(why)
    }

    fn may_send(
        &self,
        me: u64,
        before: &Node,
        steps: &[(Action, Node)],
        outputs: &[Output],
    ) -> Result<(), String> {
        for output in outputs {
            let Output::Send(envelope) = output else {
                continue;
            };
            let states = std::iter::once(before).chain(steps.iter().map(|(_, node)| node));
            let mut verdict = Ok(());
            for state in states {
                verdict = may_say(me, state, envelope, &self.names);
                if verdict.is_ok() {
                    break;
                }
            }
            verdict.map_err(|what| format!("{what}: {envelope:?} of {before:?}"))?;
        }
        Ok(())
    }

    fn note(&mut self, me: u64, old: &Node, new: &Node) {
        let logs = &self.names.logs;
        self.said.note(me, old, new, logs);
        let term = new.record.term;
        let from = me;
        // The furthest word stands for the others.
        match new.part {
            Part::Leader => {
                let of = |log| Message::Entries { term, from, log };
                let earlier = self.said.messages.range(of(Log::EMPTY)..of(new.record.log));
                let earlier: Vec<Message> = earlier.copied().collect();
                for message in earlier {
                    self.said.messages.remove(&message);
                }
            }
            Part::Follower => {
                let of = |upto| Message::Ack { term, from, upto };
                let acks = self.said.messages.range(of(0)..=of(u64::MAX));
                let mut acks: Vec<Message> = acks.copied().collect();
                acks.pop();
                for message in acks {
                    self.said.messages.remove(&message);
                }
            }
            Part::Candidate => {}
        }
        let told = (term, Log::EMPTY)..(term + 1, Log::EMPTY);
        let mut told: Vec<(u64, Log)> = self.said.committed.range(told).copied().collect();
        told.sort_by_key(|(_, log)| logs.len(*log));
        told.pop();
        for entry in told {
            self.said.committed.remove(&entry);
        }
    }

    /// Words of a term that every node has left for good mean nothing any more.
    fn forget(&mut self) {
        let durable = self.nodes.values().map(|judged| judged.node.durable.term);
        let Some(least) = durable.min() else {
            return;
        };
        self.said.messages.retain(|message| match message {
            Message::Vote { term, .. }
            | Message::Request { term, .. }
            | Message::Entries { term, .. }
            | Message::Ack { term, .. } => *term >= least,
        });
        self.said.committed.retain(|(term, _)| *term >= least);
    }
}
