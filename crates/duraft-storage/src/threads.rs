//! The threads of the operating system, by a name of our own: `fuzz/interleavings` compiles
//! [`crate::thread`] and [`crate::group_log`] with threads that it schedules itself.

pub(crate) use std::thread::{Builder, JoinHandle, current};
