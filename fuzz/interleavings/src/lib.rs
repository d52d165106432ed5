//! duraft's hand-overs between threads, compiled from their own sources with locks and threads whose
//! schedule the test draws. Modules that they name are given here by the crates' public names.
//!
//! ```sh
//! cd fuzz/interleavings && cargo test --release                      # 2,000 schedules a test
//! DURAFT_SCHEDULES=1000000 cargo test --release -- --nocapture       # the long form
//! ```
#![allow(dead_code, unused_imports)]

#[path = "../../../crates/duraft-storage/src/group_log.rs"]
mod group_log;
#[path = "../../../crates/duraft/src/queue.rs"]
mod queue;
#[path = "../../../crates/duraft/src/responder.rs"]
mod responder;
#[path = "../../../crates/duraft-storage/src/thread.rs"]
mod thread;

mod bootstrap {
    pub(crate) use duraft_storage::bootstrap;
}
mod errors {
    pub(crate) use duraft_storage::{OpenError, ReadError, WalError};
}
mod format {
    pub(crate) mod checksum {
        pub(crate) use duraft_storage::commands_body;
    }
}
mod options {
    pub(crate) use duraft_storage::{ClusterId, Entropy, StoreIdentity, WalOptions};
}
mod outcome {
    pub(crate) use duraft::{Applied, Outcome, RejectReason, RequestError, UnknownReason};
}
mod pipeline {
    pub(crate) use duraft_storage::{Pipeline, PipelineEvent};
}
mod preparer {
    pub(crate) use duraft_storage::Preparer;
}
mod reader {
    pub(crate) use duraft_storage::WalReader;
}
mod recovery {
    pub(crate) use duraft_storage::open;
}
mod threads {
    pub(crate) use shuttle::thread::{Builder, JoinHandle, current};
}
mod wal {
    pub(crate) use duraft_storage::{Submission, Wal, WalStats};
}

pub mod schedules;
