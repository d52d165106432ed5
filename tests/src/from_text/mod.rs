//! A second reader of duraft's files, written from `docs/wal-format.md` and `docs/snapshot-format.md`
//! and from nothing else: no code is shared with the log, not even the checksum.
//!
//! Where a field stands, it does not know: it looks that up in the tables of the pages ([`layout`]).
//! So a wrong offset in a table, or a rule that the text does not state, makes it read something else
//! than the shipped code wrote and finds. The text is the thing under test.

mod effects;
pub mod layout;
mod places;
mod records;
pub mod snapshot;
mod sums;
pub mod wal;

pub use layout::{Page, Table};
pub use places::Tables;
pub use records::{Batch, Group, Place, Snapshot};
pub use snapshot::SnapshotContent;
pub use sums::{crc32, mix64};
pub use wal::{Store, Trouble};
