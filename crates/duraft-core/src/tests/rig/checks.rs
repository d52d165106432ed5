//! What is checked of every step of a cluster: promises against the modelled disks, and history.

use super::*;

impl Rig {
    /// H2, H3: one (term, index) names one content and one history for ever. The digest chains, so
    /// one comparison compares everything before it too.
    pub(super) fn record(&mut self, header: &BatchHeader) -> Check {
        let id = header.last_id();
        let known = *(self.contents.entry((id.term, id.index))).or_insert(header.digest);
        demand(known == header.digest, || {
            format!("H2 two contents for {id}")
        })
    }

    /// What was sent, for H1 and H2; and, where asked for, the release table.
    pub(super) fn check_send(&mut self, id: u64, envelope: &Envelope) -> Check {
        if self.disk_checks {
            self.check_promise(id, envelope)?;
        }
        let term = envelope.term;
        match &envelope.message {
            Message::Append { batches, .. } => {
                for batch in batches {
                    self.record(&batch.header)?;
                }
                self.check_leads(id, term)
            }
            Message::Heartbeat { .. } => self.check_leads(id, term),
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply(_)
            | Message::HeartbeatReply { .. }
            | Message::TimeoutNow
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::DamageReport { .. }
            | Message::Heal { .. }
            | Message::TermQuery
            | Message::TermReply { .. }
            | Message::RolledBack { .. } => Ok(()),
        }
    }

    /// B1 to B4: what a message promises is on the modelled disk.
    pub(super) fn check_promise(&mut self, id: u64, envelope: &Envelope) -> Check {
        let disk = &self.node(id).durable;
        let (hard, term) = (disk.hard_state, envelope.term);
        demand(hard.term >= term, || {
            format!("B1 node {id} sends {envelope:?} with {hard:?} on disk")
        })?;
        match &envelope.message {
            Message::VoteReply { granted: true } => {
                demand(hard.term > term || hard.vote == Some(envelope.to), || {
                    format!("B2 node {id} grants {envelope:?} with {hard:?} on disk")
                })?;
                let vote = (self.votes.entry((term, NodeId(id)))).or_insert(envelope.to);
                demand(*vote == envelope.to, || {
                    format!("B2 node {id} votes twice in {term}")
                })
            }
            Message::Vote { last, .. } => {
                let own = hard.term == term && hard.vote == Some(NodeId(id));
                demand(own && disk.last().id >= *last, || {
                    format!("B3 node {id} asks {envelope:?} with {hard:?} on disk")
                })
            }
            Message::AppendReply(AppendReply::Accepted { matched }) => {
                let held = (self.node(id).raft.header_ending_at(*matched))
                    .is_none_or(|header| disk.holds(*matched, header.digest));
                let start = self.node(id).raft.start();
                let held = held
                    && disk.stands(*matched)
                    && (*matched != start.index() || disk.holds(*matched, start.digest));
                demand(held, || {
                    format!("B4 node {id} acknowledges {matched} before it is on disk")
                })
            }
            Message::Append { .. }
            | Message::Heartbeat { .. }
            | Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::VoteReply { granted: false }
            | Message::AppendReply(_)
            | Message::HeartbeatReply { .. }
            | Message::TimeoutNow
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::DamageReport { .. }
            | Message::Heal { .. }
            | Message::TermQuery
            | Message::TermReply { .. }
            | Message::RolledBack { .. } => Ok(()),
        }
    }

    /// H1: one life of one node leads a term. H4: it holds everything committed before.
    pub(super) fn check_leads(&mut self, id: u64, term: Term) -> Check {
        let life = (NodeId(id), self.raft(id).incarnation());
        if let Some(leader) = self.leaders.get(&term) {
            return demand(*leader == life, || {
                format!("H1 {life:?} and {leader:?} lead {term}")
            });
        }
        self.leaders.insert(term, life);
        let raft = self.raft(id);
        demand(raft.may_stand(), || {
            format!("H10 node {id} leads {term} without being a voter")
        })?;
        for (index, (log_id, digest)) in &self.committed {
            // What has left memory was applied, and compared then.
            let start = raft.shape_start();
            if *index < start.index() {
                continue;
            }
            let held = match raft.header_ending_at(*index) {
                Some(header) => Some(header.digest),
                None => (*index == start.index()).then_some(start.digest),
            };
            // A leader of an earlier term may be elected late, by votes that were long on their way:
            // what a later one has committed meanwhile it need not have.
            let later = self.committed_in.get(index).is_some_and(|by| *by > term);
            demand(later || held == Some(*digest), || {
                format!("H4 the leader of {term} lacks {log_id}")
            })?;
        }
        Ok(())
    }

    /// H5: in order, once per life, and everywhere the same.
    pub(super) fn check_apply(&mut self, id: u64, batches: &[Batch]) -> Check {
        for batch in batches {
            let header = batch.header;
            self.record(&header)?;
            let committed = self.committed.get(&header.last()).copied();
            let node = self.node_mut(id);
            // A state machine that has survived is handed the batch again in which its next command is.
            let again = header.last() <= node.machine.index() && node.machine_survives;
            demand(again || header.follows(&node.machine), || {
                format!("H5 node {id} applies {header:?} after {}", node.machine)
            })?;
            if !again {
                node.machine = header.position();
            }
            node.applying.push_back(header.position());
            // Entries that this step committed are compared in `check_commit`.
            if let Some((log_id, digest)) = committed {
                demand(digest == header.digest, || {
                    format!("H5 node {id} applies another {log_id}")
                })?;
            }
        }
        Ok(())
    }

    /// H7: a read shows everything that anybody knew to be committed when it came in.
    pub(super) fn check_read(&mut self, id: u64, read: ProposalId, index: Index) -> Check {
        let floor = self.reads_begun.get(&read).copied().unwrap_or_default();
        demand(index >= floor, || {
            format!("H7 node {id} answers a read at {index}, {floor} was committed when it came")
        })
    }

    /// Commit indices against history and disks: what any node commits is what every other one
    /// commits, was committed in its leader's term, and is durable on a quorum.
    ///
    /// `in_use` is the membership in use before the step: a leader counts in it. What the step itself
    /// appends is on no disk yet.
    pub(super) fn check_commit(&mut self, id: u64, before: Index, in_use: &Membership) -> Check {
        let raft = self.raft(id);
        if raft.commit() == before {
            return Ok(());
        }
        if raft.commit() == raft.start().index() {
            // A snapshot has brought it.
            let start = raft.start();
            let known = self.committed.get(&start.index()).copied();
            return demand(known == Some((start.id, start.digest)), || {
                format!("H5 node {id} begins with {start}, history has {known:?}")
            });
        }
        let news: Vec<BatchHeader> = (raft.headers().rev())
            .skip_while(|header| header.last() > raft.commit())
            .take_while(|header| header.first > before)
            .copied()
            .collect();
        let leads = (raft.role() == RoleKind::Leader).then(|| raft.term());
        if let (Some(term), Some(last)) = (leads.filter(|_| self.disk_checks), news.first()) {
            demand(last.term == term, || {
                format!(
                    "A6 node {id} commits {} by counting in {term}",
                    last.last_id()
                )
            })?;
        }
        let by = self.raft(id).term();
        let first_time = news
            .first()
            .is_some_and(|h| !self.committed.contains_key(&h.last()));
        for header in &news {
            let value = (header.last_id(), header.digest);
            let known = *self.committed.entry(header.last()).or_insert(value);
            self.committed_in.entry(header.last()).or_insert(by);
            demand(known == value, || {
                format!("H5 node {id} commits {value:?}, history has {known:?}")
            })?;
        }
        if let Some(last) = news.first().filter(|_| self.disk_checks && first_time) {
            let holders = (self.nodes.iter())
                .filter(|(id, node)| {
                    node.durable.holds(last.last(), last.digest)
                        || (self.lost_copies).contains(&(**id, last.last(), last.digest))
                })
                .map(|(id, _)| *id);
            demand(in_use.is_quorum(holders), || {
                format!(
                    "B7 {} is committed and not durable on a quorum",
                    last.last_id()
                )
            })?;
        }
        Ok(())
    }

    /// H10: consecutive memberships share a voter in any two quorums, and at most one membership of a
    /// log is not committed.
    pub(super) fn check_membership(&mut self, id: u64) -> Check {
        let raft = self.raft(id);
        let since = raft.membership_since();
        if since == raft.start().index() || !self.disk_checks {
            return Ok(());
        }
        let next = raft.membership().clone();
        let before = raft.membership_at(Index(since.0 - 1)).clone();
        let committed = self.committed.last_key_value().map_or(0, |(at, _)| at.0);
        let open = (raft.headers().rev())
            .take_while(|header| header.first.0 > committed)
            .filter(|header| header.kind == BatchKind::Membership)
            .count();
        demand(open <= 1, || {
            format!("H10 node {id} has {open} memberships that are not committed")
        })?;
        if before.is_unknown() || !self.changes.insert((before.encode(), next.encode())) {
            return Ok(());
        }
        let nodes: BTreeSet<NodeId> = before.voters().chain(next.voters()).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        for set in 0..1u32 << nodes.len() {
            let (yes, no): (Vec<_>, Vec<_>) = (0..nodes.len()).partition(|i| set >> i & 1 == 1);
            let decides = |membership: &Membership, members: &[usize]| {
                membership.is_quorum(members.iter().map(|i| nodes[*i]))
            };
            demand(!(decides(&before, &yes) && decides(&next, &no)), || {
                format!("H10 {before:?} and {next:?} can decide without each other")
            })?;
        }
        Ok(())
    }

    /// The state machine is given another state, which the disk would bring back after a crash.
    pub(super) fn restore(&mut self, id: u64, snapshot: &Snapshot) -> Check {
        self.installed += 1;
        let position = snapshot.position;
        let committed = self.committed.get(&position.index()).copied();
        let disk_checks = self.disk_checks;
        let node = self.node_mut(id);
        demand(
            node.durable.snapshot.as_ref() == Some(snapshot) || !disk_checks,
            || format!("B4 node {id} restores {snapshot:?} before it is durable"),
        )?;
        demand(position.index() > node.machine.index(), || {
            format!("H5 node {id} goes back from {} to {position}", node.machine)
        })?;
        demand(committed == Some((position.id, position.digest)), || {
            format!("H5 node {id} restores {position}, history has {committed:?}")
        })?;
        node.machine = position;
        node.applying.clear();
        node.applying.push_back(position);
        Ok(())
    }
}
