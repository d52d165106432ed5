//! A cluster of cores with modelled disks and a network that does only what the test says.
//!
//! The disk model keeps what is durable apart from what was written: a crash loses the writes that
//! the test has not made durable. Every message is checked against the **disk model** when it is
//! sent, not against the core's own counters: a core that counted wrongly would be found.
//! History checks span all nodes and all lives.

use crate::invariants;
use crate::*;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

pub(crate) const GROUP: GroupId = GroupId(7);

/// What survives a crash.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    pub(crate) start: Position,
    pub(crate) batches: Vec<Batch>,
    /// The membership at `start`.
    pub(crate) membership: Membership,
    pub(crate) snapshot: Option<Snapshot>,
}

impl Image {
    /// A disk on which nothing was ever written.
    pub(crate) fn fresh(membership: Membership) -> Image {
        Image {
            hard_state: HardState::default(),
            start: Position::START,
            batches: Vec::new(),
            membership,
            snapshot: None,
        }
    }

    fn membership_at(&self, index: Index) -> Membership {
        let memberships = self.memberships();
        let last = memberships.iter().rev().find(|(at, _)| *at <= index);
        last.map_or(&self.membership, |(_, membership)| membership)
            .clone()
    }

    pub(crate) fn last(&self) -> Position {
        (self.batches.last()).map_or(self.start, |batch| batch.header.position())
    }

    /// The memberships of the membership batches, as a storage reads them back.
    pub(crate) fn memberships(&self) -> Vec<(Index, Membership)> {
        let batches = self.batches.iter();
        batches
            .filter(|batch| batch.header.kind == BatchKind::Membership)
            .map(|batch| {
                let membership = Membership::decode(&batch.body).expect("an honest membership");
                (batch.header.first, membership)
            })
            .collect()
    }

    fn apply(&mut self, write: &Write) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(SnapshotWrite { snapshot, reset }) = &write.snapshot {
            if *reset {
                self.start = snapshot.position;
                self.membership = snapshot.membership.clone();
                self.batches.clear();
            } else {
                assert!(
                    self.holds(snapshot.position.index(), snapshot.position.digest),
                    "a snapshot stands in the log"
                );
            }
            self.snapshot = Some(snapshot.clone());
        }
        if let Some(cut) = write.truncate {
            while self.last() != cut {
                self.batches.pop().expect("a cut lies in the stored log");
            }
        }
        for batch in &write.append {
            assert!(batch.header.follows(&self.last()), "writes fit the disk");
            self.batches.push(batch.clone());
        }
        if let Some(start) = write.compact {
            let covered = (self.snapshot.as_ref()).map(|snapshot| snapshot.position.index());
            assert!(
                covered >= Some(start.index()) && self.holds(start.index(), start.digest),
                "B8 what is dropped is covered by a snapshot"
            );
            self.membership = self.membership_at(start.index());
            self.batches
                .retain(|batch| batch.header.first > start.index());
            self.start = start;
        }
    }

    /// Is this log, up to the batch end `index`, equal to one that ends there with `digest`?
    pub(crate) fn holds(&self, index: Index, digest: Digest) -> bool {
        let place = (self.batches).binary_search_by_key(&index, |batch| batch.header.last());
        match place {
            Ok(i) => self.batches[i].header.digest == digest,
            Err(_) if index == self.start.index() => digest == self.start.digest,
            // In the snapshot: committed, and compared when it was.
            Err(_) => index < self.start.index(),
        }
    }
}

pub(crate) struct Node {
    pub(crate) raft: Raft,
    pub(crate) config: Config,
    pub(crate) durable: Image,
    pub(crate) written: Image,
    pub(crate) pending: VecDeque<Write>,
    /// Durable, whether reported or not.
    pub(crate) done: WriteSeq,
    pub(crate) loads: VecDeque<Load>,
    /// Handed to the state machine and not reported applied.
    pub(crate) applying: VecDeque<Position>,
    /// What the state machine holds, reported or not.
    pub(crate) machine: Position,
    /// What of it was reported.
    pub(crate) reported: Position,
    /// Where it begins after the next crash: with the snapshot, or with what it holds by itself.
    pub(crate) machine_survives: bool,
    pub(crate) responses: Vec<Response>,
    /// Reads that were answered: the read, the index, the lease's round.
    pub(crate) reads: Vec<(ProposalId, Index, Option<u64>)>,
}

/// A snapshot on its way.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) term: Term,
    pub(crate) snapshot: Snapshot,
}

/// See the module documentation.
pub(crate) struct Rig {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) network: Vec<Envelope>,
    pub(crate) transfers: Vec<Transfer>,
    /// Snapshots that were restored from a leader.
    pub(crate) installed: u32,
    next_file: u64,
    /// Check each core's own invariants too; off to see whether history alone finds a fault.
    pub(crate) local_checks: bool,
    /// Check promises against the modelled disks; off to see whether the harm itself is found.
    pub(crate) disk_checks: bool,
    pub(crate) plant: Option<Plant>,
    leaders: BTreeMap<Term, (NodeId, Incarnation)>,
    /// Every batch ever sent, written or applied, by its last entry.
    contents: BTreeMap<(Term, Index), Digest>,
    /// Everything any node has ever committed, by the index a batch ends with.
    pub(crate) committed: BTreeMap<Index, (LogId, Digest)>,
    votes: BTreeMap<(Term, NodeId), NodeId>,
    /// Pairs of consecutive memberships that were compared.
    changes: BTreeSet<(Vec<u8>, Vec<u8>)>,
    next_proposal: u64,
    /// What was committed anywhere when a read came in.
    reads_begun: BTreeMap<ProposalId, Index>,
    outputs: Vec<Output>,
    pub(crate) trace: u64,
}

pub(crate) type Check = Result<(), String>;

fn demand(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

/// A body of one command.
pub(crate) fn body(number: u64) -> Body {
    let mut bytes = Vec::from(8u32.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    Body {
        kind: BatchKind::Commands,
        codec: 0,
        count: 1,
        // The core never computes it; any value that differs with the content will do.
        checksum: u32::try_from(mix64(number) >> 32).expect("upper half"),
        bytes: Bytes::from(bytes),
    }
}

impl Rig {
    /// Fresh nodes 1..=n, all voters.
    pub(crate) fn new(voters: u64, seed: u64) -> Rig {
        Rig::with(voters, &[], |id| Config::new(id, GROUP, seed))
    }

    pub(crate) fn with(voters: u64, learners: &[u64], config: impl Fn(NodeId) -> Config) -> Rig {
        let membership = Membership::new(
            (1..=voters).map(NodeId),
            learners.iter().copied().map(NodeId),
        )
        .expect("a valid membership");
        let mut rig = Rig {
            nodes: BTreeMap::new(),
            network: Vec::new(),
            transfers: Vec::new(),
            installed: 0,
            next_file: 1,
            local_checks: true,
            disk_checks: true,
            plant: None,
            leaders: BTreeMap::new(),
            contents: BTreeMap::new(),
            committed: BTreeMap::new(),
            votes: BTreeMap::new(),
            changes: BTreeSet::new(),
            next_proposal: 1,
            reads_begun: BTreeMap::new(),
            outputs: Vec::new(),
            trace: 0,
        };
        for id in membership.members() {
            let image = Image::fresh(membership.clone());
            rig.boot(config(id), image, Incarnation(1));
        }
        rig
    }

    /// Starts a life from an image.
    pub(crate) fn boot(&mut self, config: Config, image: Image, incarnation: Incarnation) {
        self.boot_with(config, image, incarnation, None);
    }

    /// The same with a state machine that holds `machine` by itself.
    pub(crate) fn boot_with(
        &mut self,
        config: Config,
        image: Image,
        incarnation: Incarnation,
        machine: Option<Position>,
    ) {
        let boot = Boot {
            incarnation,
            hard_state: image.hard_state,
            start: image.start,
            batches: image.batches.iter().map(|batch| batch.header).collect(),
            membership: image.membership.clone(),
            memberships: image.memberships(),
            snapshot: image.snapshot.clone(),
            applied: machine.map(|machine| machine.index()),
            damage: None,
        };
        // The host restores the snapshot where the state machine holds less.
        let restored = (image.snapshot.as_ref()).map_or(Position::START, |s| s.position);
        let holds = match machine {
            Some(machine) if machine.index() > restored.index() => machine,
            Some(_) | None => restored,
        };
        let id = config.id;
        let mut raft = Raft::new(config.clone(), boot).expect("recovered states are valid");
        if let Some(plant) = self.plant {
            raft.plant(plant);
        }
        let node = Node {
            machine: holds,
            reported: holds,
            machine_survives: machine.is_some(),
            raft,
            config,
            written: image.clone(),
            durable: image,
            pending: VecDeque::new(),
            done: WriteSeq(0),
            loads: VecDeque::new(),
            applying: VecDeque::new(),
            responses: Vec::new(),
            reads: Vec::new(),
        };
        self.nodes.insert(id, node);
    }

    /// Replaces a node's disk before anything has happened.
    pub(crate) fn seed_log(&mut self, id: u64, term: u64, terms: &[u64]) {
        let config = self.node(id).config.clone();
        let mut image = self.node(id).durable.clone();
        for (i, entry_term) in terms.iter().enumerate() {
            let body = body(entry_term * 1000 + i as u64);
            let batch = body
                .seal(GROUP, &image.last(), Term(*entry_term))
                .expect("room");
            image.batches.push(batch);
        }
        image.hard_state.term = Term(term);
        self.boot(config, image, Incarnation(1));
    }

    /// Power fails and comes back: writes that are not durable are gone, but for the first `keep`.
    pub(crate) fn crash(&mut self, id: u64, keep: usize) {
        let node = self.nodes.remove(&NodeId(id)).expect("a known node");
        let mut image = node.durable;
        for write in node.pending.iter().take(keep) {
            image.apply(write);
        }
        let incarnation = Incarnation(node.raft.incarnation().0 + 1);
        let machine = node.machine_survives.then_some(node.machine);
        self.boot_with(node.config, image, incarnation, machine);
        // The source's copy is on its way no more, and what the other has got of it is forgotten.
        self.transfers.retain(|transfer| transfer.from != id);
    }

    /// Changes the configuration of a node that has done nothing yet, and of its later lives.
    pub(crate) fn set_config(&mut self, id: u64, change: impl FnOnce(&mut Config)) {
        let node = self.node(id);
        let (mut config, image) = (node.config.clone(), node.durable.clone());
        let (incarnation, survives) = (node.raft.incarnation(), node.machine_survives);
        change(&mut config);
        self.boot(config, image, incarnation);
        self.node_mut(id).machine_survives = survives;
    }

    pub(crate) fn node(&self, id: u64) -> &Node {
        &self.nodes[&NodeId(id)]
    }

    pub(crate) fn raft(&self, id: u64) -> &Raft {
        &self.node(id).raft
    }

    pub(crate) fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&NodeId(id)).expect("a known node")
    }

    pub(crate) fn step(&mut self, id: u64, input: Input) -> Check {
        let mut outputs = core::mem::take(&mut self.outputs);
        outputs.clear();
        let local = self.local_checks;
        let raft = &mut self.node_mut(id).raft;
        let before = local.then(|| raft.clone());
        let commit_before = raft.commit();
        let in_use = raft.membership().clone();
        raft.step(input, &mut outputs);
        self.trace = mix64(self.trace ^ mix64(id) ^ raft_fingerprint(self.raft(id)));
        let raft = self.raft(id);
        if let Some(before) = before {
            let verdict = invariants::check(raft)
                .and_then(|()| invariants::check_delta(&before, raft, &outputs));
            verdict.map_err(|violation| format!("node {id}: {violation}"))?;
        }
        for output in outputs.drain(..) {
            self.take(id, output)?;
        }
        self.outputs = outputs;
        self.check_commit(id, commit_before, &in_use)?;
        self.check_membership(id)
    }

    fn take(&mut self, id: u64, output: Output) -> Check {
        match output {
            Output::Persist(write) => {
                for batch in &write.append {
                    self.record(&batch.header)?;
                }
                let node = self.node_mut(id);
                node.written.apply(&write);
                node.pending.push_back(write);
            }
            Output::Send(envelope) => {
                self.check_send(id, &envelope)?;
                self.network.push(envelope);
            }
            Output::Apply(batches) => self.check_apply(id, &batches)?,
            Output::Load(load) => self.node_mut(id).loads.push_back(load),
            Output::Respond(response) => self.node_mut(id).responses.push(response),
            Output::ReadReady {
                id: read,
                index,
                lease,
            } => {
                self.check_read(id, read, index)?;
                self.node_mut(id).reads.push((read, index, lease));
            }
            Output::SendSnapshot { to, term, snapshot } => {
                let durable = self.node(id).durable.snapshot.as_ref() == Some(&snapshot);
                demand(durable || !self.disk_checks, || {
                    format!("B8 node {id} sends {snapshot:?}, which its disk does not count on")
                })?;
                let (from, to) = (id, to.0);
                self.transfers
                    .retain(|old| (old.from, old.to) != (from, to));
                self.transfers.push(Transfer {
                    from,
                    to,
                    term,
                    snapshot,
                });
            }
            Output::InstallSnapshot(snapshot) => self.restore(id, &snapshot)?,
            Output::Changed(_) => {}
        }
        Ok(())
    }

    /// The state machine is given another state, which the disk would bring back after a crash.
    fn restore(&mut self, id: u64, snapshot: &Snapshot) -> Check {
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

    /// The state machine's state as it was last reported goes to a durable file, and the core hears of
    /// it. Nothing if there is nothing new.
    pub(crate) fn take_snapshot(&mut self, id: u64) -> Check {
        match self.make_snapshot(id) {
            Some(snapshot) => {
                self.step(id, Input::Completed(Completion::SnapshotTaken { snapshot }))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn make_snapshot(&mut self, id: u64) -> Option<Snapshot> {
        let nonce = self.next_file;
        let node = self.node(id);
        let known = (node.written.snapshot.as_ref()).map_or(Index(0), |s| s.position.index());
        if node.reported.index() <= known {
            return None;
        }
        let snapshot = Snapshot {
            position: node.reported,
            membership: node.raft.membership_at(node.reported.index()).clone(),
            file: SnapshotFile {
                nonce,
                bytes: 100,
                digest: node.reported.digest.0,
            },
        };
        self.next_file += 1;
        Some(snapshot)
    }

    /// The snapshot is whole and durable at its receiver; both ends hear of it.
    pub(crate) fn finish_transfer(&mut self, at: usize) -> Check {
        let transfer = self.transfers.remove(at);
        let Transfer { from, to, term, .. } = transfer;
        self.report_sending(&transfer, SendProgress::Delivered)?;
        let from = NodeId(from);
        let snapshot = transfer.snapshot;
        let completion = Completion::SnapshotReceived {
            from,
            term,
            snapshot,
        };
        self.step(to, Input::Completed(completion))
    }

    pub(crate) fn fail_transfer(&mut self, at: usize) -> Check {
        let transfer = self.transfers.remove(at);
        self.report_sending(&transfer, SendProgress::Failed)
    }

    pub(crate) fn report_sending(&mut self, transfer: &Transfer, progress: SendProgress) -> Check {
        let completion = Completion::SnapshotSending {
            to: NodeId(transfer.to),
            at: transfer.snapshot.position.index(),
            progress,
        };
        self.step(transfer.from, Input::Completed(completion))
    }

    /// H2, H3: one (term, index) names one content and one history for ever. The digest chains, so
    /// one comparison compares everything before it too.
    fn record(&mut self, header: &BatchHeader) -> Check {
        let id = header.last_id();
        let known = *(self.contents.entry((id.term, id.index))).or_insert(header.digest);
        demand(known == header.digest, || {
            format!("H2 two contents for {id}")
        })
    }

    /// What was sent, for H1 and H2; and, where asked for, the release table.
    fn check_send(&mut self, id: u64, envelope: &Envelope) -> Check {
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
    fn check_promise(&mut self, id: u64, envelope: &Envelope) -> Check {
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
                let held =
                    held && (*matched != start.index() || disk.holds(*matched, start.digest));
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
    fn check_leads(&mut self, id: u64, term: Term) -> Check {
        let life = (NodeId(id), self.raft(id).incarnation());
        if let Some(leader) = self.leaders.get(&term) {
            return demand(*leader == life, || {
                format!("H1 {life:?} and {leader:?} lead {term}")
            });
        }
        self.leaders.insert(term, life);
        let raft = self.raft(id);
        demand(raft.membership().is_voter(NodeId(id)), || {
            format!("H10 node {id} leads {term} without being a voter")
        })?;
        for (index, (log_id, digest)) in &self.committed {
            let start = raft.start();
            if *index < start.index() {
                continue;
            }
            let held = match raft.header_ending_at(*index) {
                Some(header) => Some(header.digest),
                None => (*index == start.index()).then_some(start.digest),
            };
            demand(log_id.term > term || held == Some(*digest), || {
                format!("H4 the leader of {term} lacks {log_id}")
            })?;
        }
        Ok(())
    }

    /// H5: in order, once per life, and everywhere the same.
    fn check_apply(&mut self, id: u64, batches: &[Batch]) -> Check {
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
    fn check_read(&mut self, id: u64, read: ProposalId, index: Index) -> Check {
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
    fn check_commit(&mut self, id: u64, before: Index, in_use: &Membership) -> Check {
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
        let first_time = news
            .first()
            .is_some_and(|h| !self.committed.contains_key(&h.last()));
        for header in &news {
            let value = (header.last_id(), header.digest);
            let known = *self.committed.entry(header.last()).or_insert(value);
            demand(known == value, || {
                format!("H5 node {id} commits {value:?}, history has {known:?}")
            })?;
        }
        if let Some(last) = news.first().filter(|_| self.disk_checks && first_time) {
            let holders = (self.nodes.iter())
                .filter(|(_, node)| node.durable.holds(last.last(), last.digest))
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
    fn check_membership(&mut self, id: u64) -> Check {
        let raft = self.raft(id);
        let since = raft.membership_since();
        if since == raft.start().index() {
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

    pub(crate) fn change(&mut self, id: u64, changes: &[MemberChange], leave: Leave) -> Check {
        let number = self.next_proposal;
        self.next_proposal += 1;
        let input = Input::ChangeMembership {
            id: ProposalId(number),
            changes: changes.to_vec(),
            leave,
        };
        self.step(id, input)
    }

    /// Starts a node that was never a member and knows nobody.
    pub(crate) fn join(&mut self, config: Config) {
        self.boot(config, Image::fresh(Membership::unknown()), Incarnation(1));
    }

    /// All nodes tick and everything is delivered, `rounds` times.
    pub(crate) fn run(&mut self, rounds: u32) -> Check {
        self.run_without(&[], rounds)
    }

    /// The same while the nodes in `cut` are out of reach; they tick all the same.
    pub(crate) fn run_without(&mut self, cut: &[u64], rounds: u32) -> Check {
        for _ in 0..rounds {
            for id in self.ids() {
                self.tick(id)?;
            }
            self.settle_without(cut)?;
        }
        Ok(())
    }

    pub(crate) fn tick(&mut self, id: u64) -> Check {
        self.step(id, Input::Tick)
    }

    pub(crate) fn read(&mut self, id: u64, basis: ReadBasis) -> Check {
        let read = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        let committed = self.committed.last_key_value().map(|(at, _)| *at);
        self.reads_begun.insert(read, committed.unwrap_or_default());
        self.step(id, Input::Read { id: read, basis })
    }

    pub(crate) fn transfer(&mut self, id: u64, to: u64) -> Check {
        let number = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        let to = NodeId(to);
        self.step(id, Input::TransferLeadership { id: number, to })
    }

    pub(crate) fn propose(&mut self, id: u64) -> Check {
        let number = self.next_proposal;
        self.next_proposal += 1;
        let id_ = ProposalId(number);
        let body = body(number);
        self.step(id, Input::Propose { id: id_, body })
    }

    /// Makes the next `count` writes durable without telling the core.
    pub(crate) fn sync(&mut self, id: u64, count: usize) {
        let node = self.node_mut(id);
        for _ in 0..count {
            if let Some(write) = node.pending.pop_front() {
                node.durable.apply(&write);
                node.done = write.seq;
            }
        }
    }

    /// Tells the core what is durable.
    pub(crate) fn report(&mut self, id: u64) -> Check {
        let upto = self.node(id).done;
        self.step(id, Input::Completed(Completion::Persisted { upto }))
    }

    /// Everything written becomes durable and is reported.
    pub(crate) fn flush(&mut self, id: u64) -> Check {
        let count = self.node(id).pending.len();
        self.sync(id, count);
        let node = self.node(id);
        if node.done == node.raft.last_durable() {
            return Ok(());
        }
        self.report(id)
    }

    pub(crate) fn deliver(&mut self, envelope: Envelope) -> Check {
        let to = envelope.to.0;
        if self.nodes.contains_key(&envelope.to) {
            self.step(to, Input::Received(envelope))
        } else {
            Ok(())
        }
    }

    /// Answers the oldest load from what was written, as a storage would.
    pub(crate) fn answer_load(&mut self, id: u64) -> Check {
        let node = self.node_mut(id);
        let Some(load) = node.loads.pop_front() else {
            return Ok(());
        };
        let mut bytes = 0;
        let mut batches = Vec::new();
        for batch in &node.written.batches {
            let wanted = batch.header.first >= load.first && batch.header.last() <= load.last;
            if !wanted || (!batches.is_empty() && bytes + batch.cost() > load.bytes_max) {
                continue;
            }
            bytes += batch.cost();
            batches.push(batch.clone());
        }
        let result = if batches.is_empty() {
            Err(LoadError::Compacted)
        } else {
            Ok(batches)
        };
        let load = load.id;
        self.step(id, Input::Completed(Completion::Loaded { load, result }))
    }

    /// The state machine reports everything it was given.
    pub(crate) fn report_applied(&mut self, id: u64) -> Check {
        let node = self.node_mut(id);
        let Some(upto) = node.applying.back().copied() else {
            return Ok(());
        };
        node.applying.clear();
        if upto.index() > node.reported.index() {
            node.reported = upto;
        }
        let upto = upto.index();
        self.step(id, Input::Completed(Completion::Applied { upto }))
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().map(|id| id.0).collect()
    }

    /// Delivers, flushes and answers until nothing is left to do, without any tick. Messages for or
    /// from a node in `cut` are lost.
    pub(crate) fn settle_without(&mut self, cut: &[u64]) -> Check {
        let cut: BTreeSet<NodeId> = cut.iter().copied().map(NodeId).collect();
        for _ in 0..10_000 {
            let messages = core::mem::take(&mut self.network);
            let mut busy = !messages.is_empty();
            for envelope in messages {
                if !cut.contains(&envelope.from) && !cut.contains(&envelope.to) {
                    self.deliver(envelope)?;
                }
            }
            self.transfers
                .retain(|t| !cut.contains(&NodeId(t.from)) && !cut.contains(&NodeId(t.to)));
            while !self.transfers.is_empty() {
                busy = true;
                self.finish_transfer(0)?;
            }
            for id in self.ids() {
                let node = self.node(id);
                busy |= !(node.pending.is_empty() && node.loads.is_empty());
                self.flush(id)?;
                self.answer_load(id)?;
                self.report_applied(id)?;
            }
            if !busy {
                return Ok(());
            }
        }
        Err(String::from("the cluster never comes to rest"))
    }

    pub(crate) fn settle(&mut self) -> Check {
        self.settle_without(&[])
    }

    /// Ticks a node until it campaigns or pre-campaigns.
    pub(crate) fn time_out(&mut self, id: u64) -> Check {
        for _ in 0..100 {
            self.tick(id)?;
            if self.raft(id).role() != RoleKind::Follower {
                return Ok(());
            }
        }
        Err(format!("node {id} never campaigns"))
    }

    /// Makes a node leader: the others let go of their leaders, then it campaigns.
    pub(crate) fn elect(&mut self, id: u64) -> Check {
        for other in self.ids() {
            for _ in 0..10 {
                if other != id && self.raft(other).role() == RoleKind::Follower {
                    self.tick(other)?;
                }
            }
        }
        self.network.clear();
        self.time_out(id)?;
        self.settle()?;
        demand(self.raft(id).role() == RoleKind::Leader, || {
            format!("node {id} was not elected")
        })
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        (self.nodes.iter())
            .filter(|(_, node)| node.raft.role() == RoleKind::Leader)
            .max_by_key(|(_, node)| node.raft.term())
            .map(|(id, _)| id.0)
    }
}

fn raft_fingerprint(raft: &Raft) -> u64 {
    raft.fingerprint()
}
