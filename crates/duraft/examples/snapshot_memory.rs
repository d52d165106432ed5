//! How much memory a snapshot takes on its way: `snapshot_memory <folder> [MiB]`.
//!
//! Takes a snapshot of so many MiB (default 1024) on a disk below the folder, moves it to another disk
//! there through both sides of a transfer with their shipped options, reads it back, and prints how
//! far the peak of the process's memory rose in each step. Both sides run in this process, and the
//! frames between them are handed over in memory. Removes what it made.

// A program talks.
#![allow(clippy::print_stdout)]

use duraft::transfer::{TransferInput, TransferOptions, TransferOutput, Transfers};
use duraft::{ClusterId, GroupId, Incarnation, Index, LogId, Membership, NodeId, RealDisk, Term};
use duraft_core::{Completion, Digest, Position, Snapshot, mix64};
use duraft_storage::SnapshotStore;
use std::collections::VecDeque;
use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const LEADER: NodeId = NodeId(1);
const FOLLOWER: NodeId = NodeId(2);

/// Content that can be made and checked piece by piece.
struct Content {
    left: u64,
    word: u64,
}

impl Read for Content {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (words, _) = out.as_chunks_mut::<8>();
        let mut done = 0;
        for place in words {
            if self.left == 0 {
                break;
            }
            self.word = mix64(self.word);
            *place = self.word.to_le_bytes();
            self.left -= 8;
            done += 8;
        }
        Ok(done)
    }
}

/// Peak and present memory of this process in KiB.
fn memory() -> Result<(u64, u64), Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Ok((field("VmHWM:"), field("VmRSS:")))
}

/// Runs a step and tells how far memory rose above what it was before, and how fast it went.
fn measured<T>(
    what: &str,
    mib: u64,
    step: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    // Begins the peak anew.
    fs::write("/proc/self/clear_refs", "5")?;
    let (_, before) = memory()?;
    let begun = Instant::now();
    let result = step()?;
    let seconds = begun.elapsed().as_secs_f64();
    let (peak, _) = memory()?;
    let extra = peak.saturating_sub(before);
    println!("{what:<10} {mib} MiB in {seconds:.2} s; memory rose by {extra} KiB at most");
    Ok(result)
}

fn open(folder: &Path) -> Result<SnapshotStore, Box<dyn Error>> {
    let disk = Arc::new(RealDisk::create(folder)?);
    let cluster = ClusterId(*b"snapshot memory!");
    Ok(SnapshotStore::open(disk, cluster, GroupId(1))?)
}

fn take(store: &SnapshotStore, bytes: u64) -> Result<Snapshot, Box<dyn Error>> {
    let id = LogId {
        term: Term(1),
        index: Index(1_000_000),
    };
    let digest = Digest::EMPTY;
    let membership = Membership::new([LEADER, FOLLOWER], [])?;
    let mut writer = store.create(Position { id, digest }, &membership, 1)?;
    let mut content = Content {
        left: bytes,
        word: 1,
    };
    let mut piece = vec![0; 64 << 10];
    loop {
        match content.read(&mut piece)? {
            0 => return Ok(writer.finish()?),
            n => writer.write_all(&piece[..n])?,
        }
    }
}

fn send(
    from: SnapshotStore,
    to: SnapshotStore,
    snapshot: &Snapshot,
) -> Result<u64, Box<dyn Error>> {
    let options = TransferOptions::default();
    let new = |store| Transfers::new(options, Incarnation(1), store);
    let (mut leader, mut follower) = (new(from), new(to));
    let start = TransferInput::Send {
        to: FOLLOWER,
        term: Term(1),
        snapshot: snapshot.clone(),
    };
    let mut inputs = VecDeque::from([(LEADER, start)]);
    let mut outputs = Vec::new();
    let mut in_flight_max = 0;
    while let Some((node, input)) = inputs.pop_front() {
        let (side, other) = if node == LEADER {
            (&mut leader, FOLLOWER)
        } else {
            (&mut follower, LEADER)
        };
        side.step(input, &mut outputs);
        in_flight_max = in_flight_max.max(side.in_flight_bytes());
        for output in outputs.drain(..) {
            match output {
                TransferOutput::Frame { frame, .. } => {
                    inputs.push_back((other, TransferInput::Frame { from: node, frame }));
                }
                TransferOutput::Completed(Completion::SnapshotReceived { .. }) => {
                    return Ok(in_flight_max);
                }
                TransferOutput::Completed(_) => {}
                TransferOutput::Damaged { error, .. } => return Err(error.into()),
            }
        }
        if inputs.is_empty() {
            inputs.extend([
                (LEADER, TransferInput::Tick),
                (FOLLOWER, TransferInput::Tick),
            ]);
        }
    }
    Err("the transfer stopped".into())
}

fn read_back(store: &SnapshotStore, snapshot: &Snapshot) -> Result<(), Box<dyn Error>> {
    let mut reader = store.read(snapshot)?;
    let mut expected = Content {
        left: reader.content_bytes(),
        word: 1,
    };
    let (mut found, mut wanted) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let wanted_len = expected.read(&mut wanted)?;
        reader.read_exact(&mut found[..wanted_len])?;
        if found[..wanted_len] != wanted[..wanted_len] {
            return Err("another content was read".into());
        }
        if wanted_len == 0 {
            return Ok(());
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder?")?;
    let mib: u64 = arguments.next().map_or(Ok(1024), |mib| mib.parse())?;
    let root = Path::new(&folder).join("snapshot-memory");
    let (from, to) = (open(&root.join("leader"))?, open(&root.join("follower"))?);
    let snapshot = measured("taking", mib, || take(&from, mib << 20))?;
    let in_flight = measured("moving", mib, || send(from, to.clone(), &snapshot))?;
    println!("{:<10} at most {in_flight} bytes", "in flight");
    measured("reading", mib, || read_back(&to, &snapshot))?;
    fs::remove_dir_all(root)?;
    Ok(())
}
