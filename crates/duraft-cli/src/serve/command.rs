//! What stands in the log: entries of one or more operations, encoded once by the node that proposes
//! them and read the same way by every node.
//!
//! ```text
//! entry     = version (1 byte, 1) operation*
//! operation = kind (1 byte) field*
//! bytes     = length (4 bytes) content      number = 8 bytes      all little-endian
//! ```
//!
//! Reads ride along in an entry where a client mixed them with writes in one go, so that each sees
//! what stands before it. Everything that decides an answer is in the entry itself, the limit that an
//! APPEND must keep included: a node with another configuration gives the same answer.

use bytes::{BufMut, Bytes, BytesMut};

/// First byte of every entry.
const VERSION: u8 = 1;
/// Number stored with each batch of the log.
pub(crate) const CODEC: u16 = 1;

/// A condition on what a key holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When<B> {
    /// None.
    Always,
    /// The key must not exist.
    Absent,
    /// The key must exist.
    Present,
    /// The key must hold exactly this.
    Equal(B),
}

/// A read of the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Look<B> {
    Get(B),
    MGet(Vec<B>),
    Exists(Vec<B>),
    Strlen(B),
    Type(B),
    Scan {
        cursor: u64,
        count: usize,
        pattern: Option<B>,
    },
    Size,
}

/// A change of the state, or a read that rides along.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Op<B> {
    Set {
        key: B,
        value: B,
        when: When<B>,
        /// Answer with the value before.
        get: bool,
    },
    /// As SET NX, answered with 1 or 0.
    SetNx {
        key: B,
        value: B,
    },
    MSet(Vec<(B, B)>),
    Del(Vec<B>),
    GetDel(B),
    Incr {
        key: B,
        by: i64,
    },
    Append {
        key: B,
        value: B,
        /// The result may not become longer.
        max: u64,
    },
    /// Answers 1 where it swapped, 0 where the key holds something else, -1 where there is none.
    Cas {
        key: B,
        expected: B,
        new: B,
    },
    Get(B),
    Exists(B),
    Strlen(B),
    /// Where a node of the cluster can be reached; the text is JSON.
    Member {
        id: u64,
        text: B,
    },
}

/// An entry cannot be read: it was written by a version that this one does not know, or by nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the entry cannot be read at byte {at}")]
pub(crate) struct BadEntry {
    at: usize,
}

mod kind {
    pub(super) const SET: u8 = 1;
    pub(super) const MSET: u8 = 2;
    pub(super) const DEL: u8 = 3;
    pub(super) const GETDEL: u8 = 4;
    pub(super) const INCR: u8 = 5;
    pub(super) const APPEND: u8 = 6;
    pub(super) const CAS: u8 = 7;
    pub(super) const GET: u8 = 8;
    pub(super) const EXISTS: u8 = 9;
    pub(super) const STRLEN: u8 = 10;
    pub(super) const MEMBER: u8 = 11;
    pub(super) const SETNX: u8 = 12;
}

impl<B: AsRef<[u8]>> Op<B> {
    /// Bytes of it in an entry, or a little more.
    pub(crate) fn cost(&self) -> usize {
        let len = |b: &B| 4 + b.as_ref().len();
        16 + match self {
            Op::Set {
                key, value, when, ..
            } => {
                let when = match when {
                    When::Equal(value) => len(value),
                    When::Always | When::Absent | When::Present => 0,
                };
                len(key) + len(value) + when
            }
            Op::MSet(pairs) => pairs.iter().map(|(k, v)| len(k) + len(v)).sum(),
            Op::Del(keys) => keys.iter().map(len).sum(),
            Op::SetNx { key, value } => len(key) + len(value),
            Op::Append { key, value, .. } => 8 + len(key) + len(value),
            Op::Cas { key, expected, new } => len(key) + len(expected) + len(new),
            Op::GetDel(key)
            | Op::Incr { key, .. }
            | Op::Get(key)
            | Op::Exists(key)
            | Op::Strlen(key) => 8 + len(key),
            Op::Member { text, .. } => 8 + len(text),
        }
    }

    /// The first key it is about; empty where there is none.
    pub(crate) fn first_key(&self) -> &[u8] {
        match self {
            Op::Set { key, .. }
            | Op::SetNx { key, .. }
            | Op::Incr { key, .. }
            | Op::Append { key, .. }
            | Op::Cas { key, .. }
            | Op::GetDel(key)
            | Op::Get(key)
            | Op::Exists(key)
            | Op::Strlen(key) => key.as_ref(),
            Op::MSet(pairs) => pairs.first().map_or(&[], |(key, _)| key.as_ref()),
            Op::Del(keys) => keys.first().map_or(&[], AsRef::as_ref),
            Op::Member { .. } => &[],
        }
    }

    /// May the answer be as long as a value?
    pub(crate) fn tells_value(&self) -> bool {
        match self {
            Op::Set { get, .. } => *get,
            Op::Get(_) | Op::GetDel(_) => true,
            Op::SetNx { .. }
            | Op::MSet(_)
            | Op::Del(_)
            | Op::Incr { .. }
            | Op::Append { .. }
            | Op::Cas { .. }
            | Op::Exists(_)
            | Op::Strlen(_)
            | Op::Member { .. } => false,
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Op::Set {
                key,
                value,
                when,
                get,
            } => {
                out.put_u8(kind::SET);
                let (condition, expected) = match when {
                    When::Always => (0, None),
                    When::Absent => (1, None),
                    When::Present => (2, None),
                    When::Equal(expected) => (3, Some(expected)),
                };
                out.put_u8(condition | u8::from(*get) << 4);
                put_bytes(out, key);
                put_bytes(out, value);
                if let Some(expected) = expected {
                    put_bytes(out, expected);
                }
            }
            Op::SetNx { key, value } => {
                put_keyed(out, kind::SETNX, key);
                put_bytes(out, value);
            }
            Op::MSet(pairs) => {
                out.put_u8(kind::MSET);
                put_len(out, pairs.len());
                for (key, value) in pairs {
                    put_bytes(out, key);
                    put_bytes(out, value);
                }
            }
            Op::Del(keys) => {
                out.put_u8(kind::DEL);
                put_len(out, keys.len());
                keys.iter().for_each(|key| put_bytes(out, key));
            }
            Op::Incr { key, by } => {
                out.put_u8(kind::INCR);
                out.put_i64_le(*by);
                put_bytes(out, key);
            }
            Op::Append { key, value, max } => {
                out.put_u8(kind::APPEND);
                out.put_u64_le(*max);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Op::Cas { key, expected, new } => {
                out.put_u8(kind::CAS);
                put_bytes(out, key);
                put_bytes(out, expected);
                put_bytes(out, new);
            }
            Op::GetDel(key) => put_keyed(out, kind::GETDEL, key),
            Op::Get(key) => put_keyed(out, kind::GET, key),
            Op::Exists(key) => put_keyed(out, kind::EXISTS, key),
            Op::Strlen(key) => put_keyed(out, kind::STRLEN, key),
            Op::Member { id, text } => {
                out.put_u8(kind::MEMBER);
                out.put_u64_le(*id);
                put_bytes(out, text);
            }
        }
    }
}

fn put_keyed(out: &mut BytesMut, kind: u8, key: &impl AsRef<[u8]>) {
    out.put_u8(kind);
    put_bytes(out, key);
}

fn put_len(out: &mut BytesMut, len: usize) {
    out.put_u32_le(u32::try_from(len).expect("limits keep requests far below 4 GiB"));
}

fn put_bytes(out: &mut BytesMut, bytes: &impl AsRef<[u8]>) {
    put_len(out, bytes.as_ref().len());
    out.put_slice(bytes.as_ref());
}

/// An entry of these operations.
pub(crate) fn encode<B: AsRef<[u8]>>(ops: &[Op<B>]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + ops.iter().map(Op::cost).sum::<usize>());
    out.put_u8(VERSION);
    ops.iter().for_each(|op| op.put(&mut out));
    out.freeze()
}

/// The operations of an entry.
pub(crate) fn decode(entry: &[u8]) -> Result<Vec<Op<&[u8]>>, BadEntry> {
    let mut source = Source {
        bytes: entry,
        at: 0,
    };
    let mut ops = Vec::new();
    if source.u8()? != VERSION {
        return Err(BadEntry { at: 0 });
    }
    while source.at < entry.len() {
        ops.push(source.op()?);
    }
    Ok(ops)
}

struct Source<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Source<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BadEntry> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(BadEntry { at: self.at })?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadEntry> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| BadEntry { at })
    }

    fn u8(&mut self) -> Result<u8, BadEntry> {
        Ok(self.array::<1>()?[0])
    }

    fn u64(&mut self) -> Result<u64, BadEntry> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn len(&mut self) -> Result<usize, BadEntry> {
        let at = self.at;
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| BadEntry { at })
    }

    fn bytes(&mut self) -> Result<&'a [u8], BadEntry> {
        let len = self.len()?;
        self.take(len)
    }

    /// So many items of at least `least` bytes each; their number is checked before room is made.
    fn list<T>(
        &mut self,
        least: usize,
        item: impl Fn(&mut Source<'a>) -> Result<T, BadEntry>,
    ) -> Result<Vec<T>, BadEntry> {
        let at = self.at;
        let count = self.len()?;
        if count > (self.bytes.len() - self.at) / least {
            return Err(BadEntry { at });
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn op(&mut self) -> Result<Op<&'a [u8]>, BadEntry> {
        let at = self.at;
        Ok(match self.u8()? {
            kind::SET => {
                let flags = self.u8()?;
                let (key, value) = (self.bytes()?, self.bytes()?);
                let when = match flags & 0xf {
                    0 => When::Always,
                    1 => When::Absent,
                    2 => When::Present,
                    3 => When::Equal(self.bytes()?),
                    _ => return Err(BadEntry { at }),
                };
                let get = match flags >> 4 {
                    0 => false,
                    1 => true,
                    _ => return Err(BadEntry { at }),
                };
                Op::Set {
                    key,
                    value,
                    when,
                    get,
                }
            }
            kind::SETNX => Op::SetNx {
                key: self.bytes()?,
                value: self.bytes()?,
            },
            kind::MSET => Op::MSet(self.list(8, |s| Ok((s.bytes()?, s.bytes()?)))?),
            kind::DEL => Op::Del(self.list(4, Source::bytes)?),
            kind::INCR => Op::Incr {
                by: i64::from_le_bytes(self.array()?),
                key: self.bytes()?,
            },
            kind::APPEND => Op::Append {
                max: self.u64()?,
                key: self.bytes()?,
                value: self.bytes()?,
            },
            kind::CAS => Op::Cas {
                key: self.bytes()?,
                expected: self.bytes()?,
                new: self.bytes()?,
            },
            kind::GETDEL => Op::GetDel(self.bytes()?),
            kind::GET => Op::Get(self.bytes()?),
            kind::EXISTS => Op::Exists(self.bytes()?),
            kind::STRLEN => Op::Strlen(self.bytes()?),
            kind::MEMBER => Op::Member {
                id: self.u64()?,
                text: self.bytes()?,
            },
            _ => return Err(BadEntry { at }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Op<&'static [u8]>> {
        let set = |when, get| Op::Set {
            key: &b"k"[..],
            value: &b"value"[..],
            when,
            get,
        };
        vec![
            set(When::Always, false),
            set(When::Absent, true),
            set(When::Present, false),
            set(When::Equal(&b"old"[..]), true),
            Op::SetNx {
                key: b"a",
                value: b"1",
            },
            Op::MSet(vec![(b"a", b"1"), (b"b", b"")]),
            Op::Del(vec![b"a", b"b"]),
            Op::GetDel(b"a"),
            Op::Incr { key: b"n", by: -3 },
            Op::Append {
                key: b"a",
                value: b"x",
                max: 9,
            },
            Op::Cas {
                key: b"a",
                expected: b"1",
                new: b"2",
            },
            Op::Get(b"a"),
            Op::Exists(b"a"),
            Op::Strlen(b"a"),
            Op::Member { id: 4, text: b"{}" },
        ]
    }

    #[test]
    fn entry_reads_back_as_it_was_written() {
        let entry = encode(&samples());
        assert_eq!(decode(&entry), Ok(samples()));
        let cost: usize = samples().iter().map(Op::cost).sum();
        assert!(entry.len() <= 1 + cost, "cost() is no less than the length");
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error_or_another_entry() {
        // Bytes of a peer or a later version must neither panic nor make room for what is not there.
        let entry = encode(&samples());
        let ends: Vec<usize> = (0..=samples().len())
            .map(|n| encode(&samples()[..n]).len())
            .collect();
        for cut in 0..entry.len() {
            let whole = ends.contains(&cut);
            assert_eq!(decode(&entry[..cut]).is_ok(), whole, "cut at {cut}");
        }
        for at in 0..entry.len() {
            for bit in 0..8 {
                let mut bytes = entry.to_vec();
                bytes[at] ^= 1 << bit;
                if let Ok(ops) = decode(&bytes) {
                    assert_ne!(ops, samples(), "byte {at}, bit {bit}");
                }
            }
        }
        let many = [1, kind::DEL, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(decode(&many), Err(BadEntry { at: 2 }));
    }
}
