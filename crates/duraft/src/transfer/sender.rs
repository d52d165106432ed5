//! The sending side: one snapshot to one peer.
//!
//! ```text
//! start ─► Offering ──ack──► Streaming ──ack, durable──► delivered
//!             ▲  │ offer again        │
//!             └──┴──── no progress, bad part, unknown there ◄┘      silence, refused ─► failed
//! ```
//!
//! Every way back leads through a new offer with a greater attempt, whose answer says where to go on.
//! So it does not matter what was lost, by whom: the receiver alone knows what it holds.
//!
//! After a way back only one piece is sent until the receiver has moved: it may hold what was sent
//! after the piece that was lost, and its next ack tells.

use super::frame::{Attempt, TransferFrame, TransferId, TransferRefusal};
use super::options::TransferOptions;
use duraft_core::{Incarnation, Index, SendProgress, Term};
use duraft_storage::{SnapshotError, SnapshotSource};

/// What a sender wants done.
#[derive(Clone, Debug)]
pub enum SenderOutput {
    /// Send this to the peer; it may be lost.
    Frame(TransferFrame),
    /// Tell the core.
    Progress {
        /// Index of the snapshot.
        at: Index,
        /// How it goes.
        progress: SendProgress,
    },
    /// The snapshot cannot be read, or is not what it was when it was written. The host should take
    /// another one.
    SourceDamaged {
        /// Index of the snapshot.
        at: Index,
        /// What is wrong.
        error: SnapshotError,
    },
}

/// Sends one snapshot at a time to one peer. Memory: what it has emitted and the peer has not
/// acknowledged, at most a window, is in the frames; nothing is kept here.
#[derive(Clone)]
pub struct Sender {
    options: TransferOptions,
    life: Incarnation,
    attempts: u64,
    /// Bytes that may be sent now, where the rate is limited.
    tokens: u64,
    current: Option<Current>,
}

#[derive(Clone)]
struct Current {
    term: Term,
    source: SnapshotSource,
    /// The first attempt of this snapshot: words about earlier ones speak for another term.
    first: Attempt,
    attempt: Attempt,
    phase: Phase,
    /// Ticks in which the peer should have said something new and has not.
    waiting_ticks: u32,
    /// The same since it last did, over all attempts.
    silent_ticks: u32,
    /// The most that the peer has ever acknowledged. A part that turns out to be bad takes back what
    /// was acknowledged of it, so lesser acknowledgements prove nothing about it.
    furthest: u64,
    /// Bad parts since `furthest` moved.
    bad_parts: u32,
    /// The peer has moved since the last tick.
    moved: bool,
}

#[derive(Clone, Copy)]
enum Phase {
    Offering,
    Streaming {
        /// Everything before has come.
        acked: u64,
        /// The next byte to send.
        next: u64,
        /// Only one piece until the peer moves.
        careful: bool,
    },
}

impl Sender {
    /// A sender with nothing to send. The life makes its attempts greater than those of its lives
    /// before.
    pub fn new(options: TransferOptions, life: Incarnation) -> Sender {
        Sender {
            tokens: options.burst_bytes_max,
            options,
            life,
            attempts: 0,
            current: None,
        }
    }

    /// Begins to send, in the place of what was being sent.
    pub fn start(&mut self, term: Term, source: SnapshotSource, out: &mut Vec<SenderOutput>) {
        let attempt = self.next_attempt();
        let current = self.current.insert(Current {
            term,
            source,
            first: attempt,
            attempt,
            phase: Phase::Offering,
            waiting_ticks: 0,
            silent_ticks: 0,
            furthest: 0,
            bad_parts: 0,
            moved: false,
        });
        out.push(SenderOutput::Frame(current.offer()));
    }

    /// Is nothing being sent?
    pub fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// Bytes emitted and not acknowledged.
    pub fn in_flight_bytes(&self) -> u64 {
        match self.current.as_ref().map(|current| current.phase) {
            Some(Phase::Streaming { acked, next, .. }) => next - acked,
            Some(Phase::Offering) | None => 0,
        }
    }

    /// The clock moved on.
    pub fn tick(&mut self, out: &mut Vec<SenderOutput>) {
        if let Some(rate) = self.options.bytes_per_tick_max {
            let burst = self.options.burst_bytes_max;
            self.tokens = self.tokens.saturating_add(rate).min(burst);
        }
        let Some(current) = &mut self.current else {
            return;
        };
        if current.moved {
            current.moved = false;
            out.push(current.progress(SendProgress::Moving));
        }
        if current.expects_answer() {
            current.waiting_ticks += 1;
            current.silent_ticks += 1;
        }
        if current.silent_ticks >= self.options.give_up_ticks {
            self.fail(out);
        } else if current.waiting_ticks >= self.options.resend_ticks {
            self.offer_again(out);
        } else {
            self.pump(out);
        }
    }

    /// The peer says what it holds.
    pub fn on_ack(
        &mut self,
        id: TransferId,
        received: u64,
        durable: bool,
        out: &mut Vec<SenderOutput>,
    ) {
        let Some(current) = &mut self.current else {
            return;
        };
        let bytes = current.source.snapshot().file.bytes;
        if id.file != current.source.snapshot().file || received > bytes {
            return;
        }
        if durable {
            // True for good, whichever attempt of this snapshot and term it answers.
            if (current.first..=current.attempt).contains(&id.attempt) {
                out.push(current.progress(SendProgress::Delivered));
                self.current = None;
            }
            return;
        }
        if id.attempt != current.attempt {
            return;
        }
        let (before, next, careful) = match current.phase {
            // The answer to the offer: go on from where the receiver is, be it before or after what
            // was acknowledged earlier.
            Phase::Offering => (None, received, current.attempt != current.first),
            Phase::Streaming {
                acked,
                next,
                careful,
            } => (Some(acked), next.max(received), careful),
        };
        let moves = before.is_none_or(|acked| received > acked);
        if !moves {
            return;
        }
        let progress = before.is_some();
        current.phase = Phase::Streaming {
            acked: received,
            next,
            careful: careful && !progress,
        };
        current.waiting_ticks = 0;
        if progress {
            current.silent_ticks = 0;
            current.moved = true;
        }
        if received > current.furthest {
            current.furthest = received;
            current.bad_parts = 0;
        }
        self.pump(out);
    }

    /// The peer does not go along.
    pub fn on_refused(
        &mut self,
        id: TransferId,
        reason: TransferRefusal,
        out: &mut Vec<SenderOutput>,
    ) {
        let Some(current) = &mut self.current else {
            return;
        };
        if id != current.id() {
            return;
        }
        match reason {
            TransferRefusal::Unknown => self.offer_again(out),
            TransferRefusal::Damaged => {
                current.bad_parts += 1;
                if current.bad_parts < self.options.bad_parts_max {
                    self.offer_again(out);
                } else {
                    self.fail_and_look(out);
                }
            }
            TransferRefusal::Foreign => self.fail_and_look(out),
            TransferRefusal::Busy
            | TransferRefusal::Stale
            | TransferRefusal::NoSpace
            | TransferRefusal::Storage => self.fail(out),
        }
    }

    fn next_attempt(&mut self) -> Attempt {
        self.attempts += 1;
        Attempt {
            life: self.life,
            number: self.attempts,
        }
    }

    fn offer_again(&mut self, out: &mut Vec<SenderOutput>) {
        let attempt = self.next_attempt();
        if let Some(current) = &mut self.current {
            current.attempt = attempt;
            current.phase = Phase::Offering;
            current.waiting_ticks = 0;
            out.push(SenderOutput::Frame(current.offer()));
        }
    }

    fn fail(&mut self, out: &mut Vec<SenderOutput>) {
        if let Some(current) = self.current.take() {
            out.push(current.progress(SendProgress::Failed));
        }
    }

    /// The peer finds the file bad: is it?
    fn fail_and_look(&mut self, out: &mut Vec<SenderOutput>) {
        if let Some(current) = &self.current
            && let Err(error) = current.source.verify()
        {
            let at = current.at();
            out.push(SenderOutput::SourceDamaged { at, error });
        }
        self.fail(out);
    }

    /// Sends what window and rate allow.
    fn pump(&mut self, out: &mut Vec<SenderOutput>) {
        while let Some((offset, len)) = self.next_piece() {
            let Some(current) = &mut self.current else {
                return;
            };
            match current.source.read(offset, len) {
                Ok(bytes) => {
                    let id = current.id();
                    let sent = bytes.len() as u64;
                    if let Phase::Streaming { next, .. } = &mut current.phase {
                        *next = offset + sent;
                    }
                    if self.options.bytes_per_tick_max.is_some() {
                        self.tokens -= sent;
                    }
                    out.push(SenderOutput::Frame(TransferFrame::Piece {
                        id,
                        offset,
                        bytes,
                    }));
                }
                Err(error) => {
                    let at = current.at();
                    out.push(SenderOutput::SourceDamaged { at, error });
                    self.fail(out);
                    return;
                }
            }
        }
    }

    /// The piece that may be sent now.
    fn next_piece(&self) -> Option<(u64, u32)> {
        let current = self.current.as_ref()?;
        let Phase::Streaming {
            acked,
            next,
            careful,
        } = current.phase
        else {
            return None;
        };
        let left = current.source.snapshot().file.bytes - next;
        let piece = self.options.piece_bytes;
        let len = u32::try_from(left).map_or(piece, |left| left.min(piece));
        let in_flight = next - acked;
        let room = in_flight + u64::from(len) <= self.options.window_bytes;
        let allowed = if careful { in_flight == 0 } else { room };
        let paid = self.options.bytes_per_tick_max.is_none() || self.tokens >= u64::from(len);
        (len > 0 && allowed && paid).then_some((next, len))
    }
}

impl Current {
    fn id(&self) -> TransferId {
        TransferId {
            attempt: self.attempt,
            file: self.source.snapshot().file,
        }
    }

    fn offer(&self) -> TransferFrame {
        TransferFrame::Offer {
            attempt: self.attempt,
            term: self.term,
            snapshot: self.source.snapshot().clone(),
        }
    }

    fn progress(&self, progress: SendProgress) -> SenderOutput {
        SenderOutput::Progress {
            at: self.at(),
            progress,
        }
    }

    fn at(&self) -> Index {
        self.source.snapshot().position.index()
    }

    /// Is it the peer's turn? A limited rate may leave nothing under way.
    fn expects_answer(&self) -> bool {
        match self.phase {
            Phase::Offering => true,
            Phase::Streaming { acked, next, .. } => {
                next > acked || acked == self.source.snapshot().file.bytes
            }
        }
    }
}
