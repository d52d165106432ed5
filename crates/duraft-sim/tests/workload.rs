//! State machines and workloads of users.

#[path = "../examples/own_state_machine.rs"]
mod example;

#[test]
fn snapshot_that_forgets_a_part_of_the_state_is_found() {
    // Nodes that were restored from such a snapshot answer otherwise than the others, or end with
    // other bytes.
    let violation = example::search(true, 60).expect("the planted bug is found");
    assert!(violation.what.starts_with("A5"), "{violation}");
}

#[test]
fn state_machine_without_the_bug_passes() {
    let violation = example::search(false, 30);
    assert!(violation.is_none(), "{violation:?}");
}
