//! I8: everything a node holds in memory, and where each of it ends.
//!
//! | buffer | grows with | ends at |
//! |---|---|---|
//! | headers of the log | what is not compacted | `shape_bytes_max`, beyond it a line for each page of old ones, and what is not applied or has its body in memory |
//! | bodies of the log | recent batches | `cache_bytes_max`, beyond it only what is not durable |
//! | writes under way | a slow disk | `unpersisted_bytes_max`, or one append; every write weighs something |
//! | terms under way | elections of others | `TERMS_UNDER_WAY_MAX` |
//! | batches at the state machine | a slow one | `unapplied_bytes_max`, or one batch |
//! | batches for it | a slow one | on a leader `backlog_bytes_max` and what was proposed before |
//! | appends to a peer | a slow one | `inflight_messages_max`, `inflight_bytes_max`, or one batch |
//! | reads | a lost quorum | `reads_max` |
//! | answers to campaigns, refusals owed | peers | one per member |
//! | rounds: beats, a lease's | time | 8, those of one election timeout |
//! | batches for a gap | a damaged log | `fetch_bytes_max`, or one batch, and a header for each in the gap |
//! | fetches | what cannot be read | one per want: gap, state machine, peer |
//! | loads for others | damaged others | `SERVING_MAX` |
//! | nodes asked for their terms | an uncertain vote | `ASKED_MAX` |
//! | memberships, survivors | the log | one per batch of the log |

use super::{Verdict, cost_between, ensure, spliced};
use crate::batch::DESCRIPTOR_BYTES;
use crate::damage::ASKED_MAX;
use crate::fetch::SERVING_MAX;
use crate::membership::{MEMBERS_MAX, MEMBERSHIP_BYTES_MAX};
use crate::raft::{Raft, TERMS_UNDER_WAY_MAX};
use crate::role::Role;
use alloc::format;

/// Writes that no limit refuses while others are under way: the batch that begins a term, memberships,
/// terms, a snapshot's record, what is healed; each weighs at most this.
const OTHER_WRITE: u64 = MEMBERSHIP_BYTES_MAX as u64 + 2 * DESCRIPTOR_BYTES;
const OTHER_WRITES: u64 = TERMS_UNDER_WAY_MAX as u64 + 4;

pub(super) fn check(raft: &Raft) -> Verdict {
    check_bodies(raft)?;
    check_disk(raft)?;
    check_state_machine(raft)?;
    check_reads(raft)?;
    check_others(raft)
}

/// Bodies may be forgotten, but for those that are not durable anywhere.
fn check_bodies(raft: &Raft) -> Verdict {
    let log = &raft.log;
    let cached = log.cached_from();
    ensure(
        cached <= raft.disk.log().max(log.begin()).max(spliced(raft)),
        "I8 bodies that are not durable stay in memory",
        || format!("cached from {cached:?}"),
    )?;
    let compared = raft.verified > log.begin() && raft.role.leader().is_none();
    let keep_from = if compared {
        raft.applied.min(raft.verified)
    } else {
        raft.applied
    };
    let needed = log.held() >= keep_from.min(cached) || raft.install.is_some();
    ensure(
        log.shape_bytes() <= raft.config.shape_bytes_max || needed || raft.halted.is_some(),
        "I8 the shape of the log is within its limit",
        || format!("{} bytes", log.shape_bytes()),
    )?;
    let excess = log.cached_bytes() > raft.config.cache_bytes_max && cached < raft.disk.log();
    ensure(
        !excess || raft.halted.is_some(),
        "I8 the cache is within its limit",
        || format!("{} bytes", log.cached_bytes()),
    )
}

fn check_disk(raft: &Raft) -> Verdict {
    let one = u64::from(raft.config.max_batch_bytes) + DESCRIPTOR_BYTES;
    let (writes, terms) = raft.disk.under_way();
    let most = raft.config.unpersisted_bytes_max.max(one);
    let most = most.saturating_add(OTHER_WRITES * OTHER_WRITE);
    ensure(
        raft.disk.bytes() <= most,
        "I8 writes under way are within their limit",
        || format!("{} bytes in {writes} writes", raft.disk.bytes()),
    )?;
    ensure(
        terms <= TERMS_UNDER_WAY_MAX + 1,
        "I8 terms under way are within their limit",
        || format!("{terms}"),
    )
}

fn check_state_machine(raft: &Raft) -> Verdict {
    let cost = cost_between(raft, raft.applied, raft.handed);
    ensure(
        cost == raft.unapplied_bytes,
        "I8 unapplied bytes are counted",
        || format!("{} counted, {cost} found", raft.unapplied_bytes),
    )?;
    let from = (raft.install.as_ref()).map_or(raft.handed, |install| raft.handed.max(install.at));
    let cost = cost_between(raft, from, raft.commit);
    ensure(
        cost == raft.unhanded_bytes,
        "I8 committed bytes that are not handed over are counted",
        || format!("{} counted, {cost} found", raft.unhanded_bytes),
    )?;
    let one = raft.handed.previous() == Some(raft.applied.max(raft.log.begin()));
    ensure(
        raft.unapplied_bytes <= raft.config.unapplied_bytes_max || one,
        "I8 unapplied bytes are within their limit",
        || format!("{}", raft.unapplied_bytes),
    )
}

fn check_reads(raft: &Raft) -> Verdict {
    let (led, forwarded) = raft.reads.waiting();
    ensure(
        led + forwarded <= raft.config.reads_max,
        "I8 reads that wait are within their limit",
        || format!("{led} {forwarded}"),
    )?;
    let follows = raft.role.leader().is_none() && raft.leader().is_some();
    ensure(
        (led == 0 || raft.role.leader().is_some()) && (forwarded == 0 || follows),
        "I8 reads wait under a leadership only",
        || format!("{led} {forwarded} as {:?}", raft.role()),
    )
}

/// Sets of nodes, and what damaged nodes need.
fn check_others(raft: &Raft) -> Verdict {
    let (held, serving, fetching) = raft.fetches.held();
    let one = u64::from(raft.config.max_batch_bytes) + DESCRIPTOR_BYTES;
    ensure(
        held <= raft.config.fetch_bytes_max.max(one),
        "I8 batches held for a gap are within their limit",
        || format!("{held}"),
    )?;
    ensure(
        fetching <= 2 + MEMBERS_MAX && serving <= SERVING_MAX,
        "I8 fetches are one per want, and loads for others bounded",
        || format!("{fetching} {serving}"),
    )?;
    let answers = match &raft.role {
        Role::Follower(follower) => follower.owed.refusals.len(),
        Role::PreCandidate(ballot) => ballot.granted.len() + ballot.refused.len(),
        Role::Candidate(candidate) => {
            candidate.ballot.granted.len() + candidate.ballot.refused.len()
        }
        Role::Leader(leader) => leader.beats.len(),
    };
    let asked = (raft.damage.as_ref()).map_or(0, |d| d.asked.len().max(d.answered.len()));
    ensure(
        answers <= 2 * MEMBERS_MAX + 1 && asked <= ASKED_MAX,
        "I8 answers are one per member",
        || format!("{answers} {asked}"),
    )
}
