//! What observers are told: an ordered, bounded stream per subscriber.
//!
//! The node never waits for a subscriber. All subscribers read one ring; one that falls behind by
//! more than the ring holds is told exactly which positions it lost and goes on behind the gap.

use crate::outcome::StopReason;
use duraft_core::{Index, LogId, NodeId, RoleKind, Term};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Something that happened in a node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NodeEvent {
    /// Role, term or known leader changed.
    Role {
        /// The role now.
        role: RoleKind,
        /// The term now.
        term: Term,
        /// The leader of the term, where known.
        leader: Option<NodeId>,
    },
    /// Everything up to this entry is committed and was given to the state machine.
    Committed {
        /// The last committed entry.
        upto: LogId,
    },
    /// The membership in use changed, or the one in use was committed.
    Membership {
        /// Index of the batch that set it, or of the snapshot or start it was taken from.
        at: Index,
        /// It can no longer be rolled back.
        committed: bool,
    },
    /// A snapshot of this node cannot be written. The log is kept instead.
    SnapshotFailed {
        /// The state that was to be kept.
        at: LogId,
        /// What went wrong.
        message: String,
    },
    /// A snapshot of this node, which a peer needs, cannot be read. Another one is taken.
    SnapshotUnreadable {
        /// The index it covers the log up to.
        at: Index,
        /// What is wrong.
        message: String,
    },
    /// The log counts on a snapshot of the state up to here.
    SnapshotDurable {
        /// The last entry in it.
        upto: LogId,
    },
    /// The state was replaced by a leader's snapshot.
    SnapshotInstalled {
        /// The last entry in it.
        upto: LogId,
    },
    /// The log or the latest snapshot of this node is damaged; peers are asked to repair it.
    Damaged,
    /// The damage is repaired.
    Healed,
    /// The disk has little room left.
    StorageLow,
    /// The node has stopped for good in this life.
    Stopped(StopReason),
}

/// An event and its place in the stream, counted from 0 in each life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Positioned {
    /// The place.
    pub position: u64,
    /// What happened.
    pub event: NodeEvent,
}

/// Why no event was returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EventsError {
    /// The subscriber fell behind. The next call goes on behind the gap.
    #[error("events {first}..={last} were lost because the subscriber fell behind")]
    Lagged {
        /// Position of the first lost event.
        first: u64,
        /// Position of the last lost event.
        last: u64,
    },
    /// Nothing happened in time.
    #[error("no event in time")]
    TimedOut,
    /// The node is gone and all its events have been read.
    #[error("the node is gone")]
    Closed,
}

/// One subscriber's place in the stream.
#[derive(Debug)]
pub struct Events {
    ring: Arc<EventRing>,
    next: u64,
}

impl Events {
    /// The next event, waiting until `until`.
    pub fn next_until(&mut self, until: Instant) -> Result<Positioned, EventsError> {
        let mut state = self.ring.state.lock();
        loop {
            let first = state.first;
            if self.next < first {
                let lost = EventsError::Lagged {
                    first: self.next,
                    last: first - 1,
                };
                self.next = first;
                return Err(lost);
            }
            let offset = usize::try_from(self.next - first).expect("the ring is in memory");
            if let Some(event) = state.events.get(offset) {
                let position = self.next;
                self.next += 1;
                return Ok(Positioned {
                    position,
                    event: event.clone(),
                });
            }
            if state.closed {
                return Err(EventsError::Closed);
            }
            if self.ring.added.wait_until(&mut state, until).timed_out() {
                return Err(EventsError::TimedOut);
            }
        }
    }
}

/// The ring that all subscribers read.
#[derive(Debug)]
pub(crate) struct EventRing {
    state: Mutex<Ring>,
    added: Condvar,
    events_max: usize,
}

#[derive(Debug, Default)]
struct Ring {
    /// Position of the oldest event in `events`.
    first: u64,
    events: VecDeque<NodeEvent>,
    closed: bool,
}

impl EventRing {
    pub(crate) fn new(events_max: usize) -> Arc<EventRing> {
        Arc::new(EventRing {
            state: Mutex::default(),
            added: Condvar::new(),
            events_max: events_max.max(1),
        })
    }

    /// A subscriber that sees everything from now on.
    pub(crate) fn subscribe(self: &Arc<EventRing>) -> Events {
        let state = self.state.lock();
        Events {
            next: state.first + state.events.len() as u64,
            ring: Arc::clone(self),
        }
    }

    pub(crate) fn publish(&self, event: NodeEvent) {
        let mut state = self.state.lock();
        if state.events.len() == self.events_max {
            state.events.pop_front();
            state.first += 1;
        }
        state.events.push_back(event);
        self.added.notify_all();
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.added.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(index: u64) -> NodeEvent {
        NodeEvent::Committed {
            upto: LogId {
                term: Term(1),
                index: Index(index),
            },
        }
    }

    #[test]
    fn slow_subscriber_learns_what_it_lost() {
        let ring = EventRing::new(3);
        let mut slow = ring.subscribe();
        (0..5).for_each(|i| ring.publish(committed(i)));
        let now = Instant::now();
        assert_eq!(
            slow.next_until(now),
            Err(EventsError::Lagged { first: 0, last: 1 })
        );
        for i in 2..5 {
            let expected = Positioned {
                position: i,
                event: committed(i),
            };
            assert_eq!(slow.next_until(now), Ok(expected));
        }
        assert_eq!(slow.next_until(now), Err(EventsError::TimedOut));
        ring.close();
        assert_eq!(slow.next_until(now), Err(EventsError::Closed));
    }

    #[test]
    fn subscriber_sees_nothing_older_than_itself() {
        let ring = EventRing::new(3);
        ring.publish(committed(1));
        let mut late = ring.subscribe();
        ring.publish(committed(2));
        assert_eq!(
            late.next_until(Instant::now()).map(|p| p.event),
            Ok(committed(2))
        );
    }
}
