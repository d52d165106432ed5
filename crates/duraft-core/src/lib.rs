//! The consensus core of duraft: Raft as a function from inputs to outputs.
//!
//! No I/O, no clock, no threads, no ambient randomness: [`Raft::step`] is given what happened and
//! says what to do. Time is a count of ticks, randomness a seed.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod apply;
mod batch;
mod boot;
mod change;
mod compaction;
mod config;
mod crc;
mod damage;
mod digest;
mod divergence;
mod durability;
mod election;
mod fetch;
mod flow;
mod follower;
mod install;
pub mod invariants;
mod io;
mod leader;
mod lease;
mod log;
mod membership;
mod memberships;
mod message;
mod pace;
mod pages;
mod plant;
mod progress;
mod raft;
mod reads;
mod receive;
mod rng;
mod role;
mod rollback;
mod sending;
mod shape;
mod snapshot;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stderr,
    reason = "a test may stop at the first surprise, and its numbers are small"
)]
mod tests;
mod transfer;
mod types;
mod view;

pub use batch::{
    Batch, BatchHeader, BatchKind, Body, BodyError, Commands, DESCRIPTOR_BYTES, check_count,
};
pub use boot::{Boot, BootError, Damage};
pub use config::{Config, ConfigProblem, Lease};
pub use digest::{Digest, Link, mix64};
pub use io::{
    Completion, Event, Fault, Healed, Input, Load, LoadError, Output, ReadBasis, Reject, Response,
    RoleKind, SendProgress, SnapshotWrite, Write,
};
pub use membership::{
    ChangeError, Leave, MEMBERS_MAX, MEMBERSHIP_BYTES_MAX, MemberChange, Membership,
    MembershipProblem, Promotion,
};
pub use message::{AppendReply, Envelope, Health, Message};
pub use raft::Raft;
pub use snapshot::{Snapshot, SnapshotFile};
pub use types::{
    GroupId, HardState, Incarnation, Index, LoadId, LogId, NodeId, Position, ProposalId, Term,
    WriteSeq,
};
pub use view::{Awaited, DamageStatus, Phase, ProgressView, Status};

#[doc(hidden)]
pub use plant::Plant;
