//! openraft's own conformance suite over the log, on real files.

use duraft_openraft::LogStore;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftLogId, SnapshotMeta, StorageError,
    StoredMembership, TokioRuntime,
};
use std::io::Cursor;
use std::sync::{Arc, Mutex};

openraft::declare_raft_types!(
    pub Types:
        D = String,
        R = String,
        NodeId = u64,
        Node = BasicNode,
        Entry = Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = TokioRuntime
);

type Failed = StorageError<u64>;

/// A state machine that keeps what openraft asks of it, in memory: the suite is about the log.
#[derive(Clone, Default)]
struct Machine {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    /// The latest snapshot, which builders share.
    snapshot: Arc<Mutex<Option<(SnapshotMeta<u64, BasicNode>, Vec<u8>)>>>,
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failed> {
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{:?}", self.applied),
        };
        *self.snapshot.lock().expect("no panic") = Some((meta.clone(), Vec::new()));
        Ok(Snapshot {
            meta,
            snapshot: Box::default(),
        })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), Failed> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<String>, Failed>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let id = *entry.get_log_id();
            self.applied = Some(id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(id), membership);
            }
            answers.push(String::new());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failed> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failed> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let snapshot = (meta.clone(), snapshot.into_inner());
        *self.snapshot.lock().expect("no panic") = Some(snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failed> {
        let snapshot = self.snapshot.lock().expect("no panic").clone();
        Ok(snapshot.map(|(meta, bytes)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        }))
    }
}

/// A folder of its own for each test of the suite.
struct InFolder;

impl StoreBuilder<Types, LogStore<Types>, Machine, tempfile::TempDir> for InFolder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore<Types>, Machine), Failed> {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogStore::open(folder.path()).expect("a new log");
        Ok((folder, log, Machine::default()))
    }
}

#[test]
fn the_suite_of_openraft_passes() {
    Suite::test_all(InFolder).expect("every test of the suite");
}
