//! Three hosts and the messages between them; the disks that the table begins with; damage to them.

use super::host::{Host, fresh_disk};
use duraft_core::{BatchKind, Envelope, Input, NodeId, ProposalId};
use duraft_disk::{Disk, FaultDisk};
use duraft_storage::OnDamage;
use duraft_tests::{command_body, commands_of};
use std::collections::{BTreeMap, VecDeque};

/// Entries that the cluster has acknowledged.
pub(super) const ENTRIES: usize = 4;
pub(super) const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// The text of an entry. It stands once on each disk that holds it.
pub(super) fn text(entry: usize) -> String {
    format!("acknowledged-entry-number-{entry}")
}

/// Which node is worse off than the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Situation {
    /// All three hold everything and come back.
    AllUp,
    /// n3 has missed the last two entries.
    Lagging,
    /// n3 holds everything and does not come back.
    Crashed,
}

/// Which part of an entry's block is hit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Part {
    /// The commit number in the block's header.
    Header,
    /// The command.
    Payload,
    /// The length of the payloads in the block's header.
    Length,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) hosts: BTreeMap<NodeId, Host>,
    net: VecDeque<Envelope>,
    pub(super) cut: Option<NodeId>,
}

impl World {
    pub(super) fn step(&mut self, id: NodeId, input: Input) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        let sent = host.step(input);
        let lost = self.cut;
        let arrives = |e: &Envelope| lost.is_none_or(|node| e.to != node && e.from != node);
        self.net.extend(sent.into_iter().filter(arrives));
    }

    pub(super) fn deliver_all(&mut self) {
        for _ in 0..100_000 {
            let Some(envelope) = self.net.pop_front() else {
                return;
            };
            self.step(envelope.to, Input::Received(envelope));
        }
        panic!("message storm");
    }

    pub(super) fn tick(&mut self) {
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        for id in ids {
            self.step(id, Input::Tick);
        }
        self.deliver_all();
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let leaders = self.hosts.values().filter(|host| host.leads());
        leaders
            .max_by_key(|host| host.raft.term())
            .map(|host| host.id)
    }

    /// The leader takes this command; was it applied there before anything else happened?
    pub(super) fn write(&mut self, command: &str) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let body = command_body(command);
        let id = ProposalId(1);
        self.step(leader, Input::Propose { id, body });
        self.deliver_all();
        self.commands(leader).iter().any(|known| known == command)
    }

    /// Commands of the state machine of a node.
    pub(super) fn commands(&self, id: NodeId) -> Vec<String> {
        let applied = self.hosts[&id].applied.iter();
        let commands = applied.filter(|batch| batch.header.kind == BatchKind::Commands);
        commands.flat_map(commands_of).collect()
    }
}

/// The disks of a cluster that has acknowledged the entries and then lost power everywhere.
pub(super) fn base(situation: Situation, proven: bool) -> BTreeMap<NodeId, FaultDisk> {
    let mut world = World::default();
    let mut disks = BTreeMap::new();
    for id in NODES {
        let disk = fresh_disk(id);
        let host = Host::open(&disk, id, 1, OnDamage::Refuse).expect("a fresh store");
        world.hosts.insert(id, host);
        disks.insert(id, disk);
    }
    while world.leader().is_none() {
        world.step(NODES[0], Input::Tick);
        world.deliver_all();
    }
    assert_eq!(world.leader(), Some(NODES[0]));
    for entry in 0..ENTRIES {
        if situation == Situation::Lagging && entry == ENTRIES - 2 {
            world.cut = Some(NODES[2]);
        }
        assert!(world.write(&text(entry)), "acknowledged");
    }
    for _ in 0..4 {
        world.step(NODES[0], Input::Tick);
        world.deliver_all();
    }
    if proven {
        for host in world.hosts.values_mut() {
            host.receipt();
        }
    }
    drop(world);
    // Nothing is pending: everything was synced.
    disks.values_mut().for_each(|disk| *disk = disk.fork());
    disks
}

/// Where the entry's command stands on a disk, if it does: file and offset.
pub(super) fn place_of(disk: &FaultDisk, entry: usize) -> Option<(String, u64)> {
    let needle = text(entry);
    let mut found = Vec::new();
    for name in disk.list("wal").expect("the folder of slots") {
        let name = format!("wal/{name}");
        let file = disk.open(&name).expect("a slot");
        let len = usize::try_from(file.len().expect("its length")).expect("small");
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, 0).expect("its bytes");
        let at = bytes
            .windows(needle.len())
            .position(|window| window == needle.as_bytes());
        found.extend(at.map(|at| (name, at as u64)));
    }
    assert!(found.len() <= 1, "{needle} stands once: {found:?}");
    found.pop()
}

/// A copy of the disk with one bit flipped in this part of the entry's block. `None`: no such copy.
pub(super) fn damaged(disk: &FaultDisk, entry: usize, part: Part) -> Option<FaultDisk> {
    const BLOCK: u64 = 4096;
    let (name, body) = place_of(disk, entry)?;
    let block = body / BLOCK * BLOCK;
    let at = match part {
        Part::Header => block + 16,
        Part::Payload => body + 3,
        Part::Length => block + 36,
    };
    let copy = disk.fork();
    let file = copy.open(&name).expect("a slot");
    let mut byte = [0];
    file.read_at(&mut byte, at).expect("a byte");
    byte[0] ^= 1;
    file.write_at(&byte, at).expect("the disk works");
    file.sync_all().expect("the disk works");
    drop(file);
    Some(copy.fork())
}

/// What the cluster did in the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It acknowledged a new command after all the old ones.
    Serves,
    /// It did not, or said that it cannot.
    Unavailable,
    /// It broke a rule.
    Wrong(String),
}

/// Starts nodes from these disks, the one named `first` long before the others, and sees what comes of it.
pub(super) fn run(
    disks: &BTreeMap<NodeId, FaultDisk>,
    first: NodeId,
    seed: u64,
    expected: &[String],
) -> (Verdict, World) {
    let mut world = World::default();
    let start = |world: &mut World, id: NodeId| -> Result<(), String> {
        let opened = Host::open(&disks[&id], id, seed, OnDamage::RepairFromPeers);
        let host = opened.map_err(|error| format!("n{id} does not open: {error}"))?;
        world.hosts.insert(id, host);
        Ok(())
    };
    let up: Vec<NodeId> = disks.keys().copied().collect();
    for id in up.iter().filter(|id| **id == first) {
        if let Err(why) = start(&mut world, *id) {
            return (Verdict::Wrong(why), world);
        }
    }
    for _ in 0..25 {
        world.tick();
    }
    for id in up.iter().filter(|id| **id != first) {
        if let Err(why) = start(&mut world, *id) {
            return (Verdict::Wrong(why), world);
        }
    }
    let mut wanted = expected.to_vec();
    wanted.push("new".to_string());
    for tick in 0..400 {
        world.tick();
        if tick % 10 == 9 && world.leader().is_some() {
            let before = world.leader().map(|id| world.commands(id));
            if before
                .as_ref()
                .is_some_and(|known| !known.contains(&"new".to_string()))
            {
                world.write("new");
            }
        }
        if let Some(verdict) = judge(&world, &wanted) {
            return (verdict, world);
        }
    }
    (Verdict::Unavailable, world)
}

/// Every state machine holds a beginning of what was acknowledged; who has applied the new command has
/// applied all of it, and then the cluster serves.
fn judge(world: &World, wanted: &[String]) -> Option<Verdict> {
    for (id, host) in &world.hosts {
        if let Some(error) = &host.rejected {
            return Some(Verdict::Wrong(format!(
                "n{id}: its log refuses a write: {error}"
            )));
        }
        let known = world.commands(*id);
        let (old, new) = known.split_at(known.len().min(wanted.len()));
        if !wanted.starts_with(old) || new.iter().any(|command| command != "new") {
            return Some(Verdict::Wrong(format!("n{id} has applied {known:?}")));
        }
    }
    let all = world.hosts.keys().all(|id| {
        let host = &world.hosts[id];
        host.halted.is_some() || world.commands(*id).starts_with(wanted)
    });
    let leader = world.leader()?;
    (all && world.commands(leader).starts_with(wanted)).then_some(Verdict::Serves)
}
