//! The replicated state: keys and values, and where the cluster's nodes can be reached.
//!
//! Keys are ordered by a 52-bit hash, then by their bytes. The upper bits name a shard; a shard is
//! shared with the views of snapshots and copied when it is written to while such a view lives, so a
//! view costs one pointer per shard and a write during a snapshot one small copy per shard. The hash is
//! also the cursor of SCAN: a scan goes through the hashes in ascending order, so a key that is there
//! all the time is seen, whatever comes and goes, and no state of a scan is kept anywhere.
//!
//! A snapshot is a stream: neither writing nor reading it takes more memory than its largest value.

use super::command::{CODEC, Look, Op, When, decode};
use super::glob::matches;
use super::reply::{Answers, Refusal, Reply};
use bytes::Bytes;
use duraft::{ApplyContext, SnapshotWork, StateMachine};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::Bound;
use std::sync::Arc;

const HASH_BITS: u32 = 52;
const SHARD_BITS: u32 = 12;
const SHARDS: usize = 1 << SHARD_BITS;

/// First bytes of a snapshot.
const MAGIC: &[u8; 8] = b"DURAFTK1";
/// A snapshot with a longer key, value or text is not one of ours.
const FIELD_BYTES_MAX: u32 = 1 << 30;

type Shard = BTreeMap<(u64, Bytes), Bytes>;
/// Where nodes can be reached, as JSON, by their number.
pub(crate) type Members = BTreeMap<u64, Bytes>;

/// Is told of the members after each change.
pub(crate) type TellMembers = Arc<dyn Fn(&Members) + Send + Sync>;

/// See the module documentation.
pub(crate) struct Machine {
    shards: Vec<Arc<Shard>>,
    keys: u64,
    /// Bytes of keys and values.
    bytes: u64,
    members: Arc<Members>,
    tell: TellMembers,
}

/// A fixed function of the bytes, the same in all versions: cursors of scans depend on it.
fn hash(key: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The upper bits choose the shard; let all bits reach them.
    state = (state ^ (state >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (state ^ (state >> 29)) >> (64 - HASH_BITS)
}

fn shard_of(hash: u64) -> usize {
    usize::try_from(hash >> (HASH_BITS - SHARD_BITS)).expect("the upper 12 bits")
}

impl Machine {
    pub(crate) fn new(tell: TellMembers) -> Machine {
        Machine {
            shards: vec![Arc::default(); SHARDS],
            keys: 0,
            bytes: 0,
            members: Arc::default(),
            tell,
        }
    }

    pub(crate) fn keys(&self) -> u64 {
        self.keys
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let hash = hash(key);
        let shard = &self.shards[shard_of(hash)];
        // A key for the look-up would have to own its bytes; a short range does not.
        let from = (Bound::Included((hash, Bytes::new())), Bound::Unbounded);
        shard
            .range::<(u64, Bytes), _>(from)
            .take_while(|((h, _), _)| *h == hash)
            .find(|((_, k), _)| &k[..] == key)
            .map(|(_, value)| value)
    }

    fn put(&mut self, key: &[u8], value: Bytes) {
        let hash = hash(key);
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        self.bytes += value.len() as u64;
        match shard.insert((hash, Bytes::copy_from_slice(key)), value) {
            Some(before) => self.bytes -= before.len() as u64,
            None => {
                self.keys += 1;
                self.bytes += key.len() as u64;
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Bytes> {
        self.get(key)?;
        let hash = hash(key);
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        let removed = shard.remove(&(hash, Bytes::copy_from_slice(key)))?;
        self.keys -= 1;
        self.bytes -= (key.len() + removed.len()) as u64;
        Some(removed)
    }

    fn perform(&mut self, op: Op<&[u8]>, out: &mut Answers) {
        match op {
            Op::Set {
                key,
                value,
                when,
                get,
            } => self.set(key, value, when, get, out),
            Op::SetNx { key, value } => {
                let absent = self.get(key).is_none();
                if absent {
                    self.put(key, Bytes::copy_from_slice(value));
                }
                out.int(i64::from(absent));
            }
            Op::MSet(pairs) => {
                for (key, value) in pairs {
                    self.put(key, Bytes::copy_from_slice(value));
                }
                out.ok();
            }
            Op::Del(keys) => {
                let removed = keys.into_iter().filter(|key| self.remove(key).is_some());
                out.int(count(removed.count()));
            }
            Op::GetDel(key) => {
                let removed = self.remove(key);
                out.bulk_or_nil(removed.as_ref());
            }
            Op::Incr { key, by } => self.incr(key, by, out),
            Op::Append { key, value, max } => self.append(key, value, max, out),
            Op::Cas { key, expected, new } => {
                let held = self.get(key).map(|value| &value[..] == expected);
                if held == Some(true) {
                    self.put(key, Bytes::copy_from_slice(new));
                }
                out.int(held.map_or(-1, i64::from));
            }
            Op::Get(key) => out.bulk_or_nil(self.get(key)),
            Op::Exists(key) => out.int(i64::from(self.get(key).is_some())),
            Op::Strlen(key) => out.int(count(self.get(key).map_or(0, Bytes::len))),
            Op::Member { id, text } => {
                Arc::make_mut(&mut self.members).insert(id, Bytes::copy_from_slice(text));
                (self.tell)(&self.members);
                out.ok();
            }
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], when: When<&[u8]>, get: bool, out: &mut Answers) {
        let before = self.get(key);
        let met = match when {
            When::Always => true,
            When::Absent => before.is_none(),
            When::Present => before.is_some(),
            When::Equal(expected) => before.is_some_and(|value| &value[..] == expected),
        };
        match (get, met) {
            (true, _) => out.bulk_or_nil(before),
            (false, true) => out.ok(),
            (false, false) => out.nil(),
        }
        if met {
            self.put(key, Bytes::copy_from_slice(value));
        }
    }

    fn incr(&mut self, key: &[u8], by: i64, out: &mut Answers) {
        let before = match self.get(key) {
            None => Some(0),
            Some(value) => integer(value),
        };
        let Some(before) = before else {
            return out.refused(Refusal::NotAnInteger);
        };
        let Some(after) = before.checked_add(by) else {
            return out.refused(Refusal::Overflow);
        };
        self.put(key, Bytes::from(after.to_string()));
        out.int(after);
    }

    fn append(&mut self, key: &[u8], value: &[u8], max: u64, out: &mut Answers) {
        let before = self.get(key).map_or(&[][..], |value| &value[..]);
        let len = before.len() + value.len();
        if len as u64 > max {
            return out.refused(Refusal::TooLong);
        }
        let mut whole = Vec::with_capacity(len);
        whole.extend_from_slice(before);
        whole.extend_from_slice(value);
        self.put(key, Bytes::from(whole));
        out.int(count(len));
    }

    /// Answers a read. `bytes_max` bounds what the answer shares with the state.
    pub(crate) fn look(&self, look: &Look<Bytes>, bytes_max: usize) -> Reply {
        let bulk = |value: Option<&Bytes>| value.map_or(Reply::Nil, |v| Reply::Bulk(v.clone()));
        match look {
            Look::Get(key) => bulk(self.get(key)),
            Look::MGet(keys) => {
                let values: Vec<Reply> = keys.iter().map(|key| bulk(self.get(key))).collect();
                let reply = Reply::List(values);
                if reply.cost() > bytes_max {
                    Reply::error(format!(
                        "ERR the values take more than limits.reply_bytes_max = {bytes_max} bytes"
                    ))
                } else {
                    reply
                }
            }
            Look::Exists(keys) => {
                let there = keys.iter().filter(|key| self.get(key).is_some());
                Reply::Int(count(there.count()))
            }
            Look::Strlen(key) => Reply::Int(count(self.get(key).map_or(0, Bytes::len))),
            Look::Type(key) => Reply::Word(if self.get(key).is_some() {
                "string"
            } else {
                "none"
            }),
            Look::Scan {
                cursor,
                count,
                pattern,
            } => self.scan(*cursor, *count, pattern.as_deref()),
            Look::Size => Reply::Int(i64::try_from(self.keys).unwrap_or(i64::MAX)),
        }
    }

    /// Some `limit` keys whose hash is at least `cursor`, and the cursor that goes on: the first hash
    /// not looked at, 0 at the end. Keys of one hash are never split.
    fn scan(&self, cursor: u64, limit: usize, pattern: Option<&[u8]>) -> Reply {
        let mut found = Vec::new();
        let mut looked = 0;
        let mut last = None;
        let mut next = 0;
        if cursor >> HASH_BITS == 0 {
            let from = (Bound::Included((cursor, Bytes::new())), Bound::Unbounded);
            let keys = self.shards[shard_of(cursor)..]
                .iter()
                .flat_map(|shard| shard.range::<(u64, Bytes), _>(from.clone()));
            for ((hash, key), _) in keys {
                if looked >= limit && last != Some(*hash) {
                    next = *hash;
                    break;
                }
                looked += 1;
                last = Some(*hash);
                if pattern.is_none_or(|pattern| matches(pattern, key)) {
                    found.push(Reply::Bulk(key.clone()));
                }
            }
        }
        Reply::List(vec![Reply::text(next.to_string()), Reply::List(found)])
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A whole number as it is written by `to_string`, and nothing else.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl StateMachine for Machine {
    /// # Panics
    /// Where an entry is of a kind that this version does not know. The node then stops with that as
    /// its reason; to go on without it would make the nodes differ.
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes {
        assert_eq!(
            context.codec, CODEC,
            "a later version wrote an entry that this one cannot read: upgrade this node"
        );
        let ops = match decode(command) {
            Ok(ops) => ops,
            Err(error) => panic!("{error}: a later version wrote it? upgrade this node"),
        };
        let mut out = Answers::default();
        for op in ops {
            self.perform(op, &mut out);
        }
        out.done()
    }

    fn snapshot(&self) -> SnapshotWork {
        let shards = self.shards.clone();
        let members = Arc::clone(&self.members);
        let keys = self.keys;
        Box::new(move |out| {
            out.write_all(MAGIC)?;
            out.write_all(&(members.len() as u64).to_le_bytes())?;
            for (id, text) in &*members {
                out.write_all(&id.to_le_bytes())?;
                write_field(out, text)?;
            }
            out.write_all(&keys.to_le_bytes())?;
            for ((_, key), value) in shards.iter().flat_map(|shard| shard.iter()) {
                write_field(out, key)?;
                write_field(out, value)?;
            }
            Ok(())
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut fresh = Machine::new(Arc::clone(&self.tell));
        let mut magic = [0; 8];
        source.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(invalid("it does not begin as a snapshot of `duraft serve`"));
        }
        for _ in 0..read_u64(source)? {
            let id = read_u64(source)?;
            let text = read_field(source)?;
            Arc::make_mut(&mut fresh.members).insert(id, text);
        }
        for _ in 0..read_u64(source)? {
            let (key, value) = (read_field(source)?, read_field(source)?);
            fresh.put(&key, value);
        }
        *self = fresh;
        (self.tell)(&self.members);
        Ok(())
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn write_field(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(|_| invalid("a field is longer than 4 GiB"))?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(bytes)
}

fn read_u64(source: &mut dyn Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    source.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn read_field(source: &mut dyn Read) -> io::Result<Bytes> {
    let mut len = [0; 4];
    source.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > FIELD_BYTES_MAX {
        return Err(invalid("a field is longer than 1 GiB"));
    }
    // Memory grows with what is there, not with what is announced.
    let mut bytes = Vec::new();
    source.take(u64::from(len)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != u64::from(len) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests;
