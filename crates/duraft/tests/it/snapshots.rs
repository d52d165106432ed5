//! One node and its snapshots: taken while commands go on, restored at the start, missed or damaged.

use crate::common::{DEADLINE, Journal, scratch, single};
use bytes::Bytes;
use duraft::{
    ApplyContext, BusyReason, Index, Node, NodeEvent, NodeOptions, OnDamage, RejectReason,
    RequestError, SessionLimits, SnapshotWork, StartError, StateMachine,
};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Small enough that a few commands bring a snapshot, and nothing of the log is kept behind it.
fn eager(dir: &TempDir) -> NodeOptions {
    let mut settings = single(dir);
    settings.snapshot_log_bytes = Some(4 << 10);
    settings.core.trailing_bytes_max = 0;
    settings
}

fn start(settings: &NodeOptions) -> (Node, Journal) {
    let journal = Journal::default();
    let node = Node::start(settings.clone(), Box::new(journal.clone())).expect("started");
    (node, journal)
}

fn fill(node: &Node, from: u64, to: u64) {
    for number in from..to {
        let command = Bytes::from(format!("{number:0>500}"));
        node.propose_wait(command, DEADLINE).expect("applied");
    }
}

/// Counts what it is given besides remembering it.
#[derive(Clone, Default)]
struct Counting {
    journal: Journal,
    given: Arc<Mutex<(u64, u64)>>,
}

impl StateMachine for Counting {
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes {
        self.given.lock().expect("unpoisoned").0 += 1;
        self.journal.apply(context, command)
    }

    fn snapshot(&self) -> SnapshotWork {
        self.journal.snapshot()
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        self.given.lock().expect("unpoisoned").1 += 1;
        self.journal.restore(source)
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let folder = dir.join("1/snap/0000000000000001");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

#[test]
fn log_is_cut_behind_snapshots_and_the_next_life_begins_with_one() {
    let dir = scratch();
    let settings = eager(&dir);
    let (node, journal) = start(&settings);
    fill(&node, 0, 100);
    let durable = node.wait_for(DEADLINE, |s| s.snapshot.is_some());
    let durable = durable.expect("a snapshot").snapshot.expect("checked");
    let before = journal.commands();
    let index = node.status().applied;
    drop(node);
    let counting = Counting::default();
    let node = Node::start(settings, Box::new(counting.clone())).expect("started");
    node.wait_for(DEADLINE, |s| s.applied >= index)
        .expect("caught up");
    assert_eq!(counting.journal.commands(), before);
    let (applied, restored) = *counting.given.lock().expect("unpoisoned");
    assert_eq!(restored, 1);
    // The entries behind the snapshot, one or two of them no-ops of the two lives, and no more.
    assert!(
        applied <= index.0 - durable.upto.index.0,
        "{applied} applied again"
    );
    fill(&node, 100, 101);
    assert_eq!(counting.journal.commands().len(), 101);
    node.shutdown();
    let left = files(dir.path());
    // The latest that the log knows, the one before it, and one that the log does not know yet.
    assert!(left.len() <= 3, "{left:?}");
}

#[test]
fn snapshot_on_demand_and_sessions_in_it() {
    let dir = scratch();
    let mut settings = eager(&dir);
    settings.snapshot_log_bytes = None;
    let (node, _journal) = start(&settings);
    node.wait_for(DEADLINE, |s| s.role == duraft::RoleKind::Leader)
        .expect("a leader");
    let session = node
        .open_session_wait(SessionLimits::default(), DEADLINE)
        .expect("opened");
    let command = session.number(Bytes::from("once"));
    let first = node
        .propose_numbered_wait(command.clone(), DEADLINE)
        .expect("applied");
    let taken = node
        .snapshot()
        .wait_until(std::time::Instant::now() + DEADLINE)
        .expect("taken");
    assert!(taken.upto.index >= first.log_id.index);
    node.wait_for(DEADLINE, |s| s.snapshot == Some(taken))
        .expect("the log counts on it");
    drop(node);
    let (node, journal) = start(&settings);
    node.wait_for(DEADLINE, |s| s.role == duraft::RoleKind::Leader)
        .expect("a leader");
    let again = node
        .propose_numbered_wait(command, DEADLINE)
        .expect("known");
    assert_eq!(again, first);
    assert_eq!(journal.commands(), ["once"]);
    node.shutdown();
}

/// Damages a file in its middle.
fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(file, bytes).expect("written");
}

#[test]
fn damaged_snapshot_is_passed_over_while_the_log_reaches_an_older_one() {
    for remove in [false, true] {
        let dir = scratch();
        let mut settings = eager(&dir);
        // The whole log stays: every older snapshot, and none at all, will do.
        settings.core.trailing_bytes_max = 1 << 30;
        let (node, journal) = start(&settings);
        fill(&node, 0, 60);
        node.shutdown();
        let before = journal.commands();
        let latest = files(dir.path()).pop().expect("a snapshot");
        if remove {
            std::fs::remove_file(latest).expect("removed");
        } else {
            damage(&latest);
        }
        let (node, journal) = start(&settings);
        node.wait_for(DEADLINE, |_| journal.commands().len() >= before.len())
            .expect("caught up");
        assert_eq!(journal.commands(), before);
        node.shutdown();
        for file in files(dir.path()) {
            damage(&file);
        }
        let (node, journal) = start(&settings);
        node.wait_for(DEADLINE, |_| journal.commands().len() >= before.len())
            .expect("from the log alone");
        assert_eq!(journal.commands(), before);
        node.shutdown();
    }
}

#[test]
fn lost_state_is_an_error_and_not_an_empty_beginning() {
    let dir = scratch();
    let settings = eager(&dir);
    let (node, _) = start(&settings);
    fill(&node, 0, 60);
    node.wait_for(DEADLINE, |s| s.snapshot.is_some())
        .expect("a snapshot");
    node.shutdown();
    let files = files(dir.path());
    for file in &files {
        damage(file);
    }
    let refused = Node::start(settings.clone(), Box::new(Journal::default()));
    let Err(StartError::StateLost { before, unreadable }) = refused else {
        panic!("{refused:?}");
    };
    assert!(before > Index(0));
    assert!(!unreadable.is_empty());
    // Where peers may repair it, the life begins with the damage, and says so first of all.
    let mut settings = settings;
    settings.wal.policy = OnDamage::RepairFromPeers;
    let (node, _) = start(&settings);
    let first = node.subscribe_from(0).next_wait(DEADLINE).map(|p| p.event);
    assert_eq!(first, Ok(NodeEvent::Damaged));
    assert!(node.status().damage.is_some_and(|d| d.snapshot_lost));
    // Nobody takes the empty state for that of the log's beginning.
    assert_eq!(node.status().applied, Index(0));
    let refused = RequestError::Busy {
        why: BusyReason::Snapshot,
    };
    let seen = node.read_stale_wait(DEADLINE, Journal::commands);
    assert_eq!(seen, Err(refused.clone()));
    assert_eq!(node.snapshot_wait(DEADLINE), Err(refused));
    node.shutdown();
}

/// Takes each command in as it reads it, whatever comes behind it.
struct Greedy(Journal);

impl StateMachine for Greedy {
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes {
        self.0.apply(context, command)
    }

    fn snapshot(&self) -> SnapshotWork {
        self.0.snapshot()
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut commands = self.0.0.lock().expect("unpoisoned");
        commands.clear();
        let mut item = [0; 508];
        loop {
            match source.read_exact(&mut item) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            }
            commands.push(Bytes::copy_from_slice(&item[8..]));
        }
    }
}

#[test]
fn state_machine_takes_in_nothing_of_a_file_that_breaks_off() {
    // The log is whole: it can be applied from its beginning, but to an empty state only.
    let dir = scratch();
    let mut settings = single(&dir);
    settings.core.trailing_bytes_max = u64::MAX;
    settings.snapshots.chunk_bytes = 4 << 10;
    let journal = Journal::default();
    let begin = |journal: &Journal| {
        let machine = Box::new(Greedy(journal.clone()));
        Node::start(settings.clone(), machine).expect("started")
    };
    let node = begin(&journal);
    fill(&node, 0, 300);
    node.snapshot_wait(DEADLINE).expect("taken");
    node.wait_for(DEADLINE, |s| s.snapshot.is_some())
        .expect("recorded");
    node.shutdown();
    let file = files(dir.path()).pop().expect("a file");
    let mut bytes = std::fs::read(&file).expect("read");
    // In the last chunk of many.
    let place = bytes.len() - 600;
    bytes[place] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let journal = Journal::default();
    let node = begin(&journal);
    assert!(node.status().snapshot.is_none());
    fill(&node, 300, 301);
    let expected: Vec<Bytes> = (0..301)
        .map(|n| Bytes::from(format!("{n:0>500}")))
        .collect();
    assert!(journal.commands() == expected, "applied twice or not");
    node.shutdown();
}

#[test]
fn snapshot_of_a_state_that_is_in_a_file_already_is_no_second_file() {
    let dir = scratch();
    let settings = single(&dir);
    let (node, _) = start(&settings);
    fill(&node, 0, 3);
    let ask = |node: &Node| node.snapshot_wait(DEADLINE).expect("taken");
    let first = ask(&node);
    let file = files(dir.path());
    assert_eq!(file.len(), 1);
    assert_eq!([ask(&node), ask(&node)], [first, first]);
    assert_eq!(files(dir.path()), file);
    node.wait_for(DEADLINE, |s| s.snapshot.is_some())
        .expect("recorded");
    node.shutdown();
    // The next life applies an entry of its own term; what follows that one is one file again.
    let (node, _) = start(&settings);
    node.wait_for(DEADLINE, |s| s.applied > first.upto.index)
        .expect("a leader again");
    let second = ask(&node);
    assert!(second.upto.index > first.upto.index);
    assert_eq!(ask(&node), second);
    assert!(files(dir.path()).len() <= 2);
    node.shutdown();
}

#[test]
fn state_machine_that_cannot_write_its_state_costs_only_the_snapshot() {
    struct Mute(Journal);
    impl StateMachine for Mute {
        fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes {
            self.0.apply(context, command)
        }
        fn snapshot(&self) -> SnapshotWork {
            if self.0.commands().len().is_multiple_of(2) {
                Box::new(|_| Err(io::Error::other("no")))
            } else {
                Box::new(|_| panic!("no"))
            }
        }
        fn restore(&mut self, _source: &mut dyn Read) -> io::Result<()> {
            Ok(())
        }
    }
    let dir = scratch();
    let settings = eager(&dir);
    let journal = Journal::default();
    let node = Node::start(settings, Box::new(Mute(journal.clone()))).expect("started");
    for number in 0..2 {
        fill(&node, number, number + 1);
        let failed = node
            .snapshot()
            .wait_until(std::time::Instant::now() + DEADLINE);
        let expected = RequestError::Rejected {
            reason: RejectReason::SnapshotFailed,
            leader: None,
        };
        assert_eq!(failed, Err(expected));
    }
    fill(&node, 2, 40);
    assert!(node.status().stopped.is_none());
    assert_eq!(
        files(dir.path()),
        [] as [PathBuf; 0],
        "nothing is left of them"
    );
    node.shutdown();
}

/// Keeps its state in a file, as a database would.
struct OnDisk {
    file: PathBuf,
    journal: Journal,
    applied: u64,
    given: Arc<Mutex<Vec<u64>>>,
}

impl OnDisk {
    fn open(file: PathBuf, given: Arc<Mutex<Vec<u64>>>) -> OnDisk {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let mut applied = 0;
        let journal = Journal::default();
        if let Some((index, rest)) = bytes.split_first_chunk::<8>() {
            applied = u64::from_le_bytes(*index);
            journal.clone().restore(&mut &rest[..]).expect("restored");
        }
        OnDisk {
            file,
            journal,
            applied,
            given,
        }
    }

    fn save(&self) {
        let mut bytes = self.applied.to_le_bytes().to_vec();
        (self.journal.snapshot())(&mut bytes).expect("written");
        std::fs::write(&self.file, bytes).expect("written");
    }
}

impl StateMachine for OnDisk {
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes {
        self.given
            .lock()
            .expect("unpoisoned")
            .push(context.log_id.index.0);
        self.applied = context.log_id.index.0;
        let answer = self.journal.apply(context, command);
        // Not at every command, so that a crash finds it behind.
        if self.applied.is_multiple_of(7) {
            self.save();
        }
        answer
    }

    fn snapshot(&self) -> SnapshotWork {
        let applied = self.applied;
        let work = self.journal.snapshot();
        Box::new(move |out| {
            out.write_all(&applied.to_le_bytes())?;
            work(out)
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut applied = [0; 8];
        source.read_exact(&mut applied)?;
        self.applied = u64::from_le_bytes(applied);
        self.journal.restore(source)?;
        self.save();
        Ok(())
    }

    fn applied(&self) -> Option<Index> {
        Some(Index(self.applied))
    }
}

#[test]
fn durable_state_machine_is_given_nothing_twice_and_nothing_is_skipped() {
    let dir = scratch();
    let settings = eager(&dir);
    let file = dir.path().join("database");
    let mut number = 0;
    for life in 0..6 {
        let given = Arc::new(Mutex::new(Vec::new()));
        let machine = OnDisk::open(file.clone(), Arc::clone(&given));
        let (had, journal) = (machine.applied, machine.journal.clone());
        let node = Node::start(settings.clone(), Box::new(machine)).expect("started");
        node.wait_for(DEADLINE, |s| s.role == duraft::RoleKind::Leader)
            .expect("a leader");
        // Bursts, so that batches hold several commands.
        let burst: Vec<_> = (0..23)
            .map(|i| node.propose(Bytes::from(format!("{:0>200}", number + i))))
            .collect();
        number += 23;
        for applied in burst {
            let until = std::time::Instant::now() + DEADLINE;
            applied.wait_until(until).expect("applied");
        }
        drop(node);
        let given = given.lock().expect("unpoisoned").clone();
        assert!(
            given.iter().all(|index| *index > had),
            "life {life}: {had} {given:?}"
        );
        assert!(given.is_sorted(), "{given:?}");
        let expected: Vec<String> = (0..number).map(|i| format!("{i:0>200}")).collect();
        assert_eq!(journal.commands(), expected, "life {life}");
    }
}

#[test]
fn state_machine_ahead_of_the_log_is_refused() {
    let dir = scratch();
    let settings = eager(&dir);
    let (node, _) = start(&settings);
    fill(&node, 0, 3);
    node.shutdown();
    let file = dir.path().join("database");
    std::fs::write(&file, 1000u64.to_le_bytes()).expect("written");
    let machine = OnDisk::open(file, Arc::default());
    let refused = Node::start(settings, Box::new(machine));
    let Err(StartError::Boot(error)) = refused else {
        panic!("{refused:?}");
    };
    let text = error.to_string();
    assert!(text.contains("1000"), "{text}");
}
