//! Disks that lose something while their node is down.

use super::*;
use crate::rng::Rng;

impl Rig {
    /// Power fails, and something of the disk is destroyed.
    pub(crate) fn crash_damaged(&mut self, id: u64, keep: usize, rng: &mut Rng) {
        let older = self.node(id).older;
        self.crash(id, keep);
        let node = self.nodes.remove(&NodeId(id)).expect("a known node");
        let mut image = node.durable;
        let gone = image.destroy(rng, older);
        let machine = node.machine_survives.then_some(node.machine);
        if let (Some(lost), Some(_)) = (&mut image.lost, machine) {
            // A state machine that survives is its own snapshot.
            lost.snapshot = false;
        }
        self.forget(id, &gone);
        self.reboot(node.config, image, node.raft.incarnation(), machine);
    }

    /// Power fails, and the next life finds what `change` makes of the disk.
    pub(crate) fn crash_with(&mut self, id: u64, change: impl FnOnce(&mut Image)) {
        self.crash(id, 0);
        let node = self.nodes.remove(&NodeId(id)).expect("a known node");
        let mut image = node.durable;
        let before = image.batches.clone();
        change(&mut image);
        self.forget(id, &before);
        let machine = node.machine_survives.then_some(node.machine);
        self.reboot(node.config, image, node.raft.incarnation(), machine);
    }

    /// Power fails, and the last record of term and vote is unreadable.
    pub(crate) fn crash_losing_vote(&mut self, id: u64) {
        let older = self.node(id).older;
        self.crash(id, 0);
        let node = self.nodes.remove(&NodeId(id)).expect("a known node");
        let mut image = node.durable;
        image.lose_vote(older);
        let machine = node.machine_survives.then_some(node.machine);
        self.reboot(node.config, image, node.raft.incarnation(), machine);
    }

    /// The disk is replaced by an empty one, and the node told so.
    pub(crate) fn crash_wiped(&mut self, id: u64) {
        self.crash(id, 0);
        let node = self.nodes.remove(&NodeId(id)).expect("a known node");
        self.forget(id, &node.durable.batches);
        self.reboot(node.config, Image::wiped(), node.raft.incarnation(), None);
    }

    /// What was acknowledged and is gone was durable all the same when it was counted.
    fn forget(&mut self, id: u64, gone: &[Batch]) {
        let copies = gone.iter().map(|batch| batch.header);
        self.lost_copies
            .extend(copies.map(|header| (NodeId(id), header.last(), header.digest)));
    }

    /// The next life finds what is left.
    pub(crate) fn reboot(
        &mut self,
        config: Config,
        image: Image,
        last: Incarnation,
        machine: Option<Position>,
    ) {
        self.damaged += 1;
        self.boot_with(config, image, Incarnation(last.0 + 1), machine);
    }

    /// Is anything lost, as the disk or the core knows it?
    pub(crate) fn is_damaged(&self, id: u64) -> bool {
        let node = self.node(id);
        node.durable.lost.is_some() || node.raft.damage_status().is_some()
    }
}
