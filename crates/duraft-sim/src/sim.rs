//! The event loop: virtual time, one queue of events, one source of choices.

mod check;
mod clients;
mod damage;
mod disk;
mod members;
mod network;
mod node;
mod report;
mod state;

use crate::config::{CERTAIN, SimConfig};
use crate::history::History;
use crate::host::{Host, Shared};
use crate::life::Thread;
use clients::{Client, Requests, Told};
use duraft::DriverInput;
use duraft::transfer::TransferFrame;
use duraft_core::{Completion, Envelope, Load, Membership, NodeId, mix64};
use duraft_disk::{Disk, FaultDisk, FaultOptions, SplitMix64};
use duraft_storage::{ClusterId, Entropy, StoreIdentity};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use report::{Report, Violation};

/// A simulated cluster; see the crate's documentation.
pub struct Sim {
    config: SimConfig,
    rng: SplitMix64,
    now: u64,
    /// What will happen, by time and order of planning.
    agenda: BTreeMap<(u64, u64), Happening>,
    planned: u64,
    hosts: Vec<Host>,
    /// The side of the cut on which each node is; messages pass only within a side.
    sides: Vec<u8>,
    history: History,
    /// What clients were told and the checker has not seen.
    answers: Shared<Vec<Told>>,
    clients: Vec<Client>,
    requests: Requests,
    /// Faults are over: the cluster must recover.
    healing: bool,
    report: Report,
}

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    /// A tick of one node's clock.
    Tick(usize),
    /// A message arrives.
    Arrive(Envelope),
    /// A frame of a snapshot's transfer arrives.
    Frame {
        from: NodeId,
        to: NodeId,
        frame: TransferFrame,
    },
    /// A thread of a node does some of what waits for it.
    Run {
        host: usize,
        life: u64,
        thread: Thread,
    },
    /// The driver hears that something is done; a later life may hear of an earlier one's doings.
    Report {
        host: usize,
        generation: u64,
        completion: Completion,
    },
    /// Stored batches have been read.
    Load { host: usize, life: u64, load: Load },
    /// A node starts.
    Start(usize),
    /// A node that stopped by itself is ended.
    Bury { host: usize, life: u64 },
}

type Step = Result<(), String>;

impl Sim {
    /// A cluster whose nodes are bootstrapped and about to start.
    ///
    /// # Panics
    /// Where the limits of core and log do not fit each other.
    pub fn new(config: SimConfig) -> Sim {
        let append = config
            .core
            .append_bytes_max
            .max(u64::from(config.core.max_batch_bytes) + 64);
        assert!(
            config.wal.write_bytes_max(1) >= append + append / 8 + 256,
            "a segment takes the write of any append"
        );
        let mut sim = Sim {
            rng: SplitMix64::new(mix64(config.seed)),
            now: 0,
            agenda: BTreeMap::new(),
            planned: 0,
            hosts: Vec::new(),
            sides: Vec::new(),
            history: History::default(),
            answers: Shared::default(),
            clients: Vec::new(),
            requests: Requests::default(),
            healing: false,
            report: Report::new(config.seed),
            config,
        };
        let clients = usize::try_from(sim.config.clients.sessions).expect("few clients");
        sim.clients.resize_with(clients, Client::default);
        sim.history.begin_with(sim.first_membership());
        for id in 1..=sim.config.pool.max(sim.config.nodes) {
            sim.add_host(NodeId(id));
        }
        sim
    }

    /// Lets at least `ticks` ticks pass with faults, then heals everything, demands that the cluster
    /// recovers, and judges what clients were told.
    pub fn run(mut self, ticks: u64) -> Result<Report, Box<Violation>> {
        let end = ticks * SimConfig::TICK;
        self.run_until(end)?;
        self.heal();
        let healed = self.recover().map_err(|what| self.violation(what))?;
        self.report.healed_in_ticks = healed;
        self.history.judge().map_err(|what| self.violation(what))?;
        self.finish_report();
        Ok(self.report)
    }

    fn run_until(&mut self, end: u64) -> Result<(), Box<Violation>> {
        while let Some(((time, _), happening)) = self.agenda.pop_first() {
            if time > end {
                self.plan(time - self.now, happening);
                self.now = end;
                return Ok(());
            }
            self.now = time;
            self.report.events += 1;
            self.note(|| format!("{happening:?}"));
            self.happen(happening)
                .map_err(|what| self.violation(what))?;
        }
        Err(self.violation("nothing is left to happen".into()))
    }

    /// Adds a line to the trace, where one is kept.
    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.config.trace {
            self.report
                .trace
                .push(format!("{:>8} {}", self.now, text()));
        }
    }

    fn violation(&self, what: String) -> Box<Violation> {
        Box::new(Violation {
            seed: self.config.seed,
            tick: self.now / SimConfig::TICK,
            event: self.report.events,
            what,
            trace: self.report.trace.clone(),
        })
    }

    fn first_membership(&self) -> Membership {
        Membership::new((1..=self.config.nodes).map(NodeId), [])
            .expect("the configuration has at least one node")
    }

    fn add_host(&mut self, id: NodeId) {
        let at = self.hosts.len();
        let identity = StoreIdentity {
            cluster: ClusterId(*b"simulated-duraft"),
            node: id,
            max_batch_bytes: self.config.core.max_batch_bytes,
        };
        let disk = FaultDisk::new(FaultOptions {
            sector_bytes: self.config.disk.sector_bytes,
            ..FaultOptions::default()
        });
        let mut host = Host::new(id, identity, disk);
        let drift = u64::from(self.config.clock_drift_ppm);
        if drift > 0 {
            // The fastest clock runs at most so much faster than the slowest.
            host.clock_rate = SimConfig::CLOCK_RATE - self.rng.below(drift + 1);
            host.clock_phase = self.rng.below(100 * SimConfig::TICK);
        }
        self.hosts.push(host);
        self.sides.push(0);
        let phase = self.rng.below(SimConfig::TICK);
        self.plan(phase, Happening::Tick(at));
        if id.0 > self.config.nodes {
            return;
        }
        let membership = self.first_membership();
        let entropy = self.entropy();
        let shared: Arc<dyn Disk> = Arc::new(self.hosts[at].disk.clone());
        duraft_storage::bootstrap(
            &shared,
            &self.hosts[at].identity,
            &self.config.wal,
            entropy,
            &[(self.config.core.group, membership)],
        )
        .expect("an empty disk without faults takes a store");
        self.hosts[at].exists = true;
        let delay = self.rng.below(3 * SimConfig::TICK);
        self.plan(delay, Happening::Start(at));
    }

    fn entropy(&mut self) -> Entropy {
        Entropy {
            seed: self.rng.next(),
            wallclock_ns: self.now,
        }
    }

    fn plan(&mut self, delay: u64, happening: Happening) {
        self.planned += 1;
        self.agenda
            .insert((self.now + delay, self.planned), happening);
    }

    fn chance(&mut self, of_ten_thousand: u64) -> bool {
        !self.healing && self.rng.below(CERTAIN) < of_ten_thousand
    }

    fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.rng.below(max.saturating_sub(min) + 1)
    }

    fn happen(&mut self, happening: Happening) -> Step {
        if let Some(until) = self.paused_until(&happening) {
            // In order: what waits longest was planned first.
            self.plan(until - self.now, happening);
            return Ok(());
        }
        match happening {
            Happening::Tick(host) => self.tick(host)?,
            Happening::Arrive(envelope) => self.arrive(envelope),
            Happening::Frame { from, to, frame } => self.frame_arrives(from, to, frame),
            Happening::Run { host, life, thread } => {
                if self.is_alive(host, life) {
                    self.run_thread(host, thread)?;
                }
            }
            Happening::Report {
                host,
                generation,
                completion,
            } => self.input(
                host,
                DriverInput::Completed {
                    generation,
                    completion,
                },
            ),
            Happening::Load { host, life, load } => {
                if self.is_alive(host, life) {
                    self.load(host, load);
                }
            }
            Happening::Start(host) => self.start(host)?,
            Happening::Bury { host, life } => {
                if self.is_alive(host, life) {
                    self.crash(host)?;
                }
            }
        }
        self.check_answers()
    }

    /// When the process that this happens to goes on, if it stands still.
    fn paused_until(&self, happening: &Happening) -> Option<u64> {
        let host = match happening {
            Happening::Run { host, .. } | Happening::Load { host, .. } => *host,
            Happening::Tick(_)
            | Happening::Arrive(_)
            | Happening::Frame { .. }
            | Happening::Report { .. }
            | Happening::Start(_)
            | Happening::Bury { .. } => return None,
        };
        let until = self.hosts[host].paused_until;
        (until > self.now).then_some(until)
    }

    fn is_alive(&self, host: usize, life: u64) -> bool {
        self.hosts[host].lives == life && self.hosts[host].life.is_some()
    }

    /// A thread of a living node takes its turn.
    fn run_thread(&mut self, host: usize, thread: Thread) -> Step {
        if let Some(life) = &mut self.hosts[host].life {
            life.due.remove(&thread);
        }
        match thread {
            Thread::Raft => self.turn(host),
            Thread::Wal => self.commit(host),
            Thread::Apply => self.apply(host),
            Thread::Snapshot => self.take(host),
            Thread::Transfer => self.transfer(host),
        }
    }

    /// Plans a thread's turn, unless one is planned.
    fn soon(&mut self, host: usize, thread: Thread, delay: u64) {
        let lives = self.hosts[host].lives;
        if let Some(life) = &mut self.hosts[host].life
            && life.due.insert(thread)
        {
            let life = lives;
            self.plan(delay, Happening::Run { host, life, thread });
        }
    }

    /// Time passes for one node, and with it come the troubles of its life.
    fn tick(&mut self, host: usize) -> Step {
        let next = self.hosts[host].until_tick(self.now);
        self.plan(next, Happening::Tick(host));
        self.soon(host, Thread::Raft, 0);
        self.transfers_tick(host);
        self.idle_commit(host);
        if host == 0 {
            self.cluster_tick()?;
        }
        if self.chance(self.config.pause) {
            self.hosts[host].paused_until = self.now + self.between(1, self.config.pause_max);
            self.report.pauses += 1;
        }
        if self.chance(self.config.disk.failure) && self.hosts[host].exists {
            self.break_disk(host);
        }
        if self.chance(self.config.crash) && self.hosts[host].life.is_some() {
            self.crash(host)?;
        }
        Ok(())
    }

    /// What happens to all nodes together.
    fn cluster_tick(&mut self) -> Step {
        self.clients_tick();
        self.look_for_healed()?;
        if self.chance(self.config.blackout) {
            self.report.blackouts += 1;
            for host in 0..self.hosts.len() {
                if self.hosts[host].life.is_some() {
                    self.crash(host)?;
                }
            }
        }
        if self.chance(self.config.network.repartition) {
            self.cut();
            self.report.partitions += 1;
        }
        Ok(())
    }

    /// Divides the nodes anew: by chance, or the leader from all others.
    fn cut(&mut self) {
        let alone = self.leaders().last_key_value().map(|(_, leader)| *leader);
        let alone = alone.filter(|_| self.rng.below(3) == 0);
        for (host, side) in self.sides.iter_mut().enumerate() {
            *side = match alone {
                Some(leader) => u8::from(host == leader),
                None => u8::from(self.rng.below(2) == 0),
            };
        }
    }

    /// Ends all faults: the network is whole, disks work, everybody is up.
    fn heal(&mut self) {
        self.healing = true;
        self.sides.fill(0);
        self.config.network.delay_max = self.config.network.delay_max.min(10);
        self.config.disk.sync_max = self.config.disk.sync_max.min(10);
        self.config.disk.report_max = 0;
        for host in 0..self.hosts.len() {
            self.hosts[host].disk.heal();
            self.plan(0, Happening::Start(host));
        }
    }

    /// The healed cluster must elect, commit one more command and agree; returns the ticks it took.
    fn recover(&mut self) -> Result<u64, String> {
        let begin = self.now;
        let ticks = |sim: &Sim| (sim.now - begin) / SimConfig::TICK;
        let mut last: Option<u64> = None;
        let mut converged = 0;
        while ticks(self) < HEALED_WITHIN_TICKS {
            let until = self.now + 5 * SimConfig::TICK;
            self.run_until(until).map_err(|violation| violation.what)?;
            if last.is_some_and(|number| self.history.acknowledged(number).is_some()) {
                self.look_for_healed()
                    .map_err(|what| format!("while healing: {what}"))?;
                if self.has_converged() {
                    if self.damaged_members() == 0 {
                        return Ok(ticks(self));
                    }
                    converged += 1;
                }
                if converged == 100 {
                    // 500 ticks and nothing: peers could not help.
                    self.report.unhealed += self.damaged_members();
                    let why = format!("seed {}: {}", self.config.seed, self.describe());
                    self.report.unhealed_why.push(why);
                    return Ok(ticks(self));
                }
                self.end_strangers();
            } else if last.is_none_or(|number| self.history.outcomes.contains_key(&number))
                && let Some((_, leader)) = self.leaders().last_key_value()
            {
                last = Some(self.history.submitted);
                self.propose(*leader);
            }
        }
        Err(format!(
            "no convergence within {HEALED_WITHIN_TICKS} ticks of healing: {}",
            self.describe()
        ))
    }

    /// Whoever is no member any more is turned off: what it was to read it may never apply, so its
    /// clients hear of its end.
    fn end_strangers(&mut self) {
        for host in 0..self.hosts.len() {
            let id = self.hosts[host].id;
            if !self.history.latest_membership().contains(id) {
                self.hosts[host].life = None;
                self.hosts[host].exists = false;
            }
        }
    }

    fn damaged_members(&self) -> u64 {
        let members = self.history.latest_membership();
        let damaged = self.hosts.iter().filter(|host| host.damaged);
        damaged.filter(|host| members.contains(host.id)).count() as u64
    }

    /// Has every member that is not damaged everything, do all follow one leader, and does nothing
    /// wait?
    fn has_converged(&self) -> bool {
        let end = self.history.committed_end();
        let members = self.history.latest_membership();
        let leader = self.leaders().last_key_value().map(|(_, host)| *host);
        let leader = leader.map(|host| self.hosts[host].id);
        let mut members = members.members().map(|id| &self.hosts[host_of(id)]);
        let quiet = self.is_quiet() || self.damaged_members() > 0;
        quiet
            && members.all(|host| {
                host.damaged
                    || host.life.as_ref().is_some_and(|life| {
                        let raft = life.driver.raft();
                        raft.last() == end
                            && raft.applied() == end.index()
                            && raft.leader() == leader
                            && life.applied_seen == self.history.applied_len()
                    })
            })
    }
}

/// A cluster without faults must have recovered by then: several elections with split votes, the
/// longest patience of a client, and the catching up of a node that was down.
const HEALED_WITHIN_TICKS: u64 = 2_000;

fn host_of(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).expect("nodes are numbered from 1")
}
