//! What stands between the applier and the workload's state machine: remembers every command and what
//! was answered to it, in the replicated state itself, so that the history can be held against it.

use crate::host::Shared;
use crate::workload::Machine;
use bytes::Bytes;
use duraft::{ApplyContext, SnapshotWork, StateMachine};
use duraft_core::{Index, LogId, Term, mix64};
use std::io::{self, Read};

/// A command that was applied: its place in the log, its number, and a digest of its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) log_id: LogId,
    pub(crate) number: u64,
    pub(crate) answer: u64,
}

/// See the module documentation. Its answer to a command is the command's number, its place among all
/// that were applied, and what the state machine answers.
pub(crate) struct Recorder {
    entries: Shared<Vec<Entry>>,
    machine: Box<dyn Machine>,
}

/// Bytes of an entry in a snapshot.
const ENTRY_BYTES: usize = 32;

impl Recorder {
    pub(crate) fn new(entries: Shared<Vec<Entry>>, machine: Box<dyn Machine>) -> Recorder {
        Recorder { entries, machine }
    }

    /// Number of commands applied.
    pub(crate) fn len(&self) -> u64 {
        self.entries.lock().len() as u64
    }

    pub(crate) fn query(&self, query: &[u8]) -> Bytes {
        self.machine.query(query)
    }
}

/// The place among all applied commands that an answer names, counted from 0, and what the state
/// machine answered.
pub(crate) fn taken_apart(response: &Bytes) -> Option<(u64, Bytes)> {
    let place = response.get(8..)?.first_chunk::<8>()?;
    Some((u64::from_le_bytes(*place), response.slice(16..)))
}

/// A command as it is proposed.
pub(crate) fn numbered(number: u64, command: &[u8], padding: usize) -> Bytes {
    let len = u32::try_from(command.len()).expect("commands are small");
    let padding = vec![0; padding];
    Bytes::from(
        [
            &number.to_le_bytes()[..],
            &len.to_le_bytes(),
            command,
            &padding,
        ]
        .concat(),
    )
}

/// The command in the bytes that [`numbered`] made.
fn command_in(bytes: &[u8]) -> &[u8] {
    let len = bytes.get(8..).and_then(<[u8]>::first_chunk::<4>);
    let len = len.map_or(0, |len| u32::from_le_bytes(*len));
    let rest = bytes.get(12..).unwrap_or_default();
    rest.get(..usize::try_from(len).unwrap_or(0))
        .unwrap_or_default()
}

impl StateMachine for Recorder {
    fn apply(&mut self, context: ApplyContext, bytes: &[u8]) -> Bytes {
        let answer = self.machine.apply(context, command_in(bytes));
        let mut entries = self.entries.lock();
        let number = word(bytes);
        let place = entries.len() as u64;
        entries.push(Entry {
            log_id: context.log_id,
            number,
            answer: digest(&answer),
        });
        Bytes::from([&number.to_le_bytes()[..], &place.to_le_bytes(), &answer].concat())
    }

    fn snapshot(&self) -> SnapshotWork {
        let entries = self.entries.lock().clone();
        let machine = self.machine.snapshot();
        Box::new(move |out| {
            out.write_all(&(entries.len() as u64).to_le_bytes())?;
            for entry in entries {
                let Entry {
                    log_id,
                    number,
                    answer,
                } = entry;
                for word in [log_id.term.0, log_id.index.0, number, answer] {
                    out.write_all(&word.to_le_bytes())?;
                }
            }
            machine(out)
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut count = [0; 8];
        source.read_exact(&mut count)?;
        let mut entries = Vec::new();
        for _ in 0..u64::from_le_bytes(count) {
            let mut bytes = [0; ENTRY_BYTES];
            source.read_exact(&mut bytes)?;
            entries.push(Entry {
                log_id: LogId {
                    term: Term(word(&bytes)),
                    index: Index(word(&bytes[8..])),
                },
                number: word(&bytes[16..]),
                answer: word(&bytes[24..]),
            });
        }
        *self.entries.lock() = entries;
        self.machine.restore(source)
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk::<8>()
        .map_or(u64::MAX, |b| u64::from_le_bytes(*b))
}

fn digest(bytes: &[u8]) -> u64 {
    let begin = bytes.len() as u64;
    let fold = |sum: u64, byte: &u8| mix64(sum ^ u64::from(*byte));
    bytes.iter().fold(begin, fold)
}
