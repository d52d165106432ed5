//! What a leader knows of a peer, at its boundaries: one tick or one byte less, equal, more.

use crate::log::Boundary;
use crate::progress::{Progress, Room, Sending, Sent, Stage};
use crate::*;
use alloc::collections::VecDeque;

fn at(count: u32) -> Boundary {
    (0..count).fold(Boundary::default(), |at, _| at.next())
}

fn id(index: u64) -> LogId {
    LogId {
        term: Term(1),
        index: Index(index),
    }
}

fn sent(end: u32, bytes: u64) -> Sent {
    Sent {
        end: at(end),
        bytes,
        round: 0,
    }
}

/// A peer in each of the stages; nothing of its log was known before place 5.
fn probing(asked: bool) -> Progress {
    let mut progress = Progress::new(at(5), 0);
    if asked {
        progress.ask(at(5), id(5), 1);
    }
    progress
}

fn replicating() -> Progress {
    let mut progress = Progress::new(at(5), 0);
    assert!(progress.acknowledged(at(5), id(5), 1));
    progress
}

fn receiving(state: Sending) -> Progress {
    let mut progress = Progress::new(at(5), 0);
    progress.send_snapshot(Position::START, at(7), 9);
    let Stage::Snapshot { state: now, .. } = &mut progress.stage else {
        panic!("a snapshot is sent");
    };
    *now = state;
    progress
}

fn loading() -> Progress {
    let mut progress = replicating();
    let Stage::Replicate { loading, .. } = &mut progress.stage else {
        panic!("an acceptance ends the search");
    };
    *loading = Some(LoadId(3));
    progress
}

#[test]
fn each_stage_says_what_is_under_way() {
    let mut ahead = replicating();
    ahead.sent(sent(7, 30), 2);
    ahead.sent(sent(9, 12), 2);
    // Waits, idle, receives, what is expected, what is under way.
    let table = [
        (probing(false), (false, false, false), at(5), (0, 0)),
        (probing(true), (true, false, false), at(5), (1, 0)),
        (replicating(), (false, true, false), at(5), (0, 0)),
        (loading(), (false, false, false), at(5), (0, 0)),
        (ahead, (true, false, false), at(7), (2, 42)),
        (
            receiving(Sending::UnderWay),
            (true, false, true),
            at(7),
            (0, 0),
        ),
        (
            receiving(Sending::Delivered(3)),
            (true, false, true),
            at(7),
            (0, 0),
        ),
        (
            receiving(Sending::Pausing(3)),
            (false, false, true),
            at(7),
            (0, 0),
        ),
    ];
    for (progress, flags, expected, under_way) in table {
        let is = (
            progress.is_waiting(),
            progress.is_idle(),
            progress.is_receiving(),
        );
        assert_eq!(is, flags, "{progress:?}");
        assert_eq!(progress.expected(), expected, "{progress:?}");
        assert_eq!(progress.inflight(), under_way, "{progress:?}");
        let load = (progress.loading(), progress.room(9, 9).is_none());
        match &progress.stage {
            Stage::Replicate {
                loading: Some(_), ..
            } => assert_eq!(load, (Some(LoadId(3)), true)),
            Stage::Replicate { window, .. } => {
                assert_eq!(
                    load,
                    (None, !window.is_empty()),
                    "42 bytes fill a window of 9"
                );
            }
            Stage::Probe { .. } | Stage::Snapshot { .. } => assert_eq!(load, (None, true)),
        }
    }
}

#[test]
fn a_peer_is_silent_and_stalled_from_a_certain_tick_on() {
    let mut progress = probing(true);
    (progress.heard, progress.moved) = (100, 100);
    for now in 100..160 {
        progress.heard = now.min(130);
        let live = now - progress.heard < 10;
        // Four election timeouts after the last movement.
        assert_eq!(progress.is_stalled(now, 10), now >= 140, "{now}");
        assert_eq!(progress.is_live(now, 10), live && now < 140, "{now}");
    }
    // Stalled, but with nothing outstanding: that is rest.
    let mut resting = replicating();
    resting.heard = 1_000;
    assert!(resting.is_stalled(1_000, 10) && resting.is_live(1_009, 10));
    assert!(!resting.is_live(1_010, 10));
}

#[test]
fn a_round_of_catching_up_is_short_below_an_election_timeout() {
    for ticks in [1, 9, 10, 11, 30] {
        let mut progress = Progress::new(at(5), 50);
        let began = 50;
        progress.heard = began + ticks;
        let now = began + ticks;
        progress.catch_up.advance(at(4), at(9), now, 10);
        assert!(!progress.is_caught_up(now, 10), "the round is not over");
        progress.catch_up.advance(at(5), at(9), now, 10);
        assert_eq!(progress.is_caught_up(now, 10), ticks < 10, "{ticks}");
        // The next round ends at 9 and must be short as well, so far.
        for more in 0..20 {
            progress.heard = now + more;
            let quick = ticks < 10 && more < 10;
            assert_eq!(
                progress.is_caught_up(now + more, 10),
                quick,
                "{ticks} {more}"
            );
        }
        progress.catch_up.advance(at(8), at(20), now + 2, 10);
        progress.heard = now + 5;
        assert_eq!(progress.is_caught_up(now + 5, 10), ticks < 10);
        progress.catch_up.advance(at(9), at(20), now + 5, 10);
        assert!(progress.is_caught_up(now + 14, 10), "a short round later");
        // Whoever is silent does not keep up.
        assert!(!progress.is_caught_up(now + 15, 10));
        progress.heard = now + 15;
        assert!(!progress.is_caught_up(now + 15, 10), "a long round now");
        progress.heard = now + 4;
        assert!(!progress.is_caught_up(now + 14, 10), "silent");
    }
}

#[test]
fn the_search_goes_where_it_is_led_and_never_before_what_is_known() {
    let mut progress = replicating();
    progress.sent(sent(9, 10), 2);
    progress.probe_from(at(7), 30);
    assert_eq!((progress.next, progress.moved), (at(7), 30));
    assert_eq!(progress.stage, Stage::Probe { asked: None });
    progress.ask(at(6), id(6), 4);
    assert_eq!((progress.next, progress.moved), (at(6), 30));
    let asked = Some((id(6), 4));
    assert_eq!(progress.stage, Stage::Probe { asked });
    progress.ask(at(2), id(2), 4);
    assert_eq!(progress.next, at(5), "that is acknowledged");
    // A lost connection changes nothing for a question that is asked again anyway.
    let before = progress.stage.clone();
    progress.disconnected(at(1));
    assert_eq!(progress.stage, before);
    for (begin, next) in [(1, 5), (6, 6)] {
        let mut ahead = replicating();
        ahead.sent(sent(9, 10), 2);
        ahead.disconnected(at(begin));
        assert_eq!((ahead.next, ahead.moved), (at(next), 2));
        assert_eq!(ahead.stage, Stage::Probe { asked: None });
    }
    let mut lost = replicating();
    lost.commit_told = at(4);
    lost.forget(at(9));
    let known = (lost.matched, lost.matched_id, lost.commit_told, lost.next);
    let nothing = Boundary::default();
    assert_eq!(known, (nothing, LogId::default(), nothing, at(9)));
    assert_eq!(lost.stage, Stage::Probe { asked: None });
}

#[test]
fn a_snapshot_leads_to_its_end_or_to_what_the_peer_holds_beyond() {
    for (end, next) in [(3, 5), (8, 8)] {
        let mut progress = replicating();
        progress.send_snapshot(Position::START, at(end), 40);
        assert_eq!((progress.next, progress.moved), (at(next), 40));
        // Any acceptance ends the transfer, news or not.
        assert!(!progress.acknowledged(at(5), id(5), 41));
        assert_eq!((progress.next, progress.moved), (at(5), 41));
        assert!(progress.is_idle());
    }
}

#[test]
fn only_news_moves_what_is_known_of_a_peer() {
    let mut progress = replicating();
    progress.diverged = true;
    assert!(!progress.acknowledged(at(5), id(50), 20), "no news");
    assert!(!progress.acknowledged(at(4), id(40), 20), "old");
    let known = (progress.matched, progress.matched_id, progress.moved);
    assert_eq!(known, (at(5), id(5), 1));
    assert!(progress.diverged);
    assert!(progress.acknowledged(at(6), id(6), 21));
    let known = (progress.matched, progress.matched_id, progress.moved);
    assert_eq!(known, (at(6), id(6), 21));
    assert!(!progress.diverged);
    assert_eq!(progress.next, at(6), "the answer ran ahead");
}

#[test]
fn an_answer_that_runs_ahead_ends_the_load_and_one_that_does_not_leaves_it() {
    let mut progress = loading();
    progress.acknowledged(at(5), id(5), 3);
    assert_eq!(progress.loading(), Some(LoadId(3)), "at `next` it goes on");
    progress.acknowledged(at(6), id(6), 3);
    assert_eq!((progress.loading(), progress.next), (None, at(6)));
}

#[test]
fn a_window_is_full_at_its_last_message_or_byte() {
    let mut progress = replicating();
    progress.sent(sent(6, 10), 7);
    assert_eq!(progress.moved, 7, "the first of a window begins to move");
    progress.sent(sent(7, 15), 9);
    assert_eq!(progress.moved, 7, "the next ones do not");
    let room = |bytes| {
        Some(Room {
            bytes,
            one_whole: false,
        })
    };
    assert_eq!(progress.room(2, 100), None);
    assert_eq!(progress.room(3, 100), room(75));
    assert_eq!(progress.room(3, 26), room(1));
    assert_eq!(progress.room(3, 25), None);
    assert_eq!(progress.room(3, 24), None);
    let Stage::Replicate { window, bytes, .. } = &progress.stage else {
        panic!("it replicates");
    };
    assert_eq!(*window, VecDeque::from([sent(6, 10), sent(7, 15)]));
    assert_eq!(*bytes, 25);
}

#[test]
fn after_a_rejection_the_window_begins_with_one_and_grows_with_what_is_acknowledged() {
    let mut progress = replicating();
    for end in 6..=9 {
        progress.sent(sent(end, 1), 2);
    }
    progress.rejected(at(7), 3);
    assert_eq!(progress.stage, Stage::Probe { asked: None });
    progress.acknowledged(at(7), id(7), 4);
    let (mut acked, mut next) = (7, 7);
    for window in [1, 2, 4, 8, 10, 10] {
        while progress.room(10, 1000).is_some() {
            next += 1;
            progress.sent(sent(next, 1), 5);
        }
        assert_eq!(next - acked, window);
        progress.acknowledged(at(next), id(u64::from(next)), 6);
        acked = next;
    }
    // A rejection in the search for the common boundary is no sign of a network that reorders.
    let mut searching = Progress::new(at(9), 0);
    searching.rejected(at(5), 1);
    searching.acknowledged(at(5), id(5), 2);
    searching.sent(sent(6, 1), 3);
    assert!(searching.room(10, 1000).is_some());
}

#[test]
fn what_is_lost_again_and_again_moves_nothing_whatever_the_peer_answers() {
    // RULES.md 12. Every round: a batch is sent and lost, the question behind it is refused, the next one
    // is answered. An election timeout is ten ticks.
    let mut progress = replicating();
    progress.sent(sent(6, 1), 2);
    for now in 2..=50 {
        progress.heard = now;
        assert_eq!(progress.is_live(now, 10), now < 42, "{now}");
        match now % 2 {
            0 => progress.rejected(at(5), now),
            _ => progress.disconnected(at(0)),
        }
        progress.ask(at(5), id(5), now);
        assert_eq!(progress.is_live(now, 10), now < 42, "{now}");
        assert!(!progress.acknowledged(at(5), id(5), now));
        progress.sent(sent(6, 1), now);
    }
    // It has arrived at last.
    assert!(progress.acknowledged(at(6), id(6), 60));
    progress.heard = 200;
    progress.sent(sent(7, 1), 200);
    assert!(progress.is_live(200, 10), "the window was empty before");
    // A refusal of nothing that is under way, as of a message that was late, is no loss.
    progress.acknowledged(at(7), id(7), 201);
    progress.rejected(at(7), 202);
    progress.acknowledged(at(7), id(7), 203);
    progress.heard = 300;
    progress.sent(sent(8, 1), 300);
    assert!(progress.is_live(300, 10));
    // Who has lost its log starts over.
    progress.rejected(at(7), 301);
    assert!(progress.repeats);
    progress.forget(at(8));
    assert!(!progress.repeats);
}

#[test]
fn a_lost_connection_has_lost_what_was_under_way_and_nothing_else() {
    let mut idle = replicating();
    idle.disconnected(at(0));
    assert!(!idle.repeats);
    let mut sending = replicating();
    sending.sent(sent(6, 1), 2);
    sending.disconnected(at(0));
    assert!(sending.repeats);
}

#[test]
fn a_search_goes_on_when_the_peer_begins_another_life() {
    let mut searching = Progress::new(at(9), 0);
    searching.ask(at(9), id(9), 1);
    searching.rejected(at(6), 2);
    searching.ask(at(6), id(6), 2);
    let before = searching.clone();
    searching.begun_again(at(0), 7);
    assert_eq!((searching.next, searching.moved), (at(6), 7));
    assert_eq!(searching.stage, before.stage);
    // What was sent ahead is asked for, from what is known on.
    let mut ahead = replicating();
    ahead.sent(sent(6, 1), 2);
    ahead.begun_again(at(0), 7);
    assert_eq!((ahead.next, ahead.moved), (at(5), 7));
    assert_eq!(ahead.stage, Stage::Probe { asked: None });
    let mut receiving = receiving(Sending::UnderWay);
    receiving.begun_again(at(2), 7);
    assert_eq!(receiving.next, at(2));
    assert_eq!(receiving.stage, Stage::Probe { asked: None });
}
