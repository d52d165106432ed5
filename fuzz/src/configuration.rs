//! Any options of a store: what `validate_for` objects to is refused before anything is written, and a
//! store with what it accepts takes batches of the largest size until it says that it is full, opens
//! again with everything in it, and never panics.
//!
//! An input is numbers for the options and then the sizes of batches.

use duraft_core::{GroupId, HardState, Membership, NodeId, Position, Term, Write, WriteSeq};
use duraft_disk::{Disk, FaultDisk, FaultOptions};
use duraft_storage::{
    ClusterId, Entropy, StoreIdentity, Submission, WalError, WalOptions, bootstrap, commands_body,
    open,
};
use std::sync::Arc;

/// Larger slots are left to tests with real disks: this one is in memory.
const SLOT_BYTES_TRIED_MAX: u64 = 256 << 10;
const GROUP: GroupId = GroupId(1);

struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Small numbers, powers of two and their neighbours, and the edges.
    fn number(&mut self) -> u64 {
        let (kind, n) = (self.byte(), self.byte());
        match kind % 4 {
            0 => u64::from(n),
            1 => 1 << (n % 64),
            2 => (1u64 << (n % 64)).wrapping_sub(1),
            _ => u64::MAX - u64::from(n),
        }
    }

    fn small(&mut self) -> usize {
        usize::try_from(self.number()).unwrap_or(usize::MAX)
    }
}

fn options(p: &mut Program<'_>) -> WalOptions {
    let slot_bytes = match p.byte() % 3 {
        0 => p.number(),
        _ => (4 + u64::from(p.byte() % 60)) << 12,
    };
    let usual = WalOptions {
        slot_bytes,
        ..WalOptions::default()
    };
    if p.byte().is_multiple_of(2) {
        return usual;
    }
    WalOptions {
        slots_ready_min: p.small(),
        slots_max: p.small(),
        commit_bytes_max: p.number(),
        cache_bytes_max: p.number(),
        mark_every_commits: p.number(),
        receipt_idle_ticks: p.number(),
        queue_bytes_max: p.number(),
        queue_records_max: p.small(),
        ..usual
    }
}

fn entropy(seed: u64) -> Entropy {
    Entropy {
        seed,
        wallclock_ns: 0,
    }
}

fn write(seq: u64, end: &mut Position, bytes: usize) -> Submission {
    let body = commands_body([vec![7u8; bytes].as_slice()].into_iter(), 0).expect("a body");
    let batch = body.seal(GROUP, end, Term(1)).expect("a batch");
    *end = batch.header.position();
    let write = Write {
        seq: WriteSeq(seq),
        hard_state: Some(HardState {
            term: Term(1),
            vote: Some(NodeId(1)),
        }),
        snapshot: None,
        truncate: None,
        append: vec![batch],
        compact: None,
        healed: None,
    };
    Submission {
        group: GROUP,
        write,
    }
}

/// Takes one input.
pub fn run(data: &[u8]) {
    let mut p = Program(data);
    let options = options(&mut p);
    let max_batch_bytes = match p.byte() % 3 {
        0 => u32::try_from(p.number()).unwrap_or(u32::MAX),
        _ => 16 + u32::from(p.byte()) * 37,
    };
    let identity = StoreIdentity {
        cluster: ClusterId([7; 16]),
        node: NodeId(1),
        max_batch_bytes,
    };
    let problems = options.validate_for(&identity, 1);
    if problems.is_empty() && options.slot_bytes > SLOT_BYTES_TRIED_MAX {
        return;
    }
    let disk = FaultDisk::new(FaultOptions::default());
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let member = Membership::new([NodeId(1)], []).expect("one voter");
    let made = bootstrap(&door, &identity, &options, entropy(1), &[(GROUP, member)]);
    if !problems.is_empty() {
        assert!(made.is_err(), "refused: {problems:?}");
        let names = disk.list("").expect("listed");
        assert!(names.is_empty(), "before anything is written: {names:?}");
        return;
    }
    made.expect("what is accepted can be used");
    let (mut wal, _) =
        open(door, &identity, options.clone(), entropy(2)).expect("a new store opens");
    let (mut end, mut kept) = (Position::START, Position::START);
    for seq in 1..=12 {
        // The lengths of commands are a part of the body.
        let most = (max_batch_bytes as usize).saturating_sub(8);
        let bytes = if p.byte().is_multiple_of(2) {
            most
        } else {
            usize::from(p.byte()).min(most)
        };
        match wal.commit(&[write(seq, &mut end, bytes)]) {
            Ok(_) => kept = end,
            Err(WalError::StorageFull) => break,
            Err(error) => panic!("a batch of {bytes} bytes: {error}"),
        }
    }
    drop(wal);
    let door: Arc<dyn Disk> = Arc::new(disk.process_crash());
    let (_, recovered) = open(door, &identity, options, entropy(3)).expect("opens again");
    let found = recovered.groups[&GROUP].batches.last();
    let found = found.map_or(Position::START, |header| header.position());
    assert!(
        found == kept || found == end,
        "{found} is neither {kept} nor {end}"
    );
}
