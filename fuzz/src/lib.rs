//! What is fuzzed: each module takes bytes, does something with them, and panics where a promise is
//! broken. The targets of `cargo fuzz` are one line each; `tests/it/fuzz_seeds.rs` runs what lies in
//! `seeds/` through the same functions.

pub mod block_decode;
pub mod configuration;
pub mod core_inputs;
pub mod recovery;
pub mod snapshot_file;
pub mod wire_frames;
