//! raft-engine: `write` with `sync`. It orders nothing within a group, so that each appender has a group of
//! its own, which is what it is made for: one log of many groups with shared syncs. It cuts a tail by
//! overwriting it. Once with its defaults and once with log files that are filled before, a setting of its.

use super::Log;
use crate::Result;
use raft::eraftpb::Entry;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};
use std::path::Path;

pub(crate) struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Log>> {
    let config = Config {
        dir: dir.display().to_string(),
        ..Config::default()
    };
    Ok(Box::new(Engine::open(config)?))
}

pub(super) fn open_prefilled(dir: &Path) -> Result<Box<dyn Log>> {
    let config = Config {
        dir: dir.display().to_string(),
        target_file_size: ReadableSize::mb(32),
        prefill_for_recycle: true,
        prefill_limit: Some(ReadableSize::mb(256)),
        ..Config::default()
    };
    Ok(Box::new(Engine::open(config)?))
}

fn group(appender: u64) -> u64 {
    appender + 1
}

impl Log for Engine {
    fn append(&self, appender: u64, batch: &[&[u8]]) -> Result<()> {
        let next = self.last_index(group(appender)).map_or(1, |last| last + 1);
        let entries = batch.iter().zip(next..).map(|(data, index)| Entry {
            index,
            term: 1,
            data: data.to_vec().into(),
            ..Entry::default()
        });
        let mut write = LogBatch::default();
        write.add_entries::<Entries>(group(appender), &entries.collect::<Vec<_>>())?;
        self.write(&mut write, true)?;
        Ok(())
    }

    fn bounds(&self) -> Result<(u64, u64)> {
        let first = self.first_index(group(0)).ok_or("an empty log")?;
        Ok((first, self.last_index(group(0)).ok_or("an empty log")?))
    }

    fn read(&self, first: u64, last: u64) -> Result<u64> {
        let mut bytes = 0;
        for next in (first..=last).step_by(4096) {
            let mut entries = Vec::new();
            let end = (next + 4096).min(last + 1);
            self.fetch_entries_to::<Entries>(group(0), next, end, None, &mut entries)?;
            bytes += entries
                .iter()
                .map(|entry| entry.data.len() as u64)
                .sum::<u64>();
        }
        Ok(bytes)
    }

    fn truncate(&self, from: u64) -> Result<()> {
        let entry = Entry {
            index: from,
            term: 2,
            ..Entry::default()
        };
        let mut write = LogBatch::default();
        write.add_entries::<Entries>(group(0), &[entry])?;
        self.write(&mut write, true)?;
        Ok(())
    }

    fn purge(&self, upto: u64) -> Result<()> {
        let mut write = LogBatch::default();
        write.add_command(group(0), Command::Compact { index: upto + 1 });
        self.write(&mut write, true)?;
        self.purge_expired_files()?;
        Ok(())
    }
}
