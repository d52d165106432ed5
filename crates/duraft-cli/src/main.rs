//! Command line of duraft.
fn main() {}
