//! Snapshot files: a state machine's state at one place of the log, outside of the log.
//!
//! Each group has a folder `snap/<group>/`. A file is written as `.tmp` or received as `.part`, synced,
//! renamed to `<index>-<term>-<nonce>.snap`, and the folder is synced. Only then may a record in the
//! log name it, and that record is the commit point (STORAGE.md 4.8): a file that no record names is
//! an orphan, which [`SnapshotStore::reconcile`] removes at the next start.
//!
//! What a crash can leave:
//!
//! | crash | left | then |
//! |---|---|---|
//! | while writing | `.tmp` with any bytes, or nothing | removed at start |
//! | while receiving | `.part` with any bytes, or nothing | resumed after checking every part |
//! | between renaming and syncing the folder | the file under either name, whole | orphan, or resumed and found complete |
//! | before the log's record | the whole file | orphan |
//! | while removing | the file, or not | removed at the next start |
//!
//! Invariants:
//! - a file that bears its final name was synced before it was given that name;
//! - no byte of content is given out before the checksum over it, and none of the last chunk before
//!   the digest over the file;
//! - nothing unchecked is written to a `.part` file, and nothing that lies in one is believed without
//!   being checked again;
//! - no length is allocated that was not checked against the announced identity and the 1 MiB limit
//!   of a chunk.
//!
//! This module does not know who leads, what is committed or what the content means.
//!
//! ```
//! use duraft_core::{GroupId, Membership, NodeId, Position};
//! use duraft_disk::{FaultDisk, FaultOptions};
//! use duraft_storage::{ClusterId, SnapshotStore};
//! use std::io::{Read, Write};
//! use std::sync::Arc;
//!
//! let disk = Arc::new(FaultDisk::new(FaultOptions::default()));
//! let store = SnapshotStore::open(disk, ClusterId([7; 16]), GroupId(1))?;
//! let members = Membership::new([NodeId(1)], []).expect("one voter");
//! let mut writer = store.create(Position::START, &members, 42)?;
//! writer.write_all(b"all there is to know")?;
//! let snapshot = writer.finish()?; // durable from here on
//!
//! let mut content = String::new();
//! store.read(&snapshot)?.read_to_string(&mut content)?;
//! assert_eq!(content, "all there is to know");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod alone;
mod error;
mod format;
mod name;
mod reader;
mod receiver;
mod source;
mod store;
mod writer;

#[doc(hidden)]
pub use format::reseal_snapshot;

pub use alone::{SnapshotFileFacts, inspect_snapshot_file, read_snapshot_file};
pub use error::{SnapshotError, SnapshotPart};
pub use format::{
    SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_CHUNK_BYTES_MIN, SNAPSHOT_CHUNK_HEAD_BYTES,
    SNAPSHOT_FOOTER_BYTES, SNAPSHOT_HEADER_BYTES,
};
pub use name::{SnapshotFileKind, SnapshotName};
pub use reader::{SnapshotInfo, SnapshotReader};
pub use receiver::SnapshotReceiver;
pub use source::SnapshotSource;
#[doc(hidden)]
pub use store::SnapshotAblation;
pub use store::{Reconciled, SNAPSHOT_PARTIALS_MAX, SnapshotOptions, SnapshotStore};
pub use writer::SnapshotWriter;
