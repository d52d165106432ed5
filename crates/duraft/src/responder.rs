//! Ways back to the client: exactly one answer per request, whatever happens.
//!
//! A [`Responder`] is consumed by its answer. One that is dropped unanswered answers
//! [`UnknownReason::Stopped`] by itself, so no path through the library, a panic included, can leave
//! a client waiting for ever. The place a command takes in the [`Gate`] is given back before the
//! client hears, so a client that answers by sending the next command finds room.

use crate::outcome::{Applied, RequestError, UnknownReason};
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The way back to one client.
pub struct Responder<T = Applied> {
    target: Option<Target<T>>,
    permit: Option<Permit>,
}

enum Target<T> {
    Slot(Arc<Slot<T>>),
    Call(Box<dyn FnOnce(Result<T, RequestError>) + Send>),
}

impl<T> Responder<T> {
    /// Answers by calling `f` on a thread of the node, with no lock held. `f` must return quickly:
    /// the node waits for it. A panic in `f` is caught and logged.
    pub fn call(f: impl FnOnce(Result<T, RequestError>) + Send + 'static) -> Responder<T> {
        Responder {
            target: Some(Target::Call(Box::new(f))),
            permit: None,
        }
    }

    /// A responder and the future it completes.
    pub fn future() -> (Responder<T>, Pending<T>) {
        let slot = Arc::new(Slot::default());
        let responder = Responder {
            target: Some(Target::Slot(Arc::clone(&slot))),
            permit: None,
        };
        (responder, Pending { slot })
    }

    pub(crate) fn with_permit(mut self, permit: Permit) -> Responder<T> {
        self.permit = Some(permit);
        self
    }

    /// Gives the client its one answer.
    pub fn answer(mut self, outcome: Result<T, RequestError>) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Result<T, RequestError>) {
        self.permit = None;
        let Some(target) = self.target.take() else {
            return;
        };
        // A waker or a callback is foreign code; its panic must not end a thread of the node.
        let deliver = AssertUnwindSafe(|| match target {
            Target::Slot(slot) => slot.fill(outcome),
            Target::Call(f) => f(outcome),
        });
        if catch_unwind(deliver).is_err() {
            tracing::error!("a client's completion callback panicked");
        }
    }
}

impl<T> Drop for Responder<T> {
    fn drop(&mut self) {
        self.finish(Err(RequestError::OutcomeUnknown {
            why: UnknownReason::Stopped,
        }));
    }
}

impl<T> fmt::Debug for Responder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// The answer to one request, as a future that needs no particular executor.
///
/// Cancel safety: dropping it changes nothing; the request goes on.
#[must_use = "the outcome is known only from its future"]
pub struct Pending<T> {
    slot: Arc<Slot<T>>,
}

/// The outcome of one command, as a future.
pub type ProposeFuture = Pending<Applied>;

impl<T> Pending<T> {
    /// Blocks the calling thread until the answer is there or `timeout` has passed, which is an
    /// unknown outcome. Not to be called from the state machine or a callback.
    pub fn wait(self, timeout: Duration) -> Result<T, RequestError> {
        self.wait_until(Instant::now() + timeout)
    }

    /// Blocks the calling thread until the answer is there or `until` has passed, which is an unknown
    /// outcome. Not to be called from the state machine or a callback.
    pub fn wait_until(self, until: Instant) -> Result<T, RequestError> {
        // The driver's deadline comes a tick or so late; the caller's own clock decides.
        let late = Err(RequestError::OutcomeUnknown {
            why: UnknownReason::Deadline,
        });
        self.slot.wait_until(until).unwrap_or(late)
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, RequestError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, RequestError>> {
        self.slot.poll(cx.waker())
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// Where one answer is handed over.
struct Slot<T> {
    state: Mutex<SlotState<T>>,
    filled: Condvar,
}

enum SlotState<T> {
    Empty,
    Polled(Waker),
    Filled(Result<T, RequestError>),
    Taken,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot {
            state: Mutex::new(SlotState::Empty),
            filled: Condvar::new(),
        }
    }
}

impl<T> Slot<T> {
    fn fill(&self, outcome: Result<T, RequestError>) {
        let before = {
            let mut state = self.state.lock();
            std::mem::replace(&mut *state, SlotState::Filled(outcome))
        };
        self.filled.notify_one();
        // The waker runs foreign code: only after the lock is free.
        if let SlotState::Polled(waker) = before {
            waker.wake();
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<T, RequestError>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, SlotState::Taken) {
            SlotState::Filled(outcome) => Poll::Ready(outcome),
            SlotState::Taken => panic!("a future of duraft was polled after it was ready"),
            SlotState::Empty | SlotState::Polled(_) => {
                *state = SlotState::Polled(waker.clone());
                Poll::Pending
            }
        }
    }

    fn wait_until(&self, until: Instant) -> Option<Result<T, RequestError>> {
        let mut state = self.state.lock();
        loop {
            match std::mem::replace(&mut *state, SlotState::Taken) {
                SlotState::Filled(outcome) => return Some(outcome),
                other @ (SlotState::Empty | SlotState::Polled(_) | SlotState::Taken) => {
                    *state = other;
                }
            }
            if self.filled.wait_until(&mut state, until).timed_out()
                && !matches!(*state, SlotState::Filled(_))
            {
                return None;
            }
        }
    }
}

/// Bounds the commands that a node has accepted and not answered, by number and by bytes.
#[derive(Debug)]
pub(crate) struct Gate {
    commands: AtomicUsize,
    bytes: AtomicUsize,
    commands_max: usize,
    bytes_max: usize,
}

impl Gate {
    pub(crate) fn new(commands_max: usize, bytes_max: usize) -> Arc<Gate> {
        Arc::new(Gate {
            commands: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            commands_max,
            bytes_max,
        })
    }

    /// Room for one command of this length, or `None` when the node is saturated. An empty gate
    /// admits a command of any length.
    pub(crate) fn enter(self: &Arc<Gate>, len: usize) -> Option<Permit> {
        let before = self.commands.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(len, Ordering::Relaxed);
        // From here on the permit's drop undoes both additions.
        let permit = Permit {
            gate: Arc::clone(self),
            len,
        };
        let fits = before < self.commands_max
            && (before == 0 || bytes_before.saturating_add(len) <= self.bytes_max);
        fits.then_some(permit)
    }

    /// Commands accepted and not answered.
    pub(crate) fn commands(&self) -> usize {
        self.commands.load(Ordering::Relaxed)
    }

    /// Bytes of them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// One command's place in the [`Gate`].
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    len: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.commands.fetch_sub(1, Ordering::Relaxed);
        self.gate.bytes.fetch_sub(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Outcome, RejectReason};
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn rejected() -> Outcome {
        Err(RequestError::Rejected {
            reason: RejectReason::NotLeader,
            leader: None,
        })
    }

    #[test]
    fn future_wakes_once_and_yields_the_answer() {
        let (responder, mut future) = Responder::<Applied>::future();
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&flag));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
        responder.answer(rejected());
        assert!(flag.0.load(Ordering::SeqCst), "the last waker is woken");
        assert_eq!(Pin::new(&mut future).poll(&mut cx), Poll::Ready(rejected()));
    }

    #[test]
    fn dropped_responder_answers_outcome_unknown() {
        // Any path that forgets a responder would leave a client waiting for ever.
        let (responder, mut future) = Responder::<Applied>::future();
        drop(responder);
        let mut cx = Context::from_waker(Waker::noop());
        let expected = Err(RequestError::OutcomeUnknown {
            why: UnknownReason::Stopped,
        });
        assert_eq!(Pin::new(&mut future).poll(&mut cx), Poll::Ready(expected));
    }

    #[test]
    fn dropping_the_future_does_not_disturb_the_answer() {
        let (responder, future) = Responder::<Applied>::future();
        drop(future);
        responder.answer(rejected());
    }

    #[test]
    fn panicking_callback_is_contained() {
        Responder::<Applied>::call(|_| panic!("foreign code")).answer(rejected());
    }

    #[test]
    fn room_is_back_before_the_client_hears() {
        let gate = Gate::new(1, 1000);
        let permit = gate.enter(10).expect("an empty gate has room");
        assert!(gate.enter(10).is_none(), "the gate is full");
        let seen = Arc::clone(&gate);
        let found_room = Arc::new(AtomicBool::new(false));
        let found = Arc::clone(&found_room);
        Responder::call(move |_| found.store(seen.enter(10).is_some(), Ordering::SeqCst))
            .with_permit(permit)
            .answer(rejected());
        assert!(found_room.load(Ordering::SeqCst));
        assert_eq!(gate.commands(), 0);
    }

    #[test]
    fn gate_bounds_bytes_but_admits_one_large_command() {
        let gate = Gate::new(10, 100);
        let large = gate.enter(500).expect("the first always fits");
        assert!(gate.enter(1).is_none());
        drop(large);
        let small = gate.enter(60);
        assert!(small.is_some());
        assert!(gate.enter(60).is_none());
    }
}
