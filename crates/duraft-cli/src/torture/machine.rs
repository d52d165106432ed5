//! Registers by number, and the log entries that change them.

use super::words::{Op, OpId, Request, Seen};
use bytes::Bytes;
use duraft::{ApplyContext, SnapshotWork, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

/// The replicated state: what the registers hold, and which attempts have made it so.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Registers {
    values: BTreeMap<u32, u64>,
    /// By client.
    applied: BTreeMap<u32, BTreeSet<u64>>,
    /// Attempts that were applied more than once.
    repeated: u64,
    /// Broken on purpose: snapshots are of the registers but the first, and of no attempt.
    #[serde(skip)]
    forgets: bool,
}

/// A command as it stands in the log.
pub(super) fn encode(request: &Request) -> Bytes {
    serde_json::to_vec(request)
        .expect("numbers can be written as JSON")
        .into()
}

/// What stands in the log; `None` where it is no command of ours.
pub(super) fn decode(bytes: &[u8]) -> Option<Request> {
    serde_json::from_slice(bytes).ok()
}

impl Registers {
    /// The state at the beginning.
    pub(super) fn new(forgets: bool) -> Registers {
        Registers {
            forgets,
            ..Registers::default()
        }
    }

    /// What a register holds.
    pub(super) fn value(&self, key: u32) -> Option<u64> {
        self.values.get(&key).copied()
    }

    /// Attempts that were applied more than once.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The attempts that were applied.
    pub(super) fn applied(&self) -> impl Iterator<Item = OpId> {
        let all = self.applied.iter();
        all.flat_map(|(client, numbers)| {
            let id = |number: &u64| OpId {
                client: *client,
                number: *number,
            };
            numbers.iter().map(id)
        })
    }

    /// Applies a command, and notes that it was.
    pub(super) fn take(&mut self, request: &Request) -> Seen {
        let OpId { client, number } = request.id;
        let new = self.applied.entry(client).or_default().insert(number);
        self.repeated += u64::from(!new);
        self.apply_request(request)
    }

    fn apply_request(&mut self, request: &Request) -> Seen {
        match request.op {
            // Reads leave no trace in the log; one that does is answered all the same.
            Op::Get => Seen::Value(self.value(request.key)),
            Op::Put { value } => {
                self.values.insert(request.key, value);
                Seen::Written
            }
            Op::Swap { from, to } => {
                let swapped = self.value(request.key) == from;
                if swapped {
                    self.values.insert(request.key, to);
                }
                Seen::Swapped(swapped)
            }
        }
    }
}

impl StateMachine for Registers {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let seen = decode(command).map(|request| self.take(&request));
        let text = serde_json::to_vec(&seen).expect("numbers can be written as JSON");
        text.into()
    }

    fn snapshot(&self) -> SnapshotWork {
        let mut view = self.clone();
        if self.forgets {
            view.applied.clear();
            view.values.remove(&0);
        }
        Box::new(move |out| Ok(serde_json::to_writer(out, &view)?))
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let forgets = self.forgets;
        *self = Registers {
            forgets,
            ..serde_json::from_reader(source)?
        };
        Ok(())
    }
}
