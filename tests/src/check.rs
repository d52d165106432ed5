//! What must hold of a core after every step: its own invariants, and that what it says of itself
//! is what its outputs said and its disk holds.

use crate::{Broken, Disk};
use duraft_core::{Output, Raft, RoleKind, Term, invariants};

/// Does the state after a step hold what the core promises, alone and compared with before?
pub fn core(before: &Raft, after: &Raft, out: &[Output]) -> Result<(), Broken> {
    invariants::check(after)
        .and_then(|()| invariants::check_delta(before, after, out))
        .map_err(|violation| Broken {
            rule: violation.invariant,
            story: format!("node {}: {}", after.id(), violation.found),
        })
}

/// Is the core where its outputs have led an observer to believe it is?
pub fn agrees(raft: &Raft, told: (RoleKind, Term), disk: &Disk) -> Result<(), Broken> {
    let hard_state = disk.issued.hard_state;
    Broken::unless((raft.role(), raft.term()) == told, "roles are told", || {
        format!(
            "node {} is {:?} in {}, told {told:?}",
            raft.id(),
            raft.role(),
            raft.term()
        )
    })?;
    let same = raft.term() == hard_state.term && raft.vote() == hard_state.vote;
    Broken::unless(
        same,
        "term and vote are written in the step that changes them",
        || {
            let (term, vote) = (raft.term(), raft.vote());
            format!(
                "node {} is in {term} vote {vote:?}, wrote {hard_state:?}",
                raft.id()
            )
        },
    )?;
    let end = disk.issued.last();
    Broken::unless(raft.last() == end, "the log is what was written", || {
        format!("node {} ends at {}, wrote {end}", raft.id(), raft.last())
    })?;
    let ordered = raft.applied() <= raft.handed()
        && raft.handed() <= raft.commit()
        && raft.commit() <= raft.last().index()
        && raft.durable() <= raft.last().index();
    Broken::unless(ordered, "I1 applied, handed, commit, last in order", || {
        format!(
            "node {}: applied {} handed {} commit {} durable {} last {}",
            raft.id(),
            raft.applied(),
            raft.handed(),
            raft.commit(),
            raft.durable(),
            raft.last()
        )
    })
}

/// Does the core use the membership that it has written? Neither changes but by a write.
pub fn uses(raft: &Raft, disk: &Disk) -> Result<(), Broken> {
    let in_use = disk.issued.in_use();
    Broken::unless(
        *raft.membership() == in_use,
        "H10 the latest membership of the log is in use",
        || {
            let used = raft.membership();
            format!("node {} uses {used:?}, its log says {in_use:?}", raft.id())
        },
    )
}

/// Does the core believe no more durable than is? Not asked of disks that lie.
pub fn honest(raft: &Raft, disk: &Disk) -> Result<(), Broken> {
    let durable = raft.durable_hard_state();
    let real = disk.durable.hard_state;
    let hard = durable.term < real.term || durable == real;
    Broken::unless(
        hard && raft.durable() <= disk.safe_up_to(),
        "I4 durable is durable",
        || {
            format!(
                "node {} believes {durable:?} and {} durable, the disk holds {real:?} and {}",
                raft.id(),
                raft.durable(),
                disk.safe_up_to()
            )
        },
    )
}
