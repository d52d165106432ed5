//! Shared parts of the CPU benchmarks.
