//! Integration tests of the store, through its public interface, on the simulated disk.
// Drawn numbers are small.
#![allow(clippy::cast_possible_truncation)]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod commits;
mod crashes;
mod damage;
mod entry_log;
mod errors;
mod fence;
mod few;
mod group_log;
mod inspect;
mod life;
mod model;
mod one_sector;
mod plan;
mod repair;
mod room;
mod rules;
mod snapshot;
mod snapshot_crash;
mod snapshot_damage;
mod snapshot_format;
mod support;
mod threads;
