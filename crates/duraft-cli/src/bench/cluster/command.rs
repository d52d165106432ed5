//! The commands of the cluster benchmark and the state machine that remembers them.
//!
//! A command names its client and its number and fills the rest with bytes that follow from both, so
//! that every node can tell a whole command from a damaged or invented one without storing it.

use duraft_core::mix64;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// One command of one client, numbered from 0 without gaps per client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct CommandId {
    pub(crate) client: u32,
    pub(crate) seq: u64,
}

const HEADER_BYTES: usize = 16;

/// The command's bytes: identity, seed, then a stream that follows from both.
pub(crate) fn encode(id: CommandId, seed: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len.max(HEADER_BYTES) + 8);
    bytes.extend_from_slice(&id.client.to_le_bytes());
    bytes.extend_from_slice(&seed.to_le_bytes());
    bytes.extend_from_slice(&id.seq.to_le_bytes());
    let mut word = mix64(u64::from(id.client) << 32 ^ u64::from(seed) ^ id.seq.rotate_left(17));
    while bytes.len() < len {
        word = mix64(word);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len.max(HEADER_BYTES));
    bytes
}

/// Whose command these bytes are; `None` where they are not exactly what a client proposed.
pub(crate) fn decode(bytes: &[u8], seed: u32) -> Option<CommandId> {
    let client = u32::from_le_bytes(bytes.get(0..4)?.try_into().ok()?);
    let seq = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    let id = CommandId { client, seq };
    (encode(id, seed, bytes.len()) == bytes).then_some(id)
}

/// A set of command numbers that are nearly dense per client.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct CommandSet {
    clients: BTreeMap<u32, Vec<u64>>,
    len: u64,
}

impl CommandSet {
    /// Adds a command; false if it was there.
    pub(crate) fn insert(&mut self, id: CommandId) -> bool {
        let words = self.clients.entry(id.client).or_default();
        let (word, bit) = place(id.seq);
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let new = words[word] & bit == 0;
        words[word] |= bit;
        self.len += u64::from(new);
        new
    }

    /// Number of commands.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many commands of this set are not in `other`.
    pub(crate) fn missing_from(&self, other: &CommandSet) -> u64 {
        let mut missing = 0;
        for (client, words) in &self.clients {
            let there = other.clients.get(client).map_or(&[][..], Vec::as_slice);
            for (i, word) in words.iter().enumerate() {
                missing += u64::from((word & !there.get(i).copied().unwrap_or(0)).count_ones());
            }
        }
        missing
    }
}

/// A client numbers its commands from 0; nobody proposes enough to overflow an address space.
fn place(seq: u64) -> (usize, u64) {
    (
        usize::try_from(seq / 64).unwrap_or(usize::MAX - 1),
        1 << (seq % 64),
    )
}

/// What a node has applied.
#[derive(Clone, Default, Debug)]
pub(crate) struct Ledger {
    pub(crate) applied: CommandSet,
    /// Commands that nobody proposed, or that were applied a second time.
    pub(crate) wrong: u64,
}

impl Ledger {
    /// Takes one command in.
    pub(crate) fn apply(&mut self, command: &[u8], seed: u32) {
        match decode(command, seed) {
            Some(id) if self.applied.insert(id) => {}
            Some(_) | None => self.wrong += 1,
        }
    }

    /// Writes it for a snapshot: u64 wrong, then for each client u32 its id, u64 words, the words.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.wrong.to_le_bytes())?;
        for (client, words) in &self.applied.clients {
            out.write_all(&client.to_le_bytes())?;
            out.write_all(&(words.len() as u64).to_le_bytes())?;
            for word in words {
                out.write_all(&word.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Reads what [`Ledger::write`] wrote, to the end of `source`.
    pub(crate) fn read(source: &mut dyn Read) -> io::Result<Ledger> {
        let mut word = [0; 8];
        source.read_exact(&mut word)?;
        let mut ledger = Ledger {
            wrong: u64::from_le_bytes(word),
            ..Ledger::default()
        };
        let mut client = [0; 4];
        while source.read(&mut client[..1])? > 0 {
            source.read_exact(&mut client[1..])?;
            source.read_exact(&mut word)?;
            let mut words = Vec::new();
            for _ in 0..u64::from_le_bytes(word) {
                source.read_exact(&mut word)?;
                words.push(u64::from_le_bytes(word));
            }
            let set = &mut ledger.applied;
            set.len += words.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
            set.clients.insert(u32::from_le_bytes(client), words);
        }
        Ok(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_makes_a_command_nobodys() {
        let id = CommandId {
            client: 7,
            seq: 1 << 33,
        };
        let bytes = encode(id, 3, 61);
        assert_eq!(decode(&bytes, 3), Some(id));
        assert_eq!(decode(&bytes, 4), None, "another run's command");
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x10;
            assert_ne!(decode(&damaged, 3), Some(id), "byte {i}");
        }
        assert_eq!(decode(&bytes[..10], 3), None);
    }

    #[test]
    fn a_ledger_survives_a_snapshot() {
        let mut ledger = Ledger::default();
        for (client, seq) in [(1, 0), (1, 500), (9, 3)] {
            let id = CommandId { client, seq };
            ledger.apply(&encode(id, 9, 40), 9);
        }
        ledger.apply(b"nobody's", 9);
        let mut bytes = Vec::new();
        ledger.write(&mut bytes).unwrap();
        let read = Ledger::read(&mut &bytes[..]).unwrap();
        assert_eq!(read.applied, ledger.applied);
        assert_eq!(read.wrong, 1);
        Ledger::read(&mut &bytes[..bytes.len() - 1]).unwrap_err();
    }

    #[test]
    fn a_ledger_counts_what_is_missing_and_what_is_wrong() {
        let id = |client, seq| CommandId { client, seq };
        let mut acknowledged = CommandSet::default();
        let mut ledger = Ledger::default();
        for seq in 0..200 {
            acknowledged.insert(id(1, seq));
            if seq != 77 {
                ledger.apply(&encode(id(1, seq), 9, 40), 9);
            }
        }
        assert_eq!(acknowledged.missing_from(&ledger.applied), 1);
        assert_eq!(ledger.wrong, 0);
        ledger.apply(&encode(id(1, 5), 9, 40), 9);
        assert_eq!(ledger.wrong, 1, "applied twice");
        ledger.apply(b"something else entirely", 9);
        assert_eq!(ledger.wrong, 2, "never proposed");
        acknowledged.insert(id(2, 0));
        assert_eq!(
            acknowledged.missing_from(&ledger.applied),
            2,
            "a client without any commands"
        );
    }
}
