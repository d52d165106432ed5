//! What a leader knows of one peer, and what it may send there.
//!
//! A peer is **probed** (one question at a time: "do you have this boundary?"), **replicated to**
//! (batches are sent ahead of their acknowledgements, within a window of messages and bytes), or sent
//! a **snapshot**, where it needs what the log does not hold any more. A rejection leads back to
//! probing from the rejection's hint.
//!
//! Where something that was sent ahead is rejected, the window begins again with one append and grows
//! by one with each that is acknowledged, as a slow start does. On a network that reorders, every
//! append that overtakes another is rejected; a whole window sent again at each of these rejections
//! would be a storm.
//!
//! A snapshot under way is never begun anew because a newer one exists: the log behind it is kept for
//! the peer (`compaction.rs`), so that a slow transfer still ends with a peer that can follow.
//!
//! This module does not know the log's content; boundaries are handed in.
//!
//! Invariants:
//! - `matched` never falls: what a peer has acknowledged is durable there and stays so, unless the
//!   peer itself reports damage;
//! - while replicating, the window is empty exactly if everything sent is acknowledged;
//! - the window's ends ascend, the last is `next`.

use crate::divergence::Audit;
use crate::log::Boundary;
use crate::message::Health;
use crate::types::{Incarnation, LoadId, LogId, Position};
use alloc::collections::VecDeque;

/// A peer whose log has an answer outstanding and has not moved for this many election timeouts does
/// not count for check-quorum.
const STALL_TIMEOUTS: u64 = 4;

/// An append under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    /// The boundary after its last batch.
    pub(crate) end: Boundary,
    /// Bytes of its batches.
    pub(crate) bytes: u64,
    /// The last heartbeat round that began before it was sent.
    pub(crate) round: u64,
}

/// What a leader sends to a peer, by phase.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Looking for the last common boundary.
    Probe {
        /// The question under way: the boundary asked for and the heartbeat round it was asked in.
        asked: Option<(LogId, u64)>,
    },
    /// Sending ahead.
    Replicate {
        /// Appends not acknowledged, oldest first.
        window: VecDeque<Sent>,
        /// Bytes in the window.
        bytes: u64,
        /// The batches at `next` are being read from disk.
        loading: Option<LoadId>,
    },
    /// A snapshot is being sent.
    Snapshot {
        /// Its position.
        at: Position,
        /// How far that is.
        state: Sending,
    },
}

/// How the transfer of a snapshot to a peer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sending {
    /// The host moves it.
    UnderWay,
    /// The peer holds the whole file since this tick; its acknowledgement is due.
    Delivered(u64),
    /// It has failed; ask the peer again from this tick on.
    Pausing(u64),
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// The next batch to send begins here; a probe asks for this boundary.
    pub(crate) next: Boundary,
    /// The peer's log is the leader's, durably, up to here. Where the log has been compacted since,
    /// this lies before its beginning.
    pub(crate) matched: Boundary,
    /// The last entry there.
    pub(crate) matched_id: LogId,
    /// How many appends may be under way, beside the configured limit: few after a rejection.
    pub(crate) ahead_max: usize,
    /// The largest commit the peer was told.
    pub(crate) commit_told: Boundary,
    /// The peer's life, once it has spoken.
    pub(crate) incarnation: Option<Incarnation>,
    /// Tick of the last message from the peer.
    pub(crate) heard: u64,
    /// Tick at which the log exchange last moved: `matched` grew, a probe was answered, or an append
    /// was sent when none was under way (RULES.md 12).
    pub(crate) moved: u64,
    /// What was sent ahead did not arrive, and `matched` has not grown since: until it does, neither an
    /// answer nor a repetition counts as a move. A path that takes questions and drops what is large would
    /// keep its leader for ever.
    pub(crate) repeats: bool,
    /// The life in which the peer has reported damage: what it had acknowledged before counts no more.
    pub(crate) reported: Option<Incarnation>,
    /// The peer has reported another content for one of this leader's log ids.
    pub(crate) diverged: bool,
    /// This leader's own batch is being read back: nothing is asked of the peer until then.
    pub(crate) auditing: Option<Audit>,
    /// The last heartbeat round of this term that it has answered.
    pub(crate) answered: u64,
    /// What it last said of itself.
    pub(crate) health: Health,
    /// Is it fast enough to vote?
    pub(crate) catch_up: CatchUp,
    /// It is no member any more, and is told so until this tick.
    pub(crate) departs: Option<u64>,
}

/// Rounds of catching up (thesis 4.2.1). A round ends when the peer holds what the leader's log held
/// when the round began. A peer whose last round was shorter than an election timeout would, as a
/// voter, hold commits up for no longer than that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CatchUp {
    /// The round ends when the peer holds the log up to here.
    end: Boundary,
    /// Tick at which it began.
    began: u64,
    /// The round before was short.
    quick: bool,
}

impl CatchUp {
    fn new(end: Boundary, now: u64) -> CatchUp {
        CatchUp {
            end,
            began: now,
            quick: false,
        }
    }

    /// The peer holds `matched` of a log that ends at `end`.
    pub(crate) fn advance(&mut self, matched: Boundary, end: Boundary, now: u64, ticks: u32) {
        if matched >= self.end {
            self.quick = now - self.began < u64::from(ticks);
            self.end = end;
            self.began = now;
        }
    }

    /// The last round was short, and so is the present one so far.
    fn is_done(&self, now: u64, ticks: u32) -> bool {
        self.quick && now - self.began < u64::from(ticks)
    }
}

impl Progress {
    /// A peer of which a leader knows nothing: ask for the boundary `next` first.
    pub(crate) fn new(next: Boundary, now: u64) -> Progress {
        Progress {
            stage: Stage::Probe { asked: None },
            next,
            matched: Boundary::default(),
            matched_id: LogId::default(),
            ahead_max: usize::MAX,
            commit_told: Boundary::default(),
            incarnation: None,
            heard: now,
            moved: now,
            repeats: false,
            reported: None,
            diverged: false,
            auditing: None,
            answered: 0,
            health: Health::default(),
            catch_up: CatchUp::new(next, now),
            departs: None,
        }
    }

    /// Is an answer from the peer's log outstanding?
    pub(crate) fn is_waiting(&self) -> bool {
        match &self.stage {
            Stage::Probe { asked } => asked.is_some(),
            Stage::Replicate { window, .. } => !window.is_empty(),
            Stage::Snapshot { state, .. } => match state {
                Sending::UnderWay | Sending::Delivered(_) => true,
                Sending::Pausing(_) => false,
            },
        }
    }

    /// The peer holds everything that was sent to it.
    pub(crate) fn is_idle(&self) -> bool {
        match &self.stage {
            Stage::Probe { .. } | Stage::Snapshot { .. } => false,
            Stage::Replicate {
                window, loading, ..
            } => window.is_empty() && loading.is_none(),
        }
    }

    /// The load this peer waits for.
    pub(crate) fn loading(&self) -> Option<LoadId> {
        match &self.stage {
            Stage::Replicate { loading, .. } => *loading,
            Stage::Probe { .. } | Stage::Snapshot { .. } => None,
        }
    }

    /// What the next acknowledgement will most likely name.
    pub(crate) fn expected(&self) -> Boundary {
        match &self.stage {
            Stage::Probe { .. } | Stage::Snapshot { .. } => self.next,
            Stage::Replicate { window, .. } => window.front().map_or(self.next, |sent| sent.end),
        }
    }

    /// Appends and bytes under way.
    pub(crate) fn inflight(&self) -> (usize, u64) {
        match &self.stage {
            Stage::Probe { asked } => (usize::from(asked.is_some()), 0),
            Stage::Replicate { window, bytes, .. } => (window.len(), *bytes),
            Stage::Snapshot { .. } => (0, 0),
        }
    }

    /// Does the peer count for check-quorum? It has spoken lately, and if an answer from its log is
    /// outstanding, that log has moved lately: heartbeats alone must not hide a dead connection for
    /// data or a dead disk (RULES.md 12).
    pub(crate) fn is_live(&self, now: u64, election_ticks: u32) -> bool {
        let heard = now - self.heard < u64::from(election_ticks);
        heard && !(self.is_stalled(now, election_ticks) && self.is_waiting())
    }

    /// Has the log exchange not moved for a long time?
    pub(crate) fn is_stalled(&self, now: u64, election_ticks: u32) -> bool {
        now - self.moved >= STALL_TIMEOUTS * u64::from(election_ticks)
    }

    /// Would the peer, as a voter, keep up with this leader?
    pub(crate) fn is_caught_up(&self, now: u64, election_ticks: u32) -> bool {
        self.is_live(now, election_ticks) && self.catch_up.is_done(now, election_ticks)
    }

    /// Asks for a boundary next, which may be anywhere from `matched` on. The peer has just said
    /// something about its log; the exchange last moved at the tick `moved`.
    pub(crate) fn probe_from(&mut self, next: Boundary, moved: u64) {
        self.moved = moved;
        self.next = next.max(self.matched);
        self.stage = Stage::Probe { asked: None };
    }

    /// The peer does not have what was asked for, or what something sent ahead began with: ask for
    /// `next`.
    pub(crate) fn rejected(&mut self, next: Boundary, now: u64) {
        let moved = if self.repeats { self.moved } else { now };
        match &self.stage {
            Stage::Probe { .. } | Stage::Snapshot { .. } => {}
            Stage::Replicate { window, .. } => {
                self.repeats |= !window.is_empty();
                self.ahead_max = 1;
            }
        }
        self.probe_from(next, moved);
    }

    /// This boundary has just been asked for.
    pub(crate) fn ask(&mut self, next: Boundary, id: LogId, round: u64) {
        self.next = next.max(self.matched);
        self.stage = Stage::Probe {
            asked: Some((id, round)),
        };
    }

    /// The host has lost the connection: what was sent ahead may be lost, so ask before sending on.
    /// Nothing has moved by that.
    pub(crate) fn disconnected(&mut self, begin: Boundary) {
        match &self.stage {
            Stage::Replicate { window, .. } => {
                self.repeats |= !window.is_empty();
                self.next = self.matched.max(begin);
                self.stage = Stage::Probe { asked: None };
            }
            // The question is asked again with the heartbeats; the host says how a transfer fares.
            Stage::Probe { .. } | Stage::Snapshot { .. } => {}
        }
    }

    /// The peer has begun another life: what was sent ahead, or a snapshot on its way, is lost. A search goes
    /// on where it is; from the beginning of the log it would end in sending all of it again.
    pub(crate) fn begun_again(&mut self, begin: Boundary, now: u64) {
        match &self.stage {
            Stage::Probe { .. } => self.moved = now,
            Stage::Replicate { .. } | Stage::Snapshot { .. } => {
                self.probe_from(self.matched.max(begin), now);
            }
        }
    }

    /// The peer has lost what it had acknowledged, or part of it: nothing of its log is known any more.
    pub(crate) fn forget(&mut self, end: Boundary) {
        self.matched = Boundary::default();
        self.matched_id = LogId::default();
        self.commit_told = Boundary::default();
        self.next = end;
        self.repeats = false;
        self.stage = Stage::Probe { asked: None };
    }

    /// Is a snapshot on its way to the peer?
    pub(crate) fn is_receiving(&self) -> bool {
        match &self.stage {
            Stage::Probe { .. } | Stage::Replicate { .. } => false,
            Stage::Snapshot { .. } => true,
        }
    }

    /// A snapshot that ends at the boundary `end` of this leader's log goes to the peer.
    pub(crate) fn send_snapshot(&mut self, at: Position, end: Boundary, now: u64) {
        self.stage = Stage::Snapshot {
            at,
            state: Sending::UnderWay,
        };
        // A peer that has lost nothing but its snapshot may hold more of the log.
        self.next = end.max(self.matched);
        self.moved = now;
    }

    /// The peer holds the log up to `matched`, which ends with `id`, durably. Says whether that was
    /// news.
    pub(crate) fn acknowledged(&mut self, matched: Boundary, id: LogId, now: u64) -> bool {
        let news = matched > self.matched;
        if news {
            // It agrees further than it did.
            self.diverged = false;
            self.auditing = self.auditing.filter(|audit| audit.end > matched);
            self.matched = matched;
            self.matched_id = id;
            self.moved = now;
            self.repeats = false;
        }
        match &mut self.stage {
            // Any acceptance ends the search: the logs agree up to `matched`. It ends the transfer of a
            // snapshot too, wherever the peer has got that from, and be it older than the one on its
            // way (S18).
            Stage::Probe { .. } | Stage::Snapshot { .. } => {
                if !self.repeats {
                    self.moved = now;
                }
                self.next = self.matched;
                self.stage = Stage::Replicate {
                    window: VecDeque::new(),
                    bytes: 0,
                    loading: None,
                };
            }
            Stage::Replicate {
                window,
                bytes,
                loading,
            } => {
                while let Some(sent) = window.front()
                    && sent.end <= self.matched
                {
                    *bytes -= sent.bytes;
                    window.pop_front();
                    self.ahead_max = self.ahead_max.saturating_add(1);
                }
                // The answer to an append from before the last probe may run ahead of `next`.
                if self.next < self.matched {
                    self.next = self.matched;
                    *loading = None;
                }
            }
        }
        news
    }

    /// How many bytes of batches may be sent now; `None` if nothing may. An empty window admits one
    /// whole batch whatever its size: the caller never refuses the first (RULES.md 6).
    pub(crate) fn room(&self, messages_max: usize, bytes_max: u64) -> Option<Room> {
        match &self.stage {
            Stage::Probe { .. } | Stage::Snapshot { .. } => None,
            Stage::Replicate {
                loading: Some(_), ..
            } => None,
            Stage::Replicate { window, .. } if window.is_empty() => Some(Room {
                bytes: bytes_max,
                one_whole: true,
            }),
            Stage::Replicate { window, bytes, .. } => {
                let left = bytes_max.saturating_sub(*bytes);
                (window.len() < messages_max.min(self.ahead_max) && left > 0).then_some(Room {
                    bytes: left,
                    one_whole: false,
                })
            }
        }
    }

    /// An append with batches up to `sent.end` has gone out.
    pub(crate) fn sent(&mut self, sent: Sent, now: u64) {
        assert!(sent.end > self.next, "an append moves the window on");
        match &mut self.stage {
            Stage::Probe { .. } | Stage::Snapshot { .. } => {
                unreachable!("batches are sent ahead only while replicating")
            }
            Stage::Replicate { window, bytes, .. } => {
                if window.is_empty() && !self.repeats {
                    self.moved = now;
                }
                window.push_back(sent);
                *bytes += sent.bytes;
            }
        }
        self.next = sent.end;
    }
}

/// What the window has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    /// Bytes left.
    pub(crate) bytes: u64,
    /// The first batch may be larger than that.
    pub(crate) one_whole: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(count: u32) -> Boundary {
        (0..count).fold(Boundary::default(), |at, _| at.next())
    }

    fn replicating() -> Progress {
        let mut progress = Progress::new(at(5), 0);
        progress.acknowledged(at(5), LogId::default(), 1);
        progress
    }

    fn sent(end: u32, bytes: u64) -> Sent {
        Sent {
            end: at(end),
            bytes,
            round: 0,
        }
    }

    #[test]
    fn a_probe_admits_no_batches() {
        let progress = Progress::new(at(5), 0);
        assert_eq!(progress.room(10, 1000), None);
    }

    #[test]
    fn the_window_closes_by_messages_and_by_bytes_and_opens_with_answers() {
        let mut progress = replicating();
        let whole = Room {
            bytes: 100,
            one_whole: true,
        };
        assert_eq!(progress.room(2, 100), Some(whole));
        progress.sent(sent(6, 60), 2);
        let rest = Room {
            bytes: 40,
            one_whole: false,
        };
        assert_eq!(progress.room(2, 100), Some(rest));
        progress.sent(sent(7, 40), 2);
        assert_eq!(progress.room(9, 100), None, "bytes");
        assert_eq!(progress.room(2, 900), None, "messages");
        assert_eq!(progress.inflight(), (2, 100));
        assert!(progress.acknowledged(at(6), LogId::default(), 3));
        assert_eq!(progress.inflight(), (1, 40));
        assert!(progress.acknowledged(at(7), LogId::default(), 3));
        assert_eq!(progress.room(2, 0).map(|room| room.one_whole), Some(true));
    }

    #[test]
    fn one_answer_covers_all_before_it_and_an_old_one_nothing() {
        // Defect s2: an answer credited to the latest append instead of the one it names.
        let mut progress = replicating();
        for end in 6..=9 {
            progress.sent(sent(end, 10), 2);
        }
        assert!(progress.acknowledged(at(8), LogId::default(), 3));
        assert_eq!((progress.inflight(), progress.matched), ((1, 10), at(8)));
        assert!(!progress.acknowledged(at(6), LogId::default(), 4));
        assert_eq!((progress.inflight(), progress.matched), ((1, 10), at(8)));
        assert_eq!(progress.next, at(9));
    }

    #[test]
    fn a_probe_never_goes_back_before_what_was_acknowledged() {
        let mut progress = replicating();
        progress.sent(sent(9, 10), 2);
        progress.probe_from(at(2), 3);
        assert_eq!((progress.next, progress.matched), (at(5), at(5)));
        assert_eq!(progress.inflight(), (0, 0));
    }

    #[test]
    fn a_peer_counts_while_it_speaks_and_its_log_moves() {
        // RULES.md 12.
        let mut progress = replicating();
        progress.heard = 100;
        assert!(progress.is_live(109, 10));
        assert!(!progress.is_live(110, 10), "silent for an election timeout");
        progress.sent(sent(6, 10), 100);
        progress.heard = 139;
        assert!(progress.is_live(139, 10));
        progress.heard = 140;
        assert!(
            !progress.is_live(140, 10),
            "an append waits for four timeouts"
        );
        progress.acknowledged(at(6), LogId::default(), 140);
        progress.heard = 200;
        assert!(progress.is_live(200, 10), "nothing is outstanding");
    }
}
