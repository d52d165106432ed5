//! Shared rigs of the integration tests.
//!
//! [`Cluster`] runs real cores ([`duraft_core::Raft`]) under full control of the test: every message
//! waits in a pool until the test delivers, drops, copies or reorders it, every write waits for the
//! test to say that it is durable, and a crash falls back to what was durable. After every step the
//! rig checks what the protocol owes, so that a test asserts only what its situation is about:
//!
//! - [`release`]: no message leaves before the writes it stands for are durable;
//! - [`history`]: one leader life per term, one payload per (term, index), committed entries stay
//!   durable on a quorum and in every later leader's log, one applied sequence;
//! - the core's own invariants, and that the same step from the same state gives the same outputs.
//!
//! [`sim`] draws schedules from a seed over the same rig; [`puppet`] plays peers that have no core, to send what a test wants to send.

pub mod body;
#[cfg(doctest)]
pub mod book;
pub mod broken;
pub mod check;
pub mod clients;
pub mod cluster;
pub mod disk;
pub mod from_text;
pub mod history;
mod look;
pub mod machine;
pub mod net;
pub mod options;
pub mod power;
pub mod puppet;
mod quiet;
pub mod release;
pub mod rng;
mod route;
pub mod script;
pub mod show;
pub mod sim;
mod snapshots;
pub mod store;
pub mod swarm;
mod verbs;
pub mod wounds;

pub use body::{command_body, commands_body, commands_of, crc32};
pub use broken::Broken;
pub use clients::{add, learner, promoted, remove};
pub use cluster::{Cluster, Outcome};
pub use disk::{Disk, Sabotage};
pub use machine::Machine;
pub use net::{Kind, Pick, any};
pub use options::{Options, planted, with_plant};
pub use puppet::Chain;
pub use quiet::quietly;
pub use rng::Rng;
pub use store::Store;
pub use wounds::{Loss, loss};

use duraft_core::NodeId;

/// Node 1; tests name nodes so that schedules read aloud.
pub const N1: NodeId = NodeId(1);
/// Node 2.
pub const N2: NodeId = NodeId(2);
/// Node 3.
pub const N3: NodeId = NodeId(3);
/// Node 4.
pub const N4: NodeId = NodeId(4);
/// Node 5.
pub const N5: NodeId = NodeId(5);
/// Node 6.
pub const N6: NodeId = NodeId(6);
/// Node 7.
pub const N7: NodeId = NodeId(7);
