//! Whole lives of clusters from one seed: besides what [`crate::sim`] does to them, their membership
//! changes, leaders hand over, snapshots are taken and sent, logs are compacted, clients read, disks lose
//! blocks or everything. All checks of the rig are on; in the end the faults stop and the members must
//! agree.

use crate::cluster::Outcome;
use crate::sim::{Sim, World};
use crate::wounds::loss;
use crate::{Options, Rng, add, learner, promoted, remove};
use duraft_core::{HardState, Lease, Leave, MemberChange, NodeId, ProposalId};
use std::fmt;

/// What befell the clusters of some seeds: a run that met nothing proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Met {
    /// Seeds.
    pub seeds: u64,
    /// Steps of cores.
    pub steps: u64,
    /// Commands acknowledged.
    pub acknowledged: u64,
    /// Reads answered, and of these by a lease.
    pub reads: u64,
    /// Reads asked on a lease.
    pub lease_reads: u64,
    /// Membership changes acknowledged.
    pub changes: u64,
    /// Transfers done.
    pub transfers: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Snapshots that took the place of a log or its front at another node.
    pub installs: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes that lost writes under way.
    pub unsynced_lost: u64,
    /// Disks that lost blocks.
    pub damaged: u64,
    /// Disks that were replaced by empty ones.
    pub wiped: u64,
    /// Times that a node said it is healed.
    pub healed: u64,
    /// Clusters in which only an operator could have gone on.
    pub operator: u64,
    /// Terms with a leader.
    pub terms: u64,
    /// Writes that cut a log.
    pub truncations: u64,
}

impl Met {
    /// Adds another run.
    pub fn add(&mut self, other: &Met) {
        for (sum, more) in self.fields_mut().into_iter().zip(other.fields()) {
            *sum.1 += more.1;
        }
    }

    /// Names and counts.
    pub fn fields(&self) -> [(&'static str, u64); 17] {
        let mut copy = *self;
        copy.fields_mut().map(|(name, count)| (name, *count))
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut u64); 17] {
        [
            ("seeds", &mut self.seeds),
            ("steps", &mut self.steps),
            ("commands acknowledged", &mut self.acknowledged),
            ("reads answered", &mut self.reads),
            ("reads asked on a lease", &mut self.lease_reads),
            ("changes acknowledged", &mut self.changes),
            ("transfers done", &mut self.transfers),
            ("snapshots taken", &mut self.snapshots),
            ("snapshots installed", &mut self.installs),
            ("crashes", &mut self.crashes),
            ("crashes that lost writes", &mut self.unsynced_lost),
            ("damaged disks", &mut self.damaged),
            ("wiped disks", &mut self.wiped),
            ("healed", &mut self.healed),
            ("left to an operator", &mut self.operator),
            ("terms led", &mut self.terms),
            ("truncations", &mut self.truncations),
        ]
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self
            .fields()
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        write!(f, "{}", parts.join(", "))
    }
}

/// Which faults of disks at rest are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rot {
    /// None.
    Never,
    /// At most one damaged node at a time: the cluster must recover.
    OneAtATime,
    /// Any number: nothing may be lost in silence, and more is not asked.
    Any,
}

/// A cluster and its fate.
#[derive(Debug)]
pub struct Swarm {
    /// The cluster in its world.
    pub sim: Sim,
    rng: Rng,
    rot: Rot,
    pool: Vec<NodeId>,
    asked: Vec<(What, ProposalId)>,
    met: Met,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Write,
    Read,
    Change,
    Transfer,
}

impl Swarm {
    /// The cluster of this seed. `options` makes the options of a cluster of so many voters.
    pub fn new(seed: u64, rot: Rot, options: impl FnOnce(u64, u64) -> Options) -> Swarm {
        let mut rng = Rng::new(seed ^ 0x5A72);
        let voters = *rng.pick(&[1, 2, 3, 3, 3, 4, 5]);
        let slow = rng.permille(300);
        let world = World {
            loss: *rng.pick(&[0, 10, 50, 200]),
            duplicates: *rng.pick(&[0, 20, 100]),
            latency: *rng.pick(&[(1, 10), (1, 40), (5, 120)]),
            sync: *rng.pick(&[(1, 5), (5, 60), (20, 250)]),
            mortal: (1..=voters + 3).map(NodeId).collect(),
            lives: if slow {
                ((2_000, 9_000), (100, 900))
            } else {
                ((200, 2_500), (20, 400))
            },
            ..World::quiet()
        };
        let leases = rng.permille(300);
        let trailing = *rng.pick(&[0, 0, 500, 5_000]);
        let pre_vote = leases || rng.permille(800);
        let window = *rng.pick(&[1, 3, 256]);
        let priorities = rng.permille(300);
        let mut options = options(voters, seed).configure(|config| {
            config.trailing_bytes_max = trailing;
            config.pre_vote = pre_vote;
            config.inflight_messages_max = window;
            config.append_bytes_max = 300;
            config.cache_bytes_max = 1_000;
            if leases {
                config.lease = Some(Lease { drift_ppm: 50_000 });
            }
        });
        if priorities {
            options.priorities.insert(NodeId(2), 5);
        }
        // What a damaged log lacks may be in a state machine with its own disk: a case of its own.
        options.durable_machine = rot == Rot::Never && rng.permille(300);
        let mut sim = Sim::new(options, world);
        let pool: Vec<NodeId> = (voters + 1..=voters + 3).map(NodeId).collect();
        for id in &pool {
            sim.join(*id);
        }
        let met = Met {
            seeds: 1,
            ..Met::default()
        };
        Swarm {
            sim,
            rng,
            rot,
            pool,
            asked: Vec::new(),
            met,
        }
    }

    /// Lives through its troubles, then through the calm after them.
    pub fn run(mut self, rounds: u64) -> Met {
        for round in 0..rounds {
            self.trouble(round);
            let pause = self.rng.between(5, 80);
            self.sim.pass(pause);
        }
        self.sim.calm();
        if self.rot != Rot::Any {
            self.settle();
        }
        self.count()
    }

    /// Lives until a rule is broken, for tests of the tests; which one it was.
    pub fn first_broken(mut self, rounds: u64) -> Option<String> {
        for round in 0..rounds {
            self.trouble(round);
            let pause = self.rng.between(5, 80);
            self.sim.pass(pause);
            if let Some(broken) = self.sim.c.broken().first() {
                return Some(broken.rule.to_string());
            }
        }
        None
    }

    fn trouble(&mut self, round: u64) {
        let living = self.sim.c.living();
        if living.is_empty() {
            return;
        }
        let anybody = *self.rng.pick(&living);
        let leader = self.sim.leader().unwrap_or(anybody);
        match self.rng.below(100) {
            0..=39 => {
                let command = format!("{round}");
                let asked = self.sim.propose_to(leader, &command);
                self.asked.extend(asked.map(|id| (What::Write, id)));
            }
            40..=64 => {
                let lease = self.rng.permille(500);
                // Whoever believes to lead is of interest, be it in a term that is over.
                let mut whom = self.sim.c.leaders();
                if whom.is_empty() || self.rng.permille(250) {
                    whom = vec![anybody];
                }
                for id in whom {
                    self.met.lease_reads += u64::from(lease);
                    let read = self.sim.read(id, lease);
                    self.asked.push((What::Read, read));
                }
            }
            65..=74 => {
                if self.sim.take_snapshot(anybody) {
                    self.met.snapshots += 1;
                }
            }
            75..=80 => {
                let (changes, leave) = self.draw_change(leader);
                let change = self.sim.change_by(leader, &changes, leave);
                self.asked.push((What::Change, change));
            }
            81..=82 => {
                self.sim.leave_joint(leader);
            }
            83..=85 => {
                let transfer = self.sim.transfer(leader, anybody);
                self.asked.push((What::Transfer, transfer));
            }
            86 => self.sim.step_down(leader),
            87 => self.sim.forget_leader(anybody),
            88..=89 => self.sim.unreachable(leader, anybody),
            90..=92 => self.cut_links(),
            93..=96 => self.sim.c.heal(),
            _ => self.rot(),
        }
    }

    fn draw_change(&mut self, leader: NodeId) -> (Vec<MemberChange>, Leave) {
        let members: Vec<NodeId> = self.sim.c.in_use(leader).members().collect();
        let mut all = self.pool.clone();
        all.extend(&members);
        all.sort();
        all.dedup();
        self.rng.shuffle(&mut all);
        let count = usize::try_from(self.rng.between(1, 3)).expect("small");
        let mut changes = Vec::new();
        for id in all.into_iter().take(count) {
            let replaced = (!members.is_empty()).then(|| *self.rng.pick(&members));
            changes.push(match self.rng.below(8) {
                0..=2 => add(id),
                3..=4 => remove(id),
                5 => learner(id),
                6 => promoted(id, None),
                _ => promoted(id, replaced),
            });
        }
        let explicit = self.rng.permille(150);
        let leave = if explicit {
            Leave::Explicit
        } else {
            Leave::Automatic
        };
        (changes, leave)
    }

    fn cut_links(&mut self) {
        let ids = self.sim.c.ids();
        let rate = self.rng.between(0, 400);
        for a in &ids {
            for b in &ids {
                if a != b && self.rng.permille(rate) {
                    self.sim.c.net.cut(*a, *b);
                }
            }
        }
    }

    /// A node that is down loses something of its disk.
    fn rot(&mut self) {
        let c = &self.sim.c;
        let damaged = c.ids().iter().filter(|id| c.is_damaged(**id)).count();
        let down: Vec<NodeId> = c.ids().into_iter().filter(|id| !c.alive(*id)).collect();
        let allowed = match self.rot {
            Rot::Never => false,
            Rot::OneAtATime => damaged == 0,
            Rot::Any => true,
        };
        if !allowed || down.is_empty() {
            return;
        }
        let id = *self.rng.pick(&down);
        // A node alone has nobody to ask, and one that never was a member has nothing to lose.
        let store = self.sim.c.durable(id);
        if store.in_use().voters().count() < 3 || store.wounds.is_some() {
            return;
        }
        if self.rng.permille(150) {
            self.sim.c.wipe(id);
            self.met.wiped += 1;
            return;
        }
        let (first, last) = (store.start.index().0 + 1, store.last().index().0);
        if first > last {
            return;
        }
        let count = self.rng.between(1, 4);
        let indices: Vec<u64> = (0..count).map(|_| self.rng.between(first, last)).collect();
        let mut lost = loss(indices);
        if self.rng.permille(300) {
            lost = lost.end_unknown();
        }
        if self.rng.permille(150) {
            let term = store.last().term();
            lost = lost.hard_state(HardState { term, vote: None });
        }
        self.sim.c.damage(id, &lost);
        self.met.damaged += 1;
    }

    /// The faults are over: everybody who is a member comes to hold and apply the same.
    fn settle(&mut self) {
        let seed = self.sim.c.options().seed;
        for _ in 0..600 {
            self.sim.pass(500);
            let Some(leader) = self.sim.leader() else {
                if self.needs_operator() {
                    self.met.operator += 1;
                    return;
                }
                continue;
            };
            if self.sim.c.in_use(leader).leave() == Some(Leave::Explicit) {
                self.sim.leave_joint(leader);
                continue;
            }
            let c = &self.sim.c;
            let members = c.in_use(leader);
            let whole = members.members().all(|id| !c.is_damaged(id));
            if self.sim.is_settled() && whole && !members.is_joint() {
                return;
            }
        }
        let c = &self.sim.c;
        let state = |id: NodeId| {
            format!(
                "n{id} {:?} t{} last {} {}; {:?}, halted {:?}",
                c.role(id),
                c.term(id),
                c.issued(id).last(),
                crate::show::membership(&c.in_use(id)),
                c.durable(id).damage(),
                c.halted(id),
            )
        };
        let states: Vec<String> = c.ids().into_iter().map(state).collect();
        panic!(
            "seed {seed}: the members do not settle\n{}\n{}",
            states.join("\n"),
            c.story()
        );
    }

    /// A node abstains whose vote is needed: the membership has shrunk, or is about to, so that the others
    /// elect nobody without it. Only people can say what it had acknowledged (RULES.md 14, 17).
    fn needs_operator(&self) -> bool {
        let c = &self.sim.c;
        let abstains = |id: NodeId| {
            let wounds = c.durable(id).wounds.as_ref();
            wounds.is_some_and(|wounds| wounds.lost_suffix || wounds.vote_uncertain)
        };
        let freshest = c.ids().into_iter().max_by_key(|id| c.issued(*id).last().id);
        // Or something is gone that only the damaged node had, as a single voter may.
        if c.ids().into_iter().any(|id| c.has_lost_for_good(id)) {
            return true;
        }
        freshest.is_some_and(|id| {
            let members = c.in_use(id);
            let able: Vec<NodeId> = members.voters().filter(|id| !abstains(*id)).collect();
            !members.is_quorum(able)
        })
    }

    fn count(mut self) -> Met {
        let c = &self.sim.c;
        for (what, id) in &self.asked {
            match (what, c.outcome(*id)) {
                (What::Write, Some(Outcome::Applied(_))) => self.met.acknowledged += 1,
                (What::Change, Some(Outcome::Applied(_))) => self.met.changes += 1,
                (What::Read, Some(Outcome::Read(_))) => self.met.reads += 1,
                (What::Transfer, Some(Outcome::Done)) => self.met.transfers += 1,
                _ => {}
            }
        }
        self.met.steps = c.steps_taken();
        self.met.installs = c.ids().iter().map(|id| c.times_installed(*id)).sum();
        self.met.healed = c.ids().iter().map(|id| c.times_healed(*id)).sum();
        let coverage = &self.sim.coverage;
        self.met.crashes = coverage.crashes;
        self.met.unsynced_lost = coverage.unsynced_lost;
        self.met.terms = coverage.terms_led;
        self.met.truncations = coverage.truncations;
        self.met
    }
}
