//! Handing committed batches to the state machine, and batches that come back from disk.
//!
//! A batch is handed over when it is committed **and** durable here, in order, once per life, within
//! a window of bytes that the state machine has not reported applied. Batches whose bodies have left
//! the cache are read back first: one load for the state machine and one per peer may be under way.
//!
//! A load is named by its id. Its answer is used only if the one who asked still waits for that id
//! and the batches are, header for header, those of the log.

use crate::batch::Batch;
use crate::io::{Fault, Load, LoadError, Output};
use crate::log::{Boundary, Log};
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::types::{Index, LoadId};
use alloc::vec::Vec;

impl Raft {
    /// Gives the state machine what it may have now.
    pub(crate) fn hand_over(&mut self, out: &mut Vec<Output>) {
        if !self.release_install(out) {
            return;
        }
        // Both, always: an entry that is committed by others' copies and not durable here could be lost
        // here and applied again differently if the others' disks fail (release table).
        let limit = self.commit.min(self.disk.log());
        if self.handed >= limit || self.apply_load.is_some() {
            return;
        }
        // After a restart the whole log is on disk only.
        if self.handed < self.log.cached_from() {
            self.load_for_apply(limit, out);
            return;
        }
        // As many as the window admits; one always, if the state machine has nothing else to do.
        let mut end = self.handed;
        while end < limit {
            let cost = self.log.header(end).expect("below the end").cost();
            let window_open = self.unapplied_bytes == 0
                || self.unapplied_bytes + cost <= self.config.unapplied_bytes_max;
            if !window_open {
                break;
            }
            self.unapplied_bytes += cost;
            end = end.next();
        }
        if end == self.handed {
            return;
        }
        let mut batches = Vec::with_capacity(1);
        while self.handed < end {
            batches.push(self.log.cached(self.handed).expect("checked above"));
            self.handed = self.handed.next();
        }
        out.push(Output::Apply(batches));
    }

    /// Asks for the next batches of the state machine, as many as the window admits.
    fn load_for_apply(&mut self, limit: Boundary, out: &mut Vec<Output>) {
        let cost = self.log.header(self.handed).expect("below the end").cost();
        let room = self
            .config
            .unapplied_bytes_max
            .saturating_sub(self.unapplied_bytes);
        if self.unapplied_bytes > 0 && cost > room {
            return;
        }
        let id = self.next_load;
        self.next_load.0 += 1;
        self.apply_load = Some(id);
        let last = limit.min(self.log.cached_from());
        out.push(Output::Load(Load {
            id,
            first: self.log.first_after(self.handed),
            last: self.log.index(last),
            bytes_max: room.min(self.config.append_bytes_max),
        }));
    }

    /// The state machine has applied everything up to `upto`.
    pub(crate) fn on_applied(&mut self, upto: Index) -> Option<Transition> {
        // About what a snapshot has replaced, a repeated or a late report says nothing new.
        if self.settles_install(upto) || upto <= self.applied() {
            return None;
        }
        // Batches are applied whole; more than was handed over, or part of a batch, cannot be.
        let end = match self.log.boundary_near(upto, self.applied.next()) {
            Some(end) if end <= self.handed => end,
            Some(_) | None => return Some(Transition::Halt(Fault::UnknownCompletion)),
        };
        while self.applied < end {
            let header = self.log.header(self.applied).expect("below the end");
            self.unapplied_bytes -= header.cost();
            self.applied = self.applied.next();
        }
        None
    }

    /// Batches were read from disk, or could not be.
    pub(crate) fn on_loaded(
        &mut self,
        load: LoadId,
        result: Result<Vec<Batch>, LoadError>,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        // The host answers what nobody has asked: whatever else it reports cannot be trusted.
        if load >= self.next_load || load == LoadId(0) {
            return Some(Transition::Halt(Fault::UnknownCompletion));
        }
        // For the state machine. What is committed is never cut, so the place still fits; the content is
        // compared all the same.
        if self.apply_load == Some(load) {
            self.apply_load = None;
            let limit = self.commit.min(self.disk.log());
            return match fitting(&self.log, self.handed, limit, result) {
                Ok(batches) => {
                    for batch in &batches {
                        self.unapplied_bytes += batch.cost();
                        self.handed = self.handed.next();
                    }
                    out.push(Output::Apply(batches));
                    None
                }
                // Committed entries that this node cannot read: without them it can apply nothing
                // more, and pretending otherwise would skip them.
                Err(error) => Some(Transition::Halt(Fault::Unreadable {
                    first: self.log.first_after(self.handed),
                    error,
                })),
            };
        }
        // For a peer, if this node still leads and the peer still waits for this very load: otherwise
        // the answer has come too late and is dropped.
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let (peer, next) = leader
            .progress
            .iter()
            .find(|(_, progress)| progress.loading() == Some(load))
            .map(|(peer, progress)| (*peer, progress.next))?;
        match fitting(&self.log, next, self.log.end(), result) {
            Ok(batches) => {
                self.send_loaded(peer, batches, out);
                None
            }
            // A leader that cannot read its own log cannot serve its followers. Somebody else may.
            Err(_) => Some(Transition::Follow {
                term: self.hard.term,
                leader: None,
            }),
        }
    }
}

/// The leading batches of an answer that are those of the log from `at` to `limit`; at least one.
fn fitting(
    log: &Log,
    at: Boundary,
    limit: Boundary,
    result: Result<Vec<Batch>, LoadError>,
) -> Result<Vec<Batch>, LoadError> {
    let mut batches = result?;
    let mut end = at;
    let mut fit = 0;
    for batch in &batches {
        let same = log.header(end) == Some(&batch.header)
            && usize::try_from(batch.header.body_len) == Ok(batch.body.len());
        if end >= limit || !same {
            break;
        }
        end = end.next();
        fit += 1;
    }
    if fit == 0 {
        return Err(LoadError::Corrupt);
    }
    batches.truncate(fit);
    Ok(batches)
}
