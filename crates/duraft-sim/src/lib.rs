//! A deterministic cluster simulator.
//!
//! [`Sim`] runs a whole cluster in one thread from one seed: the shipped driver, core, applier,
//! pipeline, log, snapshot files, transfers and recovery on simulated disks, a network that delays,
//! loses, duplicates, reorders and partitions, clocks that drift, crashes of processes and of the
//! power, failing, stalling, rotting and lost disks, and clients that remember what they were told.
//! There is no clock, no thread and no randomness but the seed's: the same configuration gives the
//! same run, event for event, and [`Report::trace_hash`] shows it.
//!
//! Clients send plain commands once and numbered ones until they know the outcome, read from whoever
//! believes to lead, move the leadership, and change the membership within a pool of nodes.
//!
//! What is checked:
//! - after every step of a core, its invariants (`duraft_core::invariants`);
//! - at every message sent and every answer given to a client, the promise in it against the disk:
//!   the real recovery code is run on a copy of the disk that holds only what was synced ([`Sim`]
//!   caches the result until the next sync), never the core's own idea of what is durable;
//! - at the same occasions, that whatever the log has dropped is in a snapshot file which that
//!   recovery names and which can be read through;
//! - over the history of all nodes and lives: one leader per term, one content per (term, index),
//!   committed entries stay committed and durable on a quorum of the membership in force, consecutive
//!   memberships share their quorums, state machines agree, and a restored one holds just what the
//!   committed log up to there leads to;
//! - a read shows whatever anybody was told before it was asked, with leases and without;
//! - a disk that was damaged says so or has lost nothing; never more than a minority is;
//! - at the end, with all faults off: the cluster elects one leader, commits and converges; every
//!   acknowledged command was applied once and is always answered the same, no rejected one at all.
//!   Damaged nodes that do not become whole are counted, with the reason ([`Report::unhealed_why`]).
//!
//! ```
//! use duraft_sim::{Sim, SimConfig};
//!
//! let report = Sim::new(SimConfig::from_seed(7)).run(2_000).unwrap();
//! assert!(report.applied > 0);
//! ```
#![forbid(unsafe_code)]

mod config;
mod coverage;
pub mod explore;
mod fault;
mod history;
mod host;
mod life;
pub mod linear;
mod recorder;
mod recovered;
mod scenario;
pub mod show;
mod shrink;
mod sim;
pub mod spec;
mod swarm;
mod trace;
mod workload;

pub use config::{Clients, DiskFaults, Lasting, Limits, Network, Recover, SimConfig};
pub use coverage::{Shortfall, shortfalls};
pub use fault::FaultKind;
pub use scenario::{Scenario, TICKS};
pub use shrink::{Shrunk, class_of, shrink};
pub use sim::{Report, Sim, Violation};
pub use trace::{TraceEvent, TraceKind};
pub use workload::{Call, KeyOp, KeyValue, Machine, Request, Workload};
