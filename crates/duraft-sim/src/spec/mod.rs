//! `docs/spec/DurableRaft.tla`, executable.
//!
//! The same nodes, the same actions, the same words: an action here is the formula of that name there,
//! and `docs/spec/check compare` enumerates both at a small scope and compares them state for state and
//! edge for edge. What it is for:
//! - [`Node::act`] is an action as a function of the node that takes it, [`Node::explain`] as a
//!   predicate: which action leads from one state of a node to another? The core's steps are checked
//!   by it ([`refine`]);
//! - [`enumerate`] walks scopes that are too large for TLC, with the same invariants;
//! - [`snapshots`] does the same with `DurableRaftSnapshots.tla`;
//! - [`walk`] is the walk of both.
//!
//! Logs are names here ([`Log`]), their content is in one [`Logs`]: comparing two logs compares two
//! numbers. The forbidden optimisations are switches of the TLA+ text only.

pub mod enumerate;
mod invariants;
mod judge;
mod logs;
mod node;
pub mod refine;
mod said;
pub mod snapshots;
pub mod walk;

pub use invariants::broken_invariant;
pub use judge::Judge;
pub use logs::{Entry, Log, Logs};
pub use node::{Action, Node, Part, Record};
pub use said::{Message, Said};
