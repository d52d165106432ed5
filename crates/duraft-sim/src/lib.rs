//! A deterministic cluster simulator.
//!
//! [`Sim`] runs a whole cluster in one thread from one seed: the shipped driver, core, pipeline, log
//! and recovery on simulated disks, a network that delays, loses, duplicates, reorders and
//! partitions, crashes of processes and of the power, failing disks, and clients that remember what
//! they were told. There is no clock, no thread and no randomness but the seed's: the same
//! configuration gives the same run, event for event, and [`Report::trace_hash`] shows it.
//!
//! What is checked:
//! - after every step of a core, its invariants (`duraft_core::invariants`);
//! - at every message sent and every answer given to a client, the promise in it against the disk:
//!   the real recovery code is run on a copy of the disk that holds only what was synced ([`Sim`]
//!   caches the result until the next sync), never the core's own idea of what is durable;
//! - over the history of all nodes and lives: one leader per term, one content per (term, index),
//!   committed entries stay committed and durable on a quorum, state machines agree;
//! - at the end, with all faults off: the cluster elects, commits and converges; every acknowledged
//!   command was applied once, no rejected one at all.
//!
//! ```
//! use duraft_sim::{Sim, SimConfig};
//!
//! let report = Sim::new(SimConfig::from_seed(7)).run(2_000).unwrap();
//! assert!(report.applied > 0);
//! ```
#![forbid(unsafe_code)]

mod config;
mod history;
mod host;
mod life;
mod recorder;
mod recovered;
mod sim;

pub use config::{Clients, DiskFaults, Network, SimConfig};
pub use sim::{Report, Sim, Violation};
