//! The only door to files: a small object-safe trait, the real file system behind it, and a disk
//! that injects faults.
#![deny(unsafe_code)]

mod crash;
mod damage;
mod disk;
mod enumerate;
mod fault;
mod image;
mod inject;
mod machine;
mod map;
mod member;
mod real;
mod rng;
mod stall;
mod state;

pub use crash::{CrashPoint, PendingItem, PendingKind, Survival, Tear};
pub use damage::Damage;
pub use disk::{Disk, DiskError, DiskFile, DiskLock, DiskOp, Map};
pub use enumerate::{
    CrashState, Subsets, Tally, Violation, explore, for_each_crash_state, for_each_outcome,
};
pub use fault::{FaultDisk, FaultOptions, TraceEntry};
pub use inject::{Effect, Fault, FaultRates};
pub use machine::FileSystem;
pub use member::NotAllowed;
pub use real::RealDisk;
pub use rng::SplitMix64;
pub use stall::{Gate, StallDisk};
pub use state::CacheAfter;
