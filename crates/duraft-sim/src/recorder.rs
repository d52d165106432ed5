//! The state machine of simulated nodes: its state is the sequence of all commands it applied.

use crate::host::Shared;
use bytes::Bytes;
use duraft::{ApplyContext, SnapshotWork, StateMachine};
use duraft_core::{Index, LogId, Term};
use std::io::{self, Read};

/// A command's place in the log and the number in its first eight bytes.
pub(crate) type Entry = (LogId, u64);

/// Remembers commands. Its answer to one is the command's number and its place among all that were
/// applied, so that an answer given twice is known by its bytes.
pub(crate) struct Recorder(pub(crate) Shared<Vec<Entry>>);

impl Recorder {
    /// Number of commands applied.
    pub(crate) fn len(&self) -> u64 {
        self.0.lock().len() as u64
    }
}

/// The place among all applied commands that an answer names, counted from 0.
pub(crate) fn place_in(response: &[u8]) -> Option<u64> {
    let (_, place) = response.split_at_checked(8)?;
    place.first_chunk::<8>().map(|b| u64::from_le_bytes(*b))
}

impl StateMachine for Recorder {
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes {
        let mut entries = self.0.lock();
        let number = word(command);
        let place = entries.len() as u64;
        entries.push((context.log_id, number));
        Bytes::from([number.to_le_bytes(), place.to_le_bytes()].concat())
    }

    fn snapshot(&self) -> SnapshotWork {
        let entries = self.0.lock().clone();
        Box::new(move |out| {
            for (log_id, number) in entries {
                for word in [log_id.term.0, log_id.index.0, number] {
                    out.write_all(&word.to_le_bytes())?;
                }
            }
            Ok(())
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        let entry = |b: &[u8]| {
            let log_id = LogId {
                term: Term(word(b)),
                index: Index(word(&b[8..])),
            };
            (log_id, word(&b[16..]))
        };
        *self.0.lock() = bytes.chunks_exact(24).map(entry).collect();
        Ok(())
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk::<8>()
        .map_or(u64::MAX, |b| u64::from_le_bytes(*b))
}
