//! Snapshots on their way: over a link that loses, repeats and reorders, with crashes of both sides.

use super::transfer_world::{
    BAD, FOLLOWER, GOOD, LEADER, Side, World, content, files, path, small, store_on, take,
};
use bytes::Bytes;
use duraft::transfer::{
    Attempt, TransferFrame, TransferId, TransferInput, TransferKind, TransferOptions,
    TransferRefusal,
};
use duraft_core::{Incarnation, Index, NodeId, Term};
use duraft_disk::{
    Damage, Disk, DiskOp, Effect, Fault, SplitMix64, Subsets, Survival, for_each_crash_state,
};
use duraft_storage::SnapshotFileKind;
use std::ops::ControlFlow;

#[test]
fn over_a_good_link_every_byte_goes_once() {
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 20_000);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(200, "delivered", |world| world.seen.delivered > 0);
    let seen = &world.seen;
    assert_eq!(seen.sent_bytes(), snapshot.file.bytes);
    assert_eq!((seen.offers, seen.delivered, seen.failed), (1, 1, 0));
    assert_eq!(seen.received, [(LEADER, Term(7), snapshot.clone())]);
    assert!(seen.moving.values().all(|n| *n == 1), "at most once a tick");
    assert!(seen.moving.len() > 5);
    assert!(seen.in_flight_max <= 1500 && seen.held_max <= 1500);
    world
        .side(FOLLOWER)
        .store()
        .verify(&snapshot)
        .expect("whole");
}

#[test]
fn an_empty_snapshot_is_delivered_too() {
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 0);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(100, "delivered", |world| world.seen.delivered > 0);
}

#[test]
fn a_large_snapshot_crosses_a_bad_link_and_crashes_of_both_sides() {
    // What was received is never sent again but for what a crash has torn and what the link has lost;
    // nobody holds more than a window.
    const SIZE: usize = 32 << 20;
    const SYNC: u64 = 2 << 20;
    let options = TransferOptions {
        piece_bytes: 64 << 10,
        window_bytes: 1 << 20,
        resend_ticks: 16,
        ..TransferOptions::default()
    };
    let (mut world, snapshot) = World::pair(3, BAD, options, files(256 << 10, SYNC), SIZE);
    let bytes = snapshot.file.bytes;
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    let mut resumed = Vec::new();
    for (crash, at) in [(0, 8), (1, 14), (2, 20), (3, 26)] {
        let at = at << 20;
        world.until(50_000, "on its way", |world| {
            world.received_bytes(FOLLOWER) >= at
        });
        match crash {
            0 => world
                .side(FOLLOWER)
                .restart(Some(Survival::Drawn(crash)), &[]),
            1 => world
                .side(LEADER)
                .restart(Some(Survival::Nothing), &[&snapshot]),
            2 => world.side(FOLLOWER).restart(None, &[]),
            _ => {
                world.side(FOLLOWER).restart(Some(Survival::Nothing), &[]);
                world
                    .side(LEADER)
                    .restart(Some(Survival::Everything), &[&snapshot]);
            }
        }
        // The new life of a leader asks again; a follower's is found out by the sender.
        if crash % 2 == 1 {
            world.send(LEADER, FOLLOWER, 7, &snapshot);
        }
        let busy = |world: &World| world.received_bytes(FOLLOWER) > 0;
        world.until(1000, "resumed", busy);
        resumed.push(world.received_bytes(FOLLOWER) >> 20);
    }
    world.until(50_000, "delivered", |world| world.seen.delivered > 0);
    world
        .side(FOLLOWER)
        .store()
        .verify(&snapshot)
        .expect("whole");
    let seen = &world.seen;
    // After a power loss what was synced is there; the death of a process loses nothing.
    assert!(resumed[0] >= 6 && resumed[1] >= 14 && resumed[2] >= 19 && resumed[3] >= 24);
    let torn = 4 * (SYNC + options.window_bytes + (256 << 10));
    let lost = bytes / 100 * BAD.lost * 4;
    let sent = seen.sent_bytes();
    assert!(sent <= bytes + torn + lost, "{sent} sent of {bytes}");
    assert!(seen.in_flight_max <= options.window_bytes);
    assert!(seen.held_max <= options.window_bytes);
    // The link repeats what was sent, and what belongs to an attempt before may still be under way.
    assert!(
        seen.link_max <= 3 * options.window_bytes,
        "{}",
        seen.link_max
    );
    assert_eq!(seen.failed, 0);
}

#[test]
fn many_worlds_end_well() {
    // Losses, repetitions, delays and crashes in any order: when they end, the snapshot arrives, and
    // what is reported on the way is true (checked at each report).
    let mut resumptions = 0;
    for seed in 0..150 {
        let (mut world, snapshot) = World::pair(seed, BAD, small(), files(512, 2000), 9000);
        let mut dice = SplitMix64::new(seed ^ 0xD1CE);
        world.send(LEADER, FOLLOWER, 1, &snapshot);
        for term in 1..=4 {
            for _ in 0..dice.below(60) {
                world.tick();
            }
            let survival = match dice.below(3) {
                0 => None,
                1 => Some(Survival::Nothing),
                _ => Some(Survival::Drawn(dice.next())),
            };
            if dice.below(2) == 0 {
                world.side(LEADER).restart(survival, &[&snapshot]);
            } else {
                world.side(FOLLOWER).restart(survival, &[]);
            }
            world.send(LEADER, FOLLOWER, term, &snapshot);
        }
        let before = world.seen.sent_bytes();
        world.link = GOOD;
        let delivered = world.seen.delivered;
        let done = |world: &World| world.seen.delivered > delivered;
        world.until(2000, &format!("seed {seed}: delivered"), done);
        resumptions += u64::from(world.seen.sent_bytes() - before < snapshot.file.bytes);
        world
            .side(FOLLOWER)
            .store()
            .verify(&snapshot)
            .expect("whole");
        assert!(world.seen.in_flight_max <= 1500 && world.seen.held_max <= 1500);
    }
    assert!(resumptions > 75, "{resumptions}");
}

#[test]
fn every_crash_of_the_receiving_side_is_survived() {
    // The power fails in each disk operation of a transfer, with every outcome: what was reported
    // before is there, what bears a final name is whole, and the next life receives the rest.
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 2200), 6000);
    let leader = world.side(LEADER).disk.fork();
    let mut states = 0;
    let mut points = 0;
    for mutation in 1.. {
        let empty = Side::new(small(), files(512, 2200));
        empty.disk.crash_at(empty.disk.mutations() + mutation);
        let (mut world, _) = World::pair(1, GOOD, small(), files(512, 2200), 6000);
        world.sides.insert(FOLLOWER, empty);
        world.send(LEADER, FOLLOWER, 7, &snapshot);
        let over = |world: &World| {
            world.seen.delivered + world.seen.failed > 0 || world.sides[&FOLLOWER].disk.crashed()
        };
        world.until(100, "an end", over);
        let ended = !world.side(FOLLOWER).disk.crashed();
        let reported = !world.seen.received.is_empty();
        let disk = world.side(FOLLOWER).disk.clone();
        let (tally, _) = for_each_crash_state(&disk, &Subsets::default(), |state| {
            let durable = store_on(&state.disk, files(512, 2200));
            for name in durable.list().expect("the disk works") {
                if name.kind == SnapshotFileKind::Whole {
                    durable
                        .verify(&snapshot)
                        .expect("whole under its final name");
                }
            }
            if reported {
                durable
                    .verify(&snapshot)
                    .expect("what was reported is there");
            }
            let next = Side::on(state.disk.clone(), small(), files(512, 2200), 2);
            let sender = Side::on(leader.fork(), small(), files(512, 2200), 2);
            let mut after = World::new(1, GOOD, [(LEADER, sender), (FOLLOWER, next)]);
            after.send(LEADER, FOLLOWER, 8, &snapshot);
            after.until(100, "delivered", |world| world.seen.delivered > 0);
            ControlFlow::<()>::Continue(())
        });
        assert_eq!(tally.exhaustive, tally.points, "every outcome");
        states += tally.visited;
        points += 1;
        if ended {
            break;
        }
    }
    assert!(points > 12 && states > 150, "{states} at {points}");
}

#[test]
fn the_rate_is_kept() {
    let options = TransferOptions {
        bytes_per_tick_max: Some(400),
        ..small()
    };
    let (mut world, snapshot) = World::pair(1, GOOD, options, files(512, 4096), 20_000);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(200, "delivered", |world| world.seen.delivered > 0);
    let sent = &world.seen.sent;
    for from in 0..=world.now {
        for to in from..=world.now {
            let bytes: u64 = sent.range(from..=to).map(|(_, bytes)| bytes).sum();
            let allowed = 600 + 400 * (to - from + 1);
            assert!(bytes <= allowed, "{bytes} bytes in ticks {from} to {to}");
        }
    }
    assert!(world.now >= 20_000 / 400, "{}", world.now);
    assert_eq!(
        world.seen.offers, 1,
        "waiting for leave to send is no silence"
    );
}

#[test]
fn a_rate_below_a_piece_per_patience_is_no_silence() {
    // The sender itself sends nothing for longer than the patience of either side.
    let options = TransferOptions {
        bytes_per_tick_max: Some(20),
        resend_ticks: 4,
        give_up_ticks: 40,
        ..small()
    };
    let (mut world, snapshot) = World::pair(1, GOOD, options, files(512, 4096), 1000);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(1000, "delivered", |world| world.seen.delivered > 0);
    assert_eq!((world.seen.offers, world.seen.failed), (1, 0));
}

#[test]
fn silence_ends_in_failure_and_what_came_counts_later() {
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 20_000);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(100, "half", |world| world.received_bytes(FOLLOWER) > 10_000);
    world.link.lost = 100;
    world.until(400, "given up", |world| world.seen.failed > 0);
    world.until(400, "given up", |world| {
        world.sides[&FOLLOWER].transfers.receiver().is_idle()
    });
    world.link.lost = 0;
    let before = world.seen.sent_bytes();
    world.send(LEADER, FOLLOWER, 8, &snapshot);
    world.until(100, "delivered", |world| world.seen.delivered > 0);
    let again = world.seen.sent_bytes() - before;
    assert!(again < snapshot.file.bytes - 8000, "{again}");
}

#[test]
fn a_flipped_bit_on_the_way_costs_one_part() {
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 20_000);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(100, "half", |world| world.received_bytes(FOLLOWER) > 10_000);
    let is_piece = |frame: &TransferFrame| frame.kind() == TransferKind::Piece;
    world.until(10, "a piece is under way", |world| {
        world.under_way.values().any(|(.., frame)| is_piece(frame))
    });
    let flipped = world
        .under_way
        .values_mut()
        .find_map(|(.., frame)| match frame {
            TransferFrame::Piece { bytes, .. } => {
                let mut bad = bytes.to_vec();
                bad[17] ^= 1;
                *bytes = Bytes::from(bad);
                Some(())
            }
            TransferFrame::Offer { .. }
            | TransferFrame::Ack { .. }
            | TransferFrame::Refused { .. } => None,
        });
    flipped.expect("a piece is under way");
    world.until(200, "delivered", |world| world.seen.delivered > 0);
    assert_eq!(world.seen.refusals, [TransferRefusal::Damaged]);
    let sent = world.seen.sent_bytes();
    assert!(sent <= snapshot.file.bytes + 524 + 2 * 1500, "{sent}");
    assert_eq!(world.seen.damaged, [], "the file is good");
    world
        .side(FOLLOWER)
        .store()
        .verify(&snapshot)
        .expect("whole");
}

#[test]
fn a_damaged_file_is_not_sent_for_ever_and_its_owner_learns_of_it() {
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 20_000);
    let damage = Damage::FlipBit {
        offset: 12_000,
        bit: 3,
    };
    world
        .side(LEADER)
        .disk
        .damage(&path(&snapshot), &damage)
        .expect("damaged");
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(400, "failed", |world| world.seen.failed > 0);
    assert_eq!(world.seen.damaged, [Index(100)]);
    assert_eq!(world.seen.refusals, [TransferRefusal::Damaged; 4]);
    assert_eq!(world.seen.received, []);

    // A file that is gone is told at once.
    world
        .side(LEADER)
        .disk
        .remove(&path(&snapshot))
        .expect("removed");
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    assert_eq!((world.seen.failed, world.seen.damaged.len()), (2, 2));
    // One that made room for a later one is no loss.
    let store = world.side(LEADER).store();
    let later = take(&store, 200, b"state");
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    assert_eq!((world.seen.failed, world.seen.damaged.len()), (3, 2));
    world.send(LEADER, FOLLOWER, 7, &later);
    world.until(100, "delivered", |world| world.seen.delivered > 0);
}

#[test]
fn a_full_or_failing_disk_is_told_and_left_usable() {
    for (effect, reason) in [
        (Effect::NoSpace, TransferRefusal::NoSpace),
        (Effect::Io, TransferRefusal::Storage),
    ] {
        for op in [
            DiskOp::Write,
            DiskOp::SyncData,
            DiskOp::SyncAll,
            DiskOp::SyncDir,
        ] {
            let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 9000);
            let fault = Fault::new(effect).on(op);
            world.side(FOLLOWER).disk.inject(fault);
            world.send(LEADER, FOLLOWER, 7, &snapshot);
            world.until(400, "failed", |world| world.seen.failed > 0);
            assert_eq!(world.seen.refusals.first(), Some(&reason), "{op:?}");
            assert_eq!(world.seen.received, []);
            let left = world.side(FOLLOWER).store().list().expect("the disk works");
            assert_eq!(left, [], "{op:?}");
            world.send(LEADER, FOLLOWER, 7, &snapshot);
            world.until(400, "delivered", |world| world.seen.delivered > 0);
        }
    }
}

#[test]
fn a_newer_leader_takes_over_and_the_same_file_goes_on() {
    // Both leaders hold the same file: what came from the one is not asked of the other.
    const OTHER: NodeId = NodeId(3);
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 20_000);
    let bytes = content(20_000, 1);
    let other = Side::new(small(), files(512, 4096));
    assert_eq!(
        take(&other.store(), 100, &bytes),
        snapshot,
        "a copy is the same"
    );
    let newer = take(&other.store(), 200, &bytes);
    world.sides.insert(OTHER, other);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(100, "half", |world| world.received_bytes(FOLLOWER) > 10_000);

    // Another node of the same term is no leader; one of an earlier term was one.
    world.send(OTHER, FOLLOWER, 7, &newer);
    world.until(20, "refused", |world| world.seen.failed > 0);
    world.send(OTHER, FOLLOWER, 6, &newer);
    world.until(20, "refused", |world| world.seen.failed > 1);
    assert_eq!(
        world.seen.refusals,
        [TransferRefusal::Busy, TransferRefusal::Stale]
    );

    let before = world.received_bytes(FOLLOWER);
    world.send(OTHER, FOLLOWER, 8, &snapshot);
    world.tick();
    assert!(world.received_bytes(FOLLOWER) >= before);
    world.until(200, "delivered", |world| world.seen.delivered > 0);
    assert_eq!(world.seen.received, [(OTHER, Term(8), snapshot.clone())]);
    assert!(world.seen.sent_bytes() < snapshot.file.bytes + 3 * 1500);

    // The old leader's words do not disturb any more, and a newer snapshot follows.
    world.send(OTHER, FOLLOWER, 8, &newer);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(200, "delivered", |world| world.seen.delivered > 1);
    let received = world.seen.received.last().expect("two");
    assert_eq!(*received, (OTHER, Term(8), newer));
}

#[test]
fn a_later_snapshot_replaces_the_one_being_sent() {
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 20_000);
    let newer = take(&world.side(LEADER).store(), 150, &content(3000, 9));
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(100, "half", |world| world.received_bytes(FOLLOWER) > 10_000);
    world.send(LEADER, FOLLOWER, 7, &newer);
    world.until(200, "delivered", |world| world.seen.delivered > 0);
    assert_eq!(world.seen.received, [(LEADER, Term(7), newer)]);
    assert_eq!(
        world.seen.failed, 0,
        "the first one was replaced, it did not fail"
    );
}

#[test]
fn a_snapshot_that_stands_there_already_is_acknowledged_for_each_term() {
    // The acknowledgement of the install goes to the leader of the offer's term: a new term needs a
    // report of its own, and an answer to the old one must not pass for it.
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 5000);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    world.until(100, "received", |world| !world.seen.received.is_empty());
    // The durable ack is under way; the leader begins again in a later term before it comes.
    assert_eq!(world.seen.delivered, 0);
    world.send(LEADER, FOLLOWER, 9, &snapshot);
    world.until(100, "delivered", |world| world.seen.delivered > 0);
    let terms: Vec<Term> = world
        .seen
        .received
        .iter()
        .map(|(_, term, _)| *term)
        .collect();
    assert_eq!(terms, [Term(7), Term(9)]);
    assert_eq!(world.seen.sent_bytes(), snapshot.file.bytes, "sent once");
}

#[test]
fn a_repeated_offer_does_not_begin_again() {
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 5000);
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    let (_, _, offer) = world.under_way.values().next().expect("the offer").clone();
    for _ in 0..30 {
        let frame = offer.clone();
        let from = LEADER;
        world.step(FOLLOWER, TransferInput::Frame { from, frame });
        world.tick();
    }
    assert_eq!(world.seen.delivered, 1);
    assert_eq!(world.seen.received.len(), 1, "reported once");
    assert_eq!(world.seen.sent_bytes(), snapshot.file.bytes);
}

#[test]
fn strangers_frames_do_nothing() {
    let (mut world, snapshot) = World::pair(1, GOOD, small(), files(512, 4096), 5000);
    let stranger = NodeId(77);
    let attempt = Attempt {
        life: Incarnation(1),
        number: 1,
    };
    let id = TransferId {
        attempt,
        file: snapshot.file,
    };
    world.send(LEADER, FOLLOWER, 7, &snapshot);
    for frame in [
        TransferFrame::Ack {
            id,
            received: snapshot.file.bytes,
            durable: true,
        },
        TransferFrame::Refused {
            id,
            reason: TransferRefusal::Busy,
        },
    ] {
        let from = stranger;
        world.step(LEADER, TransferInput::Frame { from, frame });
    }
    // A peer that answers another snapshot's or attempt's words.
    let mut other = id;
    other.file.digest ^= 1;
    let mut late = id;
    late.attempt.number = 9;
    for id in [other, late] {
        let frame = TransferFrame::Refused {
            id,
            reason: TransferRefusal::Busy,
        };
        let from = FOLLOWER;
        world.step(LEADER, TransferInput::Frame { from, frame });
    }
    assert_eq!((world.seen.delivered, world.seen.failed), (0, 0));
    world.until(100, "delivered", |world| world.seen.delivered > 0);
}

#[test]
fn options_have_limits() {
    assert!(TransferOptions::default().validate().is_empty());
    let wrong = TransferOptions {
        piece_bytes: 2 << 20,
        window_bytes: 1,
        bytes_per_tick_max: Some(0),
        burst_bytes_max: 1,
        resend_ticks: 0,
        give_up_ticks: 0,
        bad_parts_max: 0,
    };
    assert_eq!(wrong.validate().len(), 7);
}
