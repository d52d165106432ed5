//! Integration tests of the store, through its public interface, on the simulated disk.

mod model;
mod support;
