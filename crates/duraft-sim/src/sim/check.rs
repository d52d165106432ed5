//! The checks of a run. Names A1-A6 and B1-B12 are those of the verification programme.

use super::{Sim, Step, host_of};
use crate::config::Recover;
use crate::history::History;
use crate::recovered::RecoveredState;
use duraft::{Applied, ApplyBatch};
use duraft_core::{AppendReply, BatchHeader, BatchKind, Envelope, Index, Message, NodeId};
use duraft_core::{Position, Term};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

impl Sim {
    /// Everything a message promises must be on its sender's disk.
    pub(super) fn check_message(&mut self, host: usize, envelope: &Envelope) -> Step {
        self.record_message(host, envelope)?;
        // A pre-vote and its answer promise nothing and are the only messages that need no disk.
        let promises = !matches!(
            envelope.message,
            Message::PreVote { .. } | Message::PreVoteReply { .. }
        );
        if !promises || self.config.recover != Recover::AtPromises {
            return Ok(());
        }
        self.report.promises += 1;
        let node = self.hosts[host]
            .life
            .as_ref()
            .map(|life| life.driver.raft());
        let believed = node.map_or(Index(0), |raft| raft.durable());
        let (disk, fresh) = self.hosts[host].recovered(&self.config)?;
        self.report.recoveries += u64::from(fresh);
        let broken = if disk.last.index() < believed {
            Some(format!("B5: the node believes that {believed} is durable"))
        } else {
            broken_promise(envelope, disk, &self.history)
        };
        broken.map_or(Ok(()), |what| {
            Err(format!(
                "{what}; node {} has {:?} and a log up to {} on disk; {envelope:?}",
                envelope.from, disk.hard_state, disk.last
            ))
        })
    }

    /// What a message says about leaders, votes and contents, for the history.
    fn record_message(&mut self, host: usize, envelope: &Envelope) -> Step {
        let (from, term) = (envelope.from, envelope.term);
        if host_of(from) != host {
            return Err(format!("node {} sends as node {from}", host + 1));
        }
        match &envelope.message {
            Message::Append { prev, batches, .. } => {
                self.history.leads(term, from, envelope.incarnation)?;
                self.history.leader_holds(term, prev)?;
                for batch in batches {
                    self.history.leader_sent(term, &batch.header)?;
                }
            }
            Message::Heartbeat { .. } => self.history.leads(term, from, envelope.incarnation)?,
            Message::AppendReply(AppendReply::Accepted { matched }) => {
                self.history.promises(from, term)?;
                self.hosts[host].has_acknowledged(*matched, term);
            }
            Message::Heal { asker, .. } => self.history.heals(envelope.to, *asker),
            Message::Vote { .. } => self.history.voted(from, term, from)?,
            Message::VoteReply { granted: true } => self.history.voted(from, term, envelope.to)?,
            Message::VoteReply { granted: false }
            | Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::AppendReply(AppendReply::Rejected { .. } | AppendReply::Divergence { .. })
            | Message::HeartbeatReply { .. }
            | Message::TimeoutNow
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::DamageReport { .. }
            | Message::TermQuery
            | Message::TermReply { .. }
            | Message::RolledBack { .. } => {}
        }
        Ok(())
    }

    /// B10: a node whose log has failed and which knows it promises nothing more.
    pub(super) fn check_not_failed(&self, host: usize, what: &str) -> Step {
        if self.hosts[host]
            .life
            .as_ref()
            .is_some_and(|life| life.stopped)
        {
            return Err(format!("B10: {what} by node {} after it stopped", host + 1));
        }
        Ok(())
    }

    /// A new life: what it begins with was committed, and its state machine holds just that.
    pub(super) fn check_begun(&mut self, host: usize) -> Step {
        let node = &self.hosts[host];
        if let Some(life) = &node.life {
            self.history.begins(node.id, &life.driver.raft().start())?;
        }
        self.check_begins_durable(host)?;
        self.check_restored(host)
    }

    /// B13: what an open shows is on the disk, not in the system's cache alone: a power loss right after it
    /// leaves just that.
    fn check_begins_durable(&mut self, host: usize) -> Step {
        let node = &mut self.hosts[host];
        let Some(life) = &node.life else {
            return Ok(());
        };
        if self.config.recover == Recover::Never {
            return Ok(());
        }
        let raft = life.driver.raft();
        let shown = (raft.durable_hard_state(), raft.last(), node.damaged);
        let disk = node.recovered(&self.config)?.0;
        let durable = (disk.hard_state, disk.last, disk.damaged);
        if shown == durable {
            return Ok(());
        }
        Err(format!(
            "B13: node {} begins with {shown:?} and has {durable:?} on its disk",
            host + 1
        ))
    }

    /// After a turn: what the leader's log became, what became committed.
    pub(super) fn check_logs(&mut self, host: usize) -> Step {
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        let raft = life.driver.raft();
        let leads = raft.leader() == Some(raft.id());
        if leads {
            self.history.leader_log(raft.term(), raft.headers().rev())?;
            // A new leader may not know yet that the change before the last one is committed.
            let known = self.history.committed_end().index().max(raft.commit());
            let open = raft.headers().rev();
            let open = open.take_while(|header| header.last() > known);
            let changes = open.filter(|header| header.kind == BatchKind::Membership);
            if changes.count() > 1 {
                return Err(format!("D6: node {} has begun two changes", host + 1));
            }
        }
        let commit = raft.commit();
        if commit == life.commit_seen {
            return Ok(());
        }
        let start = raft.start();
        if start.index() > life.commit_seen {
            // A leader's snapshot took the place of what this node had not seen committed.
            self.history.begins(raft.id(), &start)?;
            life.commit_seen = start.index();
        }
        let mut news: Vec<BatchHeader> = raft
            .headers()
            .rev()
            .take_while(|header| header.last() > life.commit_seen)
            .filter(|header| header.last() <= commit)
            .copied()
            .collect();
        news.reverse();
        life.commit_seen = commit;
        let term = raft.term();
        let mut grown = false;
        for header in &news {
            self.history.batch_seen(header)?;
            grown |= self.history.committed(header, term)?;
            if header.kind == BatchKind::Membership {
                let membership = raft.membership_at(header.last());
                let at = header.last();
                self.history.membership_committed(at, membership)?;
            }
        }
        if grown {
            self.history.counted_in(life.counted_in());
            // A6 (paper, section 5.4.2): only an entry of the leader's own term is committed by
            // counting; older ones come with it.
            let newest = news.last().map(|header| header.term);
            if leads && newest != Some(term) {
                return Err(format!(
                    "A6: the leader of {term} committed up to an entry of {newest:?}"
                ));
            }
            self.check_committed_promised("at commit")?;
        }
        Ok(())
    }

    /// A4: a new leader has everything that was committed in earlier terms. (A node that stood still
    /// may begin to lead an old term while later ones commit.)
    pub(super) fn check_new_leader(&mut self, host: usize, term: Term) -> Step {
        let end = self.history.committed_before(term);
        let Some(life) = &self.hosts[host].life else {
            return Ok(());
        };
        let raft = life.driver.raft();
        if term <= life.born_in {
            return Err(format!(
                "B10: node {} leads term {term}, which was durable when its life began",
                host + 1
            ));
        }
        self.history.leads(term, raft.id(), raft.incarnation())?;
        let header = raft
            .header_ending_at(end.index())
            .map(BatchHeader::position);
        // What has left the core's memory was applied, and compared then.
        let start = raft.shape_start();
        if end.index() <= start.index() {
            self.history.begins(raft.id(), &start)
        } else if header == Some(end) {
            Ok(())
        } else {
            Err(format!(
                "A4: node {} leads term {term} with {header:?} where {end} is committed",
                host + 1
            ))
        }
    }

    /// D5: a lease is a promise of a quorum to help nobody else into office. While a node believes in
    /// one, by the core's count and by its driver's clock, no later term has had a leader, whether
    /// or not there was anything to read that is stale.
    pub(super) fn check_lease(&self, host: usize, until: Option<Duration>) -> Step {
        if until.is_none_or(|until| until <= self.boottime(host)) {
            return Ok(());
        }
        let Some(life) = &self.hosts[host].life else {
            return Ok(());
        };
        let term = life.driver.raft().term();
        match self.history.led_after(term) {
            None => Ok(()),
            Some((later, leader)) => Err(format!(
                "D5: node {} answers a read by its lease of term {term}, and node {leader} was \
                 elected in term {later}",
                host + 1
            )),
        }
    }

    /// A5, D7: what is given to a state machine goes on where it ended, once per life.
    pub(super) fn check_handed(&mut self, host: usize, batches: &[ApplyBatch]) -> Step {
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        for given in batches {
            let header = &given.batch.header;
            if header.first != life.handed.next() {
                return Err(format!(
                    "A5: node {} is given {} to apply after {}",
                    host + 1,
                    header.first,
                    life.handed
                ));
            }
            life.handed = header.last();
        }
        Ok(())
    }

    /// A6, B7: everything committed is on the disks of a quorum, running or not.
    pub(super) fn check_committed_durable(&mut self, when: &str) -> Step {
        let end = self.history.committed_end();
        if self.config.recover != Recover::Never && end != Position::START {
            self.check_on_quorum(&end, when)?;
        }
        Ok(())
    }

    /// The same, where every promise is held against the disk.
    fn check_committed_promised(&mut self, when: &str) -> Step {
        match self.config.recover {
            Recover::AtPromises => self.check_committed_durable(when),
            Recover::AtCrashes | Recover::Never => Ok(()),
        }
    }

    fn check_on_quorum(&mut self, end: &Position, when: &str) -> Step {
        let mut holders = BTreeSet::new();
        let mut lasts: Vec<(NodeId, Position)> = Vec::new();
        for host in self.hosts.iter_mut().filter(|host| host.exists) {
            let id = host.id;
            if host.rotten.is_some() {
                // Nobody has said yet whether it can be opened at all.
                holders.insert(id);
                continue;
            }
            let (disk, fresh) = host.recovered(&self.config)?;
            self.report.recoveries += u64::from(fresh);
            if fresh {
                self.history.begins(id, &disk.start)?;
            }
            // What a damaged node held is its own to get back; here it counts as held.
            if disk.damaged || disk.holds(end) {
                holders.insert(id);
            }
            lasts.push((id, disk.last));
        }
        if self.history.is_quorum(&holders) {
            Ok(())
        } else {
            Err(format!(
                "B7: {when}, {end} is on the disks of {holders:?} only: {lasts:?}, members {:?}",
                self.history.latest_membership()
            ))
        }
    }

    /// B6: what a client is told to be applied is committed and durable.
    pub(super) fn check_applied(&mut self, applied: &Applied, what: impl Fn() -> String) -> Step {
        self.report.promises += 1;
        let at = applied.log_id;
        let batch = self.history.next_committed(at.index.previous()).copied();
        let batch = batch.filter(|b| b.first <= at.index && b.term == at.term);
        let Some(batch) = batch else {
            return Err(format!("B6: {} at {at} is not committed", what()));
        };
        if self.config.recover == Recover::AtPromises {
            self.check_on_quorum(&batch.position(), "B6: at an answer")?;
        }
        Ok(())
    }
}

/// What a message says that its sender's disk does not hold, if anything.
fn broken_promise(envelope: &Envelope, disk: &RecoveredState, history: &History) -> Option<String> {
    let (state, term) = (disk.hard_state, envelope.term);
    let kept = |holds: bool, what: &str| (!holds).then(|| what.to_string());
    if state.term < term {
        return Some("B1: a message of a term that is not durable".into());
    }
    match &envelope.message {
        Message::Vote { last, .. } => kept(
            state.term == term && state.vote == Some(envelope.from) && disk.last_id() >= *last,
            "B3: a candidacy that is not durable",
        ),
        Message::VoteReply { granted: true } => kept(
            state.term > term || state.vote == Some(envelope.to),
            "B2: a vote that is not durable",
        ),
        Message::AppendReply(AppendReply::Accepted { matched }) => {
            // What is not in a log any more was committed, and is the same in all.
            let ours = match matched.cmp(&disk.start.index()) {
                Ordering::Less => history.committed_digest(*matched),
                Ordering::Equal | Ordering::Greater => disk.digest_at(*matched),
            };
            let leaders = history.leader_digest(term, *matched);
            let leaders = leaders.or_else(|| history.committed_digest(*matched));
            (ours.is_none() || ours != leaders).then(|| {
                format!(
                    "B4: acknowledged up to {matched}: {ours:?} here, {leaders:?} at the leader"
                )
            })
        }
        Message::VoteReply { granted: false }
        | Message::AppendReply(AppendReply::Rejected { .. } | AppendReply::Divergence { .. })
        | Message::Append { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::TimeoutNow
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::Fetch { .. }
        | Message::Fetched { .. }
        | Message::DamageReport { .. }
        | Message::Heal { .. }
        | Message::TermQuery
        | Message::TermReply { .. }
        | Message::RolledBack { .. } => None,
    }
}
