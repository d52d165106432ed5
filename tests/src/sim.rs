//! Drawn schedules over a [`Cluster`]: loss, delay, reordering, slow disks and crashes from one seed.
//!
//! Time is a number of units; an event queue jumps from one event to the next, so idle time costs
//! nothing. Each node's disk finishes one sync at a time, which covers all writes issued before the
//! sync began, as group commit does.

use crate::net::any;
use crate::{Cluster, Options, Rng};
use duraft_core::{Body, Envelope, Incarnation, MemberChange, NodeId, ProposalId, RoleKind};
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
    Crash(NodeId),
    Restart(NodeId),
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
            terms: BTreeSet::new(),
        };
        for id in sim.c.ids() {
            let phase = sim.rng.below(sim.world.tick);
            sim.schedule(phase, Event::Tick(id));
        }
        for id in sim.world.mortal.clone() {
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
        let change = self.c.change(id, changes);
        self.touched(id);
        change
    }

    /// A new, empty node starts.
    pub fn join(&mut self, id: NodeId) {
        self.c.join(id);
        self.c.hold_disk(id);
        let phase = self.rng.below(self.world.tick);
        self.schedule(phase, Event::Tick(id));
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
                Event::Tick(_) | Event::Synced(..) | Event::Crash(_) | Event::Restart(_) => false,
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
