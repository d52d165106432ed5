//! Names in a group's folder of snapshots.

use duraft_core::{Index, LogId, Snapshot, Term};
use std::fmt;

/// What a file in the folder is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SnapshotFileKind {
    /// Written and synced as a whole before it got this name.
    Whole,
    /// Being written, or left by a crash; worth nothing.
    Temporary,
    /// Being received, or left by a crash or a broken connection; can be resumed.
    Partial,
}

/// The name of a file: `<index>-<term>-<nonce>.snap`, 16 hexadecimal digits each, followed by `.tmp`
/// while it is written and `.part` while it is received. Ordered by index first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotName {
    /// Index of the last entry that the snapshot covers.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Drawn when the snapshot was made.
    pub nonce: u64,
    /// What the file is.
    pub kind: SnapshotFileKind,
}

impl SnapshotName {
    /// The name of this snapshot's whole file.
    pub fn of(snapshot: &Snapshot) -> SnapshotName {
        SnapshotName::new(snapshot.position.id, snapshot.file.nonce)
    }

    pub(super) fn new(id: LogId, nonce: u64) -> SnapshotName {
        SnapshotName {
            index: id.index,
            term: id.term,
            nonce,
            kind: SnapshotFileKind::Whole,
        }
    }

    pub(super) fn as_kind(self, kind: SnapshotFileKind) -> SnapshotName {
        SnapshotName { kind, ..self }
    }

    /// Reads a name that this type writes, and nothing else.
    pub fn parse(name: &str) -> Option<SnapshotName> {
        let (stem, kind) = if let Some(stem) = name.strip_suffix(".snap") {
            (stem, SnapshotFileKind::Whole)
        } else if let Some(stem) = name.strip_suffix(".snap.tmp") {
            (stem, SnapshotFileKind::Temporary)
        } else {
            let stem = name.strip_suffix(".snap.part")?;
            (stem, SnapshotFileKind::Partial)
        };
        let mut numbers = stem.split('-').map(parse_number);
        let parsed = SnapshotName {
            index: Index(numbers.next()??),
            term: Term(numbers.next()??),
            nonce: numbers.next()??,
            kind,
        };
        numbers.next().is_none().then_some(parsed)
    }
}

fn parse_number(digits: &str) -> Option<u64> {
    let proper = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if digits.len() != 16 || !digits.bytes().all(proper) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SnapshotName { index, term, .. } = self;
        write!(f, "{:016x}-{:016x}-{:016x}", index.0, term.0, self.nonce)?;
        f.write_str(match self.kind {
            SnapshotFileKind::Whole => ".snap",
            SnapshotFileKind::Temporary => ".snap.tmp",
            SnapshotFileKind::Partial => ".snap.part",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_strangers_do_not() {
        // A stranger's file that reads as a name would be removed at the next start.
        let id = LogId {
            index: Index(0x12),
            term: Term(3),
        };
        let whole = SnapshotName::new(id, u64::MAX);
        let text = "0000000000000012-0000000000000003-ffffffffffffffff.snap";
        assert_eq!(whole.to_string(), text);
        for kind in [
            SnapshotFileKind::Whole,
            SnapshotFileKind::Temporary,
            SnapshotFileKind::Partial,
        ] {
            let name = whole.as_kind(kind);
            assert_eq!(SnapshotName::parse(&name.to_string()), Some(name));
        }
        for stranger in [
            "",
            ".snap",
            "notes.txt",
            "0000000000000012-0000000000000003.snap",
            "0000000000000012-0000000000000003-fffffffffffffff.snap",
            "0000000000000012-0000000000000003-FFFFFFFFFFFFFFFF.snap",
            "0000000000000012-0000000000000003-+fffffffffffffff.snap",
            "0000000000000012-0000000000000003-ffffffffffffffff-0000000000000000.snap",
            "0000000000000012-0000000000000003-ffffffffffffffff.snap.old",
        ] {
            assert_eq!(SnapshotName::parse(stranger), None, "{stranger}");
        }
    }
}
