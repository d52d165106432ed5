//! The snapshot thread: writes views of the state into files and removes files that nobody needs.
//!
//! A view was taken on the apply thread; commands go on while it is written here. A snapshot that
//! cannot be written costs nothing but itself: the log is kept until a later one is durable.

use super::Shared;
use crate::apply::{SnapshotView, panic_message};
use crate::events::NodeEvent;
use crate::outcome::{RejectReason, RequestError};
use crate::queue::Taken;
use crate::responder::Responder;
use crate::status::SnapshotStatus;
use duraft_core::{Completion, Snapshot, mix64};
use duraft_storage::SnapshotStore;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the snapshot thread is given to do.
pub(super) enum TakeWork {
    /// Write this view.
    Take {
        view: SnapshotView,
        responder: Option<Responder<SnapshotStatus>>,
    },
    /// The log counts on this snapshot: older ones may go.
    Retire(Snapshot),
}

/// See the module documentation.
pub(super) struct TakeLoop {
    shared: Arc<Shared>,
    generation: u64,
    store: SnapshotStore,
    /// Source of the names' nonces.
    nonce: u64,
    /// The last snapshot that is in a file.
    latest: Option<Snapshot>,
}

impl TakeLoop {
    pub(super) fn new(
        shared: Arc<Shared>,
        generation: u64,
        store: SnapshotStore,
        seed: u64,
        latest: Option<Snapshot>,
    ) -> TakeLoop {
        TakeLoop {
            shared,
            generation,
            store,
            nonce: seed,
            latest,
        }
    }

    /// Runs until the queue is closed. A view that is not written is dropped.
    pub(super) fn run(mut self) {
        let mut taken = VecDeque::new();
        while self.shared.taking.take_all(&mut taken, None) == Taken::Items {
            for work in taken.drain(..) {
                if self.shared.ending.load(Ordering::Relaxed) {
                    return;
                }
                match work {
                    TakeWork::Take { view, responder } => self.take(view, responder),
                    TakeWork::Retire(latest) => {
                        self.retire(&latest);
                        self.latest = Some(latest);
                    }
                }
            }
        }
    }

    fn take(&mut self, view: SnapshotView, responder: Option<Responder<SnapshotStatus>>) {
        let at = view.position.id;
        // Where nothing was applied since, a second file of the same state would only take room.
        let there = (self.latest.clone()).filter(|latest| latest.position == view.position);
        let written = there.map_or_else(|| self.write(view), Ok);
        self.shared.snapshot_busy.store(false, Ordering::Release);
        let node = self.shared.id.0;
        let answer = match written {
            Ok(snapshot) => {
                let status = SnapshotStatus::of(&snapshot);
                self.latest = Some(snapshot.clone());
                tracing::info!(node, %at, bytes = status.bytes, "snapshot taken");
                self.shared
                    .complete_for(self.generation, Completion::SnapshotTaken { snapshot });
                Ok(status)
            }
            Err(message) => {
                tracing::error!(node, %at, "the snapshot could not be written: {message}");
                let event = NodeEvent::SnapshotFailed { at, message };
                self.shared.events.publish(event);
                Err(RequestError::Rejected {
                    reason: RejectReason::SnapshotFailed,
                    leader: None,
                })
            }
        };
        if let Some(responder) = responder {
            responder.answer(answer);
        }
    }

    fn write(&mut self, view: SnapshotView) -> Result<Snapshot, String> {
        self.nonce = mix64(self.nonce);
        let writer = self
            .store
            .create(view.position, &view.membership, self.nonce);
        let mut writer = writer.map_err(|error| error.to_string())?;
        let work = view.work;
        // The state machine's code; a panic in it leaves a file that nobody names, and no more.
        let written = catch_unwind(AssertUnwindSafe(|| work(&mut writer)));
        written
            .map_err(|panic| panic_message(panic.as_ref()))?
            .map_err(|error| error.to_string())?;
        writer.finish().map_err(|error| error.to_string())
    }

    fn retire(&self, latest: &Snapshot) {
        if let Err(error) = self.store.retire(latest) {
            // It is removed at the next start.
            tracing::warn!(node = self.shared.id.0, "an old snapshot stays: {error}");
        }
    }
}
