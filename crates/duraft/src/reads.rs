//! Reads of the state machine: a closure that runs on the apply thread, without a trace in the log.
//!
//! A linearizable read asks the core for an index; when the state machine has applied it, the closure
//! runs. Where only a lease vouches for the read, its deadline is checked when the closure has run
//! and before the caller hears; a late read is asked again, of a quorum, and its closure runs again.

use crate::apply::StateMachine;
use crate::outcome::{RejectReason, RequestError};
use crate::responder::Responder;
use duraft_core::{Index, ReadBasis};
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A read on its way.
#[derive(Debug)]
pub struct ReadRequest {
    /// What makes it linearizable.
    pub basis: ReadBasis,
    /// Tick at which the client stops waiting.
    pub deadline: Option<u64>,
    /// What to read, and the way back.
    pub job: ReadJob,
}

/// A read that may be answered by a state machine which has applied an index.
#[derive(Debug)]
pub struct ReadWork {
    /// The least index whose state may be shown.
    pub index: Index,
    /// Where a lease vouches for the read: when it ends, on a clock that counts suspend.
    pub lease_until: Option<Duration>,
    /// The read.
    pub request: ReadRequest,
}

/// A read whose closure has run.
#[derive(Debug)]
pub struct ReadDone {
    lease_until: Option<Duration>,
    request: ReadRequest,
}

impl ReadWork {
    /// Lets the closure read.
    pub(crate) fn run(mut self, machine: &dyn StateMachine) -> ReadDone {
        self.request.job.erased.run(machine);
        ReadDone {
            lease_until: self.lease_until,
            request: self.request,
        }
    }
}

impl ReadDone {
    /// Tells the client, unless the lease has ended by now: then the read is to be asked again.
    pub fn deliver(self, now: Duration) -> Result<(), ReadRequest> {
        let mut request = self.request;
        if self.lease_until.is_some_and(|until| now >= until) {
            request.basis = ReadBasis::Quorum;
            return Err(request);
        }
        request.job.erased.answer();
        Ok(())
    }
}

/// What to read, and the way back to the client.
pub struct ReadJob {
    erased: Box<dyn Erased>,
}

impl ReadJob {
    /// A read of a state machine of type `M`; `read` may run more than once.
    pub fn new<M, R>(read: impl FnMut(&M) -> R + Send + 'static, responder: Responder<R>) -> ReadJob
    where
        M: StateMachine,
        R: Send + 'static,
    {
        ReadJob {
            erased: Box::new(Typed {
                read,
                result: Err(RejectReason::Unsupported),
                responder: Some(responder),
                machine: PhantomData::<fn(&M)>,
            }),
        }
    }

    /// Tells the client that nothing was read.
    pub fn fail(mut self, error: RequestError) {
        self.erased.fail(error);
    }
}

impl fmt::Debug for ReadJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadJob").finish_non_exhaustive()
    }
}

/// A job without its types.
trait Erased: Send {
    fn run(&mut self, machine: &dyn StateMachine);
    fn answer(&mut self);
    fn fail(&mut self, error: RequestError);
}

struct Typed<M, R, F> {
    read: F,
    result: Result<R, RejectReason>,
    responder: Option<Responder<R>>,
    machine: PhantomData<fn(&M)>,
}

impl<M, R, F> Erased for Typed<M, R, F>
where
    M: StateMachine,
    R: Send + 'static,
    F: FnMut(&M) -> R + Send + 'static,
{
    fn run(&mut self, machine: &dyn StateMachine) {
        let machine: &dyn Any = machine;
        let read = &mut self.read;
        self.result = match machine.downcast_ref::<M>() {
            None => Err(RejectReason::OtherStateMachine),
            // The closure only looks at the state machine, so its panic is its own trouble.
            Some(machine) => catch_unwind(AssertUnwindSafe(|| read(machine)))
                .map_err(|_| RejectReason::ReadPanicked),
        };
    }

    fn answer(&mut self) {
        let unread = Err(RejectReason::Unsupported);
        let result = std::mem::replace(&mut self.result, unread);
        if let Some(responder) = self.responder.take() {
            responder.answer(result.map_err(|reason| RequestError::Rejected {
                reason,
                leader: None,
            }));
        }
    }

    fn fail(&mut self, error: RequestError) {
        if let Some(responder) = self.responder.take() {
            responder.answer(Err(error));
        }
    }
}
