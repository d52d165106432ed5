//! What observers are told: an ordered, bounded stream per subscriber.
//!
//! The node never waits for a subscriber. All subscribers read one ring; one that falls behind by
//! more than the ring holds is told exactly which positions it lost and goes on behind the gap.

use crate::outcome::StopReason;
use duraft_core::{Index, LogId, NodeId, RoleKind, Term};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

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
        let ring = Arc::clone(&self.ring);
        let mut state = ring.state.lock();
        loop {
            if let Some(taken) = self.take(&state) {
                return taken;
            }
            if ring.added.wait_until(&mut state, until).timed_out() {
                return self.take(&state).unwrap_or(Err(EventsError::TimedOut));
            }
        }
    }

    /// As [`Events::next`]; blocks the calling thread for at most `timeout`.
    pub fn next_wait(&mut self, timeout: Duration) -> Result<Positioned, EventsError> {
        self.next_until(Instant::now() + timeout)
    }

    /// The next event, as a future that needs no particular executor. It ends with the node, not by
    /// time.
    ///
    /// Cancel safety: dropping the future loses nothing; the next call yields the same event.
    #[allow(clippy::should_implement_trait, reason = "an iterator does not wait")]
    pub fn next(&mut self) -> NextEvent<'_> {
        NextEvent { events: self }
    }

    /// What there is to say now, if anything.
    fn take(&mut self, state: &Ring) -> Option<Result<Positioned, EventsError>> {
        let first = state.first;
        if self.next < first {
            let lost = EventsError::Lagged {
                first: self.next,
                last: first - 1,
            };
            self.next = first;
            return Some(Err(lost));
        }
        let offset = usize::try_from(self.next - first).expect("the ring is in memory");
        if let Some(event) = state.events.get(offset) {
            let position = self.next;
            self.next += 1;
            return Some(Ok(Positioned {
                position,
                event: event.clone(),
            }));
        }
        state.closed.then_some(Err(EventsError::Closed))
    }
}

/// The next event of a stream; see [`Events::next`].
#[must_use = "futures do nothing unless they are polled"]
#[derive(Debug)]
pub struct NextEvent<'a> {
    events: &'a mut Events,
}

impl Future for NextEvent<'_> {
    type Output = Result<Positioned, EventsError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ring = Arc::clone(&self.events.ring);
        let mut state = ring.state.lock();
        match self.events.take(&state) {
            Some(taken) => Poll::Ready(taken),
            None => {
                if !state.wakers.iter().any(|w| w.will_wake(cx.waker())) {
                    state.wakers.push(cx.waker().clone());
                }
                Poll::Pending
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
    /// Who polled and found nothing since the last event.
    wakers: Vec<Waker>,
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

    /// A subscriber that sees everything from this position on, as far as it is still kept: what is
    /// not is reported as lost.
    pub(crate) fn subscribe_from(self: &Arc<EventRing>, position: u64) -> Events {
        let state = self.state.lock();
        Events {
            next: position.min(state.first + state.events.len() as u64),
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
        self.wake(state);
    }

    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.wake(state);
    }

    /// Wakers are foreign code: they run when the lock is free.
    fn wake(&self, mut state: MutexGuard<'_, Ring>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.added.notify_all();
        for waker in wakers {
            // Its panic must not end a thread of the node.
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!("a subscriber's waker panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

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
    fn pending_subscriber_is_woken_by_events_and_by_the_end() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let ring = EventRing::new(3);
        let mut events = ring.subscribe();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut poll = |events: &mut Events| Pin::new(&mut events.next()).poll(&mut cx);
        assert_eq!(poll(&mut events), Poll::Pending);
        assert_eq!(
            poll(&mut events),
            Poll::Pending,
            "a dropped future is no loss"
        );
        ring.publish(committed(1));
        ring.publish(committed(2));
        assert_eq!(
            count.0.load(Ordering::SeqCst),
            1,
            "woken once, then it has to ask again"
        );
        for i in 1..3 {
            let next = poll(&mut events).map(|next| next.map(|p| p.event));
            assert_eq!(next, Poll::Ready(Ok(committed(i))));
        }
        assert_eq!(poll(&mut events), Poll::Pending);
        ring.close();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert_eq!(poll(&mut events), Poll::Ready(Err(EventsError::Closed)));
    }

    #[test]
    fn subscriber_may_begin_in_the_past() {
        let ring = EventRing::new(2);
        (0..3).for_each(|i| ring.publish(committed(i)));
        let now = Instant::now();
        let mut all = ring.subscribe_from(0);
        let lost = EventsError::Lagged { first: 0, last: 0 };
        assert_eq!(all.next_until(now), Err(lost));
        assert_eq!(all.next_until(now).map(|p| p.position), Ok(1));
        let mut last = ring.subscribe_from(2);
        assert_eq!(last.next_until(now).map(|p| p.event), Ok(committed(2)));
        let mut future = ring.subscribe_from(u64::MAX);
        ring.publish(committed(3));
        assert_eq!(future.next_until(now).map(|p| p.position), Ok(3));
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
