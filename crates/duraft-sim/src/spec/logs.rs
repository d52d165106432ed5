//! Logs by name: a log is the entry it ends with, and the log before that.

use std::collections::HashMap;

/// The name of a log. Two logs are equal if their names are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Log(u32);

/// One entry, which stands for a batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Entry {
    /// The index the batch ends with.
    pub last: u64,
    /// Its term.
    pub term: u64,
    /// What is in it, as far as it matters here: equal payloads are equal batches.
    pub payload: u64,
}

/// All logs that there ever were.
#[derive(Clone, Debug)]
pub struct Logs {
    /// Each log's last entry and the log before it. The empty log is the first.
    items: Vec<(Log, Entry)>,
    names: HashMap<(Log, Entry), Log>,
}

impl Default for Logs {
    fn default() -> Self {
        let nothing = Entry {
            last: 0,
            term: 0,
            payload: 0,
        };
        Logs {
            items: vec![(Log::EMPTY, nothing)],
            names: HashMap::new(),
        }
    }
}

impl Log {
    /// The log without entries.
    pub const EMPTY: Log = Log(0);
}

impl Logs {
    /// The log with one more entry.
    pub fn extend(&mut self, log: Log, entry: Entry) -> Log {
        let next = u32::try_from(self.items.len()).expect("fewer than 2^32 logs");
        *self.names.entry((log, entry)).or_insert_with(|| {
            self.items.push((log, entry));
            Log(next)
        })
    }

    /// The entry it ends with; one of index and term 0 for the empty log.
    pub fn last(&self, log: Log) -> Entry {
        self.items[log.0 as usize].1
    }

    /// The log before its last entry.
    pub fn parent(&self, log: Log) -> Log {
        self.items[log.0 as usize].0
    }

    /// The index it ends with.
    pub fn len(&self, log: Log) -> u64 {
        self.last(log).last
    }

    /// What of the log ends at or before this index.
    pub fn prefix(&self, log: Log, upto: u64) -> Log {
        let mut log = log;
        while self.len(log) > upto {
            log = self.parent(log);
        }
        log
    }

    /// Does the longer log begin with the shorter one?
    pub fn is_prefix(&self, shorter: Log, longer: Log) -> bool {
        self.prefix(longer, self.len(shorter)) == shorter
    }

    /// The log on the way from `log` to a longer one that has one entry more.
    pub fn next(&self, log: Log, longer: Log) -> Option<Log> {
        let mut at = longer;
        while self.len(at) > self.len(log) {
            if self.parent(at) == log {
                return Some(at);
            }
            at = self.parent(at);
        }
        None
    }

    /// The longest log that both begin with.
    pub fn common(&self, a: Log, b: Log) -> Log {
        let (mut a, mut b) = (a, b);
        while a != b {
            if self.len(a) >= self.len(b) {
                a = self.parent(a);
            } else {
                b = self.parent(b);
            }
        }
        a
    }

    /// A leader's entries taken over into a log: what is the same stays, what contradicts is cut.
    pub fn merge(&self, theirs: Log, ours: Log) -> Log {
        if self.is_prefix(theirs, ours) {
            ours
        } else {
            theirs
        }
    }

    /// The entries, first to last.
    pub fn entries(&self, log: Log) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut at = log;
        while at != Log::EMPTY {
            entries.push(self.last(at));
            at = self.parent(at);
        }
        entries.reverse();
        entries
    }
}
