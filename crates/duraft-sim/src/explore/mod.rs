//! Every state that a small cluster of real cores can get into.
//!
//! The state of the world is the cores with their disks, everything ever sent, and a little history.
//! A message that was sent stays: it can be delivered now, later, again, or never, so loss, delay,
//! duplication and reordering need no moves of their own. The moves are
//!
//! | move | what happens |
//! |---|---|
//! | deliver | one core takes in one message |
//! | done | the oldest write under way is durable, and its core is told |
//! | crash | a core loses what is not durable and begins another life |
//! | timeout | the clock of a core that does not lead runs until it campaigns |
//! | beat | the clock of a leader runs until it sends heartbeats |
//! | propose | a leader is given a command |
//!
//! What is left out, and why nothing is lost by it:
//! - **Time** is the order of moves. Timeouts and heartbeats come whenever they like, so the fields that
//!   only say *when* (see `canonical.rs`) are no part of a state. [`Explorer`] checks that: states that are
//!   called equal are made to take every move, and must remain equal ([`Found::doubles`]).
//! - **A crash keeps just what was reported durable.** One that keeps more is the same as reports that
//!   come in time and a crash after them, in which more was said.
//! - **The state machine answers at once**, and so do reads of old batches. Neither changes what a core
//!   may promise.
//! - **The names of the nodes.** All begin alike, so the first to move may be called 1, and of the others
//!   the first to move 2, and so on: a core moves only when those before it have. Not so where the options
//!   give each a log of its own.
//! - **Pre-votes and check-quorum are off** unless the options say otherwise: both only hold back what a
//!   node may do without them.
//!
//! Each step of a core is run once and remembered (`local`): a world names the states of its cores,
//! and a move of one of them leads to the same state in every world. So what is walked are millions of
//! worlds, and what is run are some thousands of steps.
//!
//! Checked at every step of a core: its own invariants, that what it sends is held by the modelled disk,
//! that the step is an action of the specification ([`crate::spec::refine`]), and that it does what a core
//! owes the message (`duties.rs`). Checked in every world: one leader per term, that elections and commits
//! rest on the words of a quorum, that leaders have everything committed, that nodes agree on it, and that
//! a quorum of disks holds it.

mod canonical;
mod duties;
mod local;
mod world;

pub use local::Failure;
pub use world::{Explorer, Found, Options, Stop};
