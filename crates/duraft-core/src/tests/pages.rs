//! The old part of the log, whose headers have left memory: what is known of it, what must be read to
//! know more, and what is believed of what was read.

use super::rig::*;
use crate::log::{Boundary, Log};
use crate::pages::PAGES_HELD;
use crate::*;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What each batch here costs.
const COST: u64 = 76;
const HEADER: u64 = size_of::<BatchHeader>() as u64;

fn at(count: usize) -> Boundary {
    (0..count).fold(Boundary::default(), |at, _| at.next())
}

fn headers(count: usize) -> Vec<BatchHeader> {
    let batches = chain(GROUP, Position::START, count as u64);
    batches.iter().map(|batch| batch.header).collect()
}

fn after(all: &[BatchHeader], count: usize) -> Position {
    (count.checked_sub(1)).map_or(Position::START, |last| all[last].position())
}

/// A log of these batches; those before `held` are in pages of three.
fn paged(all: &[BatchHeader], held: usize) -> Log {
    let mut log = Log::new(Position::START, all.iter().copied().collect());
    log.evict(0, at(held), (3 * COST, None));
    assert_eq!(log.held(), at(held));
    log
}

/// The page that begins here is read back.
fn read(log: &mut Log, all: &[BatchHeader], begin: usize) -> bool {
    log.take_page(at(begin), all[begin..begin + 3].to_vec())
}

#[test]
fn of_a_page_it_is_known_where_it_begins_and_what_must_be_read_for_the_rest() {
    let all = headers(40);
    let mut log = paged(&all, 30);
    for read_back in [None, Some(12)] {
        if let Some(begin) = read_back {
            assert!(read(&mut log, &all, begin));
        }
        for place in 0..=40 {
            let begin = place / 3 * 3;
            let here = place >= 30 || Some(begin) == read_back;
            let wanted = log.wanted(at(place));
            assert_eq!(wanted.is_none(), here, "{place}");
            if let Some(wanted) = wanted {
                assert_eq!(wanted.begin, at(begin));
                let (first, last) = (begin as u64 + 1, begin as u64 + 3);
                assert_eq!((wanted.first, wanted.last), (Index(first), Index(last)));
                assert_eq!(wanted.bytes, 3 * COST);
                assert_eq!(log.page_end(at(begin)), at(begin + 3));
            }
            let known = here || place == begin;
            let position = known.then(|| after(&all, place));
            assert_eq!(log.position_in(at(place)), position, "{place}");
            assert_eq!(log.known(at(place)), at(if known { place } else { begin }));
            let header = all.get(place).filter(|_| here);
            assert_eq!(log.header(at(place)), header, "{place}");
            let index = Index(place as u64);
            let inside = place > 0 && place < 30 && Some(begin) != read_back;
            let page = log.wanted_at(index).map(|wanted| wanted.begin);
            assert_eq!(page, inside.then_some(at(begin)), "{place}");
        }
    }
}

#[test]
fn a_page_is_believed_only_as_a_whole_and_in_its_place() {
    // What the disk gives back may be another file's, or older: digests say so.
    let all = headers(40);
    let mut log = paged(&all, 30);
    let mut other = all.clone();
    other[4].digest = Digest(1);
    for (begin, headers) in [
        (3, &all[3..5]),
        (3, &all[3..7]),
        (3, &all[6..9]),
        (3, &other[3..6]),
        (4, &all[3..6]),
        (4, &all[4..6]),
        (3, &[]),
    ] {
        let taken = log.take_page(at(begin), headers.to_vec());
        assert!(!taken && log.header(at(3)).is_none(), "{begin}");
    }
    assert!(read(&mut log, &all, 3));
    assert!(read(&mut log, &all, 27), "up to where memory begins");
}

#[test]
fn what_was_read_back_longest_ago_leaves_memory_first() {
    // A peer that reads the whole log would fill memory with it.
    let pages = PAGES_HELD + 8;
    let all = headers(3 * pages + 3);
    let mut log = paged(&all, 3 * pages);
    let before = log.shape_bytes();
    for page in 0..pages {
        assert!(read(&mut log, &all, 3 * page));
        let held = (page + 1).min(PAGES_HELD);
        for other in 0..pages {
            let here = other <= page && other + held > page;
            assert_eq!(log.wanted(at(3 * other)).is_none(), here, "{page} {other}");
        }
        assert_eq!(log.shape_bytes(), before + 3 * HEADER * held as u64);
    }
}

#[test]
fn headers_leave_memory_until_the_rest_fits_and_pages_are_bounded() {
    let all = headers(200);
    let mut log = Log::new(Position::START, all.iter().copied().collect());
    assert_eq!(log.shape_bytes(), 200 * HEADER);
    log.evict(200 * HEADER, at(150), (u64::MAX, None));
    assert_eq!(log.held(), at(0), "it fits");
    log.evict(200 * HEADER - 1, at(150), (u64::MAX, None));
    assert!(log.held() > at(0) && log.shape_bytes() < 200 * HEADER);
    let held = log.held();
    log.evict(log.shape_bytes(), at(150), (u64::MAX, None));
    assert_eq!(log.held(), held);
    log.evict(0, at(150), (u64::MAX, None));
    assert_eq!(log.held(), at(150));
    // A page is one load: it has at most 64 batches, whatever they cost.
    for (begin, end) in [(0, 64), (64, 128), (128, 150)] {
        assert_eq!(log.page_end(at(begin)), at(end));
        let wanted = log.wanted(at(begin)).unwrap();
        assert_eq!(wanted.bytes, (end - begin) as u64 * COST);
    }
    let lines = log.shape_bytes() - 50 * HEADER;
    assert!(
        (3 * 40..3 * 400).contains(&lines),
        "{lines} for three pages"
    );
    // The last one does not grow while it is read.
    log.evict(0, at(153), (u64::MAX, Some(at(128))));
    assert_eq!(log.page_end(at(128)), at(150));
    assert!(log.take_page(at(128), all[128..150].to_vec()));
    log.evict(0, at(156), (u64::MAX, None));
    assert_eq!(log.page_end(at(150)), at(156));
}

#[test]
fn looking_back_so_many_bytes_ends_where_a_log_may_begin() {
    // A front that is dropped must end where it is known what came before.
    let all = headers(40);
    let log = paged(&all, 30);
    for end in [40, 33, 30, 15] {
        let starts = (0..=end).filter(|place| *place >= 30 || place % 3 == 0);
        let starts: Vec<usize> = starts.collect();
        for bytes in 0..=40 * COST + 1 {
            let fits = |place: &&usize| (end - **place) as u64 * COST <= bytes;
            let first = starts.iter().find(fits).unwrap();
            assert_eq!(log.back_from(at(end), bytes), at(*first), "{end} {bytes}");
        }
    }
}

#[test]
fn a_log_that_begins_later_has_forgotten_the_pages_before_it_and_no_others() {
    let all = headers(40);
    let lines = paged(&all, 30).shape_bytes() - 10 * HEADER;
    for (begin, read_back) in [(0, None), (3, None), (15, None), (16, Some(15)), (27, None)] {
        let mut log = paged(&all, 30);
        if let Some(page) = read_back {
            assert!(read(&mut log, &all, page));
        }
        log.compact(at(begin));
        assert_eq!((log.begin(), log.start()), (at(begin), after(&all, begin)));
        assert_eq!(log.held(), at(30));
        for page in (0..10).map(|page| 3 * page) {
            if page >= begin {
                assert_eq!(log.position_in(at(page)), Some(after(&all, page)));
                assert!(read(&mut log, &all, page), "{begin} {page}");
            }
        }
        for place in begin..40 {
            assert_eq!(log.header(at(place)), all.get(place), "{begin} {place}");
        }
        assert_eq!(log.last(), after(&all, 40));
    }
    // Nothing is left of them where the log begins in memory.
    for begin in [30, 35] {
        let mut log = paged(&all, 30);
        assert!(lines > 0 && log.shape_bytes() == lines + 10 * HEADER);
        log.compact(at(begin));
        assert_eq!(log.shape_bytes(), (40 - begin) as u64 * HEADER);
        assert_eq!(log.start(), after(&all, begin));
    }
}

#[test]
fn a_page_that_the_log_begins_in_leaves_memory_like_any_other() {
    let pages = PAGES_HELD + 2;
    let all = headers(3 * pages);
    let mut log = paged(&all, 3 * pages - 3);
    assert!(read(&mut log, &all, 3));
    log.compact(at(4));
    assert_eq!(log.header(at(4)), all.get(4));
    for page in 2..PAGES_HELD + 1 {
        assert!(read(&mut log, &all, 3 * page));
        assert!(log.wanted(at(4)).is_none(), "{page}");
    }
    let last = PAGES_HELD;
    assert!(read(&mut log, &all, 3 * last));
    let wanted = log.wanted(at(4)).expect("it was the oldest");
    assert_eq!((wanted.first, wanted.last), (Index(5), Index(6)));
    assert!(log.take_page(at(4), all[4..6].to_vec()));
}

#[test]
fn bodies_leave_memory_one_by_one_where_there_is_no_room() {
    let mut log = Log::new(Position::START, VecDeque::new());
    for i in 0..5 {
        let batch = body(i).seal(GROUP, &log.last(), Term(1)).unwrap();
        log.push(&batch);
    }
    for (room, from) in [(5 * COST, 0), (5 * COST - 1, 1), (3 * COST, 2), (0, 3)] {
        log.trim_cache(room, at(3));
        assert_eq!(log.cached_from(), at(from), "{room}");
        assert_eq!(log.cached_bytes(), (5 - from) as u64 * COST);
    }
    log.truncate(at(4));
    assert_eq!(log.cached_bytes(), COST);
    log.compact(at(4));
    assert_eq!(log.cached_bytes(), 0);
}
