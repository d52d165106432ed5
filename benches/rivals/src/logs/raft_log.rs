//! raft-log: `flush` with `sync`, and its callback waited for. Its flush worker waits for a millisecond for
//! more to come, by default; once as it is and once without that.

use super::Log;
use crate::Result;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Config, RaftLog, Types};
use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Plain;

impl Types for Plain {
    type LogId = (u64, u64);
    type LogPayload = Vec<u8>;
    type Vote = (u64, u64);
    type UserData = String;
    type Callback = SyncSender<io::Result<()>>;

    fn log_index(id: &(u64, u64)) -> u64 {
        id.1
    }

    fn payload_size(payload: &Vec<u8>) -> u64 {
        payload.len() as u64
    }
}

struct Shared(Mutex<RaftLog<Plain>>);

pub(super) fn open(dir: &Path) -> Result<Box<dyn Log>> {
    open_with(Config::new(dir.display()))
}

pub(super) fn open_no_wait(dir: &Path) -> Result<Box<dyn Log>> {
    let mut config = Config::new(dir.display());
    config.wal.flush_batch_wait = Some(Duration::ZERO);
    open_with(config)
}

fn open_with(config: Config) -> Result<Box<dyn Log>> {
    let log = RaftLog::open(Arc::new(config))?;
    Ok(Box::new(Shared(Mutex::new(log))))
}

impl Shared {
    /// Makes a change and waits, without the lock, until it is durable.
    fn durably(&self, change: impl FnOnce(&mut RaftLog<Plain>) -> io::Result<()>) -> Result<()> {
        let (told, heard) = sync_channel(1);
        let mut log = self.0.lock().expect("no panic");
        change(&mut log)?;
        log.flush(true, Some(told))?;
        drop(log);
        Ok(heard.recv()??)
    }
}

impl Log for Shared {
    fn append(&self, _appender: u64, batch: &[&[u8]]) -> Result<()> {
        let payloads: Vec<Vec<u8>> = batch.iter().map(|entry| entry.to_vec()).collect();
        self.durably(|log| {
            let next = log.log_state().last().map_or(1, |last| last.1 + 1);
            let entries = payloads.into_iter().zip(next..);
            log.append(entries.map(|(payload, index)| ((1, index), payload)))?;
            Ok(())
        })
    }

    fn bounds(&self) -> Result<(u64, u64)> {
        let log = self.0.lock().expect("no panic");
        let first = log.log_state().purged().map_or(1, |purged| purged.1 + 1);
        Ok((first, log.log_state().last().ok_or("an empty log")?.1))
    }

    fn read(&self, first: u64, last: u64) -> Result<u64> {
        let log = self.0.lock().expect("no panic");
        let mut bytes = 0;
        for entry in log.read(first, last + 1) {
            bytes += entry?.1.len() as u64;
        }
        Ok(bytes)
    }

    fn truncate(&self, from: u64) -> Result<()> {
        self.durably(|log| log.truncate(from).map(drop))
    }

    fn purge(&self, upto: u64) -> Result<()> {
        self.durably(|log| log.purge((1, upto)).map(drop))
    }
}
