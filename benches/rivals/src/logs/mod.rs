//! The logs, each behind one small trait, in the settings that its own documentation calls durable.

mod duraft;
mod fjall;
mod raft_engine;
mod raft_log;
mod raw;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
pub(crate) mod workloads;

pub(crate) use raft_engine::Entries;

use crate::Result;
use std::path::Path;

/// A log of entries with indices from 1 on.
pub(crate) trait Log: Send + Sync {
    /// Appends entries behind the last one. Durable when it returns. Any thread may call it, each with
    /// its own number.
    fn append(&self, appender: u64, batch: &[&[u8]]) -> Result<()>;
    /// First and last index of what the first appender wrote.
    fn bounds(&self) -> Result<(u64, u64)>;
    /// Bytes of the entries from `first` to `last`, each read in full.
    fn read(&self, first: u64, last: u64) -> Result<u64>;
    /// Cuts off `from` and what follows. Durable when it returns.
    fn truncate(&self, from: u64) -> Result<()>;
    /// Forgets everything up to `upto`. Durable when it returns.
    fn purge(&self, upto: u64) -> Result<()>;
}

/// What a rival can do, beside appending alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// Everything.
    All,
    /// It is no Raft log: its tail cannot be cut.
    NoTruncate,
    /// It writes and syncs, and that is all.
    AppendAlone,
}

/// A log with a name.
pub(crate) struct Rival {
    pub(crate) name: &'static str,
    pub(crate) does: Does,
    pub(crate) open: fn(&Path) -> Result<Box<dyn Log>>,
}

/// All of them.
pub(crate) const RIVALS: &[Rival] = &[
    Rival {
        name: "raw",
        does: Does::AppendAlone,
        open: raw::open,
    },
    Rival {
        name: "duraft",
        does: Does::NoTruncate,
        open: duraft::open_group_log,
    },
    Rival {
        name: "duraft-entries",
        does: Does::All,
        open: duraft::open_entry_log,
    },
    Rival {
        name: "raft-engine",
        does: Does::All,
        open: raft_engine::open,
    },
    Rival {
        name: "raft-engine-prefilled",
        does: Does::All,
        open: raft_engine::open_prefilled,
    },
    Rival {
        name: "raft-log",
        does: Does::All,
        open: raft_log::open,
    },
    Rival {
        name: "raft-log-no-wait",
        does: Does::All,
        open: raft_log::open_no_wait,
    },
    #[cfg(feature = "rocksdb")]
    Rival {
        name: "rocksdb",
        does: Does::All,
        open: rocksdb::open,
    },
    Rival {
        name: "redb",
        does: Does::All,
        open: redb::open,
    },
    Rival {
        name: "fjall",
        does: Does::All,
        open: fjall::open,
    },
];

/// What is asked of a log that does not do it.
fn not_done() -> Box<dyn std::error::Error + Send + Sync> {
    "this log does not do that".into()
}
