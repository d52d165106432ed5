//! Turns of drivers, and what becomes of their effects.

use super::{Happening, Sim, Step};
use crate::config::SimConfig;
use crate::fault::between;
use crate::life::{Thread, Work};
use crate::trace::{TraceEvent, TraceKind};
use duraft::transfer::TransferInput;
use duraft::{DriverInput, Effect, Now, StopReason};
use duraft_core::{Event, Fault as CoreFault, Position, RoleKind};
use std::time::Duration;

impl Sim {
    /// Gives a node's driver something to take in; lost when the node is down.
    pub(super) fn input(&mut self, host: usize, input: DriverInput) {
        if let Some(life) = &mut self.hosts[host].life {
            life.inputs.push_back(input);
            let delay = self.dice.disk.below(2);
            self.soon(host, Thread::Raft, delay);
        }
    }

    /// One turn of a driver, and all its effects.
    pub(super) fn turn(&mut self, host: usize) -> Step {
        let now = Now {
            tick: self.hosts[host].clock(self.now) / SimConfig::TICK,
            boottime: self.boottime(host),
        };
        let mut effects = Vec::new();
        let Some(life) = &mut self.hosts[host].life else {
            return Ok(());
        };
        life.last_turn = Some(now);
        life.durable_seen = life.driver.raft().durable();
        life.driver.turn(now, &mut life.inputs, &mut effects);
        self.report.turns += 1;
        if let Some(broken) = life.broken() {
            return Err(format!("node {}: {broken}", host + 1));
        }
        let fingerprint = life.driver.raft().fingerprint();
        self.report
            .fold(&[self.now, host as u64, fingerprint, effects.len() as u64]);
        self.check_logs(host)?;
        self.trace_state(host);
        for effect in effects {
            if matches!(effect, Effect::Send(_)) && self.dies_sending(host) {
                return self.crash_with_others(host);
            }
            self.perform(host, effect)?;
        }
        Ok(())
    }

    pub(super) fn perform(&mut self, host: usize, effect: Effect) -> Step {
        match effect {
            Effect::Persist(write) => {
                self.trace(|| {
                    TraceEvent::new(TraceKind::Written, format!("{write:?}"))
                        .host(host)
                        .value(write.seq.0)
                });
                self.check_not_failed(host, "a write was issued")?;
                for batch in &write.append {
                    self.history.batch_seen(&batch.header)?;
                }
                let group = self.config.core.group;
                if let Some(life) = &mut self.hosts[host].life {
                    let cut = write.truncate.as_ref().map(Position::index);
                    self.report.cuts_of_durable +=
                        u64::from(cut.is_some_and(|cut| cut < life.durable_seen));
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
                self.check_handed(host, &batches)?;
                self.give(host, batches.into_iter().map(Work::Batch));
            }
            Effect::Read(work) => {
                self.check_lease(host, work.lease_until)?;
                self.give(host, [Work::Read(work)]);
            }
            Effect::InstallSnapshot(snapshot) => {
                if let Some(life) = &mut self.hosts[host].life {
                    life.handed = snapshot.position.index();
                }
                self.give(host, [Work::Install(snapshot)]);
            }
            Effect::TakeSnapshot => self.give(host, [Work::TakeSnapshot]),
            Effect::Retire(snapshot) => self.give(host, [Work::Retire(snapshot)]),
            Effect::SendSnapshot { to, term, snapshot } => {
                self.report.snapshots_sent += 1;
                let input = TransferInput::Send { to, term, snapshot };
                self.give_transfer(host, input);
            }
            Effect::Load(load) => {
                let life = self.hosts[host].lives;
                let delay = between(&mut self.dice.disk, 0, 20);
                self.plan(delay, Happening::Load { host, life, load });
            }
            Effect::Fail(responder, error) => responder.answer(Err(error)),
            // Connections here have no state that a new one would clear.
            Effect::Redial(_) => self.report.redials += 1,
            Effect::FailRead(job, error) => job.fail(error),
            Effect::Answer(responder, result) => responder.answer(result),
            Effect::Event(Event::Role { role, term, .. }) => {
                if role == RoleKind::Leader {
                    self.report.elections += 1;
                    self.check_new_leader(host, term)?;
                }
            }
            Effect::Event(Event::Healed) => self.check_healed(host)?,
            Effect::Event(Event::Halted(_) | Event::Membership { .. }) => {}
            Effect::Stopped(reason) => self.stopped(host, &reason)?,
        }
        Ok(())
    }

    /// What has changed of a node that people look for first.
    fn trace_state(&mut self, host: usize) {
        if !self.config.trace {
            return;
        }
        let Some(life) = &mut self.hosts[host].life else {
            return;
        };
        let raft = life.driver.raft();
        let role = match raft.role() {
            RoleKind::Follower => 0,
            RoleKind::PreCandidate | RoleKind::Candidate => 1,
            RoleKind::Leader => 2,
        };
        let now = [
            (
                TraceKind::Term,
                raft.term().0,
                format!("term {}", raft.term()),
            ),
            (TraceKind::Role, role, format!("{:?}", raft.role())),
            (
                TraceKind::Commit,
                raft.commit().0,
                format!("commit {}", raft.commit()),
            ),
        ];
        let before = life.traced.replace(now.each_ref().map(|(_, n, _)| *n));
        for (place, (kind, value, text)) in now.into_iter().enumerate() {
            if before.is_none_or(|before| before[place] != value) {
                self.trace(|| TraceEvent::new(kind, text).host(host).value(value));
            }
        }
    }

    /// A node may stop by itself only because its disk failed.
    fn stopped(&mut self, host: usize, reason: &StopReason) -> Step {
        let failed = self.hosts[host]
            .life
            .as_ref()
            .is_some_and(|l| l.failed_at.is_some());
        if *reason == StopReason::Halted(CoreFault::WriteFailed) && failed {
            self.report.poisoned += 1;
        } else if matches!(reason, StopReason::Halted(_)) && self.hosts[host].scarred {
            self.report.halted_damaged += 1;
        } else {
            return Err(format!("node {} stopped: {reason}", host + 1));
        }
        let life = self.hosts[host].lives;
        let delay = between(&mut self.dice.disk, 0, 20 * SimConfig::TICK);
        self.plan(delay, Happening::Bury { host, life });
        Ok(())
    }

    /// What a node's clock shows that goes on while its process stands still.
    pub(super) fn boottime(&self, host: usize) -> Duration {
        Duration::from_nanos(self.hosts[host].clock(self.now))
    }
}
