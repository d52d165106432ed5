//! Disks: commits, reads of the log, failures, crashes, and what comes after them.

use super::{Happening, Sim, Step};
use crate::config::{CERTAIN, SimConfig};
use crate::life::{Life, Thread};
use duraft::DriverInput;
use duraft_core::{Completion, Load};
use duraft_disk::{CacheAfter, DiskOp, Effect as DiskEffect, Fault, Survival};
use duraft_storage::PipelineEvent;

impl Sim {
    pub(super) fn disk_delay(&mut self) -> u64 {
        let disk = self.config.disk;
        let delay = self.between(disk.sync_min, disk.sync_max);
        if self.chance(disk.stall) {
            self.report.stalls += 1;
            delay * 100
        } else {
            delay
        }
    }

    pub(super) fn commit_later(&mut self, host: usize) {
        let delay = self.disk_delay();
        self.soon(host, Thread::Wal, delay);
    }

    /// Without work the log writes a receipt after a while; now and then it is asked.
    pub(super) fn idle_commit(&mut self, host: usize) {
        let idle = self.hosts[host]
            .life
            .as_ref()
            .is_some_and(|life| !life.due.contains(&Thread::Wal));
        if idle && self.rng.below(4) == 0 {
            self.commit_later(host);
        }
    }

    /// One turn of the log: everything that waits becomes durable, or the log fails.
    pub(super) fn commit(&mut self, host: usize) -> Step {
        let busy = |life: &Life| !life.submissions.is_empty();
        if self.hosts[host].life.as_ref().is_some_and(busy) && self.chance(4 * self.config.crash) {
            return self.crash_in(host, Some(Thread::Wal));
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

    pub(super) fn load(&mut self, host: usize, load: Load) {
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

    /// Ends a life: the process dies, or the power fails and takes a part of what was not synced.
    pub(super) fn crash(&mut self, host: usize) -> Step {
        self.crash_in(host, None)
    }

    /// Ends a life in the midst of what this thread, or any, is writing.
    pub(super) fn crash_in(&mut self, host: usize, thread: Option<Thread>) -> Step {
        self.report.crashes += 1;
        let node = &mut self.hosts[host];
        if let Some(mut life) = node.life.take()
            && life.failed_at.is_none()
            && (thread.is_some() || self.rng.below(2) == 0)
        {
            let writing = life.writing();
            let writing = thread.map_or(writing, |thread| vec![thread]);
            if !writing.is_empty() {
                let choice = self.rng.below(writing.len() as u64);
                let thread = writing[usize::try_from(choice).expect("few threads")];
                let steps = if thread == Thread::Snapshot { 12 } else { 5 };
                let at = node.disk.mutations() + 1 + self.rng.below(steps);
                node.disk.crash_at(at);
                life.write_to_the_end(thread);
                match thread {
                    Thread::Snapshot => self.report.crashes_in_snapshots += 1,
                    Thread::Transfer => self.report.crashes_in_transfers += 1,
                    Thread::Raft | Thread::Wal | Thread::Apply => {
                        self.report.crashes_in_commits += 1;
                    }
                }
            }
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
    pub(super) fn start(&mut self, host: usize) -> Step {
        if self.hosts[host].life.is_some() || !self.hosts[host].exists {
            return Ok(());
        }
        self.rot(host)?;
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

    /// Makes the next write or sync of a node's disk fail.
    pub(super) fn break_disk(&mut self, host: usize) {
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
}
