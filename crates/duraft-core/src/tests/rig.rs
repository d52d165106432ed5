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

mod checks;
mod damage;
mod disk;

pub(crate) use disk::Image;

pub(crate) const GROUP: GroupId = GroupId(7);

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
    /// A hard state that was durable before the present one.
    pub(crate) older: HardState,
    /// Somebody needs a snapshot of this node.
    pub(crate) snapshot_wanted: bool,
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
    /// Pages of old headers that were asked for.
    pub(crate) pages: u32,
    /// Disks that were damaged, and nodes that said that they are whole again.
    pub(crate) damaged: u32,
    pub(crate) healed: u32,
    lost_copies: BTreeSet<(NodeId, Index, Digest)>,
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
    /// The term of the leader that committed it.
    committed_in: BTreeMap<Index, Term>,
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

/// A message of a node's first life.
pub(crate) fn said(from: u64, to: u64, term: u64, message: Message) -> Envelope {
    of_life(Incarnation(1), from, to, term, message)
}

/// A message of one of a node's lives.
pub(crate) fn of_life(
    incarnation: Incarnation,
    from: u64,
    to: u64,
    term: u64,
    message: Message,
) -> Envelope {
    Envelope {
        group: GROUP,
        from: NodeId(from),
        incarnation,
        to: NodeId(to),
        term: Term(term),
        message,
    }
}

/// `count` batches of term 1 that follow `start`.
pub(crate) fn chain(group: GroupId, start: Position, count: u64) -> Vec<Batch> {
    let mut end = start;
    (0..count)
        .map(|i| {
            let batch = body(i).seal(group, &end, Term(1)).unwrap();
            end = batch.header.position();
            batch
        })
        .collect()
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
            pages: 0,
            damaged: 0,
            healed: 0,
            lost_copies: BTreeSet::new(),
            next_file: 1,
            local_checks: true,
            disk_checks: true,
            plant: None,
            leaders: BTreeMap::new(),
            contents: BTreeMap::new(),
            committed: BTreeMap::new(),
            committed_in: BTreeMap::new(),
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
        let boot = image.boot(incarnation, machine.map(|machine| machine.index()));
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
            older: image.hard_state,
            snapshot_wanted: false,
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
            image.end = batch.header.position();
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

    /// Bytes kept behind a snapshot, from now on and in later lives.
    pub(crate) fn set_trailing(&mut self, bytes: u64) {
        for node in self.nodes.values_mut() {
            node.config.trailing_bytes_max = bytes;
            node.raft.config.trailing_bytes_max = bytes;
        }
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
            Output::Load(load) => {
                let reading = self.raft(id).paging.reading;
                self.pages += u32::from(reading.is_some_and(|(page, _)| page == load.id));
                self.node_mut(id).loads.push_back(load);
            }
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
            Output::TakeSnapshot => self.node_mut(id).snapshot_wanted = true,
            Output::Changed(event) => self.healed += u32::from(event == Event::Healed),
        }
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

    /// How many different changes of membership were seen.
    pub(crate) fn memberships(&self) -> usize {
        self.changes.len()
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
                if write.hard_state.is_some() {
                    node.older = node.durable.hard_state;
                }
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

    /// Node 2 leads `term` and sends node 1 an append.
    pub(crate) fn append(&mut self, term: u64, prev: Position, batches: &[Batch], commit: u64) {
        let message = Message::Append {
            prev,
            batches: batches.to_vec(),
            commit: Index(commit),
        };
        self.deliver(said(2, 1, term, message)).unwrap();
    }

    /// Node 1 leads and asks node 3 where it is, until it reads what follows there from its disk.
    pub(crate) fn run_until_load(&mut self) {
        self.tick(1).unwrap();
        self.tick(1).unwrap();
        while self.node(1).loads.is_empty() {
            for envelope in core::mem::take(&mut self.network) {
                self.deliver(envelope).unwrap();
            }
            self.flush(3).unwrap();
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
                if core::mem::take(&mut self.node_mut(id).snapshot_wanted) {
                    self.take_snapshot(id)?;
                }
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
