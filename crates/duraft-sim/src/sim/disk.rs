//! Disks: commits, reads of the log, failures, crashes, and what comes after them.

use super::{Happening, Sim, Step};
use crate::config::{CERTAIN, SimConfig};
use crate::fault::{FaultKind, between, place};
use crate::life::{Life, Thread};
use crate::trace::{TraceEvent, TraceKind};
use duraft::DriverInput;
use duraft_core::{Batch, BatchHeader, Completion, Load, Raft, RoleKind};
use duraft_disk::{CacheAfter, DiskOp, Effect as DiskEffect, Fault, FaultDisk, SplitMix64};
use duraft_disk::{Survival, TraceEntry};
use duraft_storage::PipelineEvent;
use std::collections::VecDeque;

impl Sim {
    pub(super) fn disk_delay(&mut self) -> u64 {
        let disk = self.config.disk;
        let delay = between(&mut self.dice.disk, disk.sync_min, disk.sync_max);
        if self.strikes(FaultKind::Stall, disk.stall) {
            self.report.stalls += 1;
            delay * 100
        } else {
            delay
        }
    }

    pub(super) fn commit_later(&mut self, host: usize) {
        let lasting = self.lasting_sync(host);
        let delay = lasting.unwrap_or_else(|| self.disk_delay());
        self.soon(host, Thread::Wal, delay);
    }

    /// Without work the log writes a receipt after a while; now and then it is asked.
    pub(super) fn idle_commit(&mut self, host: usize) {
        let idle = self.hosts[host]
            .life
            .as_ref()
            .is_some_and(|life| !life.due.contains(&Thread::Wal));
        if idle && self.dice.disk.below(4) == 0 {
            self.commit_later(host);
        }
    }

    /// One turn of the log: everything that waits becomes durable, or the log fails.
    pub(super) fn commit(&mut self, host: usize) -> Step {
        let busy = |life: &Life| !life.submissions.is_empty();
        if self.hosts[host].life.as_ref().is_some_and(busy) {
            self.perhaps_die(host, 4, 5);
        }
        let tick = self.hosts[host].clock(self.now) / SimConfig::TICK;
        let mut events = Vec::new();
        let node = &mut self.hosts[host];
        let Some(life) = &mut node.life else {
            return Ok(());
        };
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
        if self.hosts[host].disk.crashed() {
            return Ok(());
        }
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
            PipelineEvent::StorageLow => {
                self.report.storage_low += 1;
                return Ok(());
            }
        };
        let report = |completion| Happening::Report {
            host,
            generation,
            completion,
        };
        let failed = completion == Completion::WriteFailed;
        self.trace(|| {
            let kind = if failed {
                TraceKind::Failed
            } else {
                TraceKind::Synced
            };
            TraceEvent::new(kind, format!("{completion:?}")).host(host)
        });
        let stale = self.config.stale_completion;
        if !failed && self.strikes(FaultKind::StaleCompletion, stale) {
            let delay = between(&mut self.dice.shape(), 1, 2 * self.config.down_max);
            self.plan(delay, report(completion.clone()));
        }
        let delay = between(&mut self.dice.disk, 0, self.config.disk.report_max);
        self.plan(delay, report(completion));
        Ok(())
    }

    /// The driver hears that something is done. B9: a completion that tells nothing new, or that is of
    /// another life, changes nothing.
    pub(super) fn completed(
        &mut self,
        host: usize,
        generation: u64,
        completion: Completion,
    ) -> Step {
        let input = DriverInput::Completed {
            generation,
            completion: completion.clone(),
        };
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        let raft = life.driver.raft();
        let old = match completion {
            Completion::Persisted { upto } => {
                generation != life.generation || upto <= raft.last_durable()
            }
            Completion::WriteFailed
            | Completion::Applied { .. }
            | Completion::Loaded { .. }
            | Completion::SnapshotTaken { .. }
            | Completion::SnapshotReceived { .. }
            | Completion::SnapshotSending { .. } => generation != life.generation,
        };
        if !old || life.stopped || life.last_turn.is_none() {
            self.input(host, input);
            return Ok(());
        }
        let facts = |raft: &Raft| {
            // Not the commit index, nor what a leader appends behind it: what was due is done at the next
            // input, whatever it is.
            let last = (raft.role() != RoleKind::Leader).then(|| raft.last());
            let positions = (last, raft.durable());
            (raft.durable_hard_state(), raft.last_durable(), positions)
        };
        let before = facts(raft);
        let mut effects = Vec::new();
        let now = life.last_turn.unwrap_or_default();
        life.driver
            .turn(now, &mut VecDeque::from([input]), &mut effects);
        let after = facts(life.driver.raft());
        self.report.stale_completions += 1;
        if before != after {
            return Err(format!(
                "B9: {completion:?} of opening {generation} changed node {} from {before:?} to \
                 {after:?}",
                host + 1
            ));
        }
        // Whatever was due anyway is held against the disk like everything else.
        self.check_logs(host)?;
        for effect in effects {
            self.perform(host, effect)?;
        }
        Ok(())
    }

    pub(super) fn load(&mut self, host: usize, load: Load) -> Step {
        let group = self.config.core.group;
        let Some(life) = &self.hosts[host].life else {
            return Ok(());
        };
        let generation = life.generation;
        let read = life
            .reader
            .read(group, load.first, load.last, load.bytes_max);
        self.report.loads += 1;
        if let Ok(batches) = &read {
            for batch in batches {
                // C7: what is read was issued by somebody, and is what it was.
                self.history.batch_is_known(&batch.header)?;
            }
            self.check_read_enough(host, &load, batches)?;
        }
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
        Ok(())
    }

    /// C7: who asks for batches up to a number of bytes is given all that fit. A page of old headers is of
    /// no use without its last one.
    fn check_read_enough(&self, host: usize, load: &Load, read: &[Batch]) -> Step {
        let Some(last) = read.last().map(|batch| batch.header.last()) else {
            return Ok(());
        };
        let cost: u64 = read.iter().map(Batch::cost).sum();
        let fits =
            |next: &&BatchHeader| next.last() <= load.last && cost + next.cost() <= load.bytes_max;
        // Behind its own commit index the node's log may be another one than what was committed.
        let life = self.hosts[host].life.as_ref();
        let commit = life.map(|life| life.driver.raft().commit());
        let next = self.history.next_committed(last).filter(fits);
        match next.filter(|next| Some(next.last()) <= commit) {
            Some(next) if !self.hosts[host].damaged => Err(format!(
                "C7: node {} reads {load:?} and gets batches up to {last}, though {next:?} fits",
                host + 1
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// A crash is due in one of the next `steps` disk operations, perhaps.
    pub(super) fn perhaps_die(&mut self, host: usize, times: u64, steps: u64) {
        let chance = times * self.config.crash;
        if self.strikes(FaultKind::Crash, chance) {
            let disk = &self.hosts[host].disk;
            disk.start_trace();
            disk.crash_at(disk.mutations() + 1 + self.dice.shape().below(steps));
        }
    }

    /// A node is to crash: now, in a disk operation, or with a message.
    pub(super) fn plan_crash(&mut self, host: usize) -> Step {
        let mut shape = self.dice.shape();
        let node = &mut self.hosts[host];
        match shape.below(4) {
            0 => {
                node.disk.start_trace();
                node.disk
                    .crash_at(node.disk.mutations() + 1 + shape.below(12));
                Ok(())
            }
            1 => {
                node.sends_left = Some(shape.below(6));
                Ok(())
            }
            _ => self.crash_with_others(host),
        }
    }

    /// Does the node die with this message? Before or after it went out.
    pub(super) fn dies_sending(&mut self, host: usize) -> bool {
        let left = &mut self.hosts[host].sends_left;
        match left {
            None => false,
            Some(0) => {
                self.report.crashes_at_messages += 1;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// Ends a life, and perhaps the lives of other nodes at the same moment.
    pub(super) fn crash_with_others(&mut self, host: usize) -> Step {
        if self.strikes(FaultKind::CrashTogether, self.config.crash_together) {
            let mut shape = self.dice.shape();
            self.report.crashes_together += 1;
            for other in 0..self.hosts.len() {
                if other != host && self.hosts[other].life.is_some() && shape.below(2) == 0 {
                    self.crash(other)?;
                }
            }
        }
        self.crash(host)
    }

    /// Ends a life: the process dies, or the power fails and takes a part of what was not synced.
    /// Perhaps in the midst of what is being written.
    pub(super) fn crash(&mut self, host: usize) -> Step {
        self.report.crashes += 1;
        let mut shape = self.dice.shape();
        let node = &mut self.hosts[host];
        if let Some(life) = &node.life {
            node.membership = Some(life.driver.raft().membership().clone());
        }
        if let Some(mut life) = node.life.take()
            && life.failed_at.is_none()
            && !node.disk.crashed()
            && shape.below(2) == 0
        {
            let writing = life.writing();
            if !writing.is_empty() {
                let thread = writing[place(&mut shape, writing.len())];
                let steps = if thread == Thread::Snapshot { 12 } else { 5 };
                let at = node.disk.mutations() + 1 + shape.below(steps);
                node.disk.start_trace();
                node.disk.crash_at(at);
                life.write_to_the_end(thread);
                self.count_crash_in(host, thread);
            }
        }
        self.end_disk_life(host, &mut shape);
        let delay = between(&mut shape, 1, self.config.down_max);
        self.plan(delay, Happening::Start(host));
        self.check_committed_durable("after a crash")
    }

    /// A disk died, or was about to, while this thread used it.
    pub(super) fn count_crash_in(&mut self, host: usize, thread: Thread) {
        match thread {
            Thread::Snapshot => self.report.crashes_in_snapshots += 1,
            Thread::Transfer => self.report.crashes_in_transfers += 1,
            Thread::Raft | Thread::Wal | Thread::Apply => {
                self.report.crashes_in_commits += 1;
                let rotation = died_in_rotation(&self.hosts[host].disk);
                self.report.crashes_in_rotations += u64::from(rotation);
            }
        }
    }

    fn end_disk_life(&mut self, host: usize, shape: &mut SplitMix64) {
        let lost_power = shape.below(CERTAIN) < self.config.power_loss;
        let survival = match shape.below(8) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => Survival::Torn(shape.next()),
            _ => Survival::Drawn(shape.next()),
        };
        self.trace(|| {
            let text = if lost_power {
                format!("power lost, survives: {survival:?}")
            } else {
                "the process died".into()
            };
            TraceEvent::new(TraceKind::Crashed, text).host(host)
        });
        let node = &mut self.hosts[host];
        node.sends_left = None;
        let disk = if lost_power {
            self.report.power_losses += 1;
            node.late_error = false;
            node.disk.power_loss(survival)
        } else {
            node.disk.process_crash()
        };
        node.replace_disk(disk);
    }

    /// A node opens its store and begins a life, or crashes while it tries.
    pub(super) fn start(&mut self, host: usize) -> Step {
        if self.hosts[host].life.is_some() || !self.hosts[host].exists {
            return Ok(());
        }
        self.rot(host)?;
        if self.strikes(FaultKind::Crash, 20 * self.config.crash) {
            let at = 1 + self.dice.shape().below(30);
            self.hosts[host].disk.crash_at(at);
        }
        let entropy = self.entropy();
        let started = self.hosts[host].start(&self.config, entropy);
        let refused = started.is_err() && self.hosts[host].armed;
        if refused || self.hosts[host].disk.crashed() {
            self.hosts[host].life = None;
            self.report.crashes_in_recovery += 1;
            let mut shape = self.dice.shape();
            self.end_disk_life(host, &mut shape);
            let delay = between(&mut shape, 1, self.config.down_max);
            self.plan(delay, Happening::Start(host));
            return self.check_committed_durable("after a crash in recovery");
        }
        self.trace(|| {
            let text = match &started {
                Ok(()) => "a life begins".to_string(),
                Err(error) => format!("does not start: {error}"),
            };
            TraceEvent::new(TraceKind::Started, text).host(host)
        });
        if started.is_err() && self.hosts[host].rotten.is_some() {
            // Reported, and more than peers can repair: somebody declares the disk lost.
            self.report.unopenable += 1;
            self.wipe(host)?;
            self.plan(1, Happening::Start(host));
            return Ok(());
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
        self.soon(host, Thread::Raft, 0);
        self.check_rotten(host)?;
        self.check_begun(host)
    }

    /// What may befall a disk in its present life.
    pub(super) fn disk_trouble(&mut self, host: usize) {
        if self.strikes(FaultKind::DiskError, self.config.disk.failure) {
            self.break_disk(host);
        }
        if self.strikes(FaultKind::NoSpace, self.config.disk.no_space) {
            self.fill_disk(host);
        }
    }

    /// Makes one of the next writes or syncs of a node's disk fail: at once, or when the kernel has
    /// written back or failed to.
    fn break_disk(&mut self, host: usize) {
        let mut shape = self.dice.shape();
        let landed = (shape.below(2) == 0).then(|| shape.next());
        let cache = if shape.below(2) == 0 {
            CacheAfter::NewContent
        } else {
            CacheAfter::OldContent
        };
        let late = DiskEffect::WritebackFails {
            cache,
            reported: true,
        };
        let kind = shape.below(6);
        let fault = match kind {
            0 => Fault::new(DiskEffect::Io).on(DiskOp::Write),
            1 => Fault::new(DiskEffect::ShortWrite { bytes: 700 }).on(DiskOp::Write),
            2 => Fault::new(late).on(DiskOp::Write),
            3 => Fault::new(DiskEffect::Io).on(DiskOp::SyncDir),
            _ => Fault::new(DiskEffect::SyncFails { cache, landed }).on(DiskOp::SyncData),
        };
        let fault = fault.nth(1 + shape.below(4));
        // Once, or again and again until the node has been started anew.
        let fault = if shape.below(4) == 0 {
            fault.forever()
        } else {
            fault
        };
        self.hosts[host].disk.inject(fault);
        self.hosts[host].armed = true;
        self.hosts[host].late_error |= kind == 2;
    }

    /// No space for new files and their content, and perhaps for any write, for a while.
    fn fill_disk(&mut self, host: usize) {
        let mut shape = self.dice.shape();
        let any_write = shape.below(2) == 0;
        let node = &mut self.hosts[host];
        let full = |op| {
            let fault = Fault::new(DiskEffect::NoSpace).on(op).forever();
            node.disk.inject(fault);
        };
        full(DiskOp::Create);
        full(DiskOp::FillZero);
        if any_write {
            full(DiskOp::Write);
        }
        node.armed = true;
        let (life, delay) = (
            node.lives,
            between(&mut shape, 1, self.config.disk.no_space_max),
        );
        self.report.disks_full += 1;
        self.plan(delay, Happening::SpaceBack { host, life });
    }
}

/// Did a disk die in the write that begins a segment (header, first mark and first block in one), or in
/// the sync of that write?
fn died_in_rotation(disk: &FaultDisk) -> bool {
    let begins = |entry: &TraceEntry| {
        let blocks = entry.len > 4096 && entry.offset == 0;
        entry.op == DiskOp::Write && blocks && entry.name.starts_with("wal/")
    };
    match &disk.trace()[..] {
        _ if !disk.crashed() => false,
        [.., before, last] if last.op == DiskOp::SyncData => begins(before),
        [.., last] => begins(last),
        [] => false,
    }
}
