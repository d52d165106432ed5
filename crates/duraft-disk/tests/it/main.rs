//! Tests of the disks through their public interface.
// Helpers of tests may unwrap and cut numbers as tests may.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod conformance;
mod damage;
mod faults;
mod late;
mod member;
mod model;
mod power;
mod real;
