//! Cost of the consensus core.
fn main() {}
