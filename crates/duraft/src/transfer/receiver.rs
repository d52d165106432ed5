//! The receiving side: at most one snapshot at a time.
//!
//! Bytes go to the store in order. Pieces that come early are held, at most a window of them, so that
//! one lost piece does not cost those behind it. Nothing is believed of the sender but what the file's
//! own checksums and the announced identity prove.
//!
//! | | same sender | another sender |
//! |---|---|---|
//! | earlier attempt or term | ignored | refused: stale |
//! | same attempt or term | acknowledged again | refused: busy |
//! | later attempt or term | goes on, from what has come where the snapshot is the same | takes over |

use super::frame::{Attempt, TransferFrame, TransferId, TransferRefusal};
use super::options::TransferOptions;
use bytes::Bytes;
use duraft_core::{NodeId, Snapshot, Term};
use duraft_storage::{SnapshotError, SnapshotReceiver, SnapshotStore};
use std::collections::BTreeMap;

/// What a receiver wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReceiverOutput {
    /// Send this; it may be lost.
    Frame {
        /// The peer.
        to: NodeId,
        /// What to send.
        frame: TransferFrame,
    },
    /// The snapshot stands whole, verified and durable: tell the core.
    Received {
        /// The node that sent it.
        from: NodeId,
        /// The term it led when it offered it.
        term: Term,
        /// The snapshot.
        snapshot: Snapshot,
    },
}

/// Receives snapshots into a store. Memory: one chunk in the store's receiver, and what is held.
pub struct Receiver {
    options: TransferOptions,
    store: SnapshotStore,
    session: Option<Session>,
    /// The last offer that was taken up, finished or not.
    latest: Option<Latest>,
}

/// Whose offer, and of what.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Latest {
    from: NodeId,
    term: Term,
    id: TransferId,
    /// The snapshot stands durable here.
    durable: bool,
}

struct Session {
    from: NodeId,
    term: Term,
    attempt: Attempt,
    receiver: SnapshotReceiver,
    /// Pieces beyond the next wanted byte, by offset.
    held: BTreeMap<u64, Bytes>,
    held_bytes: u64,
    /// A part was bad: nothing is taken before the next attempt.
    closed: bool,
    idle_ticks: u32,
}

impl Receiver {
    /// A receiver into this store.
    pub fn new(options: TransferOptions, store: SnapshotStore) -> Receiver {
        Receiver {
            options,
            store,
            session: None,
            latest: None,
        }
    }

    /// Is nothing being received?
    pub fn is_idle(&self) -> bool {
        self.session.is_none()
    }

    /// What is being received and how many bytes of it have come.
    pub fn progress(&self) -> Option<(&Snapshot, u64)> {
        let session = self.session.as_ref()?;
        Some((session.receiver.snapshot(), session.receiver.received()))
    }

    /// Bytes held beyond the next wanted one.
    pub fn held_bytes(&self) -> u64 {
        self.session
            .as_ref()
            .map_or(0, |session| session.held_bytes)
    }

    /// The clock moved on. A sender that says nothing for long is not waited for; what has come stays
    /// on disk and counts when it is offered again.
    pub fn tick(&mut self) {
        if let Some(session) = &mut self.session {
            session.idle_ticks += 1;
            if session.idle_ticks >= self.options.give_up_ticks {
                self.session = None;
            }
        }
    }

    /// A peer offers a snapshot. This may read as much as was received of it before, and all of a
    /// file that stands here.
    pub fn on_offer(
        &mut self,
        from: NodeId,
        attempt: Attempt,
        term: Term,
        snapshot: &Snapshot,
        out: &mut Vec<ReceiverOutput>,
    ) {
        let id = TransferId {
            attempt,
            file: snapshot.file,
        };
        if let Some(latest) = self.latest
            && !self.may_follow(&latest, from, term, id, out)
        {
            return;
        }
        self.latest = Some(Latest {
            from,
            term,
            id,
            durable: false,
        });
        let same = |session: &Session| session.receiver.snapshot() == snapshot;
        let session = match self.session.take().filter(same) {
            // What has come counts, whoever sent it: it is the same file.
            Some(session) => Session {
                from,
                term,
                attempt,
                closed: false,
                idle_ticks: 0,
                ..session
            },
            None => match self.store.receive(snapshot) {
                Ok(receiver) => Session {
                    from,
                    term,
                    attempt,
                    receiver,
                    held: BTreeMap::new(),
                    held_bytes: 0,
                    closed: false,
                    idle_ticks: 0,
                },
                Err(error) => return refuse(from, id, refusal_of(&error), out),
            },
        };
        self.go_on(session, out);
    }

    /// May this offer take the place of the latest one? Otherwise it is answered here, or is not worth
    /// an answer.
    fn may_follow(
        &self,
        latest: &Latest,
        from: NodeId,
        term: Term,
        id: TransferId,
        out: &mut Vec<ReceiverOutput>,
    ) -> bool {
        if from == latest.from && id.attempt < latest.id.attempt {
            return false;
        }
        if term < latest.term {
            refuse(from, id, TransferRefusal::Stale, out);
            return false;
        }
        if from == latest.from && id == latest.id {
            // The same offer once more: its answer may have been lost.
            match &self.session {
                Some(session) if !session.closed => {
                    acknowledge(from, id, session.receiver.received(), false, out);
                    return false;
                }
                Some(_) => {
                    refuse(from, id, TransferRefusal::Damaged, out);
                    return false;
                }
                None if latest.durable => {
                    acknowledge(from, id, id.file.bytes, true, out);
                    return false;
                }
                // It was refused or given up; things may have changed.
                None => return true,
            }
        }
        if from != latest.from && term == latest.term && self.session.is_some() {
            refuse(from, id, TransferRefusal::Busy, out);
            return false;
        }
        true
    }

    /// Some bytes of the file come.
    pub fn on_piece(
        &mut self,
        from: NodeId,
        id: TransferId,
        offset: u64,
        bytes: Bytes,
        out: &mut Vec<ReceiverOutput>,
    ) {
        // Bytes of an earlier attempt are bytes of the same file.
        let ours = |session: &mut Session| {
            session.from == from && session.id().file == id.file && id.attempt <= session.attempt
        };
        let Some(mut session) = self.session.take_if(ours) else {
            return self.answer_stray(from, id, out);
        };
        let id = session.id();
        session.idle_ticks = 0;
        if session.closed {
            self.session = Some(session);
            return;
        }
        let before = session.receiver.received();
        match session.take(offset, bytes, self.options.window_bytes) {
            // A gap: nothing new to say.
            Ok(()) if session.receiver.received() == before && offset > before => {
                self.session = Some(session);
            }
            Ok(()) => self.go_on(session, out),
            Err(SnapshotError::Received { .. }) => {
                session.held.clear();
                session.held_bytes = 0;
                session.closed = true;
                self.session = Some(session);
                refuse(from, id, TransferRefusal::Damaged, out);
            }
            // The store has removed what had come.
            Err(error) => refuse(from, id, refusal_of(&error), out),
        }
    }

    /// Acknowledges what has come, or ends the transfer where it is all.
    fn go_on(&mut self, session: Session, out: &mut Vec<ReceiverOutput>) {
        let (from, term, id) = (session.from, session.term, session.id());
        if !session.receiver.is_complete() {
            acknowledge(from, id, session.receiver.received(), false, out);
            self.session = Some(session);
            return;
        }
        match session.receiver.finish() {
            Ok(snapshot) => {
                if let Some(latest) = &mut self.latest {
                    latest.durable = true;
                }
                acknowledge(from, id, id.file.bytes, true, out);
                out.push(ReceiverOutput::Received {
                    from,
                    term,
                    snapshot,
                });
            }
            Err(error) => refuse(from, id, refusal_of(&error), out),
        }
    }

    /// A piece of something that is not being received.
    fn answer_stray(&self, from: NodeId, id: TransferId, out: &mut Vec<ReceiverOutput>) {
        match &self.latest {
            Some(latest) if latest.from == from && latest.id == id && latest.durable => {
                acknowledge(from, id, id.file.bytes, true, out);
            }
            // An attempt that is over.
            Some(latest) if latest.from == from && id.attempt < latest.id.attempt => {}
            Some(_) | None => refuse(from, id, TransferRefusal::Unknown, out),
        }
    }
}

impl Session {
    fn id(&self) -> TransferId {
        TransferId {
            attempt: self.attempt,
            file: self.receiver.snapshot().file,
        }
    }

    /// Writes what comes next, holds what comes early, drops what came before.
    fn take(&mut self, offset: u64, bytes: Bytes, window: u64) -> Result<(), SnapshotError> {
        if offset > self.receiver.received() {
            let len = bytes.len() as u64;
            if self.held_bytes + len <= window && !self.held.contains_key(&offset) {
                self.held_bytes += len;
                self.held.insert(offset, bytes);
            }
            return Ok(());
        }
        self.write(offset, &bytes)?;
        while let Some(entry) = self.held.first_entry() {
            if *entry.key() > self.receiver.received() {
                break;
            }
            let (offset, bytes) = entry.remove_entry();
            self.held_bytes -= bytes.len() as u64;
            self.write(offset, &bytes)?;
        }
        Ok(())
    }

    /// Writes what of these bytes has not come yet; they begin at or before the next wanted one.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let received = self.receiver.received();
        let known = usize::try_from(received - offset).unwrap_or(usize::MAX);
        match bytes.get(known..) {
            Some(new) if !new.is_empty() => self.receiver.write(received, new),
            Some(_) | None => Ok(()),
        }
    }
}

fn acknowledge(
    to: NodeId,
    id: TransferId,
    received: u64,
    durable: bool,
    out: &mut Vec<ReceiverOutput>,
) {
    let frame = TransferFrame::Ack {
        id,
        received,
        durable,
    };
    out.push(ReceiverOutput::Frame { to, frame });
}

fn refuse(to: NodeId, id: TransferId, reason: TransferRefusal, out: &mut Vec<ReceiverOutput>) {
    let frame = TransferFrame::Refused { id, reason };
    out.push(ReceiverOutput::Frame { to, frame });
}

fn refusal_of(error: &SnapshotError) -> TransferRefusal {
    match error {
        SnapshotError::NoSpace(_) => TransferRefusal::NoSpace,
        SnapshotError::Foreign { .. } | SnapshotError::Newer { .. } => TransferRefusal::Foreign,
        SnapshotError::Corrupt { .. }
        | SnapshotError::Received { .. }
        | SnapshotError::Offset { .. }
        | SnapshotError::Unfinished { .. } => TransferRefusal::Damaged,
        SnapshotError::Missing { .. }
        | SnapshotError::Torn { .. }
        | SnapshotError::Exists { .. }
        | SnapshotError::Name { .. }
        | SnapshotError::TooLarge
        | SnapshotError::Disk(_) => TransferRefusal::Storage,
    }
}
