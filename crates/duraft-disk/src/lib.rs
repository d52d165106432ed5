//! The only door to files: a small object-safe trait, the real file system behind it, and a disk
//! that injects faults.
#![deny(unsafe_code)]

mod disk;

pub use disk::{Disk, DiskError, DiskFile, DiskLock, DiskOp, Map};
