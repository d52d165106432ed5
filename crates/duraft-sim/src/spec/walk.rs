//! A walk through all states of a specification, breadth first, and its graph in words.

use duraft_core::mix64;
use std::collections::{BTreeSet, HashSet};

/// A specification within bounds.
pub trait Walk {
    /// A state of the whole.
    type State;

    /// Where it begins.
    fn initial(&self) -> Self::State;

    /// What each possible action leads to, with its name.
    fn successors(&mut self, state: &Self::State) -> Vec<(&'static str, Self::State)>;

    /// A number by which equal states are known; those that differ only in names may be equal.
    fn key(&self, state: &Self::State) -> u128;

    /// The name of an invariant that does not hold, if there is one.
    fn broken_invariant(&self, state: &Self::State) -> Option<&'static str>;

    /// A state in words that TLC's dump can be brought into too.
    fn describe(&self, state: &Self::State) -> String;

    /// Walks all states: how many there are by their keys, or the first one that breaks an invariant,
    /// and which.
    fn exhaust(&mut self) -> Result<usize, String> {
        let mut frontier = vec![self.initial()];
        let mut seen: HashSet<u128> = HashSet::from([self.key(&frontier[0])]);
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for state in &frontier {
                for (name, after) in self.successors(state) {
                    if !seen.insert(self.key(&after)) {
                        continue;
                    }
                    if let Some(broken) = self.broken_invariant(&after) {
                        return Err(format!("{broken} after {name}: {}", self.describe(&after)));
                    }
                    next.push(after);
                }
            }
            frontier = next;
        }
        Ok(seen.len())
    }

    /// All states and edges in words, in no order: what is compared with TLC.
    fn graph(&mut self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut states, mut edges) = (BTreeSet::new(), BTreeSet::new());
        let mut frontier = vec![self.initial()];
        states.insert(self.describe(&frontier[0]));
        while let Some(state) = frontier.pop() {
            let from = self.describe(&state);
            for (name, after) in self.successors(&state) {
                let to = self.describe(&after);
                edges.insert(format!("{from} {name} {to}"));
                if states.insert(to) {
                    frontier.push(after);
                }
            }
        }
        (states, edges)
    }

    /// Numbers of states and edges, each with the sum over its words.
    fn pins(&mut self) -> [(usize, u64); 2] {
        let (states, edges) = self.graph();
        [&states, &edges].map(|lines| (lines.len(), sum_of(lines)))
    }
}

/// FNV-1a over all lines, added up: a number for a set.
pub fn sum_of<'a>(lines: impl IntoIterator<Item = &'a String>) -> u64 {
    let fnv = |line: &String| {
        let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        line.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
    };
    lines.into_iter().map(fnv).fold(0, u64::wrapping_add)
}

/// Two different 64-bit hashes of a value.
pub(crate) fn hash128(value: &impl std::hash::Hash) -> u128 {
    let mut hasher = Twice(0x6475_7261, 0x6674_3032);
    value.hash(&mut hasher);
    u128::from(hasher.0) << 64 | u128::from(hasher.1)
}

/// A hasher of 128 bits.
#[derive(Default)]
pub(crate) struct Twice(u64, u64);

impl std::hash::Hasher for Twice {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix64(self.0 ^ word);
        self.1 = mix64(self.1.rotate_left(29) ^ word ^ 0x9E37_79B9_7F4A_7C15);
    }
}
