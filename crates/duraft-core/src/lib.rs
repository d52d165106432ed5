//! The consensus core of duraft: Raft as a function from inputs to outputs.
//!
//! No I/O, no clock, no threads, no ambient randomness: [`Raft::step`] is given what happened and
//! says what to do. Time is a count of ticks, randomness a seed.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod batch;
mod config;
mod digest;
mod io;
mod membership;
mod message;
mod raft;
mod types;

pub use batch::{
    Batch, BatchHeader, BatchKind, Body, BodyError, Commands, DESCRIPTOR_BYTES, check_count,
};
pub use config::{Config, ConfigProblem};
pub use digest::{Digest, Link, mix64};
pub use io::{
    Completion, Event, Fault, Input, Load, LoadError, Output, Reject, Response, RoleKind, Write,
};
pub use membership::{MEMBERS_MAX, Membership, MembershipProblem};
pub use message::{AppendReply, Envelope, Message};
pub use raft::{Boot, BootError, Phase, ProgressView, Raft};
pub use types::{
    GroupId, HardState, Incarnation, Index, LoadId, LogId, NodeId, Position, ProposalId, Term,
    WriteSeq,
};
