//! Registers by number, and the log entries that change them.

use super::words::{Op, Request, Seen};
use bytes::Bytes;
use duraft::{ApplyContext, SnapshotWork, StateMachine};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// The replicated state.
#[derive(Clone, Default)]
pub(super) struct Registers(pub(super) BTreeMap<u32, u64>);

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
    fn apply_request(&mut self, request: &Request) -> Seen {
        match request.op {
            // Reads leave no trace in the log; one that does is answered all the same.
            Op::Get => Seen::Value(self.0.get(&request.key).copied()),
            Op::Put { value } => {
                self.0.insert(request.key, value);
                Seen::Written
            }
            Op::Swap { from, to } => {
                let swapped = self.0.get(&request.key).copied() == from;
                if swapped {
                    self.0.insert(request.key, to);
                }
                Seen::Swapped(swapped)
            }
        }
    }
}

impl StateMachine for Registers {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let seen = decode(command).map(|request| self.apply_request(&request));
        let text = serde_json::to_vec(&seen).expect("numbers can be written as JSON");
        text.into()
    }

    fn snapshot(&self) -> SnapshotWork {
        let view = self.clone();
        Box::new(move |out| {
            for (key, value) in view.0 {
                out.write_all(&key.to_le_bytes())?;
                out.write_all(&value.to_le_bytes())?;
            }
            Ok(())
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        let (entries, rest) = bytes.as_chunks::<12>();
        if !rest.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.0.clear();
        for entry in entries {
            let (key, value) = entry.split_at(4);
            let key = key.first_chunk().map(|k| u32::from_le_bytes(*k));
            let value = value.first_chunk().map(|v| u64::from_le_bytes(*v));
            self.0.extend(key.zip(value));
        }
        Ok(())
    }
}
