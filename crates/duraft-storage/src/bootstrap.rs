//! Makes a fresh store. The STORE file comes last: until it stands, there is no store, and making it
//! may be begun again.

use crate::encode::Measure;
use crate::errors::{OpenError, WalError};
use crate::format::BLOCK_BYTES;
use crate::format::block::Flags;
use crate::format::header::{SlotHeader, StoreFile};
use crate::format::payload::GroupCheckpoint;
use crate::index::{GroupIndex, Lost, StoreIndex};
use crate::options::{Entropy, OptionProblem, StoreIdentity, WalOptions};
use crate::pool::{Need, Pool, SLOT_DIR, slot_name, slot_of};
use crate::recovery::take_lock;
use crate::wal::{Content, Store, Wal, checkpoint_of};
use duraft_core::{GroupId, HardState, Index, LogId, Membership, Position};
use duraft_disk::{Disk, DiskError, DiskLock};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Name of the lock.
pub(crate) const LOCK_NAME: &str = "LOCK";
/// Name of the file that says whose store this is.
pub(crate) const STORE_NAME: &str = "STORE";
const STORE_TEMPORARY: &str = "STORE.tmp";

/// Segments a fresh store has. Either alone says all there is: one bad sector takes only one.
const FIRST_SEGMENTS: usize = 2;

/// Slots a fresh store has: those of its segments, and one for the first open.
const FIRST_SLOTS: usize = FIRST_SEGMENTS + 1;

/// Makes a store with these groups and their initial memberships. Fails where there is one. After a
/// crash it may be called again; a store exists from the moment its STORE file is durable.
pub fn bootstrap(
    disk: &Arc<dyn Disk>,
    identity: &StoreIdentity,
    options: &WalOptions,
    entropy: Entropy,
    groups: &[(GroupId, Membership)],
) -> Result<(), OpenError> {
    let mut states = BTreeMap::new();
    for (group, membership) in groups {
        if states.insert(*group, fresh(membership.clone())).is_some() {
            return Err(OpenError::Group(*group));
        }
    }
    make(disk, identity, options, entropy, states)
}

/// How a node comes to join a cluster that lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JoinAs {
    /// Under an id that was never a member of this cluster.
    New,
    /// As a member that has lost its disk. What it promised is unknown: it is damaged as a whole, and
    /// can neither vote nor acknowledge before its peers have said what there is (RULES.md 14, 15).
    /// Such a store opens under [`OnDamage::RepairFromPeers`](crate::OnDamage::RepairFromPeers).
    Wiped,
}

/// Makes a store of a node that joins a cluster that lives already: its groups have empty logs and
/// know no members. Fails where there is a store; may be called again after a crash.
///
/// To say `New` of a member that lost its disk breaks its promises: acknowledged commands can be lost.
pub fn bootstrap_joining(
    disk: &Arc<dyn Disk>,
    identity: &StoreIdentity,
    options: &WalOptions,
    entropy: Entropy,
    groups: &[GroupId],
    join: JoinAs,
) -> Result<(), OpenError> {
    let lost = match join {
        JoinAs::New => None,
        JoinAs::Wiped => Some(Lost {
            suffix: true,
            vote: true,
            floor: LogId::default(),
        }),
    };
    let mut states = BTreeMap::new();
    for group in groups {
        let state = GroupIndex {
            lost,
            ..fresh(Membership::unknown())
        };
        if states.insert(*group, state).is_some() {
            return Err(OpenError::Group(*group));
        }
    }
    make(disk, identity, options, entropy, states)
}

fn make(
    disk: &Arc<dyn Disk>,
    identity: &StoreIdentity,
    options: &WalOptions,
    entropy: Entropy,
    groups: BTreeMap<GroupId, GroupIndex>,
) -> Result<(), OpenError> {
    let mut problems = options.validate_for(identity, groups.len());
    if groups.is_empty() {
        problems.push(OptionProblem {
            field: "groups",
            rule: "at least one",
        });
    }
    if !problems.is_empty() {
        return Err(OpenError::Options(problems));
    }
    let lock = take_lock(&**disk)?;
    clear_leftovers(&**disk)?;
    disk.create_dir(SLOT_DIR)?;
    disk.sync_dir("")?;
    let words = [entropy.wallclock_ns, identity.node.0];
    let store = StoreFile {
        store: store_id(&entropy, &words),
        cluster: identity.cluster.0,
        node: identity.node.0,
        slot_bytes: options.slot_bytes,
        max_batch_bytes: identity.max_batch_bytes,
        wallclock_ns: entropy.wallclock_ns,
    };
    // The unopened log holds the lock until the store is whole.
    let _holds_lock = write_first_segments(disk, &store, options, entropy, groups, lock)?;
    write_store(&**disk, &store)
}

fn store_id(entropy: &Entropy, words: &[u64]) -> [u8; 16] {
    let low = entropy.derive(words);
    let high = entropy.derive(&[low]);
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}

/// A group as it begins.
fn fresh(membership: Membership) -> GroupIndex {
    GroupIndex::from_checkpoint(&GroupCheckpoint {
        hard_state: HardState::default(),
        start: Position::START,
        end: Position::START,
        last_membership: Index(0),
        membership,
        snapshot: None,
    })
}

/// Removes what an interrupted bootstrap left, and nothing else.
fn clear_leftovers(disk: &dyn Disk) -> Result<(), OpenError> {
    let names = disk.list("")?;
    if names.iter().any(|name| name == STORE_NAME) {
        return Err(OpenError::StoreExists);
    }
    if !names.iter().any(|name| name == SLOT_DIR) {
        return Ok(());
    }
    let slots: Vec<u32> = disk
        .list(SLOT_DIR)?
        .iter()
        .filter_map(|name| slot_of(name))
        .collect();
    for slot in &slots {
        let file = disk.open(&slot_name(*slot))?;
        let mut block = vec![0; BLOCK_BYTES];
        file.read_at(&mut block, 0)?;
        // Bootstrap writes generation 0; every open writes a later one.
        if SlotHeader::generation_of_any_store(&block).is_some_and(|generation| generation > 0) {
            return Err(OpenError::StoreFileMissing);
        }
    }
    for slot in slots {
        disk.remove(&slot_name(slot))?;
    }
    disk.sync_dir(SLOT_DIR)?;
    Ok(())
}

/// The first segments: checkpoints of the groups as they begin.
fn write_first_segments(
    disk: &Arc<dyn Disk>,
    file: &StoreFile,
    options: &WalOptions,
    entropy: Entropy,
    groups: BTreeMap<GroupId, GroupIndex>,
    lock: Box<dyn DiskLock>,
) -> Result<Wal, OpenError> {
    let seed = options.seed(&file.store);
    let pool = Pool::new(Arc::clone(disk), seed, file.slot_bytes, options.slots_max);
    for _ in 0..FIRST_SLOTS {
        pool.prepare()?;
    }
    let store = Store {
        id: file.store,
        seed,
        slot_bytes: file.slot_bytes,
        slot_blocks: pool.slot_blocks(),
    };
    let index = StoreIndex::new(groups, options.cache_bytes_max);
    let mut wal = Wal::unopened(store, options.clone(), entropy, index, pool, lock);
    wal.next_segment = 1;
    let checkpoint = {
        let index = wal.shared.index.read();
        checkpoint_of(&index, |group| index.groups[&group].log.end())
    };
    let content = Content {
        flags: Flags::FENCE,
        measure: Measure::default(),
        need: Need::Open,
        dead: &BTreeMap::new(),
        each: &|_| {},
    };
    for _ in 0..FIRST_SEGMENTS {
        let Ok(Some(slot)) = wal.pool.take(Need::Open) else {
            return Err(OpenError::NoSlot {
                slots: options.slots_max,
            });
        };
        wal.begin_segment(slot, 1, &checkpoint, &content)
            .map_err(open_error)?;
        wal.last_commit += 1;
    }
    Ok(wal)
}

/// The one way beginning a segment can fail, with a slot in hand and a content that was measured.
pub(crate) fn open_error(error: WalError) -> OpenError {
    match error {
        WalError::Poisoned(poison) => OpenError::from(DiskError::new(
            poison.op,
            poison.name,
            io::Error::new(poison.kind, poison.message),
        )),
        WalError::Invalid { .. }
        | WalError::UnknownGroup(_)
        | WalError::TooLarge { .. }
        | WalError::StorageFull => {
            unreachable!("a segment is begun with a slot in hand and a measured content")
        }
    }
}

/// Puts the STORE file in its place, whole or not at all.
pub(crate) fn write_store(disk: &dyn Disk, store: &StoreFile) -> Result<(), OpenError> {
    if disk.list("")?.iter().any(|name| name == STORE_TEMPORARY) {
        disk.remove(STORE_TEMPORARY)?;
    }
    let file = disk.create(STORE_TEMPORARY)?;
    file.write_at(&store.encode(), 0)?;
    file.sync_all()?;
    drop(file);
    disk.rename(STORE_TEMPORARY, STORE_NAME)?;
    disk.sync_dir("")?;
    Ok(())
}
