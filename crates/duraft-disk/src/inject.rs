//! Failures of operations: planned one by one, or drawn at given rates.

use crate::disk::{DiskError, DiskOp};
use crate::rng::SplitMix64;
use crate::state::CacheAfter;
use rustix::io::Errno;

/// A planned failure: which operations, and what happens to them. Operations are counted from the
/// moment the fault is added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    op: Option<DiskOp>,
    name: Option<String>,
    nth: u64,
    forever: bool,
    pub(crate) effect: Effect,
    seen: u64,
}

impl Fault {
    /// The next operation of any kind that changes something (see [`DiskOp::changes`]) suffers
    /// this effect, once.
    pub fn new(effect: Effect) -> Fault {
        Fault {
            op: None,
            name: None,
            nth: 1,
            forever: false,
            effect,
            seen: 0,
        }
    }

    /// Only operations of this kind, reading ones included.
    #[must_use]
    pub fn on(mut self, op: DiskOp) -> Fault {
        self.op = Some(op);
        self
    }

    /// Only operations on this file or folder.
    #[must_use]
    pub fn of(mut self, name: &str) -> Fault {
        self.name = Some(name.to_owned());
        self
    }

    /// The `nth` matching operation instead of the first; counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Fault {
        self.nth = nth;
        self
    }

    /// All matching operations from the first hit on.
    #[must_use]
    pub fn forever(mut self) -> Fault {
        self.forever = true;
        self
    }

    pub(crate) fn hits(&mut self, op: DiskOp, name: &str) -> bool {
        let matches = self.op.map_or(op.changes(), |wanted| wanted == op)
            && self.name.as_deref().is_none_or(|wanted| wanted == name);
        if !matches {
            return false;
        }
        self.seen += 1;
        self.seen == self.nth || (self.forever && self.seen > self.nth)
    }
}

/// What a planned failure does. An effect that does not fit the operation is a plain I/O error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// 'Input/output error'; nothing is done.
    Io,
    /// 'No space left on device'; nothing is done.
    NoSpace,
    /// 'Disk quota exceeded'; nothing is done.
    Quota,
    /// A write puts only so many bytes in the file and fails.
    ShortWrite {
        /// Bytes written before the failure.
        bytes: usize,
    },
    /// A sync of a file fails, and what was pending counts as clean afterwards.
    SyncFails {
        /// What reads return afterwards.
        cache: CacheAfter,
        /// Which pending sectors reached the disk: none, or with a seed a drawn half of them.
        landed: Option<u64>,
    },
    /// A sync of a file or folder returns `Ok` and does nothing.
    SyncLies,
    /// A write returns `Ok` and is lost when the kernel writes it back: its sectors keep their
    /// durable content on the disk and count as clean. The late error.
    WritebackFails {
        /// What reads return afterwards.
        cache: CacheAfter,
        /// Does the next sync of the file say so? It fails once, after writing what else is
        /// pending; every later one returns `Ok`. Unreported, as where another process took the
        /// error away, every sync returns `Ok`.
        reported: bool,
    },
    /// 'Interrupted system call'; nothing is done. To be tried again.
    Interrupted,
}

impl Effect {
    pub(crate) fn error(self, op: DiskOp, name: &str) -> DiskError {
        let errno = match self {
            Effect::NoSpace => Errno::NOSPC,
            Effect::Quota => Errno::DQUOT,
            Effect::Interrupted => Errno::INTR,
            Effect::Io
            | Effect::ShortWrite { .. }
            | Effect::SyncFails { .. }
            | Effect::SyncLies
            | Effect::WritebackFails { .. } => Errno::IO,
        };
        DiskError::new(op, name, errno.into())
    }
}

/// How often operations fail by themselves: chances in 10,000 for each operation of a kind. Which
/// ones do follows from a seed; see [`FaultDisk::inject_drawn`](crate::FaultDisk::inject_drawn).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultRates {
    /// A read, view, listing, opening or question for a length fails.
    pub read: u32,
    /// A write or fill with zeros fails and does nothing, or writes a part.
    pub write: u32,
    /// A write is lost later: [`Effect::WritebackFails`], reported or not and with either cache.
    pub writeback: u32,
    /// A sync of a file fails with either cache and any subset landed; one of a folder just fails.
    pub sync: u32,
    /// A write, fill with zeros or creation finds no space, or no quota.
    pub no_space: u32,
    /// A change of names or a lock fails.
    pub names: u32,
}

/// The failures that are drawn on one disk.
#[derive(Clone, Debug)]
pub(crate) struct DrawnFaults {
    rates: FaultRates,
    rng: SplitMix64,
}

impl DrawnFaults {
    pub(crate) fn new(seed: u64, rates: FaultRates) -> DrawnFaults {
        DrawnFaults {
            rates,
            rng: SplitMix64::new(seed),
        }
    }

    /// What befalls an operation of this kind and length, if anything.
    pub(crate) fn draw(&mut self, op: DiskOp, len: u64) -> Option<Effect> {
        let rates = self.rates;
        match op {
            DiskOp::Read | DiskOp::Map | DiskOp::List | DiskOp::Open | DiskOp::Len => {
                self.chance(rates.read).then_some(Effect::Io)
            }
            DiskOp::Write | DiskOp::FillZero => {
                if self.chance(rates.no_space) {
                    return Some(self.full());
                }
                if self.chance(rates.write) {
                    return Some(self.failed_write(len));
                }
                let lost = op == DiskOp::Write && self.chance(rates.writeback);
                lost.then(|| Effect::WritebackFails {
                    cache: self.cache(),
                    reported: self.rng.below(2) == 0,
                })
            }
            DiskOp::SyncData | DiskOp::SyncAll => {
                self.chance(rates.sync).then(|| Effect::SyncFails {
                    cache: self.cache(),
                    landed: Some(self.rng.next()),
                })
            }
            DiskOp::SyncDir => self.chance(rates.sync).then_some(Effect::Io),
            DiskOp::Create | DiskOp::CreateDir => {
                if self.chance(rates.no_space) {
                    return Some(self.full());
                }
                self.chance(rates.names).then_some(Effect::Io)
            }
            DiskOp::Rename | DiskOp::Remove | DiskOp::Lock => {
                self.chance(rates.names).then_some(Effect::Io)
            }
            DiskOp::FreeBytes => None,
        }
    }

    fn chance(&mut self, rate: u32) -> bool {
        // Nothing is drawn for what cannot happen, so that one rate does not shift another's draws.
        rate > 0 && self.rng.below(10_000) < u64::from(rate)
    }

    fn cache(&mut self) -> CacheAfter {
        if self.rng.below(2) == 0 {
            CacheAfter::OldContent
        } else {
            CacheAfter::NewContent
        }
    }

    fn full(&mut self) -> Effect {
        if self.rng.below(4) == 0 {
            Effect::Quota
        } else {
            Effect::NoSpace
        }
    }

    fn failed_write(&mut self, len: u64) -> Effect {
        if len == 0 || self.rng.below(2) == 0 {
            return Effect::Io;
        }
        let bytes = self.rng.below(len);
        Effect::ShortWrite {
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }
}
