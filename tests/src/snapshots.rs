//! Snapshots in a [`Cluster`]: taken by hosts, carried by the rig, under the test's control.

use crate::cluster::Cluster;
use crate::{Chain, Machine};
use duraft_core::{Completion, Input, NodeId, SendProgress, Snapshot, SnapshotFile, Term, mix64};
use std::sync::Arc;

impl Cluster {
    /// The host of `id` takes a snapshot of its state machine and reports it durable.
    pub fn take_snapshot(&mut self, id: NodeId) -> Snapshot {
        let snapshot = self.make_snapshot(id);
        let taken = snapshot.clone();
        self.step(
            id,
            Input::Completed(Completion::SnapshotTaken { snapshot: taken }),
        );
        snapshot
    }

    /// The host of `id` writes a snapshot file. The core does not hear of it yet.
    pub fn make_snapshot(&mut self, id: NodeId) -> Snapshot {
        let node = self.node(id);
        let content = Arc::new(node.machine.clone());
        let position = content.to;
        let file = SnapshotFile {
            nonce: mix64(position.digest.0 ^ mix64(id.0 ^ mix64(node.incarnation.0))),
            bytes: content.applied.iter().map(duraft_core::Batch::cost).sum(),
            digest: position.digest.0,
        };
        let snapshot = Snapshot {
            position,
            membership: content.membership.clone(),
            file,
        };
        self.contents.insert(file, content);
        self.node_mut(id).files.insert(file);
        snapshot
    }

    /// The core of `id` hears that this snapshot is durable.
    pub fn report_snapshot(&mut self, id: NodeId, snapshot: Snapshot) {
        self.step(id, Input::Completed(Completion::SnapshotTaken { snapshot }));
    }

    /// A snapshot that is due by the options.
    pub(crate) fn next_snapshot(&mut self, id: NodeId) -> Option<Input> {
        let wanted = self.node(id).snapshot_wanted.then_some(1);
        let every = wanted.or(self.options.snapshot_every)?;
        let node = self.node(id);
        let last = node.disk.issued.snapshot.as_ref();
        let last = last.map_or(0, |taken| taken.position.index().0);
        if node.hold_apply || node.halted.is_some() || node.machine.to.index().0 < last + every {
            return None;
        }
        let snapshot = self.make_snapshot(id);
        self.node_mut(id).snapshot_wanted = false;
        Some(Input::Completed(Completion::SnapshotTaken { snapshot }))
    }

    /// A snapshot of this hand-made log up to `index`, as some peer without a core may hold it.
    pub fn snapshot_of(&mut self, log: &Chain, index: u64) -> Snapshot {
        let mut content = Machine::new(log.start, self.first_membership().clone());
        for batch in log.between(0, index) {
            content.apply(batch).expect("a log in order");
        }
        let position = content.to;
        let file = SnapshotFile {
            nonce: mix64(position.digest.0),
            ..SnapshotFile::default()
        };
        let snapshot = Snapshot {
            position,
            membership: content.membership.clone(),
            file,
        };
        self.contents.insert(file, Arc::new(content));
        snapshot
    }

    /// This hand-made log is committed, among peers without a core.
    pub fn know_committed(&mut self, log: &Chain) {
        for batch in &log.batches {
            let known = self.history.committed_elsewhere(batch);
            self.claim(known);
        }
    }

    /// Snapshots move only when the test says so.
    pub fn hold_snapshots(&mut self) {
        self.hold_snapshots = true;
    }

    /// Snapshots are delivered with the messages again.
    pub fn free_snapshots(&mut self) {
        self.hold_snapshots = false;
    }

    /// Snapshots under way: sender, receiver, and what.
    pub fn snapshots_under_way(&self) -> Vec<(NodeId, NodeId, Snapshot)> {
        let carried = self.carried.iter();
        carried
            .map(|((from, to), (_, what))| (*from, *to, what.clone()))
            .collect()
    }

    /// Who sends `to` a snapshot now.
    fn sender_to(&self, to: NodeId) -> Option<NodeId> {
        let mut ends = self.carried.keys();
        ends.find(|(_, receiver)| *receiver == to)
            .map(|(from, _)| *from)
    }

    /// The snapshot under way to `to` arrives whole, becomes durable there, and is reported to both
    /// sides. Was there one?
    pub fn deliver_snapshot(&mut self, to: NodeId) -> bool {
        let from = self.sender_to(to);
        from.inspect(|from| self.deliver_snapshot_from(*from, to))
            .is_some()
    }

    pub(crate) fn deliver_snapshot_from(&mut self, from: NodeId, to: NodeId) {
        let under_way = self.carried.remove(&(from, to));
        let (term, snapshot) = under_way.expect("a snapshot is under way");
        let gone = !self.nodes.contains_key(&to) || !self.alive(to);
        if gone || self.net.is_cut(from, to) || self.net.is_cut(to, from) {
            self.report_sending(from, to, &snapshot, SendProgress::Failed);
            return;
        }
        self.receive_snapshot(from, term, to, snapshot.clone());
        self.report_sending(from, to, &snapshot, SendProgress::Delivered);
    }

    /// This snapshot, which `from` sent when it led `term`, is whole and durable at `to`, late or again
    /// perhaps.
    pub fn receive_snapshot(&mut self, from: NodeId, term: Term, to: NodeId, snapshot: Snapshot) {
        self.note(|| format!("n{to} has received {}", crate::show::snapshot(&snapshot)));
        self.node_mut(to).files.insert(snapshot.file);
        let received = Completion::SnapshotReceived {
            from,
            term,
            snapshot,
        };
        self.step(to, Input::Completed(received));
    }

    /// The snapshot under way to `to` is given up, and its sender told. Was there one?
    pub fn fail_snapshot(&mut self, to: NodeId) -> bool {
        let from = self.sender_to(to);
        from.inspect(|from| self.fail_snapshot_from(*from, to))
            .is_some()
    }

    pub(crate) fn fail_snapshot_from(&mut self, from: NodeId, to: NodeId) {
        let under_way = self.carried.remove(&(from, to));
        let (_, snapshot) = under_way.expect("a snapshot is under way");
        self.report_sending(from, to, &snapshot, SendProgress::Failed);
    }

    /// The snapshot under way to `to` moves on a little. Was there one?
    pub fn move_snapshot(&mut self, to: NodeId) -> bool {
        let from = self.sender_to(to);
        from.inspect(|from| self.move_snapshot_from(*from, to))
            .is_some()
    }

    pub(crate) fn move_snapshot_from(&mut self, from: NodeId, to: NodeId) {
        let (_, snapshot) = self.carried[&(from, to)].clone();
        self.report_sending(from, to, &snapshot, SendProgress::Moving);
    }

    /// The snapshots under way to `to` are lost without a word.
    pub fn lose_snapshot(&mut self, to: NodeId) {
        self.carried.retain(|(_, receiver), _| *receiver != to);
    }

    /// The host of `from` reports how a snapshot fares.
    pub fn report_sending(
        &mut self,
        from: NodeId,
        to: NodeId,
        snapshot: &Snapshot,
        progress: SendProgress,
    ) {
        if !self.alive(from) {
            return;
        }
        let at = snapshot.position.index();
        let report = Completion::SnapshotSending { to, at, progress };
        self.step(from, Input::Completed(report));
    }

    /// Delivers every snapshot under way, unless they are held. Was there one?
    pub(crate) fn carry_snapshots(&mut self) -> bool {
        if self.hold_snapshots {
            return false;
        }
        let receiver = self.carried.keys().next().map(|(_, to)| *to);
        receiver.is_some_and(|to| self.deliver_snapshot(to))
    }

    /// The index of the latest snapshot of `id`, if it has one.
    pub fn snapshot_index(&self, id: NodeId) -> Option<u64> {
        let snapshot = self.node(id).disk.issued.snapshot.as_ref();
        snapshot.map(|taken| taken.position.index().0)
    }
}
