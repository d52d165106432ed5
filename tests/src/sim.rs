//! Drawn schedules over a [`Cluster`]: loss, delay, reordering, slow disks and crashes from one seed.
//!
//! Time is a number of units; an event queue jumps from one event to the next, so idle time costs
//! nothing. Each node's disk finishes one sync at a time, which covers all writes issued before the
//! sync began, as group commit does.

use crate::net::any;
use crate::{Cluster, Options, Rng};
use duraft_core::{
    Body, Envelope, Incarnation, Leave, MemberChange, NodeId, ProposalId, RoleKind, SnapshotFile,
};
use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};

/// What the world does to the cluster.
#[derive(Clone, Debug)]
pub struct World {
    /// Messages lost, per thousand.
    pub loss: u64,
    /// Messages sent twice, per thousand.
    pub duplicates: u64,
    /// Least and longest time a message takes.
    pub latency: (u64, u64),
    /// Least and longest time a sync takes.
    pub sync: (u64, u64),
    /// Time between two ticks of a node.
    pub tick: u64,
    /// Nodes that crash, with least and longest time up and down.
    pub mortal: Vec<NodeId>,
    /// Least and longest time up, then down.
    pub lives: ((u64, u64), (u64, u64)),
}

impl World {
    /// A quiet world: short delays, no loss, nobody dies.
    pub fn quiet() -> World {
        World {
            loss: 0,
            duplicates: 0,
            latency: (1, 10),
            sync: (1, 10),
            tick: 10,
            mortal: Vec::new(),
            lives: ((800, 5_000), (800, 5_000)),
        }
    }
}

/// How often the situations that matter occurred: a run that met none proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Coverage {
    /// Messages lost.
    pub lost: u64,
    /// Messages delivered twice.
    pub duplicated: u64,
    /// Messages that overtook an earlier one of the same link.
    pub overtaken: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes that lost writes under way.
    pub unsynced_lost: u64,
    /// Crashes of a leader whose log was ahead of its disk.
    pub leader_ahead_of_disk: u64,
    /// Writes that truncated a log.
    pub truncations: u64,
    /// Terms in which a node led.
    pub terms_led: u64,
}

impl Coverage {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Coverage) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.overtaken += other.overtaken;
        self.crashes += other.crashes;
        self.unsynced_lost += other.unsynced_lost;
        self.leader_ahead_of_disk += other.leader_ahead_of_disk;
        self.truncations += other.truncations;
        self.terms_led += other.terms_led;
    }
}

#[derive(Clone, Debug)]
enum Event {
    Tick(NodeId),
    Arrive(Envelope, u64),
    Synced(NodeId, Incarnation, usize),
    /// A snapshot's journey ends, well or not; or it has come a little further.
    Carried(NodeId, NodeId, SnapshotFile, Journey),
    Crash(NodeId),
    Restart(NodeId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Journey {
    Moves,
    Arrives,
    Fails,
    IsLost,
}

#[derive(Clone, Debug)]
struct Due {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    // The heap gives the largest: the earliest event is the largest.
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// A cluster in a world.
#[derive(Clone, Debug)]
pub struct Sim {
    /// The cluster.
    pub c: Cluster,
    /// Randomness of the world; tests may draw from it too.
    pub rng: Rng,
    /// Time.
    pub now: u64,
    /// What the world does. May be changed during the run.
    pub world: World,
    /// What the run has met.
    pub coverage: Coverage,
    due: BinaryHeap<Due>,
    number: u64,
    syncing: BTreeSet<NodeId>,
    shipped: BTreeSet<(NodeId, NodeId, SnapshotFile)>,
    terms: BTreeSet<u64>,
}

impl Sim {
    /// A cluster in a world. All disks wait for the world.
    pub fn new(options: Options, world: World) -> Sim {
        let mut c = Cluster::build(options);
        let rng = Rng::new(c.options().seed ^ 0x5EED);
        for id in c.ids() {
            c.hold_disk(id);
        }
        let mut sim = Sim {
            c,
            rng,
            now: 0,
            world,
            coverage: Coverage::default(),
            due: BinaryHeap::new(),
            number: 0,
            syncing: BTreeSet::new(),
            shipped: BTreeSet::new(),
            terms: BTreeSet::new(),
        };
        for id in sim.c.ids() {
            let phase = sim.rng.below(sim.world.tick);
            sim.schedule(phase, Event::Tick(id));
        }
        for id in sim
            .c
            .ids()
            .into_iter()
            .filter(|id| sim.world.mortal.contains(id))
            .collect::<Vec<_>>()
        {
            let ((least, most), _) = sim.world.lives;
            let up = sim.rng.between(least, most);
            sim.schedule(up, Event::Crash(id));
        }
        sim
    }

    /// Goes from event to event until `done`, or fails after `limit` units.
    pub fn until(&mut self, limit: u64, what: &str, done: impl Fn(&Sim) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            self.next();
            assert!(
                self.now <= end,
                "{what} within {limit} units\n{}",
                self.c.story()
            );
        }
    }

    /// Lets this much time pass.
    pub fn pass(&mut self, units: u64) {
        let end = self.now + units;
        while self.due.peek().is_some_and(|due| due.at <= end) {
            self.next();
        }
        self.now = end;
    }

    /// From now on nothing is lost or delayed for long and nobody dies; the dead start soon.
    pub fn calm(&mut self) {
        self.world = World {
            tick: self.world.tick,
            ..World::quiet()
        };
        self.c.heal();
    }

    /// The living node that leads the latest term, if any.
    pub fn leader(&self) -> Option<NodeId> {
        let leaders = self.c.leaders();
        leaders.into_iter().max_by_key(|id| self.c.term(*id))
    }

    /// A client asks the leader, if there is one.
    pub fn propose(&mut self, command: &str) -> Option<ProposalId> {
        let leader = self.leader()?;
        let proposal = self.c.propose(leader, command);
        self.touched(leader);
        Some(proposal)
    }

    /// A client asks this node.
    pub fn propose_to(&mut self, id: NodeId, command: &str) -> Option<ProposalId> {
        if !self.c.alive(id) {
            return None;
        }
        let proposal = self.c.propose(id, command);
        self.touched(id);
        Some(proposal)
    }

    /// A client asks this node for a whole batch.
    pub fn propose_body_to(&mut self, id: NodeId, body: Body) -> Option<ProposalId> {
        if !self.c.alive(id) {
            return None;
        }
        let proposal = self.c.propose_body(id, body);
        self.touched(id);
        Some(proposal)
    }

    /// An operator asks this node for another membership.
    pub fn change(&mut self, id: NodeId, changes: &[MemberChange]) -> ProposalId {
        self.change_by(id, changes, Leave::Automatic)
    }

    /// An operator asks this node for another membership, left in this way.
    pub fn change_by(&mut self, id: NodeId, changes: &[MemberChange], leave: Leave) -> ProposalId {
        let change = self.c.change_by(id, changes, leave);
        self.touched(id);
        change
    }

    /// An operator asks this node to leave a joint membership.
    pub fn leave_joint(&mut self, id: NodeId) {
        self.c.leave_joint(id);
        self.touched(id);
    }

    /// An operator asks this node to hand over.
    pub fn transfer(&mut self, id: NodeId, to: NodeId) -> ProposalId {
        let transfer = self.c.transfer(id, to);
        self.touched(id);
        transfer
    }

    /// An operator asks this node to step down.
    pub fn step_down(&mut self, id: NodeId) {
        self.c.step_down(id);
        self.touched(id);
    }

    /// An operator asks this node to forget its leader.
    pub fn forget_leader(&mut self, id: NodeId) {
        self.c.forget_leader(id);
        self.touched(id);
    }

    /// The host of this node has lost its connection to another.
    pub fn unreachable(&mut self, id: NodeId, peer: NodeId) {
        self.c.unreachable(id, peer);
        self.touched(id);
    }

    /// A client asks this node for a read, on a lease perhaps.
    pub fn read(&mut self, id: NodeId, lease: bool) -> ProposalId {
        let read = if lease {
            self.c.read_by_lease(id)
        } else {
            self.c.read(id)
        };
        self.touched(id);
        read
    }

    /// The host of this node takes a snapshot, if there is something new to take.
    pub fn take_snapshot(&mut self, id: NodeId) -> bool {
        let known = self.c.snapshot_index(id).unwrap_or(0);
        let possible =
            self.c.alive(id) && self.c.halted(id).is_none() && self.c.applied(id) > known;
        if possible {
            self.c.take_snapshot(id);
            self.touched(id);
        }
        possible
    }

    /// A new, empty node starts.
    pub fn join(&mut self, id: NodeId) {
        self.c.join(id);
        self.c.hold_disk(id);
        let phase = self.rng.below(self.world.tick);
        self.schedule(phase, Event::Tick(id));
        if self.world.mortal.contains(&id) {
            let ((least, most), _) = self.world.lives;
            let up = self.rng.between(least, most);
            self.schedule(up, Event::Crash(id));
        }
    }

    /// State machine and reads of `id` answer again.
    pub fn free(&mut self, id: NodeId) {
        self.c.free_apply(id);
        self.c.free_loads(id);
        if self.c.alive(id) {
            self.touched(id);
        }
    }

    /// Every node has applied every entry of the leader, and the logs are equal.
    pub fn is_settled(&self) -> bool {
        self.c.converged()
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.number += 1;
        self.due.push(Due {
            at: self.now + after,
            number: self.number,
            event,
        });
    }

    fn next(&mut self) {
        let due = self.due.pop().expect("ticks never end");
        self.now = due.at;
        match due.event {
            Event::Tick(id) => {
                if self.c.alive(id) {
                    self.c.tick(id, 1);
                    self.touched(id);
                }
                self.schedule(self.world.tick, Event::Tick(id));
            }
            Event::Arrive(envelope, number) => {
                let to = envelope.to;
                if self.number > number {
                    self.coverage.overtaken += u64::from(self.overtakes(&envelope, number));
                }
                self.c.deliver_one(envelope);
                if self.c.alive(to) {
                    self.touched(to);
                }
            }
            Event::Synced(id, life, count) => {
                if self.c.alive(id) && self.c.incarnation(id) == life {
                    self.syncing.remove(&id);
                    self.c.complete(id, count);
                    self.touched(id);
                }
            }
            Event::Carried(from, to, file, how) => self.carried(from, to, file, how),
            Event::Crash(id) => self.crash(id),
            Event::Restart(id) => {
                self.c.restart(id);
                let ((least, most), _) = self.world.lives;
                if self.world.mortal.contains(&id) {
                    let up = self.rng.between(least, most);
                    self.schedule(up, Event::Crash(id));
                }
            }
        }
    }

    /// Is an earlier message of the same link still under way? Looked at for one message in 32.
    fn overtakes(&self, envelope: &Envelope, number: u64) -> bool {
        number.is_multiple_of(32)
            && self.due.iter().any(|due| match &due.event {
                Event::Arrive(other, earlier) => {
                    other.to == envelope.to && other.from == envelope.from && *earlier < number
                }
                Event::Tick(_)
                | Event::Synced(..)
                | Event::Carried(..)
                | Event::Crash(_)
                | Event::Restart(_) => false,
            })
    }

    fn crash(&mut self, id: NodeId) {
        if !self.world.mortal.contains(&id) {
            return;
        }
        let pending = self.c.pending(id) as u64;
        let kept = usize::try_from(self.rng.between(0, pending)).expect("small");
        let ahead = self.c.durable(id).last() != self.c.issued(id).last();
        self.coverage.crashes += 1;
        self.coverage.unsynced_lost += u64::from((kept as u64) < pending);
        let leads = self.c.role(id) == RoleKind::Leader;
        self.coverage.leader_ahead_of_disk += u64::from(leads && ahead);
        self.c.crash_keeping(id, kept);
        self.syncing.remove(&id);
        let (_, (least, most)) = self.world.lives;
        let down = self.rng.between(least, most);
        self.schedule(down, Event::Restart(id));
    }

    /// Takes what the node has sent and written since the last event.
    fn touched(&mut self, id: NodeId) {
        for envelope in self.c.net.take(any()) {
            if self.rng.permille(self.world.loss) {
                self.coverage.lost += 1;
                continue;
            }
            if self.rng.permille(self.world.duplicates) {
                self.coverage.duplicated += 1;
                self.travel(envelope.clone());
            }
            self.travel(envelope);
        }
        self.ship();
        if self.c.role(id) == RoleKind::Leader && self.terms.insert(self.c.term(id)) {
            self.coverage.terms_led += 1;
        }
        let pending = self.c.pending(id);
        if pending > 0 && self.syncing.insert(id) {
            let cuts = self.c.pending_truncations(id) as u64;
            self.coverage.truncations += cuts;
            let (least, most) = self.world.sync;
            let takes = self.rng.between(least, most);
            let life = self.c.incarnation(id);
            self.schedule(takes, Event::Synced(id, life, pending));
        }
    }

    /// Snapshots set out: most arrive, some are given up, some are lost without a word.
    fn ship(&mut self) {
        for (from, to, snapshot) in self.c.snapshots_under_way() {
            if !self.shipped.insert((from, to, snapshot.file)) {
                continue;
            }
            let (least, most) = self.world.latency;
            let takes = self.rng.between(2 * least, 20 * most);
            let how = match self.rng.below(if self.world.loss == 0 { 7 } else { 10 }) {
                0..=6 => Journey::Arrives,
                7..=8 => Journey::Fails,
                _ => Journey::IsLost,
            };
            for part in 1..4 {
                let moves = Event::Carried(from, to, snapshot.file, Journey::Moves);
                self.schedule(takes * part / 4, moves);
            }
            self.schedule(takes, Event::Carried(from, to, snapshot.file, how));
        }
    }

    fn carried(&mut self, from: NodeId, to: NodeId, file: SnapshotFile, how: Journey) {
        let known = self.c.carried.get(&(from, to));
        if known.is_none_or(|snapshot| snapshot.1.file != file) {
            self.shipped.remove(&(from, to, file));
            return;
        }
        match how {
            Journey::Moves => {
                self.c.move_snapshot_from(from, to);
            }
            Journey::Arrives => self.c.deliver_snapshot_from(from, to),
            Journey::Fails => self.c.fail_snapshot_from(from, to),
            Journey::IsLost => {
                self.c.carried.remove(&(from, to));
            }
        }
        if how != Journey::Moves {
            self.shipped.remove(&(from, to, file));
        }
        for id in [from, to] {
            if self.c.alive(id) {
                self.touched(id);
            }
        }
    }

    fn travel(&mut self, envelope: Envelope) {
        let (least, most) = self.world.latency;
        let takes = self.rng.between(least, most);
        let number = self.number;
        self.schedule(takes, Event::Arrive(envelope, number));
    }
}

/// Seeds `0..count`, or the one that the environment variable `SEED` names, for a replay.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    match replayed() {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

/// Options for runs over many seeds; a replayed seed is recorded and checked in full.
pub fn options(voters: u64, seed: u64) -> Options {
    let options = Options::new(voters).seed(seed);
    if replayed().is_some() {
        options
    } else {
        options.fast()
    }
}

fn replayed() -> Option<u64> {
    std::env::var("SEED").ok()?.parse().ok()
}
