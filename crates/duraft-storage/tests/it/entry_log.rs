//! The log for another Raft: against a model, through crashes, and what it refuses.

use bytes::Bytes;
use duraft_core::{Index, LogId, Term};
use duraft_disk::{Disk, Effect, Fault, FaultDisk, FaultOptions, SplitMix64, Survival};
use duraft_storage::{EntryLog, EntryLogError, EntryLogOptions, WalOptions, WhenDurable};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc;

fn options() -> EntryLogOptions {
    EntryLogOptions {
        wal: WalOptions {
            slot_bytes: 32 << 10,
            cache_bytes_max: 2_000,
            ..WalOptions::default()
        },
        entry_bytes_max: 4_000,
        ..EntryLogOptions::default()
    }
}

fn open(disk: &FaultDisk) -> EntryLog {
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    EntryLog::open_on(door, options()).expect("a sound store")
}

/// What the log should hold.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Model {
    start: LogId,
    entries: Vec<(Term, Bytes)>,
    note: Bytes,
}

impl Model {
    fn new() -> Model {
        Model {
            start: LogId::default(),
            entries: Vec::new(),
            note: Bytes::new(),
        }
    }

    fn last(&self) -> u64 {
        self.start.index.0 + self.entries.len() as u64
    }

    fn term(&self) -> Term {
        self.entries.last().map_or(self.start.term, |entry| entry.0)
    }

    fn of(log: &EntryLog) -> Model {
        let (start, end) = log.bounds();
        let first = start.index.next();
        let read = log.read(first, Index(u64::MAX), u64::MAX);
        let read = read.expect("the whole log can be read");
        assert_eq!(start.index.0 + read.len() as u64, end.index.0);
        for (index, entry) in (first.0..).zip(&read) {
            assert_eq!(entry.index, Index(index));
            assert_eq!(log.term(entry.index).expect("in the log"), entry.term);
        }
        assert_eq!(log.term(start.index).expect("its beginning"), start.term);
        Model {
            start,
            entries: read.into_iter().map(|e| (e.term, e.bytes)).collect(),
            note: log.note(),
        }
    }

    /// Draws something to do, does it to the log, and says what should be there then.
    fn act(&mut self, log: &EntryLog, rng: &mut SplitMix64, when: WhenDurable) {
        let (first, last) = (self.start.index.0, self.last());
        match rng.below(10) {
            0..=4 => {
                let term = Term(self.term().0.max(1) + u64::from(rng.below(4) == 0));
                let count = 1 + rng.below(4);
                let entries: Vec<(Term, Bytes)> =
                    (0..count).map(|_| (term, blob(rng, 300))).collect();
                let at = Index(last + 1);
                log.append(at, entries.clone(), Some(when))
                    .expect("appended");
                self.entries.extend(entries);
            }
            5 if last > first => {
                let from = first + 1 + rng.below(last - first);
                log.truncate(Index(from), Some(when)).expect("cut");
                let left = usize::try_from(from - first - 1).expect("short");
                self.entries.truncate(left);
            }
            6 => {
                let upto = first + rng.below(last - first + 1);
                log.compact(Index(upto), Some(when)).expect("compacted");
                let gone = usize::try_from(upto - first).expect("short");
                if let Some((term, _)) = self.entries.drain(..gone).next_back() {
                    self.start = LogId {
                        term,
                        index: Index(upto),
                    };
                }
            }
            7 if rng.below(4) == 0 => {
                let at = LogId {
                    term: Term(self.term().0 + rng.below(2)),
                    index: Index(first + 1 + rng.below(last - first + 5)),
                };
                log.reset(at, Some(when)).expect("reset");
                self.start = at;
                self.entries.clear();
            }
            _ => {
                let note = blob(rng, 60);
                log.set_note(note.clone(), Some(when)).expect("noted");
                self.note = note;
            }
        }
    }
}

fn blob(rng: &mut SplitMix64, most: u64) -> Bytes {
    let len = usize::try_from(rng.below(most)).expect("small");
    Bytes::from(vec![rng.below(256) as u8; len])
}

#[test]
fn any_history_with_crashes_is_a_prefix_that_holds_all_that_was_told_durable() {
    for seed in 0..60 {
        let mut rng = SplitMix64::new(seed);
        let mut disk = FaultDisk::new(FaultOptions::default());
        let mut now = Model::new();
        for life in 0..4 {
            let log = open(&disk);
            assert_eq!(Model::of(&log), now, "seed {seed}, life {life}");
            // What was there after each step, and how many steps were told durable.
            let mut steps = vec![now.clone()];
            let told = Arc::new(Mutex::new(0));
            for step in 1..=40 {
                let told = Arc::clone(&told);
                let when: WhenDurable = Box::new(move |made| {
                    if made.is_ok() {
                        let mut told = told.lock();
                        assert_eq!(*told + 1, step, "in order, each once");
                        *told = step;
                    }
                });
                now.act(&log, &mut rng, when);
                steps.push(now.clone());
                assert_eq!(Model::of(&log), now, "seed {seed}: readable at once");
            }
            let crashed = rng.below(4) > 0;
            let acked = if crashed {
                // The power goes while the log's thread works.
                let acked = *told.lock();
                disk = disk.power_loss(Survival::Drawn(seed * 7 + life));
                drop(log);
                acked
            } else {
                log.close();
                disk = disk.power_loss(Survival::Nothing);
                *told.lock()
            };
            let log = open(&disk);
            let found = Model::of(&log);
            let fits = steps.iter().rposition(|step| *step == found);
            let fits = fits.unwrap_or_else(|| panic!("seed {seed}, life {life}: {found:?}"));
            assert!(fits >= acked, "seed {seed}, life {life}: {fits} of {acked}");
            assert!(crashed || fits == 40, "closed in order");
            drop(log);
            disk = disk.process_crash();
            now = found;
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let disk = FaultDisk::new(FaultOptions::default());
    let log = open(&disk);
    let entry = |term| (Term(term), Bytes::from_static(b"x"));
    log.append(Index(1), vec![entry(2), entry(2), entry(3)], None)
        .expect("the first ones");
    log.compact(Index(1), None).expect("inside");
    let before = Model::of(&log);
    let refused = [
        log.append(Index(5), vec![entry(3)], None),
        log.append(Index(3), vec![entry(3)], None),
        log.append(Index(4), vec![entry(3), entry(2)], None),
        log.append(Index(4), vec![(Term(3), Bytes::from(vec![0; 4_001]))], None),
        log.truncate(Index(1), None),
        log.truncate(Index(9), None),
        log.compact(Index(0), None),
        log.compact(Index(4), None),
        log.reset(LogId::default(), None),
        log.set_note(Bytes::from(vec![0; 4_001]), None),
        log.read(Index(1), Index(3), 10).map(drop),
        log.term(Index(0)).map(drop),
    ];
    for (place, refused) in refused.into_iter().enumerate() {
        let error = refused.expect_err("refused");
        let kind = matches!(
            (place, &error),
            (0 | 1, EntryLogError::NotNext { .. })
                | (2, EntryLogError::TermFalls { .. })
                | (3 | 9, EntryLogError::Entry(_))
                | (4..=8 | 10 | 11, EntryLogError::Outside { .. })
        );
        assert!(kind, "{place}: {error}");
    }
    assert_eq!(Model::of(&log), before);
    let read = log.read(Index(2), Index(9), 1).expect("one at least");
    assert_eq!(read.len(), 1);
    assert!(
        log.read(Index(4), Index(9), 1)
            .expect("past the end")
            .is_empty()
    );
}

#[test]
fn a_failed_disk_is_told_to_everybody_who_waits() {
    let disk = FaultDisk::new(FaultOptions::default());
    let log = open(&disk);
    disk.inject(Fault::new(Effect::Io).forever());
    let (told, heard) = mpsc::channel();
    for i in 0..3 {
        let told = told.clone();
        let when: WhenDurable = Box::new(move |made| {
            told.send((i, made.is_ok())).expect("somebody waits");
        });
        let entry = (Term(1), Bytes::from_static(b"x"));
        if let Err(error) = log.append(Index(i + 1), vec![entry], Some(when)) {
            // It has failed before this one came.
            assert!(matches!(
                error,
                EntryLogError::Failed(_) | EntryLogError::Closed
            ));
        }
    }
    drop(told);
    let heard: Vec<(u64, bool)> = heard.iter().collect();
    assert!(!heard.is_empty());
    assert!(heard.iter().all(|(_, durable)| !durable), "{heard:?}");
    let late = log.set_note(Bytes::new(), None);
    assert!(matches!(late, Err(EntryLogError::Failed(_))), "{late:?}");
}
