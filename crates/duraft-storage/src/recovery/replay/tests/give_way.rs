//! What a group held before a hole may be of another log than what comes behind it.

use super::*;

#[test]
fn what_fills_a_gap_does_not_say_where_the_log_ends() {
    let batches = log(Position::START, 1, 2);
    for filled in [0usize, 1] {
        let lost = encode_lost(&LostLog {
            lost_suffix: false,
            vote_uncertain: false,
            floor: at(&batches[1]).id,
            missing: vec![(batches[filled].header.first, batches[filled].header.first)],
        });
        let mut reading = Reading::holding(&batches);
        reading.block(vec![(Frame::of_damage(GROUP, &lost), lost)]);
        reading.lose(1);
        reading.block(appended(&batches[filled..=filled]));
        assert_eq!(reading.loss(), Some((vec![], true, false)), "{filled}");
    }
}

#[test]
fn a_log_that_goes_on_behind_a_hole_may_still_be_another_one_than_it_was() {
    // A batch that follows says that the end was not lost, and nothing of what leads there.
    let batches = log(Position::START, 1, 4);
    let strange = |index: usize| Position {
        digest: duraft_core::Digest(5),
        ..at(&batches[index])
    };
    let gone_on = || {
        let mut reading = Reading::holding(&batches[..3]);
        reading.lose(1);
        reading.block(appended(&batches[3..]));
        reading
    };
    let ends = |records: Records| {
        let mut reading = gone_on();
        reading.block(records);
        let (group, _) = reading.end();
        (group.log.start(), group.log.end(), held(&group))
    };
    let start = Position::START;
    let there = state(1, None);
    let checkpoint = checkpoint_of(GROUP, &known(start, strange(1), there));
    assert_eq!(ends(set(vec![checkpoint])), (start, strange(1), vec![]));
    let fact = (GROUP, strange(1), there);
    assert_eq!(ends(table(0, false, &[fact])), (start, strange(1), vec![]));
    assert_eq!(ends(cut(strange(1))), (start, strange(1), vec![]));
    assert_eq!(ends(compacted(strange(1))).0, strange(1));
    // At the end itself, nothing behind it says which of the two it is: the later record counts.
    let (_, end, _) = ends(snapshot(strange(3), false));
    assert_eq!(end, strange(3));
    // Before it, what leads to the end is known, and what leads to the snapshot is not.
    let (_, end, _) = ends(snapshot(strange(1), false));
    assert_eq!(end, at(&batches[3]));
}

#[test]
fn a_compaction_inside_a_log_that_does_not_know_it_keeps_what_lies_behind() {
    let batches = log(Position::START, 1, 3);
    let strange = |index: usize| Position {
        digest: duraft_core::Digest(5),
        ..at(&batches[index])
    };
    let mut ends = Vec::new();
    for index in 0..3 {
        let mut reading = Reading::holding(&batches);
        reading.lose(1);
        reading.block(compacted(strange(index)));
        let (group, _) = reading.end();
        assert_eq!(group.log.start(), strange(index));
        ends.push(group.log.end());
    }
    assert_eq!(ends, [at(&batches[2]), at(&batches[2]), strange(2)]);
}

#[test]
fn a_snapshot_that_fits_what_is_left_takes_nothing_away() {
    let batches = log(Position::START, 1, 3);
    let mut reading = Reading::holding(&batches);
    reading.lose(1);
    reading.block(snapshot(at(&batches[1]), false));
    let (group, damage) = reading.end();
    assert_eq!(
        (held(&group), group.log.end()),
        (vec![1, 2, 3], at(&batches[2]))
    );
    assert!(damage.expect("more may be lost").lost_suffix);
}

#[test]
fn behind_a_snapshot_in_the_place_of_the_log_holes_before_it_excuse_nothing() {
    let batches = log(Position::START, 1, 3);
    for (joins, contradictions) in [(true, 0), (false, 1)] {
        let mut reading = Reading::holding(&batches[..1]);
        reading.lose(1);
        let end = at(&batches[1]);
        let strange = Position {
            digest: duraft_core::Digest(5),
            ..end
        };
        reading.block(snapshot(if joins { end } else { strange }, true));
        reading.block(appended(&batches[2..]));
        assert_eq!(reading.contradictions().len(), contradictions);
    }
}

#[test]
fn what_the_writer_of_a_fence_has_judged_contradicts_nobody_any_more() {
    // It stood behind a hole of a segment that the fence made unneeded: without that, it has no excuse.
    let batches = log(Position::START, 1, 4);
    for flags in [Flags::NONE, Flags::FENCE] {
        let mut reading = Reading::holding(&batches[..1]);
        reading.block(appended(&batches[3..]));
        let kept = known(Position::START, at(&batches[0]), state(1, None));
        reading.first_block(flags, set(vec![checkpoint_of(GROUP, &kept)]));
        assert_eq!(held(&reading.replay.groups[&GROUP].index), [1]);
        let judged = flags == Flags::FENCE;
        assert_eq!(reading.contradictions().is_empty(), judged);
    }
}
