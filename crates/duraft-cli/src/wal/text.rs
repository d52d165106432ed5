//! How the tools for stores write numbers, places and bytes.

use duraft_core::{Membership, NodeId};
use serde::Serialize;

/// Bytes in the largest unit that leaves at least one before the point.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        let one = 1u64 << shift;
        if count >= one {
            return if count.is_multiple_of(one) {
                format!("{} {unit}", count >> shift)
            } else {
                format!("{:.1} {unit}", ratio(count, one))
            };
        }
    }
    format!("{count} B")
}

/// One number over another, for people.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn ratio(above: u64, below: u64) -> f64 {
    if below == 0 {
        return 0.0;
    }
    above as f64 / below as f64
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let pairs = bytes
        .iter()
        .map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    pairs.flatten().collect()
}

/// Bytes as text where they are, escaped where they are not, cut after `most`.
pub(crate) fn shown(bytes: &[u8], most: usize) -> String {
    if bytes.len() <= most {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    format!(
        "\"{}\" and {} more bytes",
        bytes[..most].escape_ascii(),
        bytes.len() - most
    )
}

pub(crate) fn list(numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    if numbers.is_empty() {
        String::from("none")
    } else {
        numbers.join(", ")
    }
}

fn ids(nodes: impl Iterator<Item = NodeId>) -> Vec<u64> {
    nodes.map(|id| id.0).collect()
}

/// A membership as JSON and as words.
#[derive(Serialize)]
pub(crate) struct Members {
    pub(crate) voters: Vec<u64>,
    /// Voters of the configuration that is being left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outgoing: Vec<u64>,
    pub(crate) learners: Vec<u64>,
}

impl Members {
    pub(crate) fn of(membership: &Membership) -> Members {
        Members {
            voters: ids(membership.incoming()),
            outgoing: ids(membership.outgoing()),
            learners: ids(membership.learners()),
        }
    }
}

impl std::fmt::Display for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "voters {}", list(&self.voters))?;
        if !self.outgoing.is_empty() {
            write!(f, " (joint with {})", list(&self.outgoing))?;
        }
        if !self.learners.is_empty() {
            write!(f, ", learners {}", list(&self.learners))?;
        }
        Ok(())
    }
}

/// How many values fell into each power of two.
#[derive(Clone)]
pub(crate) struct Powers {
    counts: [u64; 64],
    pub(crate) total: u64,
    pub(crate) sum: u64,
    pub(crate) max: u64,
}

/// Values from `from` to `to`, both included.
#[derive(Serialize)]
pub(crate) struct Bucket {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) count: u64,
}

impl Default for Powers {
    fn default() -> Powers {
        Powers {
            counts: [0; 64],
            total: 0,
            sum: 0,
            max: 0,
        }
    }
}

impl Powers {
    pub(crate) fn add(&mut self, value: u64) {
        let place = value.checked_ilog2().unwrap_or(0) as usize;
        self.counts[place] += 1;
        self.total += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// From the first bucket that holds something to the last one.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        let held = |count: &u64| *count > 0;
        let Some(first) = self.counts.iter().position(held) else {
            return Vec::new();
        };
        let last = self.counts.iter().rposition(held).unwrap_or(first);
        let bucket = |place: usize| Bucket {
            from: if place == 0 { 0 } else { 1 << place },
            to: (1u64 << place).wrapping_mul(2).wrapping_sub(1),
            count: self.counts[place],
        };
        (first..=last).map(bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_are_written_as_people_read_them() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(16 << 20), "16 MiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(hex(&[0, 0x9f, 0xff]), "009fff");
        assert_eq!(shown(b"a\"b\n", 9), r#""a\"b\n""#);
        assert_eq!(shown(b"abcdef", 4), "\"abcd\" and 2 more bytes");
        assert_eq!(list(&[]), "none");
    }

    #[test]
    fn every_value_has_one_bucket() {
        let mut powers = Powers::default();
        for value in [0, 1, 2, 3, 4, 7, 8, u64::MAX] {
            powers.add(value);
        }
        let buckets = powers.buckets();
        let counts: Vec<_> = buckets
            .iter()
            .take(4)
            .map(|b| (b.from, b.to, b.count))
            .collect();
        assert_eq!(counts, [(0, 1, 2), (2, 3, 2), (4, 7, 2), (8, 15, 1)]);
        let last = buckets.last().expect("a bucket");
        assert_eq!((last.from, last.to, last.count), (1 << 63, u64::MAX, 1));
        assert_eq!(powers.total, buckets.iter().map(|b| b.count).sum::<u64>());
        assert!(Powers::default().buckets().is_empty());
    }
}
