//! The segmented write-ahead log of duraft, its recovery, and the pipeline that batches syncs.
//!
//! See `docs/wal-format.md` for the bytes on disk and what each crash can leave of them.
#![forbid(unsafe_code)]

mod bootstrap;
mod encode;
mod entry_log;
mod errors;
mod force;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod group_log;
mod index;
mod log;
mod options;
mod pipeline;
mod plan;
mod pool;
mod preparer;
mod reader;
mod recovery;
mod repair;
mod segment;
mod snapshot;
mod standalone;
mod thread;
mod threads;
mod wal;

pub use bootstrap::{JoinAs, bootstrap, bootstrap_joining};
pub use entry_log::{EntryLog, EntryLogError, EntryLogOptions, LogEntry, WhenDurable};
pub use errors::{
    Contradiction, Damage, GroupDamage, Hole, OpenError, Poison, ReadError, WalError, WriteProblem,
};
pub use force::{ForceError, ForcedReport, ForcedVoters, force_configuration};
pub use format::FormatError;
pub use format::checksum::{BatchDamage, body_checksum, commands_body, verify};
pub use format::record::{
    DescriptorError, RecordError, decode_descriptor, descriptor_checksum, encode_descriptor,
};
pub use group_log::{GroupLog, GroupLogError, GroupLogOptions, Ticket};
#[doc(hidden)]
pub use options::Ablation;
pub use options::{ClusterId, Entropy, OnDamage, OptionProblem, StoreIdentity, WalOptions};
pub use pipeline::{Durable, Pipeline, PipelineEvent};
pub use pool::PoolStats;
pub use preparer::Preparer;
pub use reader::WalReader;
pub use recovery::inspect;
pub use recovery::{Recovered, RecoveredGroup, RecoveryReport, open};
pub use repair::{Repair, RepairKind};
#[doc(hidden)]
pub use snapshot::SnapshotAblation;
pub use snapshot::{
    Reconciled, SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_CHUNK_BYTES_MIN, SNAPSHOT_CHUNK_HEAD_BYTES,
    SNAPSHOT_FOOTER_BYTES, SNAPSHOT_HEADER_BYTES, SNAPSHOT_PARTIALS_MAX, SnapshotError,
    SnapshotFileFacts, SnapshotFileKind, SnapshotInfo, SnapshotName, SnapshotOptions, SnapshotPart,
    SnapshotReader, SnapshotReceiver, SnapshotSource, SnapshotStore, SnapshotWriter,
    inspect_snapshot_file, read_snapshot_file,
};
pub use thread::{PipelineThread, SubmitError};
pub use wal::{CommitTimes, Submission, Wal, WalStats};
