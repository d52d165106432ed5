//! A durable Raft node to embed.
#![forbid(unsafe_code)]

mod apply;
mod driver;
mod outcome;
mod queue;
mod responder;
mod shim;
mod transport;
#[doc(hidden)]
pub mod wire;

pub use apply::{Answer, Applier, ApplyBatch, ApplyContext, StateMachine};
pub use driver::{Driver, DriverInput, DriverOptions, Effect, Proposal, StepObserver};
pub use outcome::{
    Applied, Outcome, ProposeError, ProposeErrorKind, RejectReason, StopReason, UnknownReason,
};
pub use responder::{ProposeFuture, Responder};
pub use transport::{Inbox, InboxClosed, Local, TcpOptions, TcpStats, TcpTransport, Transport};
