//! A package without the standard library that uses the consensus core.
//!
//! It defines a panic handler. `std` defines one too, and a program may hold only one: if duraft-core,
//! or anything it depends on, pulled in `std`, this package would not compile.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use duraft_core::{Input, Output, Raft};

/// Uses what an embedder without `std` uses, so that nothing is left out as unused.
pub fn step(raft: &mut Raft, input: Input) -> Vec<Output> {
    let mut outputs = Vec::new();
    raft.step(input, &mut outputs);
    outputs
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
