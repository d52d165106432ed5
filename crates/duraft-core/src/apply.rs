//! Handing committed batches to the state machine, and batches that come back from disk.
//!
//! A batch is handed over when it is committed **and** durable here, in order, once per life, within
//! a window of bytes that the state machine has not reported applied. Batches whose bodies have left
//! the cache are read back first: one load for the state machine and one per peer may be under way.
//!
//! A load is named by its id. Its answer is used only if the one who asked still waits for that id
//! and the batches are, header for header, those of the log.

use crate::batch::Batch;
use crate::fetch::Want;
use crate::io::{Fault, Load, LoadError, Output};
use crate::log::{Boundary, Log};
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::types::{Index, LoadId, NodeId};
use alloc::vec::Vec;

impl Raft {
    /// Gives the state machine what it may have now.
    pub(crate) fn hand_over(&mut self, out: &mut Vec<Output>) {
        // Nor while the state it continues is not there, or a batch of it is being fetched.
        if !self.release_install(out) || self.lacks_snapshot() || self.fetches.for_apply() {
            return;
        }
        // Both, always: an entry that is committed by others' copies and not durable here could be lost
        // here and applied again differently if the others' disks fail (release table).
        let limit = if self.plants.has(Plant::AppliesUndurable) {
            self.commit
        } else {
            self.commit.min(self.disk.log())
        };
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
            self.unhanded_bytes -= cost;
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
        if self.plants.has(Plant::AppliesLastOnly) {
            batches.drain(..batches.len() - 1);
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
            let error = match result.map(|batches| self.take_for_apply(batches, out)) {
                Ok(true) => return None,
                Ok(false) => LoadError::Corrupt,
                Err(error) => error,
            };
            return self.begin_repair(Want::Apply, self.handed, (load, error), out);
        }
        if let Some(verdict) = self.on_page(load, &result, out) {
            return verdict;
        }
        if self.serve_loaded(load, &result, out) {
            return None;
        }
        // A leader looks whether its own copy is what it thinks it is.
        if let Some(verdict) = self.on_audited(load, &result, out) {
            return verdict;
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
        // Compacted while the load was under way: the peer needs a snapshot now.
        if next < self.log.begin() || self.log.wanted(next).is_some() {
            self.drop_load(peer);
            self.replicate_to(peer, out);
            return None;
        }
        let error = match result.map(|batches| self.take_for_peer(peer, batches, out)) {
            Ok(true) => return None,
            Ok(false) => LoadError::Corrupt,
            Err(error) => error,
        };
        self.begin_repair(Want::Peer(peer), next, (load, error), out)
    }

    /// Hands over batches that were read or fetched, if they are those of the log. Says whether.
    pub(crate) fn take_for_apply(&mut self, batches: Vec<Batch>, out: &mut Vec<Output>) -> bool {
        let limit = self.commit.min(self.disk.log());
        let any = self.plants.has(Plant::TakesAnyLoad);
        let Some(batches) = fitting(&self.log, self.handed, limit, batches, any) else {
            return false;
        };
        for batch in &batches {
            self.unapplied_bytes += batch.cost();
            self.unhanded_bytes -= batch.cost();
            self.handed = self.handed.next();
        }
        out.push(Output::Apply(batches));
        true
    }

    /// Sends a peer batches that were read or fetched, if they are those of the log. Says whether.
    pub(crate) fn take_for_peer(
        &mut self,
        peer: NodeId,
        batches: Vec<Batch>,
        out: &mut Vec<Output>,
    ) -> bool {
        let next = (self.role.leader())
            .and_then(|leader| leader.progress.get(&peer))
            .map(|progress| progress.next);
        let any = self.plants.has(Plant::TakesAnyLoad);
        let fit = next.and_then(|next| fitting(&self.log, next, self.log.end(), batches, any));
        let Some(batches) = fit else {
            return false;
        };
        self.send_loaded(peer, batches, out);
        true
    }
}

/// The leading batches of an answer that are those of the log from `at` to `limit`; at least one.
fn fitting(
    log: &Log,
    at: Boundary,
    limit: Boundary,
    mut batches: Vec<Batch>,
    any: bool,
) -> Option<Vec<Batch>> {
    let mut end = at;
    let mut fit = 0;
    for batch in &batches {
        let same = log.header(end) == Some(&batch.header)
            && usize::try_from(batch.header.body_len) == Ok(batch.body.len());
        if end >= limit || !(same || any) {
            break;
        }
        end = end.next();
        fit += 1;
    }
    if fit == 0 {
        return None;
    }
    batches.truncate(fit);
    Some(batches)
}
