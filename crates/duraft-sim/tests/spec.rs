//! The executable specification against the numbers that TLC finds for `docs/spec/DurableRaft.tla`.

use duraft_sim::spec::enumerate::{Bounds, Space};
use duraft_sim::spec::snapshots::Snapshots;
use duraft_sim::spec::walk::Walk;

fn bounds(nodes: u64, len: u64, coarse: bool) -> Bounds {
    Bounds {
        nodes,
        terms: 2,
        len,
        crashes: 1,
        coarse,
    }
}

/// `docs/spec/check compare` holds these numbers against what TLC enumerates.
#[test]
fn states_and_edges_are_those_of_tlc() {
    let pins = [
        (
            bounds(2, 1, true),
            (5778, 0xea6a_3c6e_b95f_5924),
            (19341, 0xc62d_b1b4_de27_d0bc),
        ),
        (
            bounds(2, 2, false),
            (7956, 0xbaa6_6843_d431_3bc4),
            (16029, 0xc1a6_335c_bc4f_c842),
        ),
    ];
    for (bounds, states, edges) in pins {
        let found = Space::new(bounds).pins();
        assert_eq!(found, [states, edges], "{bounds:?}");
    }
}

/// The same for the specification with snapshots.
#[test]
fn states_and_edges_with_snapshots_are_those_of_tlc() {
    let pins = [
        (6496, 0xeffb_dfb0_4d18_e4c6),
        (17275, 0x9f12_62bd_75cc_bb38),
    ];
    assert_eq!(Snapshots::new(bounds(2, 1, false)).pins(), pins);
}

/// Two entries: all states, no violation.
#[test]
fn snapshots_of_two_nodes_and_two_entries() {
    let states = Snapshots::new(bounds(2, 2, false)).exhaust();
    assert_eq!(states, Ok(164_978));
}

/// The scope that TLC exhausts: the same number of states up to the names of nodes, no violation.
#[test]
fn three_nodes_two_terms_one_entry_one_crash() {
    let states = Space::new(bounds(3, 1, false)).exhaust();
    assert_eq!(states, Ok(216_469));
}
