//! The event loop: virtual time, one queue of events, one source of choices.

mod check;
mod report;

use crate::config::{CERTAIN, SimConfig};
use crate::history::History;
use crate::host::{Host, Life, Shared};
use bytes::Bytes;
use duraft::{Answer, DriverInput, Effect, Now, Outcome, Proposal, Responder, StopReason};
use duraft_core::{
    Completion, Envelope, Event, Fault as CoreFault, Load, Membership, NodeId, RoleKind, mix64,
};
use duraft_disk::{CacheAfter, Disk, DiskOp, Effect as DiskEffect, Fault, FaultDisk, FaultOptions};
use duraft_disk::{SplitMix64, Survival};
use duraft_storage::{ClusterId, Entropy, PipelineEvent, StoreIdentity};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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
    /// Outcomes that clients were told and the checker has not seen.
    answers: Shared<Vec<(u64, Outcome)>>,
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
    /// The driver takes in what waits.
    Turn { host: usize, life: u64 },
    /// The log finishes what waits.
    Commit { host: usize, life: u64 },
    /// The state machine takes in one batch.
    Apply { host: usize, life: u64 },
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
            healing: false,
            report: Report::new(config.seed),
            config,
        };
        for id in 1..=sim.config.nodes {
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

    fn add_host(&mut self, id: NodeId) {
        let host = self.hosts.len();
        let identity = StoreIdentity {
            cluster: ClusterId(*b"simulated-duraft"),
            node: id,
            max_batch_bytes: self.config.core.max_batch_bytes,
        };
        let disk = FaultDisk::new(FaultOptions {
            sector_bytes: self.config.disk.sector_bytes,
            ..FaultOptions::default()
        });
        let membership = Membership::new((1..=self.config.nodes).map(NodeId), [])
            .expect("the configuration has at least one node");
        let entropy = self.entropy();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        duraft_storage::bootstrap(
            &shared,
            &identity,
            &self.config.wal,
            entropy,
            &[(self.config.core.group, membership)],
        )
        .expect("an empty disk without faults takes a store");
        self.hosts.push(Host::new(id, identity, disk));
        self.sides.push(0);
        let phase = self.rng.below(SimConfig::TICK);
        self.plan(phase, Happening::Tick(host));
        let delay = self.rng.below(3 * SimConfig::TICK);
        self.plan(delay, Happening::Start(host));
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
            Happening::Turn { host, life } => {
                if self.is_alive(host, life) {
                    self.turn(host)?;
                }
            }
            Happening::Commit { host, life } => {
                if self.is_alive(host, life) {
                    self.commit(host)?;
                }
            }
            Happening::Apply { host, life } => {
                if self.is_alive(host, life) {
                    self.apply(host)?;
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
            Happening::Turn { host, .. }
            | Happening::Commit { host, .. }
            | Happening::Apply { host, .. }
            | Happening::Load { host, .. } => *host,
            Happening::Tick(_)
            | Happening::Arrive(_)
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

    /// Time passes for one node, and with it come the troubles of its life.
    fn tick(&mut self, host: usize) -> Step {
        self.plan(SimConfig::TICK, Happening::Tick(host));
        self.turn_soon(host, 0);
        self.idle_commit(host);
        if host == 0 {
            self.client_tick();
            if self.chance(self.config.blackout) {
                self.report.blackouts += 1;
                for host in 0..self.hosts.len() {
                    if self.hosts[host].life.is_some() {
                        self.crash(host)?;
                    }
                }
            }
            if self.chance(self.config.network.repartition) {
                for side in &mut self.sides {
                    *side = u8::from(self.rng.below(2) == 0);
                }
                self.report.partitions += 1;
            }
        }
        if self.chance(self.config.pause) {
            self.hosts[host].paused_until = self.now + self.between(1, self.config.pause_max);
            self.report.pauses += 1;
        }
        if self.chance(self.config.disk.failure) {
            self.break_disk(host);
        }
        if self.chance(self.config.crash) && self.hosts[host].life.is_some() {
            self.crash(host)?;
        }
        Ok(())
    }

    /// Makes the next write or sync of a node's disk fail.
    fn break_disk(&mut self, host: usize) {
        let landed = (self.rng.below(2) == 0).then(|| self.rng.next());
        let cache = if self.rng.below(2) == 0 {
            CacheAfter::NewContent
        } else {
            CacheAfter::OldContent
        };
        let fault = match self.rng.below(3) {
            0 => Fault::new(DiskEffect::Io).on(DiskOp::Write),
            1 => Fault::new(DiskEffect::ShortWrite { bytes: 700 }).on(DiskOp::Write),
            _ => Fault::new(DiskEffect::SyncFails { cache, landed }).on(DiskOp::SyncData),
        };
        self.hosts[host].disk.inject(fault);
        self.hosts[host].armed = true;
    }

    /// A client sends a command, mostly to whom it believes to lead.
    fn client_tick(&mut self) {
        if !self.chance(self.config.propose) {
            return;
        }
        let leaders = self.leaders();
        let anyone = usize::try_from(self.rng.below(self.config.nodes)).expect("few nodes");
        let host = match leaders.last_key_value() {
            Some((_, leader)) if self.rng.below(8) > 0 => *leader,
            _ => anyone,
        };
        let burst = 1 + self.rng.below(4);
        for _ in 0..burst {
            self.propose(host);
        }
    }

    /// The living nodes that lead, by term.
    fn leaders(&self) -> BTreeMap<u64, usize> {
        let living = self.hosts.iter().enumerate();
        living
            .filter_map(|(at, host)| Some((at, host.life.as_ref()?.driver.raft())))
            .filter(|(_, raft)| raft.role() == RoleKind::Leader)
            .map(|(at, raft)| (raft.term().0, at))
            .collect()
    }

    fn propose(&mut self, host: usize) {
        if self.hosts[host].life.is_none() {
            return;
        }
        let number = self.history.submitted;
        self.history.submitted += 1;
        let len = 8 + usize::try_from(self.rng.below(self.config.command_bytes_max + 1))
            .expect("commands are small");
        let mut command = vec![0; len];
        command[..8].copy_from_slice(&number.to_le_bytes());
        let answers = self.answers.clone();
        let responder = Responder::call(move |outcome| answers.lock().push((number, outcome)));
        let patience = self.between(5, 200);
        let deadline = Some(self.now / SimConfig::TICK + patience);
        let proposal = Proposal::plain(Bytes::from(command), deadline, responder);
        self.input(host, DriverInput::Propose(proposal));
    }

    /// Gives a node's driver something to take in; lost when the node is down.
    fn input(&mut self, host: usize, input: DriverInput) {
        if let Some(life) = &mut self.hosts[host].life {
            life.inputs.push_back(input);
            let delay = self.rng.below(2);
            self.turn_soon(host, delay);
        }
    }

    fn turn_soon(&mut self, host: usize, delay: u64) {
        let lives = self.hosts[host].lives;
        if let Some(life) = &mut self.hosts[host].life
            && !life.turn_due
        {
            life.turn_due = true;
            self.plan(delay, Happening::Turn { host, life: lives });
        }
    }

    fn arrive(&mut self, envelope: Envelope) {
        let to = host_of(envelope.to);
        if self.sides[host_of(envelope.from)] == self.sides[to] {
            self.input(to, DriverInput::Received(envelope));
        }
    }

    /// One turn of a driver, and all its effects.
    fn turn(&mut self, host: usize) -> Step {
        let now = Now {
            tick: self.now / SimConfig::TICK,
            boottime: Duration::from_nanos(self.now),
        };
        let mut effects = Vec::new();
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        life.turn_due = false;
        life.driver.turn(now, &mut life.inputs, &mut effects);
        self.report.turns += 1;
        if let Some(broken) = life.broken() {
            return Err(format!("node {}: {broken}", host + 1));
        }
        let fingerprint = life.driver.raft().fingerprint();
        self.report
            .fold(&[self.now, host as u64, fingerprint, effects.len() as u64]);
        self.check_logs(host)?;
        for effect in effects {
            self.perform(host, effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, host: usize, effect: Effect) -> Step {
        match effect {
            Effect::Persist(write) => {
                self.check_not_failed(host, "a write was issued")?;
                let group = self.config.core.group;
                if let Some(life) = &mut self.hosts[host].life {
                    life.submissions
                        .push_back(duraft_storage::Submission { group, write });
                }
                self.commit_later(host);
            }
            Effect::Send(envelope) => {
                self.check_not_failed(host, "a message was sent")?;
                self.check_message(host, &envelope)?;
                self.send(envelope);
            }
            Effect::Apply(batches) => {
                if let Some(life) = &mut self.hosts[host].life {
                    life.work.extend(batches);
                }
                self.apply_later(host);
            }
            Effect::Load(load) => {
                let life = self.hosts[host].lives;
                let delay = self.between(0, 20);
                self.plan(delay, Happening::Load { host, life, load });
            }
            Effect::Fail(responder, error) => responder.answer(Err(error)),
            effect @ (Effect::Read(_) | Effect::FailRead(..) | Effect::Answer(..)) => {
                return Err(format!("node {}: nobody asked for {effect:?}", host + 1));
            }
            effect @ (Effect::SendSnapshot { .. }
            | Effect::InstallSnapshot(_)
            | Effect::Retire(_)) => {
                return Err(format!(
                    "node {}: nobody takes snapshots: {effect:?}",
                    host + 1
                ));
            }
            Effect::Event(Event::Role { role, term, .. }) => {
                if role == RoleKind::Leader {
                    self.report.elections += 1;
                    self.check_new_leader(host, term)?;
                }
            }
            Effect::Event(Event::Halted(_) | Event::Membership { .. } | Event::Healed) => {}
            Effect::Stopped(reason) => self.stopped(host, &reason)?,
        }
        Ok(())
    }

    /// A node may stop by itself only because its disk failed.
    fn stopped(&mut self, host: usize, reason: &StopReason) -> Step {
        let failed = self.hosts[host]
            .life
            .as_ref()
            .is_some_and(|l| l.failed_at.is_some());
        if *reason != StopReason::Halted(CoreFault::WriteFailed) || !failed {
            return Err(format!("node {} stopped: {reason}", host + 1));
        }
        self.report.poisoned += 1;
        let life = self.hosts[host].lives;
        let delay = self.between(0, 20 * SimConfig::TICK);
        self.plan(delay, Happening::Bury { host, life });
        Ok(())
    }

    fn send(&mut self, envelope: Envelope) {
        self.report.messages += 1;
        if self.chance(self.config.network.loss) {
            return;
        }
        let network = self.config.network;
        if self.chance(network.duplicate) {
            let delay = self.between(network.delay_min, 4 * network.delay_max);
            self.plan(delay, Happening::Arrive(envelope.clone()));
        }
        let delay = self.between(network.delay_min, network.delay_max);
        self.plan(delay, Happening::Arrive(envelope));
    }

    fn commit_later(&mut self, host: usize) {
        let disk = self.config.disk;
        let mut delay = self.between(disk.sync_min, disk.sync_max);
        if self.chance(disk.stall) {
            delay *= 100;
        }
        let lives = self.hosts[host].lives;
        if let Some(life) = &mut self.hosts[host].life
            && !life.pipeline_due
        {
            life.pipeline_due = true;
            self.plan(delay, Happening::Commit { host, life: lives });
        }
    }

    /// Without work the log writes a receipt after a while; now and then it is asked.
    fn idle_commit(&mut self, host: usize) {
        let idle = self.hosts[host]
            .life
            .as_ref()
            .is_some_and(|life| !life.pipeline_due);
        if idle && self.rng.below(4) == 0 {
            self.commit_later(host);
        }
    }

    /// One turn of the log: everything that waits becomes durable, or the log fails.
    fn commit(&mut self, host: usize) -> Step {
        let busy = |life: &Life| !life.submissions.is_empty();
        if self.hosts[host].life.as_ref().is_some_and(busy) && self.chance(self.config.crash) {
            return self.crash(host);
        }
        let tick = self.now / SimConfig::TICK;
        let mut events = Vec::new();
        let node = &mut self.hosts[host];
        let Some(life) = &mut node.life else {
            return Ok(());
        };
        life.pipeline_due = false;
        if let Some(at) = life.failed_at {
            let now = node.disk.mutations();
            if now != at {
                return Err(format!("B10: node {} wrote after a failed write", host + 1));
            }
        }
        if life.failed_at.is_none() {
            // Slots are made beside the commits; a failure there is no failure of the log.
            let _ = life.preparer.turn();
        }
        life.pipeline.turn(tick, &mut life.submissions, &mut events);
        let more = !life.submissions.is_empty();
        self.report.commits += 1;
        for event in events {
            self.logged(host, event)?;
        }
        if more {
            self.commit_later(host);
        }
        Ok(())
    }

    /// The log reports; the driver hears of it a little later.
    fn logged(&mut self, host: usize, event: PipelineEvent) -> Step {
        let (generation, completion) = match event {
            PipelineEvent::Durable(durable) => (
                durable.generation,
                Completion::Persisted { upto: durable.upto },
            ),
            PipelineEvent::Failed {
                generation, error, ..
            } => {
                let node = &mut self.hosts[host];
                if !node.armed {
                    return Err(format!("the log of node {} failed: {error}", host + 1));
                }
                let mutations = node.disk.mutations();
                if let Some(life) = &mut node.life {
                    life.failed_at.get_or_insert(mutations);
                }
                (generation, Completion::WriteFailed)
            }
            PipelineEvent::StorageLow => return Ok(()),
        };
        let report = |completion| Happening::Report {
            host,
            generation,
            completion,
        };
        if completion != Completion::WriteFailed && self.chance(self.config.stale_completion) {
            let delay = self.between(1, 2 * self.config.down_max);
            self.plan(delay, report(completion.clone()));
        }
        let delay = self.between(0, self.config.disk.report_max);
        self.plan(delay, report(completion));
        Ok(())
    }

    fn load(&mut self, host: usize, load: Load) {
        let group = self.config.core.group;
        let Some(life) = &self.hosts[host].life else {
            return;
        };
        let generation = life.generation;
        let read = life
            .reader
            .read(group, load.first, load.last, load.bytes_max);
        self.report.loads += 1;
        let result = read.map_err(|error| duraft::load_error(&error));
        let completion = Completion::Loaded {
            load: load.id,
            result,
        };
        self.input(
            host,
            DriverInput::Completed {
                generation,
                completion,
            },
        );
    }

    fn apply_later(&mut self, host: usize) {
        let delay = self.between(0, 5);
        let lives = self.hosts[host].lives;
        if let Some(life) = &mut self.hosts[host].life
            && !life.apply_due
            && !life.work.is_empty()
        {
            life.apply_due = true;
            self.plan(delay, Happening::Apply { host, life: lives });
        }
    }

    /// The state machine takes in one batch, and clients hear of it.
    fn apply(&mut self, host: usize) -> Step {
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        life.apply_due = false;
        let Some(batch) = life.work.pop_front() else {
            return Ok(());
        };
        let generation = life.generation;
        let mut answers = Vec::new();
        let upto = life
            .applier
            .apply(batch, &mut answers)
            .map_err(|reason| format!("node {}: {reason}", host + 1))?;
        for (log_id, command) in life.newly_applied() {
            self.history.applied(life.applied_seen, log_id, command)?;
            life.applied_seen += 1;
        }
        answers.into_iter().for_each(Answer::deliver);
        self.input(
            host,
            DriverInput::Completed {
                generation,
                completion: Completion::Applied { upto },
            },
        );
        self.apply_later(host);
        Ok(())
    }

    /// Ends a life: the process dies, or the power fails and takes a part of what was not synced.
    fn crash(&mut self, host: usize) -> Step {
        self.report.crashes += 1;
        let node = &mut self.hosts[host];
        if let Some(mut life) = node.life.take()
            && !life.submissions.is_empty()
            && life.failed_at.is_none()
            && self.rng.below(2) == 0
        {
            // The crash comes in the midst of a commit.
            let at = node.disk.mutations() + 1 + self.rng.below(4);
            node.disk.crash_at(at);
            life.pipeline
                .turn(0, &mut life.submissions, &mut Vec::new());
            self.report.crashes_in_commits += 1;
        }
        self.end_disk_life(host);
        let delay = self.between(1, self.config.down_max);
        self.plan(delay, Happening::Start(host));
        self.check_committed_durable("after a crash")
    }

    fn end_disk_life(&mut self, host: usize) {
        let lost_power = self.rng.below(CERTAIN) < self.config.power_loss;
        let survival = match self.rng.below(8) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            _ => Survival::Drawn(self.rng.next()),
        };
        let node = &mut self.hosts[host];
        let disk = if lost_power {
            self.report.power_losses += 1;
            node.disk.power_loss(survival)
        } else {
            node.disk.process_crash()
        };
        node.replace_disk(disk);
    }

    /// A node opens its store and begins a life, or crashes while it tries.
    fn start(&mut self, host: usize) -> Step {
        if self.hosts[host].life.is_some() {
            return Ok(());
        }
        if self.rng.below(4) == 0 && self.chance(CERTAIN) && self.config.crash > 0 {
            let at = 1 + self.rng.below(30);
            self.hosts[host].disk.crash_at(at);
        }
        let entropy = self.entropy();
        let started = self.hosts[host].start(&self.config, entropy);
        self.note(|| format!("node {} starts: {started:?}", host + 1));
        let refused = started.is_err() && self.hosts[host].armed;
        if refused || self.hosts[host].disk.crashed() {
            self.hosts[host].life = None;
            self.report.crashes_in_recovery += 1;
            self.end_disk_life(host);
            let delay = self.between(1, self.config.down_max);
            self.plan(delay, Happening::Start(host));
            return self.check_committed_durable("after a crash in recovery");
        }
        started?;
        self.hosts[host].disk.crash_at(u64::MAX);
        if self.config.disk.lies {
            let lie = Fault::new(DiskEffect::SyncLies)
                .on(DiskOp::SyncData)
                .forever();
            self.hosts[host].disk.inject(lie);
        }
        self.report.starts += 1;
        self.turn_soon(host, 0);
        Ok(())
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
        while ticks(self) < HEALED_WITHIN_TICKS {
            let until = self.now + 5 * SimConfig::TICK;
            self.run_until(until).map_err(|violation| violation.what)?;
            let answered = last.and_then(|number| self.history.outcomes.get(&number));
            match (answered, last) {
                (Some(Ok(_)), _) if self.has_converged() => return Ok(ticks(self)),
                (Some(Err(_)), _) | (None, None) => {
                    if let Some((_, leader)) = self.leaders().last_key_value() {
                        last = Some(self.history.submitted);
                        self.propose(*leader);
                    }
                }
                (Some(Ok(_)), _) | (None, Some(_)) => {}
            }
        }
        Err(format!(
            "no convergence within {HEALED_WITHIN_TICKS} ticks of healing: {}",
            self.describe()
        ))
    }

    /// Has everybody everything, and does nothing wait?
    fn has_converged(&self) -> bool {
        let end = self.history.committed_end();
        self.history.outcomes.len() as u64 == self.history.submitted
            && self.hosts.iter().all(|host| {
                host.life.as_ref().is_some_and(|life| {
                    let raft = life.driver.raft();
                    raft.last() == end
                        && raft.applied() == end.index()
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
