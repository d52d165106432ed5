//! A small state machine that can be made to stick, and clients that ask for more than there is
//! room for.

use super::words::DONE;
use bytes::Bytes;
use duraft::{ApplyContext, Node, Outcome, RequestError, Responder, SnapshotWork, StateMachine};
use duraft_core::mix64;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Closed: who comes waits until it is open.
#[derive(Clone, Default)]
pub(super) struct Barrier(Arc<(Mutex<bool>, Condvar)>);

impl Barrier {
    pub(super) fn set_closed(&self, closed: bool) {
        *self.0.0.lock() = closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.0.0.lock();
        while *closed {
            self.0.1.wait(&mut closed);
        }
    }
}

/// Counts commands and digests them in their order.
#[derive(Default)]
pub(super) struct Digest {
    /// Commands, digest.
    pub(super) state: (u64, u64),
    pub(super) barrier: Barrier,
}

impl StateMachine for Digest {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        self.barrier.pass();
        let word = |chunk: &[u8]| {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(bytes)
        };
        let (count, digest) = self.state;
        let digest = command
            .chunks(8)
            .fold(digest, |digest, chunk| mix64(digest ^ word(chunk)));
        self.state = (count + 1, digest);
        Bytes::new()
    }

    fn snapshot(&self) -> SnapshotWork {
        let (count, digest) = self.state;
        Box::new(move |out| {
            out.write_all(&count.to_le_bytes())?;
            out.write_all(&digest.to_le_bytes())
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut word = || {
            let mut bytes = [0; 8];
            source.read_exact(&mut bytes)?;
            Ok::<u64, io::Error>(u64::from_le_bytes(bytes))
        };
        self.state = (word()?, word()?);
        Ok(())
    }
}

/// Clients of one node that take no refusal for an answer.
#[derive(Default)]
pub(super) struct Clients {
    /// Commands to keep on their way.
    pub(super) wanted: AtomicU32,
    pub(super) answers: Mutex<BTreeMap<String, u64>>,
}

/// Most commands proposed at once.
const BURST: u32 = 4096;
/// Pause of a client that was refused.
const PAUSE: Duration = Duration::from_millis(10);

impl Clients {
    /// Proposes for ever.
    pub(super) fn run(&self, node: &Node, seed: u64, value_bytes: usize) {
        let (answered, answers) = channel::<Outcome>();
        let mut outstanding = 0;
        let mut number = mix64(seed);
        loop {
            let wanted = self.wanted.load(Ordering::Relaxed);
            let room = wanted.saturating_sub(outstanding).min(BURST);
            for _ in 0..room {
                number = mix64(number);
                let mut command = number.to_le_bytes().to_vec();
                command.resize(value_bytes.max(8), 0xA5);
                let answered = answered.clone();
                let responder = Responder::call(move |outcome| {
                    // The receiver is there as long as the process.
                    let _ = answered.send(outcome);
                });
                node.submit(command.into(), responder);
                outstanding += 1;
            }
            let first = match answers.recv_timeout(PAUSE) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut refused = false;
            for outcome in std::iter::once(first).chain(answers.try_iter()) {
                outstanding -= 1;
                refused |= outcome.is_err();
                *self.answers.lock().entry(name_of(&outcome)).or_default() += 1;
            }
            if refused {
                std::thread::park_timeout(PAUSE);
            }
        }
    }
}

/// What an answer says, in a few words.
fn name_of(outcome: &Outcome) -> String {
    match outcome {
        Ok(_) => DONE.into(),
        Err(RequestError::Busy { why }) => format!("busy: {why:?}"),
        Err(RequestError::Rejected { reason, .. }) => format!("rejected: {reason:?}"),
        Err(RequestError::OutcomeUnknown { why }) => format!("unknown: {why:?}"),
        Err(_) => "other".into(),
    }
}
