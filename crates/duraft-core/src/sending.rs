//! Sending snapshots: what a leader does for a peer that needs what the log does not hold any more.
//!
//! The core says what to send, the host moves the bytes and says how it goes. A transfer is begun once
//! and then left alone: not replaced because a newer snapshot exists, not repeated because it is slow.
//! What would make it useless, the loss of the log behind it, is prevented where logs are compacted.
//!
//! ```text
//!  needs what is gone ──► under way ──delivered──► its acknowledgement is due ──► replicating
//!        ▲                  │   │                        │                            ▲
//!        │             failed   no move for long      none comes                      │
//!        │                  ▼   ▼                        ▼                            │
//!        └─ no ── asked for the log's beginning (after a pause, if it failed) ── yes ─┘
//! ```

use crate::io::{Output, SendProgress};
use crate::leader::Line;
use crate::log::Boundary;
use crate::progress::{Progress, Sending, Stage};
use crate::raft::Raft;
use crate::types::{Index, LoadId, NodeId};
use alloc::vec::Vec;

/// A delivered snapshot is acknowledged within this many election timeouts, or asked for.
const ACKNOWLEDGE_TIMEOUTS: u64 = 2;

impl Raft {
    /// The host tells how a transfer fares. A word about another one than the present is late.
    pub(crate) fn on_snapshot_sending(&mut self, to: NodeId, at: Index, how: SendProgress) {
        let now = self.now;
        let pause = u64::from(self.config.election_ticks);
        let Some(leader) = self.role.leader_mut() else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&to) else {
            return;
        };
        let Stage::Snapshot {
            at: position,
            state,
        } = &mut progress.stage
        else {
            return;
        };
        if position.index() != at || *state != Sending::UnderWay {
            return;
        }
        match how {
            // Bytes the peer has acknowledged: its connection for data works (RULES.md 12).
            SendProgress::Moving => progress.moved = now,
            // The file is there. What counts is the acknowledgement of the record that names it.
            SendProgress::Delivered => {
                progress.moved = now;
                *state = Sending::Delivered(now);
            }
            // Not at once again: what broke it is likely to be there still.
            SendProgress::Failed => *state = Sending::Pausing(now + pause),
        }
    }

    /// The batches that a load was to bring for this peer are not to be had.
    pub(crate) fn drop_load(&mut self, peer: NodeId) {
        if let Some(leader) = self.role.leader_mut()
            && let Some(progress) = leader.progress.get_mut(&peer)
            && let Stage::Replicate { loading, .. } = &mut progress.stage
        {
            *loading = None;
        }
    }

    /// Only a newer snapshot than the latest helps somebody.
    pub(crate) fn want_snapshot(&mut self, out: &mut Vec<Output>) {
        let latest = (self.snapshot.as_ref()).map_or(Index(0), |s| s.position.index());
        let pause = u64::from(self.config.election_ticks);
        let lately = (self.snapshot_wanted).is_some_and(|at| self.now - at < pause);
        if self.applied() > latest && self.install.is_none() && !lately {
            self.snapshot_wanted = Some(self.now);
            out.push(Output::TakeSnapshot);
        }
    }

    /// What a peer waits for cannot be read anywhere. Does a snapshot cover it? Then that goes.
    pub(crate) fn snapshot_instead(
        &mut self,
        peer: NodeId,
        load: LoadId,
        out: &mut Vec<Output>,
    ) -> bool {
        let covered = self.snapshot.as_ref().map(|s| s.position.index());
        let Some((leader, line)) = self.line() else {
            return false;
        };
        let Some(progress) = leader.progress.get_mut(&peer) else {
            return false;
        };
        let next = line.log.position_in(progress.next);
        let covers = next.is_none_or(|next| covered > Some(next.index()));
        if progress.loading() != Some(load) || line.snapshot.is_none() || !covers {
            return false;
        }
        line.send_snapshot(peer, progress, out);
        true
    }

    /// The page that begins here cannot be read: peers that need it are given a snapshot, as soon as there
    /// is one.
    pub(crate) fn give_snapshots(&mut self, begin: Boundary, out: &mut Vec<Output>) {
        let Some((leader, line)) = self.line() else {
            return;
        };
        let end = line.log.page_end(begin);
        let needs = |progress: &Progress| progress.matched < end && !progress.is_receiving();
        let covered = line.snapshot.is_some_and(|_| line.snapshot_at >= end);
        let mut needed = false;
        for (peer, progress) in &mut leader.progress {
            if needs(progress) {
                needed = true;
                if covered {
                    line.send_snapshot(*peer, progress, out);
                }
            }
        }
        if needed && !covered {
            self.want_snapshot(out);
        }
    }

    /// The peer lives, as a heartbeat's answer shows. If its transfer leads nowhere any more, ask what
    /// it holds: the answer leads to the next one, or shows that none is needed.
    pub(crate) fn review_snapshot(&mut self, peer: NodeId) {
        let (now, begin) = (self.now, self.log.begin());
        let election_ticks = self.config.election_ticks;
        let Some(leader) = self.role.leader_mut() else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&peer) else {
            return;
        };
        let Stage::Snapshot { state, .. } = &progress.stage else {
            return;
        };
        let over = match *state {
            Sending::UnderWay => progress.is_stalled(now, election_ticks),
            Sending::Delivered(since) => {
                now - since >= ACKNOWLEDGE_TIMEOUTS * u64::from(election_ticks)
            }
            Sending::Pausing(until) => now >= until,
        };
        if over {
            progress.next = progress.matched.max(begin);
            progress.stage = Stage::Probe { asked: None };
        }
    }
}

impl Line<'_> {
    /// Begins the transfer of the latest snapshot, if its record is durable. If not, the peer waits.
    pub(crate) fn send_snapshot(&self, to: NodeId, progress: &mut Progress, out: &mut Vec<Output>) {
        let Some(snapshot) = self.snapshot else {
            return;
        };
        progress.send_snapshot(snapshot.position, self.snapshot_at, self.now);
        out.push(Output::SendSnapshot {
            to,
            term: self.term,
            snapshot: snapshot.clone(),
        });
    }
}

/// Where the log must begin at the latest so that this peer can go on without another snapshot:
/// behind the one on its way, or behind what it holds, as long as it moves.
pub(crate) fn needs_from(progress: &Progress, now: u64, election_ticks: u32) -> Option<Boundary> {
    if progress.is_stalled(now, election_ticks) {
        return None;
    }
    match &progress.stage {
        Stage::Probe { .. } => None,
        Stage::Replicate { .. } => Some(progress.matched),
        // `next` is the boundary after the snapshot.
        Stage::Snapshot { state, .. } => match state {
            Sending::UnderWay | Sending::Delivered(_) => Some(progress.next),
            Sending::Pausing(_) => None,
        },
    }
}
