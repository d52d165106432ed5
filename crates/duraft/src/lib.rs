//! A durable Raft node to embed: one trait to implement, one struct to start.
//!
//! ```no_run
//! use duraft::{ApplyContext, Bytes, ClusterId, Membership, Node, NodeId, NodeOptions};
//! use duraft::{SnapshotWork, StateMachine};
//! use std::io::{self, Read};
//!
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
//!         self.0 += command.len() as u64;
//!         Bytes::copy_from_slice(&self.0.to_le_bytes())
//!     }
//!
//!     fn snapshot(&self) -> SnapshotWork {
//!         let view = self.0.to_le_bytes();
//!         Box::new(move |out| out.write_all(&view))
//!     }
//!
//!     fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
//!         let mut bytes = [0; 8];
//!         source.read_exact(&mut bytes)?;
//!         self.0 = u64::from_le_bytes(bytes);
//!         Ok(())
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
#![cfg_attr(docsrs, feature(doc_cfg))]

mod apply;
mod clock;
mod driver;
mod events;
pub mod metrics;
mod node;
mod options;
mod outcome;
mod queue;
mod reads;
mod responder;
mod runtime;
mod session;
mod sessions;
#[doc(hidden)]
pub mod start;
mod stats;
mod status;
#[doc(hidden)]
pub mod transfer;
mod transport;
#[cfg(feature = "serde")]
mod typed;
#[doc(hidden)]
pub mod wire;

pub use bytes::Bytes;

pub use apply::{
    Answer, Applier, ApplyBatch, ApplyContext, SnapshotView, SnapshotWork, StateMachine,
};
pub use driver::{Admin, Driver, DriverInput, DriverOptions, Effect, Now, Proposal, StepObserver};
pub use duraft_core::{
    ChangeError, Config, Fault, GroupId, Incarnation, Index, Lease, Leave, LogId, MemberChange,
    Membership, MembershipProblem, NodeId, Promotion, ReadBasis, RoleKind, Term,
};
pub use duraft_disk::{Disk, RealDisk};
pub use duraft_storage::{ClusterId, JoinAs, OnDamage, OpenError, SnapshotOptions, WalOptions};
pub use events::{Events, EventsError, NextEvent, NodeEvent, Positioned};
pub use node::{Node, StartError};
pub use options::{Network, NodeOptions, OptionProblem};
pub use outcome::{
    Applied, BusyReason, Outcome, RejectReason, RequestError, RequestErrorKind, StopReason,
    UnknownReason,
};
pub use reads::{ReadDone, ReadJob, ReadRequest, ReadWork};
pub use responder::{Pending, ProposeFuture, Responder};
pub use runtime::load_error;
pub use session::Session;
pub use sessions::{
    ANSWERS_MAX, SESSIONS_MAX, SessionCommand, SessionId, SessionLimits, SessionsError,
    TAGGED_CODEC,
};
pub use stats::{Histogram, Stage, Stats};
pub use status::{Counters, SnapshotStatus, Status};
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub use typed::{Typed, TypedApplied, TypedError, TypedFuture, TypedMachine, TypedNode};

pub use transport::{
    Inbox, InboxClosed, Local, Names, Parcel, Security, TcpOptions, TcpStats, TcpTransport,
    TlsRefusal, TlsStats, Transport,
};
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use transport::{TlsOptions, TlsSetupError, tls_name};
