//! A state of fixed size that tells whether every command was applied, and how often.

use bytes::Bytes;
use duraft::{ApplyContext, SnapshotWork, StateMachine};
use duraft_core::mix64;
use std::io::{self, Read};

const REGISTERS: usize = 1024;
/// Bytes of the state in a snapshot.
pub(super) const STATE_BYTES: u64 = (REGISTERS as u64 + 1) * 8;

/// How many commands were applied, and for each register the sum of what they say.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) applied: u64,
    sums: Vec<u64>,
}

impl Registers {
    pub(super) fn new() -> Registers {
        Registers {
            applied: 0,
            sums: vec![0; REGISTERS],
        }
    }

    /// Takes in the command of this number.
    pub(super) fn take(&mut self, number: u64) {
        let register = usize::try_from(number % REGISTERS as u64).expect("a small number");
        self.sums[register] = self.sums[register].wrapping_add(mix64(number + 1));
        self.applied += 1;
    }
}

/// The command of this number: the number, then bytes that mean nothing.
pub(super) fn command(number: u64, len: usize) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(len.max(8), 0x5A);
    bytes.into()
}

impl StateMachine for Registers {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        // Of commands that nobody proposed, the sums would tell.
        let number = command
            .first_chunk()
            .map_or(u64::MAX - 1, |b| u64::from_le_bytes(*b));
        self.take(number);
        Bytes::new()
    }

    fn snapshot(&self) -> SnapshotWork {
        let view = self.clone();
        Box::new(move |out| {
            let words = std::iter::once(view.applied).chain(view.sums);
            let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            out.write_all(&bytes)
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut word = || {
            let mut bytes = [0; 8];
            source.read_exact(&mut bytes)?;
            Ok::<u64, io::Error>(u64::from_le_bytes(bytes))
        };
        self.applied = word()?;
        self.sums = (0..REGISTERS).map(|_| word()).collect::<Result<_, _>>()?;
        Ok(())
    }
}
