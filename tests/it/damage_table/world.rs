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
    /// n3 holds everything and comes back last, when the others have had time to serve without it.
    Crashed,
    /// n3 has missed the last two entries, and n2, which has not, comes back last.
    LaggingAndCrashed,
}

impl Situation {
    /// Has n3 missed the last two entries?
    pub(super) fn lags(self) -> bool {
        match self {
            Situation::Lagging | Situation::LaggingAndCrashed => true,
            Situation::AllUp | Situation::Crashed => false,
        }
    }

    /// Who comes back last, when the others have had time to serve.
    pub(super) fn late(self) -> Option<NodeId> {
        match self {
            Situation::AllUp | Situation::Lagging => None,
            Situation::Crashed => Some(NODES[2]),
            Situation::LaggingAndCrashed => Some(NODES[1]),
        }
    }
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
    /// Stores that did not open, and why.
    pub(super) refused: Vec<String>,
}

impl World {
    /// Starts a node from its disk, if its store opens.
    pub(super) fn start(&mut self, disks: &BTreeMap<NodeId, FaultDisk>, id: NodeId, seed: u64) {
        match Host::open(&disks[&id], id, seed, OnDamage::RepairFromPeers) {
            Ok(host) => {
                self.hosts.insert(id, host);
            }
            Err(error) => self.refused.push(format!("n{id} does not open: {error}")),
        }
    }

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

    /// Where everybody stands.
    pub(super) fn story(&self) -> String {
        let state = |host: &Host| {
            format!(
                "n{} {:?} t{} commit {} of {} applied {} {:?}",
                host.id,
                host.raft.role(),
                host.raft.term(),
                host.raft.commit(),
                host.raft.last(),
                host.applied_to(),
                host.halted
            )
        };
        let states: Vec<String> = self.hosts.values().map(state).collect();
        states.join("; ")
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
        if situation.lags() && entry == ENTRIES - 2 {
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

/// The bytes of a file.
pub(super) fn bytes_of(disk: &FaultDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).expect("a slot");
    let len = usize::try_from(file.len().expect("its length")).expect("small");
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, 0).expect("its bytes");
    bytes
}

/// Where the entry's command stands on a disk, if it does: file and offset.
pub(super) fn place_of(disk: &FaultDisk, entry: usize) -> Option<(String, u64)> {
    let needle = text(entry);
    let mut found = Vec::new();
    for name in disk.list("wal").expect("the folder of slots") {
        let name = format!("wal/{name}");
        let bytes = bytes_of(disk, &name);
        let mut windows = bytes.windows(needle.len());
        let at = windows.position(|window| window == needle.as_bytes());
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
    Some(flipped(disk, &name, at, 1))
}

/// A copy of the disk with these bits of one byte flipped.
pub(super) fn flipped(disk: &FaultDisk, name: &str, at: u64, bits: u8) -> FaultDisk {
    let copy = disk.fork();
    let file = copy.open(name).expect("a slot");
    let mut byte = [0];
    file.read_at(&mut byte, at).expect("a byte");
    byte[0] ^= bits;
    file.write_at(&byte, at).expect("the disk works");
    file.sync_all().expect("the disk works");
    drop(file);
    copy.fork()
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

/// Who starts when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// Starts long before the others.
    pub(super) first: NodeId,
    /// Starts when the others have had their time.
    pub(super) late: Option<NodeId>,
    /// Of the cores.
    pub(super) seed: u64,
}

/// What came of it without the late one, where there is one, and with everybody.
pub(super) struct Outcome {
    pub(super) without: Option<Verdict>,
    pub(super) with_all: Verdict,
    pub(super) world: World,
}

/// Starts nodes from these disks and sees what comes of it.
pub(super) fn run(
    disks: &BTreeMap<NodeId, FaultDisk>,
    order: Order,
    expected: &[String],
) -> Outcome {
    let mut world = World::default();
    world.start(disks, order.first, order.seed);
    for _ in 0..25 {
        world.tick();
    }
    let others = disks.keys().filter(|id| **id != order.first);
    for id in others.filter(|id| Some(**id) != order.late) {
        world.start(disks, *id, order.seed);
    }
    let verdict = live(&mut world, expected, "new");
    let mut outcome = Outcome {
        without: None,
        with_all: verdict.clone(),
        world,
    };
    let mut expected = expected.to_vec();
    let Some(late) = order.late else {
        return outcome;
    };
    let command = match verdict {
        Verdict::Wrong(_) => return outcome,
        Verdict::Unavailable => "new",
        Verdict::Serves => {
            expected.push("new".to_string());
            "newer"
        }
    };
    outcome.world.start(disks, late, order.seed);
    outcome.without = Some(verdict);
    outcome.with_all = live(&mut outcome.world, &expected, command);
    outcome
}

/// Lets time pass until the nodes that are up have applied this command after what is expected.
pub(super) fn live(world: &mut World, expected: &[String], command: &str) -> Verdict {
    let mut wanted = expected.to_vec();
    wanted.push(command.to_string());
    for tick in 0..400 {
        world.tick();
        if tick % 10 == 9
            && let Some(leader) = world.leader()
            && !world.commands(leader).iter().any(|known| known == command)
        {
            world.write(command);
        }
        if let Some(verdict) = judge(world, &wanted) {
            return verdict;
        }
    }
    Verdict::Unavailable
}

/// Every state machine holds a beginning of what was acknowledged; who has applied the new command has
/// applied all of it, and then the cluster serves.
fn judge(world: &World, wanted: &[String]) -> Option<Verdict> {
    let mut known = BTreeMap::new();
    for (id, host) in &world.hosts {
        if let Some(error) = &host.rejected {
            let why = format!("n{id}: its log refuses a write: {error}");
            return Some(Verdict::Wrong(why));
        }
        let mut commands = world.commands(*id);
        // A new command whose end was not known was asked for again; the old ones come once.
        commands.dedup_by(|next, before| next == before && next.starts_with("new"));
        if !wanted.starts_with(&commands) {
            let why = format!("n{id} has applied {commands:?}");
            return Some(Verdict::Wrong(why));
        }
        known.insert(*id, commands);
    }
    let everywhere = |(id, host): (&NodeId, &Host)| host.halted.is_some() || known[id] == wanted;
    let leader = world.leader()?;
    (world.hosts.iter().all(everywhere) && known[&leader] == wanted).then_some(Verdict::Serves)
}
