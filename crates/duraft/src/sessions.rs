//! Client sessions: commands that take effect exactly once (thesis 6.3).
//!
//! A session is opened by a command of its own and named by that command's index. Its commands carry
//! the session, a number, and up to which number the client knows the answers. What was applied is
//! part of the replicated state: a command that comes again, through another leader or after a
//! snapshot, is not applied again but answered as the first time.
//!
//! Everything here depends on the log alone. Limits travel in the command that opens a session, and
//! time is counted in log entries: a session that is not used for `idle_entries_max` entries has
//! expired, and where a new session finds `sessions_max` others, the one nearest to its expiry goes.
//!
//! Invariants:
//! - a number is applied at most once in a session's life;
//! - a session holds at most `answers_max` answers, all above the acknowledged number;
//! - equal logs lead to equal tables, byte for byte in the snapshot stream.
//!
//! # Commands of sessions in a batch
//! A batch whose codec has the highest bit set is *tagged*: each of its commands begins with one byte.
//! Batches without commands of sessions are never tagged, so that plain commands pay nothing.
//!
//! ```text
//! 0 | the command                                             a plain command
//! 1 | u64 session | u64 number | u64 acknowledged | command   a command of a session
//! 2 | u32 sessions_max | u32 answers_max | u64 idle_entries_max   opens a session
//! 3 | u64 session                                             closes a session
//! ```
//!
//! # In a snapshot
//! The table stands before the state machine's own bytes:
//!
//! ```text
//! "DSES" | u16 version 1 | u16 zero | u32 sessions, and for each, ascending by id
//!   u64 id | u64 last used | u64 idle_entries_max | u32 answers_max | u64 acknowledged | u32 answers,
//!   and for each, ascending by number: u64 number | u8 known, and if 1
//!     u64 term | u64 index | u32 length | the answer
//! ```

use crate::outcome::Applied;
use bytes::Bytes;
use duraft_core::{Index, LogId, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read, Write};

/// Bit of a batch's codec which says that its commands are tagged. Not for users' codecs.
pub const TAGGED_CODEC: u16 = 1 << 15;
/// Most sessions that a limit may allow.
pub const SESSIONS_MAX: u32 = 1 << 16;
/// Most unacknowledged answers of one session that a limit may allow.
pub const ANSWERS_MAX: u32 = 1 << 12;

/// Name of a session: the index of the command that opened it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What the cluster remembers, and for how long. Every member reads it from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionLimits {
    /// Most sessions when this one is opened; those nearest to their expiry make room. At most
    /// [`SESSIONS_MAX`].
    pub sessions_max: u32,
    /// Most answers kept for this session. At most [`ANSWERS_MAX`].
    pub answers_max: u32,
    /// The session expires when so many entries of the log have passed since its last command.
    pub idle_entries_max: u64,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            sessions_max: 4096,
            answers_max: 64,
            idle_entries_max: 10_000_000,
        }
    }
}

/// A command with its number in a session: may be sent any number of times, to any member, and takes
/// effect at most once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionCommand {
    /// The session.
    pub session: SessionId,
    /// The command's number, from 1.
    pub number: u64,
    /// The client knows the answers up to this number: they need not be kept.
    pub acknowledged: u64,
    /// The command.
    pub command: Bytes,
}

/// What a command is to the table of sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tag {
    /// None of its business.
    Plain,
    /// A numbered command.
    Numbered {
        session: SessionId,
        number: u64,
        acknowledged: u64,
    },
    /// A new session.
    Open(SessionLimits),
    /// The end of one.
    Close(SessionId),
}

impl Tag {
    /// Bytes that the tag adds to a command of a tagged batch.
    pub(crate) fn len(self) -> u64 {
        match self {
            Tag::Plain => 1,
            Tag::Numbered { .. } => 25,
            Tag::Open(_) => 17,
            Tag::Close(_) => 9,
        }
    }

    /// The command as it stands in a tagged batch.
    pub(crate) fn prefix(self, command: &[u8]) -> Bytes {
        let mut bytes = Vec::with_capacity(25 + command.len());
        match self {
            Tag::Plain => bytes.push(0),
            Tag::Numbered {
                session,
                number,
                acknowledged,
            } => {
                bytes.push(1);
                for word in [session.0, number, acknowledged] {
                    bytes.extend_from_slice(&word.to_le_bytes());
                }
            }
            Tag::Open(limits) => {
                bytes.push(2);
                bytes.extend_from_slice(&limits.sessions_max.to_le_bytes());
                bytes.extend_from_slice(&limits.answers_max.to_le_bytes());
                bytes.extend_from_slice(&limits.idle_entries_max.to_le_bytes());
            }
            Tag::Close(session) => {
                bytes.push(3);
                bytes.extend_from_slice(&session.0.to_le_bytes());
            }
        }
        bytes.extend_from_slice(command);
        Bytes::from(bytes)
    }

    /// Takes the tag off a command of a tagged batch; `None` for bytes that nobody writes.
    pub(crate) fn parse(command: &[u8]) -> Option<(Tag, &[u8])> {
        let (kind, mut rest) = command.split_first()?;
        let mut word = || {
            let (word, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            Some(u64::from_le_bytes(*word))
        };
        let tag = match kind {
            0 => Tag::Plain,
            1 => Tag::Numbered {
                session: SessionId(word()?),
                number: word()?,
                acknowledged: word()?,
            },
            2 => {
                let [sessions_max, answers_max] = halves(word()?);
                Tag::Open(SessionLimits {
                    sessions_max,
                    answers_max,
                    idle_entries_max: word()?,
                })
            }
            3 => Tag::Close(SessionId(word()?)),
            _ => return None,
        };
        let empty_after = matches!(tag, Tag::Open(_) | Tag::Close(_));
        (rest.is_empty() || !empty_after).then_some((tag, rest))
    }
}

/// The two halves of a word, the lower one first.
fn halves(word: u64) -> [u32; 2] {
    let bytes = word.to_le_bytes();
    [
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    ]
}

/// What to do with a numbered command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// It is new: apply it and [`Sessions::record`] the answer.
    New,
    /// It was applied before, with this answer, where it is still known.
    Repeated(Option<Applied>),
    /// The session is not known.
    Expired,
    /// The client has said that it knows the answer.
    Acknowledged,
    /// Too far ahead of what is acknowledged.
    Window,
}

/// The table of sessions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<u64, Entry>,
    /// The same sessions by the last index at which they still live.
    expiry: BTreeSet<(u64, u64)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    last_used: u64,
    idle_entries_max: u64,
    answers_max: u32,
    acknowledged: u64,
    /// `None`: applied, but the answer is not known on this node.
    answers: BTreeMap<u64, Option<Applied>>,
}

impl Entry {
    fn lives_until(&self) -> u64 {
        self.last_used.saturating_add(self.idle_entries_max)
    }
}

impl Sessions {
    /// The command at `index` opens a session.
    pub(crate) fn open(&mut self, index: Index, limits: SessionLimits) -> SessionId {
        self.expire(index);
        let room = limits.sessions_max.clamp(1, SESSIONS_MAX) as usize;
        while self.open.len() >= room {
            let Some((_, id)) = self.expiry.pop_first() else {
                break;
            };
            self.open.remove(&id);
        }
        let entry = Entry {
            last_used: index.0,
            idle_entries_max: limits.idle_entries_max,
            answers_max: limits.answers_max.clamp(1, ANSWERS_MAX),
            acknowledged: 0,
            answers: BTreeMap::new(),
        };
        self.insert(index.0, entry);
        SessionId(index.0)
    }

    /// The command at `index` closes a session. Was there one?
    pub(crate) fn close(&mut self, index: Index, session: SessionId) -> bool {
        self.expire(index);
        let entry = self.open.remove(&session.0);
        if let Some(entry) = &entry {
            self.expiry.remove(&(entry.lives_until(), session.0));
        }
        entry.is_some()
    }

    /// What becomes of the numbered command at `index`.
    pub(crate) fn admit(
        &mut self,
        index: Index,
        session: SessionId,
        number: u64,
        acknowledged: u64,
    ) -> Admission {
        self.expire(index);
        let Some(mut entry) = self.open.remove(&session.0) else {
            return Admission::Expired;
        };
        self.expiry.remove(&(entry.lives_until(), session.0));
        entry.last_used = index.0;
        entry.acknowledged = entry.acknowledged.max(acknowledged);
        while let Some(oldest) = entry.answers.first_entry()
            && *oldest.key() <= entry.acknowledged
        {
            oldest.remove();
        }
        let admission = match entry.answers.get(&number) {
            Some(answer) => Admission::Repeated(answer.clone()),
            None if number <= entry.acknowledged => Admission::Acknowledged,
            None if number - entry.acknowledged > u64::from(entry.answers_max) => Admission::Window,
            None => Admission::New,
        };
        self.insert(session.0, entry);
        admission
    }

    /// Remembers the answer of a command that [`Sessions::admit`] called new.
    pub(crate) fn record(&mut self, session: SessionId, number: u64, answer: Option<Applied>) {
        let entry = self
            .open
            .get_mut(&session.0)
            .expect("admit() has just found the session");
        let before = entry.answers.insert(number, answer);
        assert!(before.is_none(), "a number is applied once");
        assert!(
            entry.answers.len() <= entry.answers_max as usize,
            "all answers lie within the window above the acknowledged number"
        );
    }

    /// Number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    fn insert(&mut self, id: u64, entry: Entry) {
        self.expiry.insert((entry.lives_until(), id));
        self.open.insert(id, entry);
    }

    /// Drops the sessions that were idle for too long when the entry at `index` came.
    fn expire(&mut self, index: Index) {
        while let Some((until, id)) = self.expiry.first().copied()
            && until < index.0
        {
            self.expiry.pop_first();
            self.open.remove(&id);
        }
    }
}

const MAGIC: [u8; 4] = *b"DSES";
const VERSION: u16 = 1;

/// Why the table of sessions in a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionsError {
    /// The source cannot be read, or ends too early.
    #[error("the sessions cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The bytes are no table of sessions.
    #[error("the snapshot does not begin with sessions")]
    Magic,
    /// The table has another version.
    #[error("version {0} of the sessions is not supported")]
    Version(u16),
    /// A field has a value that nobody writes.
    #[error("the sessions' field {0} has a value that is not allowed")]
    Value(&'static str),
}

impl Sessions {
    /// Writes the table.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let count = |len: usize| {
            u32::try_from(len).map_err(|_| io::Error::other("an answer of over 4 GiB"))
        };
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&[0; 2])?;
        out.write_all(&count(self.open.len())?.to_le_bytes())?;
        for (id, entry) in &self.open {
            for word in [*id, entry.last_used, entry.idle_entries_max] {
                out.write_all(&word.to_le_bytes())?;
            }
            out.write_all(&entry.answers_max.to_le_bytes())?;
            out.write_all(&entry.acknowledged.to_le_bytes())?;
            out.write_all(&count(entry.answers.len())?.to_le_bytes())?;
            for (number, answer) in &entry.answers {
                out.write_all(&number.to_le_bytes())?;
                out.write_all(&[u8::from(answer.is_some())])?;
                if let Some(answer) = answer {
                    out.write_all(&answer.log_id.term.0.to_le_bytes())?;
                    out.write_all(&answer.log_id.index.0.to_le_bytes())?;
                    out.write_all(&count(answer.response.len())?.to_le_bytes())?;
                    out.write_all(&answer.response)?;
                }
            }
        }
        Ok(())
    }

    /// Reads what [`Sessions::write`] wrote, and not a byte more. Allocates only for what was read.
    pub(crate) fn read(source: &mut dyn Read) -> Result<Sessions, SessionsError> {
        if array::<4>(source)? != MAGIC {
            return Err(SessionsError::Magic);
        }
        let version = u16::from_le_bytes(array(source)?);
        if version != VERSION {
            return Err(SessionsError::Version(version));
        }
        if array::<2>(source)? != [0; 2] {
            return Err(SessionsError::Value("reserved"));
        }
        let count = u32_from(source)?;
        if count > SESSIONS_MAX {
            return Err(SessionsError::Value("number of sessions"));
        }
        let mut sessions = Sessions::default();
        for _ in 0..count {
            let id = u64_from(source)?;
            if sessions
                .open
                .last_key_value()
                .is_some_and(|(l, _)| *l >= id)
            {
                return Err(SessionsError::Value("order of sessions"));
            }
            let entry = Entry::read(source)?;
            sessions.insert(id, entry);
        }
        Ok(sessions)
    }
}

impl Entry {
    fn read(source: &mut dyn Read) -> Result<Entry, SessionsError> {
        let mut entry = Entry {
            last_used: u64_from(source)?,
            idle_entries_max: u64_from(source)?,
            answers_max: u32_from(source)?,
            acknowledged: u64_from(source)?,
            answers: BTreeMap::new(),
        };
        let count = u32_from(source)?;
        if !(1..=ANSWERS_MAX).contains(&entry.answers_max) || count > entry.answers_max {
            return Err(SessionsError::Value("number of answers"));
        }
        let mut before = entry.acknowledged;
        for _ in 0..count {
            let number = u64_from(source)?;
            let window = u64::from(entry.answers_max);
            if number <= before || number - entry.acknowledged > window {
                return Err(SessionsError::Value("number of a command"));
            }
            before = number;
            let answer = match array::<1>(source)? {
                [0] => None,
                [1] => Some(answer_from(source)?),
                _ => return Err(SessionsError::Value("known")),
            };
            entry.answers.insert(number, answer);
        }
        Ok(entry)
    }
}

fn answer_from(source: &mut dyn Read) -> Result<Applied, SessionsError> {
    let log_id = LogId {
        term: Term(u64_from(source)?),
        index: Index(u64_from(source)?),
    };
    let len = u64::from(u32_from(source)?);
    let mut response = Vec::new();
    // Grows with what is there, so that a wrong length costs nothing.
    source.take(len).read_to_end(&mut response)?;
    if response.len() as u64 != len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Applied {
        log_id,
        response: Bytes::from(response),
    })
}

fn array<const N: usize>(source: &mut dyn Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u32_from(source: &mut dyn Read) -> io::Result<u32> {
    array(source).map(u32::from_le_bytes)
}

fn u64_from(source: &mut dyn Read) -> io::Result<u64> {
    array(source).map(u64::from_le_bytes)
}
