//! The executable specification against the numbers that TLC finds for `docs/spec/DurableRaft.tla`.

use duraft_sim::spec::enumerate::{Bounds, Space, sum_of};

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
            (5700, 0xe20d_c7bf_0e4e_d056),
            (18497, 0x8b48_81a3_d658_81f2),
        ),
        (
            bounds(2, 2, false),
            (7854, 0x2722_09dc_3359_758c),
            (15781, 0xa4e8_8ba7_09b5_1507),
        ),
    ];
    for (bounds, (states, state_sum), (edges, edge_sum)) in pins {
        let (found_states, found_edges) = Space::new(bounds).graph();
        assert_eq!(
            (found_states.len(), found_edges.len()),
            (states, edges),
            "{bounds:?}"
        );
        assert_eq!(sum_of(&found_states), state_sum, "states of {bounds:?}");
        assert_eq!(sum_of(&found_edges), edge_sum, "edges of {bounds:?}");
    }
}

/// The scope that TLC exhausts: the same number of states up to the names of nodes, no violation.
#[test]
fn three_nodes_two_terms_one_entry_one_crash() {
    let states = Space::new(bounds(3, 1, false)).exhaust();
    assert_eq!(states, Ok(209_966));
}
