//! The event loop: virtual time, one queue of events, one source of choices.

mod check;
mod clients;
mod damage;
mod disk;
mod lasting;
mod members;
mod network;
mod node;
mod report;
mod rest;
mod state;

use crate::config::{CERTAIN, Recover, SimConfig};
use crate::fault::{Dice, FaultKind, between};
use crate::history::History;
use crate::host::{Host, Shared};
use crate::life::Thread;
use crate::spec::Judge;
use crate::trace::{TraceEvent, TraceKind};
use clients::{Client, Requests, Told};
use duraft::transfer::TransferFrame;
use duraft_core::{Completion, Envelope, Load, Membership, NodeId};
use duraft_disk::{Disk, FaultDisk, FaultOptions};
use duraft_storage::{ClusterId, Entropy, StoreIdentity};
use network::Links;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use report::{Report, Violation};

/// A simulated cluster; see the crate's documentation.
pub struct Sim {
    config: SimConfig,
    dice: Dice,
    now: u64,
    /// What will happen, by time and order of planning.
    agenda: BTreeMap<(u64, u64), Happening>,
    planned: u64,
    hosts: Vec<Host>,
    links: Links,
    history: History,
    /// Follows every step as the specification sees it.
    judge: Shared<Judge>,
    /// What clients were told and the checker has not seen.
    answers: Shared<Vec<Told>>,
    clients: Vec<Client>,
    /// Clients without a session that wait for something.
    busy: Vec<bool>,
    requests: Requests,
    cluster_ticks: u64,
    /// Faults are over: the cluster must recover.
    healing: bool,
    /// The node that keeps a trouble.
    troubled: Option<usize>,
    /// Since when it has led without having been able to write.
    stuck_since: Option<u64>,
    /// Messages at rest: among members, and with others.
    at_rest: (u64, u64),
    /// Where what was committed ended when the rest began.
    rest_began: duraft_core::Index,
    report: Report,
}

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    /// A tick of one node's clock.
    Tick(usize),
    /// A message arrives.
    Arrive { message: u64, envelope: Envelope },
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
    /// There is space again on a node's disk.
    SpaceBack { host: usize, life: u64 },
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
    /// Where the configuration has [problems](SimConfig::problems).
    pub fn new(config: SimConfig) -> Sim {
        let problems = config.problems();
        assert!(problems.is_empty(), "{}", problems.join("; "));
        let mut sim = Sim {
            dice: Dice::new(config.seed),
            now: 0,
            agenda: BTreeMap::new(),
            planned: 0,
            hosts: Vec::new(),
            links: Links::default(),
            history: History::default(),
            judge: Shared::default(),
            answers: Shared::default(),
            clients: Vec::new(),
            busy: Vec::new(),
            requests: Requests::default(),
            cluster_ticks: 0,
            healing: false,
            troubled: None,
            stuck_since: None,
            at_rest: (0, 0),
            rest_began: duraft_core::Index(0),
            report: Report::new(config.seed),
            config,
        };
        if !sim.config.check_spec {
            sim.judge.lock().retire();
        }
        let clients = usize::try_from(sim.config.clients.sessions).expect("few clients");
        sim.clients.resize_with(clients, Client::default);
        let plain = usize::try_from(sim.config.clients.plain).expect("few clients");
        sim.busy.resize(plain, false);
        sim.history.begin_with(sim.first_membership());
        let pool = sim.config.pool.max(sim.config.nodes);
        for id in 1..=pool {
            sim.add_host(NodeId(id));
        }
        let (nodes, network, seed) = (sim.hosts.len(), sim.config.network, sim.config.seed);
        sim.links = Links::new(nodes, network, seed, &mut sim.dice.network);
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
        self.report.slowest_convergence = healed;
        self.rest().map_err(|what| self.violation(what))?;
        self.report.ticks = self.now / SimConfig::TICK;
        self.history.judge().map_err(|what| self.violation(what))?;
        let calls = self.history.calls();
        let judged = self.config.workload.judge(&calls);
        judged.map_err(|what| self.violation(what))?;
        self.report.calls_judged = calls.len() as u64;
        self.finish_report();
        Ok(self.report)
    }

    /// After everything else a while of rest.
    fn rest(&mut self) -> Step {
        self.at_rest = (0, 0);
        self.rest_began = self.history.committed_end().index();
        let end = self.now + rest::REST_TICKS * SimConfig::TICK;
        self.run_until(end).map_err(|violation| violation.what)?;
        self.check_committed_durable("at rest")?;
        self.check_at_rest()?;
        if self.damaged_members() > 0 {
            // Those who wait for help go on asking for it.
            return Ok(());
        }
        self.check_storm()
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
            self.happen(happening)
                .map_err(|what| self.violation(what))?;
        }
        Err(self.violation("nothing is left to happen".into()))
    }

    /// Adds an event to the trace, where one is kept.
    fn trace(&mut self, event: impl FnOnce() -> TraceEvent) {
        if self.config.trace {
            let event = TraceEvent {
                at: self.now,
                ..event()
            };
            self.report.trace.push(event);
        }
    }

    fn violation(&self, what: String) -> Box<Violation> {
        Box::new(Violation {
            seed: self.config.seed,
            tick: self.now / SimConfig::TICK,
            event: self.report.events,
            troubles: self.dice.drawn,
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
        host.judge = self.judge.clone();
        let drift = u64::from(self.config.clock_drift_ppm);
        if drift > 0 {
            // The fastest clock runs at most so much faster than the slowest.
            host.clock_rate = SimConfig::CLOCK_RATE - self.dice.other.below(drift + 1);
            host.clock_phase = self.dice.other.below(100 * SimConfig::TICK);
        }
        self.hosts.push(host);
        let phase = self.dice.other.below(SimConfig::TICK);
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
        let delay = self.dice.other.below(3 * SimConfig::TICK);
        self.plan(delay, Happening::Start(at));
    }

    fn entropy(&mut self) -> Entropy {
        Entropy {
            seed: self.dice.other.next(),
            // No part of the store may rely on it.
            wallclock_ns: self.dice.other.next(),
        }
    }

    fn plan(&mut self, delay: u64, happening: Happening) {
        self.planned += 1;
        self.agenda
            .insert((self.now + delay, self.planned), happening);
    }

    /// Does trouble of this kind happen now? Chances are in 1/10,000.
    fn strikes(&mut self, kind: FaultKind, chance: u64) -> bool {
        if self.healing || chance == 0 || self.dice.of(kind).below(CERTAIN) >= chance {
            return false;
        }
        self.dice.drawn += 1;
        let number = self.dice.drawn;
        if self
            .config
            .only
            .as_ref()
            .is_some_and(|only| !only.contains(&number))
        {
            return false;
        }
        self.trace(|| TraceEvent::new(TraceKind::Fault, kind.name()).value(number));
        true
    }

    /// Does a client want something now?
    fn wishes(&mut self, chance: u64) -> bool {
        !self.healing && self.dice.clients.below(CERTAIN) < chance
    }

    fn happen(&mut self, happening: Happening) -> Step {
        if let Some(until) = self.paused_until(&happening) {
            // In order: what waits longest was planned first.
            self.plan(until - self.now, happening);
            return Ok(());
        }
        match happening {
            Happening::Tick(host) => self.tick(host)?,
            Happening::Arrive { message, envelope } => self.arrive(message, envelope),
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
            } => self.completed(host, generation, completion)?,
            Happening::Load { host, life, load } => {
                if self.is_alive(host, life) {
                    self.load(host, load)?;
                }
            }
            Happening::SpaceBack { host, life } => {
                if self.is_alive(host, life) {
                    self.hosts[host].disk.heal();
                }
            }
            Happening::Start(host) => self.start(host)?,
            Happening::Bury { host, life } => {
                if self.is_alive(host, life) {
                    self.crash(host)?;
                    if self.hosts[host].forged {
                        self.wipe(host)?;
                    }
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
            | Happening::Arrive { .. }
            | Happening::Frame { .. }
            | Happening::Report { .. }
            | Happening::SpaceBack { .. }
            | Happening::Start(_)
            | Happening::Bury { .. } => return None,
        };
        let until = self.hosts[host].paused_until;
        (until > self.now).then_some(until)
    }

    fn is_alive(&self, host: usize, life: u64) -> bool {
        self.hosts[host].lives == life && self.hosts[host].life.is_some()
    }

    /// A thread of a living node takes its turn, perhaps its last: a disk that dies under it takes
    /// the node along, whatever the thread made of it.
    fn run_thread(&mut self, host: usize, thread: Thread) -> Step {
        if let Some(life) = &mut self.hosts[host].life {
            life.due.remove(&thread);
        }
        let done = match thread {
            Thread::Raft => self.turn(host),
            Thread::Wal => self.commit(host),
            Thread::Apply => self.apply(host),
            Thread::Snapshot => self.take(host),
            Thread::Transfer => self.transfer(host),
        };
        if self.hosts[host].disk.crashed() {
            self.count_crash_in(host, thread);
            return self.crash_with_others(host);
        }
        done
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
        self.reads_tick(host);
        self.idle_commit(host);
        if host == 0 {
            self.cluster_tick()?;
        }
        if self.strikes(FaultKind::Pause, self.config.pause) {
            let pause = between(&mut self.dice.shape(), 1, self.config.pause_max);
            self.hosts[host].paused_until = self.now + pause;
            self.report.pauses += 1;
        }
        if self.strikes(FaultKind::ClockJump, self.config.clock_jump) {
            let ticks = between(&mut self.dice.shape(), 1, self.config.clock_jump_max);
            self.hosts[host].clock_phase += ticks * SimConfig::TICK;
            self.report.clock_jumps += 1;
        }
        if self.hosts[host].exists {
            self.disk_trouble(host);
        }
        if self.hosts[host].life.is_some() && self.strikes(FaultKind::Crash, self.config.crash) {
            self.plan_crash(host)?;
        }
        Ok(())
    }

    /// What happens to all nodes together.
    fn cluster_tick(&mut self) -> Step {
        self.clients_tick();
        self.look_for_healed()?;
        self.cluster_ticks += 1;
        self.lasting_tick()?;
        let often = match self.config.recover {
            Recover::AtPromises => 10,
            Recover::AtCrashes | Recover::Never => 100,
        };
        if self.cluster_ticks.is_multiple_of(often) {
            self.check_committed_durable("some time later")?;
        }
        if self.strikes(FaultKind::Blackout, self.config.blackout) {
            self.report.blackouts += 1;
            for host in 0..self.hosts.len() {
                if self.hosts[host].life.is_some() {
                    self.crash(host)?;
                }
            }
        }
        if self.strikes(FaultKind::Partition, self.config.network.repartition) {
            self.cut();
        }
        Ok(())
    }

    /// Ends all faults: the network is whole, disks work, everybody is up, nothing takes long.
    fn heal(&mut self) {
        self.healing = true;
        self.links.heal();
        self.config.network.delay_max = self.config.network.delay_max.min(10);
        self.config.disk.sync_max = self.config.disk.sync_max.min(10);
        self.config.disk.report_max = 0;
        // Also for a node of which a failed write is known, and which has yet to end by it.
        self.config.down_max = self.config.down_max.min(2 * SimConfig::TICK);
        let (now, soon) = (self.now, self.now + 2 * SimConfig::TICK);
        for host in 0..self.hosts.len() {
            let node = &mut self.hosts[host];
            node.disk.heal();
            node.disk.crash_at(u64::MAX);
            node.sends_left = None;
            node.paused_until = node.paused_until.min(now);
            self.plan(0, Happening::Start(host));
        }
        // In order: what waits longest was planned first.
        for ((time, number), happening) in std::mem::take(&mut self.agenda) {
            self.agenda.insert((time.min(soon), number), happening);
        }
    }

    /// The healed cluster must elect, commit one more command and agree; returns the ticks it took.
    fn recover(&mut self) -> Result<u64, String> {
        let (begin, committed) = (self.now, self.history.committed_end());
        let ticks = |sim: &Sim| (sim.now - begin) / SimConfig::TICK;
        let mut last: Option<u64> = None;
        let mut converged = 0;
        let (mut patience, mut behind) = (0, 0);
        while ticks(self) < HEALED_WITHIN_TICKS {
            patience = patience.max(self.longest_timeout());
            behind = behind.max(self.quorum_behind());
            let until = self.now + 5 * SimConfig::TICK;
            self.run_until(until).map_err(|violation| violation.what)?;
            if self.report.slowest_commit == 0 && self.history.committed_end() != committed {
                self.report.slowest_commit = ticks(self);
                self.check_first_commit(patience, behind)?;
            }
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
                    self.check_wait_for_operator()?;
                    self.note_unhealed();
                    return Ok(ticks(self));
                }
                self.end_strangers();
            } else if last.is_none_or(|number| self.history.outcomes.contains_key(&number))
                && let Some((_, leader)) = self.leaders().last_key_value()
            {
                last = Some(self.history.submitted);
                self.propose(*leader, None);
            }
        }
        if self.change_lacks_whole_nodes() {
            self.note_unhealed();
            return Ok(ticks(self));
        }
        Err(format!(
            "no convergence within {HEALED_WITHIN_TICKS} ticks of healing: {}",
            self.describe()
        ))
    }

    /// Damaged nodes wait for an operator.
    fn note_unhealed(&mut self) {
        self.report.unhealed += self.damaged_members();
        let why = format!("seed {}: {}", self.config.seed, self.describe());
        self.report.unhealed_why.push(why);
    }

    /// The longest wait of a node that is up for its next campaign. Disks that were slow before they were
    /// healed make it longer than the configured one, for a while.
    fn longest_timeout(&self) -> u64 {
        let lives = self.hosts.iter().filter_map(|host| host.life.as_ref());
        let waits = lives.map(|life| {
            let raft = life.driver.raft();
            (2 * raft.election_timeout_ticks()).max(raft.campaigns_in_ticks())
        });
        u64::from(waits.max().unwrap_or(2 * self.config.core.election_ticks))
    }

    /// How many entries of the latest leader's log a quorum of its members lacks, or it has itself not
    /// applied: with a narrow window it takes no commands before. A node that is down counts once it
    /// is up.
    fn quorum_behind(&self) -> u64 {
        let Some((_, leader)) = self.leaders().pop_last() else {
            return 0;
        };
        let raft_of = |host: usize| Some(self.hosts[host].life.as_ref()?.driver.raft());
        let Some(leader) = raft_of(leader) else {
            return 0;
        };
        let end = leader.last().index();
        let held = leader.membership().quorum_value(end, |id| {
            raft_of(host_of(id)).map_or(end, |raft| raft.last().index().min(end))
        });
        end.0 - held.min(leader.applied()).0
    }

    /// L1, L2: with all faults off, a leader is elected and commits within ten election timeouts of
    /// the slowest clock and the node that waits longest, and the time in which a quorum is brought up
    /// to the leader's log and the leader applies it: at the worst one entry for each way there and
    /// back and write.
    fn check_first_commit(&self, timeout: u64, behind: u64) -> Step {
        let slowest = SimConfig::CLOCK_RATE - u64::from(self.config.clock_drift_ppm);
        let each = 2 * self.config.network.delay_max + self.config.disk.sync_max;
        let catching_up = behind * each / SimConfig::TICK;
        let most = 10 * timeout * SimConfig::CLOCK_RATE / slowest + catching_up;
        let took = self.report.slowest_commit;
        if took > most {
            return Err(format!(
                "L2: the first commit came {took} ticks after healing, {most} are allowed"
            ));
        }
        Ok(())
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
        self.is_quiet()
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
