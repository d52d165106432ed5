//! State machines: applying, restoring, taking snapshots and moving them.

use super::{Happening, Sim, Step};
use crate::config::SimConfig;
use crate::fault::between;
use crate::life::{Life, Taking, Thread, Work};
use duraft::transfer::{TransferInput, TransferOutput};
use duraft::{Answer, ApplyBatch, DriverInput, SnapshotView};
use duraft_core::{Completion, Snapshot, mix64};

impl Sim {
    /// Gives a node's state machine something to do.
    pub(super) fn give(&mut self, host: usize, works: impl IntoIterator<Item = Work>) {
        if let Some(life) = &mut self.hosts[host].life {
            life.work.extend(works);
            let delay = between(&mut self.dice.disk, 0, 5);
            self.soon(host, Thread::Apply, delay);
        }
    }

    /// The state machine does one piece of its work.
    pub(super) fn apply(&mut self, host: usize) -> Step {
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        let Some(work) = life.work.pop_front() else {
            return Ok(());
        };
        match work {
            Work::Batch(batch) => self.apply_batch(host, batch)?,
            Work::Read(work) => {
                let mut done = Vec::new();
                life.applier.read(work, &mut done);
                self.deliver_reads(host, done);
            }
            Work::Install(snapshot) => self.install(host, &snapshot)?,
            Work::TakeSnapshot => {
                self.report.snapshots_wanted += 1;
                self.take_view(host)?;
            }
            Work::Retire(snapshot) => {
                life.taking.push_back(Taking::Retire(snapshot));
                self.soon(host, Thread::Snapshot, 1);
            }
        }
        let delay = between(&mut self.dice.disk, 0, 5);
        let waits = |life: &Life| !life.work.is_empty();
        if self.hosts[host].life.as_ref().is_some_and(waits) {
            self.soon(host, Thread::Apply, delay);
        }
        Ok(())
    }

    fn apply_batch(&mut self, host: usize, batch: ApplyBatch) -> Step {
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        let mut answers = Vec::new();
        let upto = life
            .applier
            .apply(batch, &mut answers)
            .map_err(|reason| format!("node {}: {reason}", host + 1))?;
        let now = 2 * self.report.events + 1;
        for entry in life.newly_applied() {
            self.history.applied(life.applied_seen, entry, now)?;
            life.applied_seen += 1;
        }
        answers.into_iter().for_each(Answer::deliver);
        let mut done = Vec::new();
        life.applier.run_reads(&mut done);
        let bytes = life.applier.bytes_since_snapshot();
        let due = self.config.snapshot_bytes.is_some_and(|max| bytes >= max);
        if due {
            self.take_view(host)?;
        }
        self.deliver_reads(host, done);
        self.complete(host, Completion::Applied { upto });
        Ok(())
    }

    /// A view of the state goes to the thread that writes snapshots, unless it is busy with one.
    fn take_view(&mut self, host: usize) -> Step {
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        if life.snapshot_busy {
            return Ok(());
        }
        let view = life
            .applier
            .snapshot()
            .map_err(|reason| format!("node {}: {reason}", host + 1))?;
        let Some(view) = view else {
            return Ok(());
        };
        life.snapshot_busy = true;
        life.taking.push_back(Taking::Take(view));
        self.snapshot_soon(host);
        Ok(())
    }

    fn install(&mut self, host: usize, snapshot: &Snapshot) -> Step {
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        duraft::start::restore(&life.store, &mut life.applier, snapshot)
            .map_err(|reason| format!("node {}: {reason}", host + 1))?;
        let mut done = Vec::new();
        life.applier.run_reads(&mut done);
        self.report.installs += 1;
        self.check_restored(host)?;
        self.deliver_reads(host, done);
        let upto = snapshot.position.index();
        self.complete(host, Completion::Applied { upto });
        Ok(())
    }

    /// A5, B8: what a restored state machine holds is what the log up to there leads to.
    pub(super) fn check_restored(&mut self, host: usize) -> Step {
        let node = &mut self.hosts[host];
        if let Some(life) = &mut node.life {
            let upto = life.applier.position().index();
            let entries = life.machine.lock().clone();
            self.history.restored(node.id, upto, &entries)?;
            life.applied_seen = entries.len();
        }
        Ok(())
    }

    /// Tells a driver that something is done.
    fn complete(&mut self, host: usize, completion: Completion) {
        if let Some(life) = &self.hosts[host].life {
            let generation = life.generation;
            let input = DriverInput::Completed {
                generation,
                completion,
            };
            self.input(host, input);
        }
    }

    fn snapshot_soon(&mut self, host: usize) {
        let delay = self.disk_delay();
        self.soon(host, Thread::Snapshot, delay);
    }

    /// The thread that writes snapshots does one piece of its work. After a failed write nothing is
    /// begun any more.
    pub(super) fn take(&mut self, host: usize) -> Step {
        let Some(life) = &self.hosts[host].life else {
            return Ok(());
        };
        if life.failed_at.is_some() {
            return Ok(());
        }
        if !life.taking.is_empty() {
            self.perhaps_die(host, 10, 12);
        }
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        match life.taking.pop_front() {
            None => return Ok(()),
            Some(Taking::Retire(latest)) => {
                // What cannot be removed now is removed at the next start.
                let removed = life.store.retire(&latest);
                self.report.retired += removed.map_or(0, |names| names.len() as u64);
                life.latest = Some(latest);
            }
            Some(Taking::Take(view)) => {
                let at = view.position;
                let there = (life.latest.clone()).filter(|latest| latest.position == at);
                let written = there.or_else(|| life.write_snapshot(view));
                life.snapshot_busy = false;
                if let Some(snapshot) = written {
                    life.latest = Some(snapshot.clone());
                    self.report.snapshots += 1;
                    self.history.begins(self.hosts[host].id, &at)?;
                    self.complete(host, Completion::SnapshotTaken { snapshot });
                }
            }
        }
        let waits = |life: &Life| !life.taking.is_empty();
        if self.hosts[host].life.as_ref().is_some_and(waits) {
            self.snapshot_soon(host);
        }
        Ok(())
    }

    /// Time passes for the reads that wait for the state machine.
    pub(super) fn reads_tick(&mut self, host: usize) {
        let tick = self.hosts[host].clock(self.now) / SimConfig::TICK;
        if let Some(life) = &mut self.hosts[host].life {
            life.applier.expire_reads(tick);
        }
    }

    /// Time passes for a node's transfers.
    pub(super) fn transfers_tick(&mut self, host: usize) {
        let life = self.hosts[host].life.as_ref();
        if life.is_none_or(|life| life.transfers.is_idle() && life.moving.is_empty()) {
            return;
        }
        self.give_transfer(host, TransferInput::Tick);
    }

    pub(super) fn give_transfer(&mut self, host: usize, input: TransferInput) {
        if let Some(life) = &mut self.hosts[host].life {
            life.moving.push_back(input);
            let delay = self.dice.disk.below(3);
            self.soon(host, Thread::Transfer, delay);
        }
    }

    /// The thread that moves snapshots does all of its work.
    pub(super) fn transfer(&mut self, host: usize) -> Step {
        let Some(life) = &self.hosts[host].life else {
            return Ok(());
        };
        if life.failed_at.is_some() {
            return Ok(());
        }
        if life.writing().contains(&Thread::Transfer) {
            self.perhaps_die(host, 10, 5);
        }
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        let (generation, mut outputs) = (life.generation, Vec::new());
        for input in std::mem::take(&mut life.moving) {
            life.transfers.step(input, &mut outputs);
        }
        let from = self.hosts[host].id;
        for output in outputs {
            match output {
                TransferOutput::Frame { to, frame } => self.send_frame(from, to, frame),
                TransferOutput::Completed(completion) => {
                    if let Completion::SnapshotReceived { snapshot, .. } = &completion {
                        self.report.received += 1;
                        self.history.begins(from, &snapshot.position)?;
                    }
                    let delay = between(&mut self.dice.disk, 0, 5);
                    let report = Happening::Report {
                        host,
                        generation,
                        completion,
                    };
                    self.plan(delay, report);
                }
                TransferOutput::Damaged { at, error } => {
                    if !self.hosts[host].scarred {
                        return Err(format!("B8: node {from} cannot send {at}: {error}"));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Life {
    /// Writes a view into a file, as the runtime's snapshot thread does; `None` where the disk failed.
    pub(crate) fn write_snapshot(&mut self, view: SnapshotView) -> Option<Snapshot> {
        self.nonce = mix64(self.nonce);
        let writer = self
            .store
            .create(view.position, &view.membership, self.nonce);
        let mut writer = writer.ok()?;
        (view.work)(&mut writer).ok()?;
        writer.finish().ok()
    }

    /// The threads that have something to write, as far as is known.
    pub(crate) fn writing(&self) -> Vec<Thread> {
        let moves = self
            .moving
            .iter()
            .any(|input| *input != TransferInput::Tick);
        let busy = [
            (Thread::Wal, !self.submissions.is_empty()),
            (Thread::Snapshot, !self.taking.is_empty()),
            (Thread::Transfer, moves),
        ];
        let busy = busy.into_iter().filter(|(_, busy)| *busy);
        busy.map(|(thread, _)| thread).collect()
    }

    /// Goes on with all that a thread has to do, on a disk that is about to die.
    pub(crate) fn write_to_the_end(&mut self, thread: Thread) {
        match thread {
            Thread::Raft | Thread::Apply => {}
            Thread::Wal => self
                .pipeline
                .turn(0, &mut self.submissions, &mut Vec::new()),
            Thread::Snapshot => {
                for taking in std::mem::take(&mut self.taking) {
                    match taking {
                        Taking::Take(view) => drop(self.write_snapshot(view)),
                        Taking::Retire(latest) => drop(self.store.retire(&latest)),
                    }
                }
            }
            Thread::Transfer => {
                for input in std::mem::take(&mut self.moving) {
                    self.transfers.step(input, &mut Vec::new());
                }
            }
        }
    }
}
