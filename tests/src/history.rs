//! What was seen anywhere, ever, and what must hold of it (CONSENSUS.md 3.3, H1-H6).
//!
//! The history knows nothing of a core's state: it is fed with what left the cores (messages, writes,
//! applied batches) and with what the disks hold.

use crate::{Broken, Machine, Store};
use duraft_core::{
    Batch, BatchHeader, Digest, Envelope, HardState, Incarnation, Index, LogId, Membership,
    Message, NodeId, Position, Term,
};
use std::collections::{BTreeMap, BTreeSet};

const H1: &str = "H1 election safety";
const H2: &str = "H2 payload uniqueness";
const H3: &str = "H3 log matching";
const H4: &str = "H4 leader completeness";
const H5: &str = "H5 state machine safety";
const H10: &str = "H10 consecutive memberships share their quorums";
const H6: &str = "H6 committed stays durable on a quorum";
const VOTES: &str = "one vote per term over all lives";
const OWN_TERM: &str = "commit by counting only in the own term";

/// Everything that left any node.
#[derive(Clone, Debug)]
pub struct History {
    /// The membership that the last commit was decided by: the one in use at its leader, committed or
    /// not. Its quorums hold everything that is committed.
    decided_by: Membership,
    /// Pairs that may follow one another, encoded.
    compatible: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// Committed batches; the log starts at `start`.
    committed: Vec<BatchHeader>,
    /// The term of the leader that committed each of them first, where that was seen.
    committed_in: Vec<Option<Term>>,
    start: Position,
    /// The batch that (term, first) names.
    batches: BTreeMap<(Term, Index), Batch>,
    /// The prefix that (term, index) names.
    prefixes: BTreeMap<LogId, Digest>,
    /// The life that led a term.
    leaders: BTreeMap<Term, (NodeId, Incarnation)>,
    /// Boundaries of the log of each term's leader, as far as seen.
    leader_logs: BTreeMap<Term, BTreeMap<Index, Digest>>,
    /// What each candidate of a term said that its log ends with.
    asked: BTreeMap<(Term, NodeId), LogId>,
    /// Votes that left: whom a node voted for in a term.
    votes: BTreeMap<(Term, NodeId), NodeId>,
    /// How many committed batches each voter's disk holds.
    covered: BTreeMap<NodeId, usize>,
    /// What damaged nodes held before the test destroyed parts of it.
    before_damage: BTreeMap<NodeId, Vec<Store>>,
    /// Nodes whose hard state the test has destroyed.
    forgot_vote: BTreeSet<NodeId>,
    /// Nodes without a core: what their disks hold is not known.
    puppets: bool,
}

impl History {
    /// An empty history of this cluster, whose logs start at `start`.
    pub fn new(membership: Membership, start: Position) -> History {
        History {
            decided_by: membership,
            compatible: BTreeSet::new(),
            committed: Vec::new(),
            committed_in: Vec::new(),
            start,
            batches: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            leader_logs: BTreeMap::new(),
            asked: BTreeMap::new(),
            votes: BTreeMap::new(),
            covered: BTreeMap::new(),
            before_damage: BTreeMap::new(),
            forgot_vote: BTreeSet::new(),
            puppets: false,
        }
    }

    /// Some voters have no core here: nothing is claimed about quorums of disks.
    pub fn with_puppets(&mut self) {
        self.puppets = true;
    }

    /// Do some voters have no core here?
    pub fn has_puppets(&self) -> bool {
        self.puppets
    }

    /// The committed log so far.
    pub fn committed(&self) -> &[BatchHeader] {
        &self.committed
    }

    /// The end of the committed log.
    pub fn commit(&self) -> Position {
        self.committed
            .last()
            .map_or(self.start, BatchHeader::position)
    }

    /// Is this a boundary of the committed log?
    pub fn is_committed(&self, position: &Position) -> bool {
        if *position == self.start {
            return true;
        }
        self.committed
            .binary_search_by_key(&position.index(), BatchHeader::last)
            .is_ok_and(|at| self.committed[at].position() == *position)
    }

    /// The life that led this term, as far as seen.
    pub fn leader_of(&self, term: Term) -> Option<(NodeId, Incarnation)> {
        self.leaders.get(&term).copied()
    }

    /// The candidate that this node's vote in `term` went to, once the vote has left the node.
    pub fn vote_of(&self, node: NodeId, term: Term) -> Option<NodeId> {
        self.votes.get(&(term, node)).copied()
    }

    /// The last entry that this candidate of `term` advertised.
    pub fn asked(&self, term: Term, candidate: NodeId) -> Option<LogId> {
        self.asked.get(&(term, candidate)).copied()
    }

    /// Is `position` a boundary of the log of this term's leader?
    pub fn in_leader_log(&self, term: Term, position: &Position) -> bool {
        self.leader_logs
            .get(&term)
            .and_then(|log| log.get(&position.index()))
            == Some(&position.digest)
    }

    /// A batch was seen: sent, written or applied (H2). The digest covers everything before the
    /// batch, so one comparison is log matching too (H3).
    pub fn saw_batch(&mut self, batch: &Batch) -> Result<(), Broken> {
        let key = (batch.header.term, batch.header.first);
        let known = self.batches.entry(key).or_insert_with(|| batch.clone());
        Broken::unless(known == batch, H2, || {
            format!("{:?} was {:?} before", batch.header, known.header)
        })?;
        self.saw_position(&batch.header.position())
    }

    /// A boundary was named: (term, index) has one prefix (H3).
    pub fn saw_position(&mut self, position: &Position) -> Result<(), Broken> {
        let known = *self.prefixes.entry(position.id).or_insert(position.digest);
        Broken::unless(known == position.digest, H3, || {
            format!("{position} had digest {:016x} before", known.0)
        })
    }

    /// A life leads this term (H1, H4): it is the only one ever, and its log holds all that was
    /// committed in earlier terms. A candidate may win late, when a later term has committed more.
    pub fn leads(
        &mut self,
        term: Term,
        life: (NodeId, Incarnation),
        log: &Store,
    ) -> Result<(), Broken> {
        self.one_leader(term, life)?;
        let earlier = |by: &Option<Term>| by.is_some_and(|by| by < term);
        let last = self.committed_in.iter().rposition(earlier);
        let end = last.map_or(self.start, |at| self.committed[at].position());
        Broken::unless(log.covers(&end) || end == self.start, H4, || {
            format!(
                "leader {} of term {term} ends at {} without committed {end}",
                life.0,
                log.last()
            )
        })?;
        let known = self.leader_logs.entry(term).or_default();
        known.insert(log.start.index(), log.start.digest);
        known.extend(
            log.batches
                .iter()
                .map(|batch| (batch.header.last(), batch.header.digest)),
        );
        Ok(())
    }

    fn one_leader(&mut self, term: Term, life: (NodeId, Incarnation)) -> Result<(), Broken> {
        let known = *self.leaders.entry(term).or_insert(life);
        Broken::unless(known == life, H1, || {
            format!("term {term} is led by {known:?} and by {life:?}")
        })
    }

    /// The leader of this term made this batch.
    pub fn leader_appended(&mut self, term: Term, batch: &Batch) {
        self.leader_logs
            .entry(term)
            .or_default()
            .insert(batch.header.last(), batch.header.digest);
    }

    /// A message left a node, or a puppet.
    pub fn sent(&mut self, envelope: &Envelope) -> Result<(), Broken> {
        let term = envelope.term;
        match &envelope.message {
            Message::Append { prev, batches, .. } => {
                self.one_leader(term, (envelope.from, envelope.incarnation))?;
                self.saw_position(prev)?;
                let log = self.leader_logs.entry(term).or_default();
                log.insert(prev.index(), prev.digest);
                let mut end = *prev;
                for batch in batches {
                    Broken::unless(batch.header.follows(&end), H3, || {
                        format!("append sends {:?} after {end}", batch.header)
                    })?;
                    end = batch.header.position();
                    self.saw_batch(batch)?;
                    self.leader_appended(term, batch);
                }
                Ok(())
            }
            Message::Heartbeat { .. }
            | Message::TimeoutNow
            | Message::Heal { .. }
            | Message::RolledBack { .. } => {
                self.one_leader(term, (envelope.from, envelope.incarnation))
            }
            Message::Vote { last, .. } => {
                self.asked.insert((term, envelope.from), *last);
                self.voted(term, envelope.from, envelope.from)
            }
            Message::VoteReply { granted: true } => self.voted(term, envelope.from, envelope.to),
            Message::VoteReply { granted: false }
            | Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::AppendReply(_)
            | Message::HeartbeatReply { .. }
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::DamageReport { .. }
            | Message::TermQuery
            | Message::TermReply { .. } => Ok(()),
        }
    }

    fn voted(&mut self, term: Term, voter: NodeId, candidate: NodeId) -> Result<(), Broken> {
        let known = *self.votes.entry((term, voter)).or_insert(candidate);
        Broken::unless(known == candidate, VOTES, || {
            format!("node {voter} voted in term {term} for {known} and for {candidate}")
        })
    }

    /// A leader's commit index was seen to be `commit`. What is newly committed ends with an entry of
    /// the leader's own term (5.4.2).
    pub fn leader_committed(
        &mut self,
        leader: NodeId,
        term: Term,
        log: &Store,
        commit: Index,
    ) -> Result<(), Broken> {
        let before = self.commit();
        if commit <= before.index() {
            return Ok(());
        }
        let end = log.boundary(commit).ok_or_else(|| Broken {
            rule: "commit is a batch end of the log",
            story: format!("leader {leader} of term {term} commits {commit}"),
        })?;
        Broken::unless(end.term() == term, OWN_TERM, || {
            format!("leader {leader} of term {term} commits {end} after {before}")
        })?;
        for batch in &log.batches {
            if batch.header.first > before.index() && batch.header.last() <= commit {
                self.extend(&batch.header, Some(term))?;
            }
        }
        Ok(())
    }

    /// Nodes without a core have committed this batch.
    pub fn committed_elsewhere(&mut self, batch: &Batch) -> Result<(), Broken> {
        self.saw_batch(batch)?;
        self.extend(&batch.header, None)
    }

    fn extend(&mut self, header: &BatchHeader, by: Option<Term>) -> Result<(), Broken> {
        let end = self.commit();
        Broken::unless(header.follows(&end), H5, || {
            format!("{header:?} is committed after {end}")
        })?;
        self.committed.push(*header);
        self.committed_in.push(by);
        Ok(())
    }

    /// A node gives this batch to its state machine; `before` is what it applied last (H5).
    pub fn applied(
        &mut self,
        node: NodeId,
        before: &Position,
        batch: &Batch,
    ) -> Result<(), Broken> {
        self.saw_batch(batch)?;
        Broken::unless(batch.header.follows(before), H5, || {
            format!("node {node} applies {:?} after {before}", batch.header)
        })?;
        if batch.header.first > self.commit().index() {
            return self.extend(&batch.header, None);
        }
        let known = self
            .committed
            .binary_search_by_key(&batch.header.first, |header| header.first)
            .map(|at| self.committed[at]);
        Broken::unless(known == Ok(batch.header), H5, || {
            format!(
                "node {node} applies {:?}, committed is {known:?}",
                batch.header
            )
        })
    }

    /// May `after` be in use where `before` was? Any quorum of the one shares a voter with any of the
    /// other, over all subsets of the voters; and a joint membership begins with the voters as they
    /// were and ends with the voters as they shall be (H10).
    pub fn follows(&mut self, before: &Membership, after: &Membership) -> Result<(), Broken> {
        let key = (before.encode(), after.encode());
        if before.is_unknown() || self.compatible.contains(&key) {
            return Ok(());
        }
        let story = || format!("{after:?} after {before:?}");
        let shaped = match (before.left(), after.is_joint()) {
            // Written again for a node that has lost what it knew of it.
            _ if after == before => true,
            (Some(left), _) => *after == left,
            (None, true) => after.outgoing().eq(before.incoming()),
            (None, false) => after.incoming().eq(before.incoming()),
        };
        Broken::unless(shaped && share_quorums(before, after), H10, story)?;
        self.compatible.insert(key);
        Ok(())
    }

    /// A leader has committed by one of these memberships: the one it used before the step, or the one
    /// after (A6; both sides of a joint one). [`History::check_durable`] holds the disks against it.
    pub fn decided(&mut self, before: &Membership, after: &Membership) {
        let by = [after, before].into_iter().find(|m| self.holds_quorum(m));
        self.decided_by = by.unwrap_or(after).clone();
    }

    /// Do disks of a quorum of this membership hold everything committed?
    pub fn holds_quorum(&self, membership: &Membership) -> bool {
        let covered = |node| self.covered.get(&node).copied().unwrap_or(0);
        membership.quorum_value(0, covered) >= self.committed.len()
    }

    /// A state machine was replaced by a snapshot's content: it is the committed log up to there (H5).
    pub fn installed(&self, node: NodeId, content: &Machine) -> Result<(), Broken> {
        let same = content
            .applied
            .iter()
            .map(|batch| &batch.header)
            .eq(self.committed.iter().take(content.applied.len()));
        Broken::unless(same && self.is_committed(&content.to), H5, || {
            format!("node {node} installs the state at {}", content.to)
        })
    }

    /// Notes how much of the committed log each of these disks holds.
    pub fn look_at<'a>(&mut self, disks: impl IntoIterator<Item = (NodeId, &'a Store)>) {
        for (node, store) in disks {
            if store.wounds.is_none() {
                self.before_damage.remove(&node);
            }
            // What the test itself has destroyed is accounted for by what the node does not say until it
            // is healed.
            let lost = self.before_damage.get(&node);
            let covers = |header: &BatchHeader| {
                let position = header.position();
                let mut held = lost.into_iter().flatten();
                store.covers(&position) || held.any(|old| old.covers(&position))
            };
            let before = self.covered.get(&node).copied().unwrap_or(0);
            let mut covered = before.min(self.committed.len());
            while covered > 0 && !covers(&self.committed[covered - 1]) {
                covered -= 1;
            }
            while self.committed.get(covered).is_some_and(covers) {
                covered += 1;
            }
            self.covered.insert(node, covered);
        }
    }

    /// What a damaged node held before the test destroyed parts of it.
    pub fn before_damage(&self, node: NodeId) -> impl Iterator<Item = &Store> + '_ {
        self.before_damage.get(&node).into_iter().flatten()
    }

    /// The test destroys parts of what this node holds.
    pub fn damages(&mut self, node: NodeId, before: &Store) {
        self.before_damage
            .entry(node)
            .or_default()
            .push(before.clone());
    }

    /// A disk changed, or more was committed: the number of voters whose durable log holds
    /// the committed one must be a quorum (H6, A6, B5-B7).
    pub fn check_durable<'a>(
        &mut self,
        disks: impl IntoIterator<Item = (NodeId, &'a Store)>,
    ) -> Result<(), Broken> {
        self.look_at(disks);
        if self.puppets {
            return Ok(());
        }
        Broken::unless(self.holds_quorum(&self.decided_by), H6, || {
            format!(
                "{} batches are committed, {:?} hold {:?}",
                self.committed.len(),
                self.decided_by,
                self.covered
            )
        })
    }

    /// The test has destroyed the hard state of this node.
    pub fn forgets_vote(&mut self, node: NodeId) {
        self.forgot_vote.insert(node);
    }

    /// The hard state a node recovers is not older than what it promised: its term is at least that
    /// of every vote that left it, and the vote is the one given (B12).
    ///
    /// A node that has lost its hard state votes for itself in the term it takes up again, be it one in
    /// which it had voted for another: that vote is spent, whoever has it (RULES.md 14).
    pub fn recovered(&self, node: NodeId, hard_state: &HardState) -> Result<(), Broken> {
        let promised = self.votes.iter().rfind(|((_, voter), _)| *voter == node);
        let Some(((term, _), candidate)) = promised else {
            return Ok(());
        };
        let kept = hard_state.term > *term
            || (hard_state.term == *term && hard_state.vote == Some(*candidate))
            || (hard_state.term == *term
                && hard_state.vote == Some(node)
                && self.forgot_vote.contains(&node));
        Broken::unless(kept, "B12 a vote that left survives", || {
            format!("node {node} recovers {hard_state:?} after voting {candidate} in {term}")
        })
    }
}

/// Does every quorum of `a` share a voter with every quorum of `b`? Over all subsets: two quorums
/// without a common voter exist exactly if one of `a` and the complement of one are quorums.
fn share_quorums(a: &Membership, b: &Membership) -> bool {
    let voters: BTreeSet<NodeId> = a.voters().chain(b.voters()).collect();
    let voters: Vec<NodeId> = voters.into_iter().collect();
    assert!(voters.len() <= 16, "small clusters are tested");
    (0..1u32 << voters.len()).all(|set| {
        let side = |inside: bool| {
            let chosen = (0..voters.len()).filter(move |bit| (set >> bit & 1 == 1) == inside);
            chosen.map(|bit| voters[bit])
        };
        !(a.is_quorum(side(true)) && b.is_quorum(side(false)))
    })
}
