//! A durable Raft node to embed: one trait to implement, one struct to start.
//!
//! ```no_run
//! use bytes::Bytes;
//! use duraft::{ApplyContext, ClusterId, Membership, Node, NodeId, NodeOptions, StateMachine};
//!
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
//!         self.0 += command.len() as u64;
//!         Bytes::copy_from_slice(&self.0.to_le_bytes())
//!     }
//! }
//!
//! let options = NodeOptions::in_dir(NodeId(1), ClusterId(*b"my first cluster"), "data")?;
//! Node::bootstrap(&options, &Membership::new([NodeId(1)], [])?)?; // once in the node's life
//! let node = Node::start(options, Box::new(Counter(0)))?;
//! let applied = node.propose_wait(Bytes::from("hello"), std::time::Duration::from_secs(5))?;
//! println!("{} bytes so far, at {}", applied.response.len(), applied.log_id);
//! node.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! No acknowledgement leaves a node before the write it stands for is durable: the core withholds
//! what the disk has not confirmed, and this crate performs what the core emits. [`Driver`] is the
//! deterministic part of that; [`Node`] puts threads, sockets and a clock around it.
#![forbid(unsafe_code)]

mod apply;
mod driver;
mod events;
mod node;
mod options;
mod outcome;
mod queue;
mod responder;
mod runtime;
mod status;
mod transport;
#[doc(hidden)]
pub mod wire;

pub use apply::{Answer, Applier, ApplyBatch, ApplyContext, StateMachine};
pub use driver::{Driver, DriverInput, DriverOptions, Effect, Proposal, StepObserver};
pub use duraft_core::{
    Config, Fault, GroupId, Incarnation, Index, LogId, Membership, MembershipProblem, NodeId,
    RoleKind, Term,
};
pub use duraft_disk::{Disk, RealDisk};
pub use duraft_storage::{ClusterId, OpenError, WalOptions};
pub use events::{Events, EventsError, NodeEvent, Positioned};
pub use node::{Node, StartError};
pub use options::{Network, NodeOptions, OptionProblem};
pub use outcome::{
    Applied, Outcome, ProposeError, ProposeErrorKind, RejectReason, StopReason, UnknownReason,
};
pub use responder::{ProposeFuture, Responder};
pub use runtime::load_error;
pub use status::{Counters, Status};
pub use transport::{Inbox, InboxClosed, Local, TcpOptions, TcpStats, TcpTransport, Transport};
