//! What a batch is called, and which bodies can be read.

use crate::*;
use alloc::vec::Vec;
use bytes::Bytes;

#[test]
fn a_kind_is_known_by_the_number_it_has_on_disk_and_by_no_other() {
    // A number that stood for another kind after an update would turn commands into memberships.
    let kinds = [
        (1, BatchKind::Commands),
        (2, BatchKind::Membership),
        (3, BatchKind::Noop),
    ];
    for (number, kind) in kinds {
        assert_eq!(kind.number(), number);
        assert_eq!(BatchKind::from_number(number), Some(kind));
    }
    for number in (0..=u8::MAX).filter(|number| !(1..=3).contains(number)) {
        assert_eq!(BatchKind::from_number(number), None);
    }
}

#[test]
fn no_command_reaches_outside_of_its_body_or_before_the_one_in_front_of_it() {
    // An end that is too far or goes back, made good by the last one, is still a wrong table.
    for (ends, data) in [(&[3, 2][..], 2), (&[2, 1, 2], 2), (&[9, 0], 0)] {
        let mut body: Vec<u8> = ends
            .iter()
            .flat_map(|end: &u32| end.to_le_bytes())
            .collect();
        body.resize(body.len() + data, 0);
        let parsed = Commands::parse(Bytes::from(body), ends.len() as u32);
        assert_eq!(parsed.err(), Some(BodyError::Offsets), "{ends:?}");
    }
}
