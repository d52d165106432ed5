//! What openraft was told to be durable is there in the next life, whatever the disk kept of the rest.

use duraft_disk::{Disk, FaultDisk, FaultOptions, Survival};
use duraft_openraft::LogStore;
use duraft_storage::{EntryLogOptions, WalOptions};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, TokioRuntime, Vote};
use std::io::Cursor;
use std::sync::Arc;

openraft::declare_raft_types!(
    pub Types:
        D = String,
        R = String,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = TokioRuntime
);

fn open(disk: &FaultDisk) -> LogStore<Types> {
    let options = EntryLogOptions {
        wal: WalOptions {
            slot_bytes: 64 << 10,
            ..WalOptions::default()
        },
        entry_bytes_max: 4_096,
        ..EntryLogOptions::default()
    };
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    LogStore::open_on(door, options).expect("a sound store")
}

fn id(term: u64, index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64) -> Entry<Types> {
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(format!("entry {index} of term {term}")),
    }
}

#[tokio::test]
async fn entries_vote_cut_and_purge_survive_a_power_loss() {
    for seed in 0..20 {
        let disk = FaultDisk::new(FaultOptions::default());
        let mut log = open(&disk);
        log.save_vote(&Vote::new_committed(2, 1))
            .await
            .expect("saved");
        log.blocking_append((0..10).map(|i| entry(1, i)))
            .await
            .expect("appended");
        log.truncate(id(1, 7)).await.expect("cut");
        log.blocking_append((7..9).map(|i| entry(2, i)))
            .await
            .expect("appended");
        log.purge(id(1, 3)).await.expect("purged");
        let disk = disk.power_loss(Survival::Drawn(seed));
        drop(log);
        let mut log = open(&disk);
        assert_eq!(
            log.read_vote().await.expect("read"),
            Some(Vote::new_committed(2, 1))
        );
        let state = log.get_log_state().await.expect("a state");
        assert_eq!(state.last_purged_log_id, Some(id(1, 3)));
        assert_eq!(state.last_log_id, Some(id(2, 8)));
        let found = log.try_get_log_entries(0..100).await.expect("read");
        let expected: Vec<Entry<Types>> = (4..7)
            .map(|i| entry(1, i))
            .chain((7..9).map(|i| entry(2, i)))
            .collect();
        assert_eq!(found, expected, "seed {seed}");
    }
}

#[tokio::test]
async fn a_purge_beyond_the_end_takes_the_place_of_the_log() {
    let disk = FaultDisk::new(FaultOptions::default());
    let mut log = open(&disk);
    log.blocking_append((0..5).map(|i| entry(1, i)))
        .await
        .expect("appended");
    log.purge(id(3, 40)).await.expect("purged");
    let next = log.blocking_append([entry(3, 41)]).await;
    next.expect("it goes on behind the snapshot");
    drop(log);
    let mut log = open(&disk.process_crash());
    let state = log.get_log_state().await.expect("a state");
    assert_eq!(state.last_purged_log_id, Some(id(3, 40)));
    assert_eq!(state.last_log_id, Some(id(3, 41)));
    let found = log.try_get_log_entries(..).await.expect("read");
    assert_eq!(found, [entry(3, 41)]);
}
