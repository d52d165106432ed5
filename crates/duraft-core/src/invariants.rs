//! What must hold of one node after every step, and between the states before and after it.
//!
//! Tests and the simulator call both functions after each step, in release builds too. In short:
//!
//! - **I1** durable and commit lie in the log; applied ≤ handed ≤ both; all of them are batch ends.
//! - **I2** writes are dense, at most one a step, and describe exactly what changed.
//! - **I3** emitting a write waits for no completion: what changed is written in the same step.
//! - **I4** every message satisfies the release table, judged by completed writes only.
//! - **I5** completions count once and never for more than was issued.
//! - **I6** a halted node does nothing but refuse.
//! - **I7** the term never decreases, a vote never changes within it, only a candidate whose vote is
//!   durable becomes leader, a leader's log only grows.
//! - **I8** every buffer is within its limit (`buffers.rs` lists them).
//! - **I9** determinism is a property of two runs; [`Raft::fingerprint`] lets a test compare them.
//!
//! What needs several nodes (election safety, log matching and the like) is not decided here.

use crate::batch::BatchKind;
use crate::io::{Event, Healed, Output, Response, SnapshotWrite, Write};
use crate::log::Boundary;
use crate::progress::{Progress, Stage};
use crate::raft::Raft;
use crate::role::{Leader, Role};
use crate::types::{HardState, Position};
use alloc::format;
use alloc::string::String;

mod buffers;
mod outputs;

use outputs::{check_apply, check_install, check_read, check_send};

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which one, as numbered in the module documentation.
    pub invariant: &'static str,
    /// What was found.
    pub found: String,
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.found)
    }
}

impl core::error::Error for Violation {}

type Verdict = Result<(), Violation>;

/// The claim `holds` in the name of `invariant`; what was found is told only if it does not.
fn ensure(holds: bool, invariant: &'static str, found: impl FnOnce() -> String) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(Violation {
            invariant,
            found: found(),
        })
    }
}

/// Checks one state by itself. Every clause is about this node alone, so it holds whatever peers, disk
/// and caller have said, lies included.
pub fn check(raft: &Raft) -> Verdict {
    let log = &raft.log;
    let (durable, end) = (raft.disk.log(), log.end());
    ensure(durable <= end, "I1 durable ≤ last", || {
        format!("{durable:?} > {end:?}")
    })?;
    ensure(raft.commit <= end, "I1 commit ≤ last", || {
        format!("{:?} > {end:?}", raft.commit)
    })?;
    ensure(
        raft.applied <= raft.handed && raft.handed <= raft.commit.min(durable),
        "I1 applied ≤ handed ≤ min(commit, durable)",
        || {
            format!(
                "{:?}, {:?}, {:?}, {durable:?}",
                raft.applied, raft.handed, raft.commit
            )
        },
    )?;
    ensure(raft.verified <= end, "I1 verified ≤ last", || {
        format!("{:?} > {end:?}", raft.verified)
    })?;
    check_chain(raft)?;
    check_memberships(raft)?;
    check_disk(raft)?;
    buffers::check(raft)?;
    check_damage(raft)?;
    check_role(raft)
}

/// Match, commit and the rest are boundaries of a chain; a log that is none has no boundaries.
fn check_chain(raft: &Raft) -> Verdict {
    let mut end = raft.log.solid();
    for header in raft.log.headers() {
        ensure(header.follows(&end), "I1 the log is a chain", || {
            format!("{header:?} does not follow {end}")
        })?;
        end = header.position();
    }
    ensure(
        end.term() <= raft.hard.term,
        "I1 no entry is of a later term than the node's",
        || format!("{end} in term {}", raft.hard.term),
    )
}

/// H10: the memberships are those of the log, in order: what is in use was not cut off, and nothing in
/// the log is overlooked.
fn check_memberships(raft: &Raft) -> Verdict {
    let batches = (raft.log.headers().iter())
        .filter(|header| header.kind == BatchKind::Membership)
        .map(|header| header.first);
    let known = (raft.memberships.later().iter())
        .map(|(at, _)| *at)
        .filter(|at| *at > raft.log.solid().index());
    ensure(
        batches.eq(known),
        "H10 the memberships known are those in the log",
        || format!("{:?}", raft.memberships),
    )
}

/// The descriptors of writes under way partition what is not durable. A gap would be a part of the log
/// that nobody is writing, an overlap a part that could count twice (ABA).
fn check_disk(raft: &Raft) -> Verdict {
    let (issued, completed) = (raft.disk.issued(), raft.disk.completed());
    ensure(
        completed <= issued,
        "I5 nothing completes before it is issued",
        || format!("{completed} > {issued}"),
    )?;
    let mut seq = completed;
    let mut end = raft.disk.log();
    for (next_seq, next_end) in raft.disk.appends() {
        ensure(
            next_seq > seq && next_end > end,
            "I5 writes under way ascend",
            || format!("write {next_seq} up to {next_end:?} after {seq}, {end:?}"),
        )?;
        (seq, end) = (next_seq, next_end);
    }
    ensure(
        end == raft.log.end() && seq <= issued,
        "I3 what is not durable is being written",
        || format!("{end:?} of {:?}, write {seq}", raft.log.end()),
    )?;
    ensure(
        raft.staged.is_empty(),
        "I3 what changed is written in the same step",
        || format!("{:?}", raft.staged),
    )
}

/// Where batches that stand on disk have joined the log: their bodies, and those before them, are there.
fn spliced(raft: &Raft) -> Boundary {
    (raft.damage.as_ref()).map_or(Boundary::default(), |damaged| damaged.spliced)
}

/// A damaged node plays no part but a follower's, and what survives lies behind its log.
fn check_damage(raft: &Raft) -> Verdict {
    let Some(damaged) = &raft.damage else {
        return Ok(());
    };
    let follows = match &raft.role {
        Role::Follower(_) => true,
        Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => false,
    };
    ensure(follows, "R16 a damaged node does not campaign", || {
        format!("{damaged:?}")
    })?;
    let mut end = raft.log.last().index();
    for (place, header) in damaged.survivors.iter().enumerate() {
        let behind = if place == 0 {
            header.first > end.next()
        } else {
            header.first > end
        };
        ensure(behind, "R13 survivors lie behind the gap, in order", || {
            format!("{header:?} after {end}")
        })?;
        end = header.last();
    }
    Ok(())
}

/// What the batches between two boundaries cost, counted anew.
fn cost_between(raft: &Raft, from: Boundary, to: Boundary) -> u64 {
    raft.log.cost(from, to)
}

/// Whoever asks for votes or leads has the right to, by what is durable.
fn check_role(raft: &Raft) -> Verdict {
    match &raft.role {
        Role::Follower(_) => Ok(()),
        Role::PreCandidate(_) => ensure(
            raft.is_hard_state_durable(),
            "I4 no pre-campaign while term or vote are on their way to the disk",
            || format!("{:?}", raft.hard),
        ),
        Role::Candidate(candidate) => {
            ensure(
                raft.hard.vote == Some(raft.me.id),
                "I7 a candidate has voted for itself",
                || format!("{:?}", raft.hard),
            )?;
            ensure(
                !candidate.asked || raft.is_hard_state_durable(),
                "I4 a campaign begins when its vote is durable",
                || format!("{:?}", raft.hard),
            )
        }
        Role::Leader(leader) => check_leader(raft, leader),
    }
}

/// A leader's accounts agree with its log.
fn check_leader(raft: &Raft, leader: &Leader) -> Verdict {
    ensure(
        raft.hard.vote == Some(raft.me.id) && raft.is_hard_state_durable(),
        "I7 a leader's own vote is durable",
        || format!("{:?}", raft.hard),
    )?;
    ensure(
        raft.halted.is_some() || !raft.is_removed(),
        "H10 a leader whose removal is committed has stopped",
        || format!("{:?}", raft.memberships),
    )?;
    let compacted = leader.term_begin < raft.log.held();
    ensure(
        (raft.log.header(leader.term_begin)).map_or(compacted, |noop| noop.term == raft.hard.term),
        "I7 a leader's term has begun in its log",
        || format!("{:?}", leader.term_begin),
    )?;
    let cost = cost_between(raft, raft.commit, raft.log.end());
    ensure(
        cost == leader.uncommitted_bytes,
        "I8 uncommitted bytes are counted",
        || format!("{} counted, {cost} found", leader.uncommitted_bytes),
    )?;
    let members = raft.memberships.active();
    let tracked = |id| leader.progress.get(&id).map(|p| p.departs.is_none());
    let all = members
        .members()
        .all(|id| id == raft.me.id || tracked(id) == Some(true));
    let no_others = (leader.progress.iter())
        .all(|(id, p)| *id != raft.me.id && members.contains(*id) == p.departs.is_none());
    ensure(
        all && no_others,
        "I8 a leader tracks every member but itself, and others only to say farewell",
        || format!("{:?} of {members:?}", leader.progress.keys()),
    )?;
    ensure(
        leader.lease.len() <= raft.config.election_ticks as usize + 1,
        "I8 the rounds of a lease are those of one election timeout",
        || format!("{}", leader.lease.len()),
    )?;
    for progress in leader.progress.values() {
        check_progress(raft, progress)?;
    }
    Ok(())
}

/// The window of a peer covers exactly what was sent and not answered.
fn check_progress(raft: &Raft, progress: &Progress) -> Verdict {
    let found = || format!("{progress:?}");
    ensure(
        progress.matched <= progress.next && progress.next <= raft.log.end(),
        "I8 matched ≤ next ≤ last",
        found,
    )?;
    let Stage::Replicate {
        window,
        bytes,
        loading,
    } = &progress.stage
    else {
        return Ok(());
    };
    let sum: u64 = window.iter().map(|sent| sent.bytes).sum();
    ensure(sum == *bytes, "I8 bytes in flight are counted", found)?;
    ensure(
        window.len() <= raft.config.inflight_messages_max,
        "I8 messages in flight are within their limit",
        found,
    )?;
    ensure(
        *bytes <= raft.config.inflight_bytes_max || window.len() <= 1,
        "I8 bytes in flight are within their limit",
        found,
    )?;
    let mut end = progress.matched;
    for sent in window {
        ensure(sent.end > end, "I8 the window ascends", found)?;
        end = sent.end;
    }
    ensure(
        end == progress.next,
        "I8 the window reaches from matched to next",
        found,
    )?;
    ensure(
        loading.is_none() || progress.next < raft.log.end(),
        "I8 a load asks for what is in the log",
        found,
    )
}

/// Checks a step: the state before, the state after, and everything it put out.
///
/// `before` is a clone taken before the step. The outputs are those of this step only.
pub fn check_delta(before: &Raft, after: &Raft, outputs: &[Output]) -> Verdict {
    if before.halted.is_some() {
        return check_halted(before, after, outputs);
    }
    check_history(before, after)?;
    if after.halted.is_some() {
        let quiet = outputs.iter().all(|output| match output {
            Output::Persist(_)
            | Output::Apply(_)
            | Output::Load(_)
            | Output::ReadReady { .. }
            | Output::SendSnapshot { .. }
            | Output::InstallSnapshot(_) => false,
            Output::Send(_) | Output::Respond(_) | Output::Changed(_) | Output::TakeSnapshot => {
                true
            }
        });
        let told = matches!(outputs.last(), Some(Output::Changed(Event::Halted(_))));
        ensure(
            quiet && told,
            "I6 a node that halts writes and applies nothing",
            || format!("{outputs:?}"),
        )?;
    } else {
        check_writes(before, after, outputs)?;
    }
    // A state machine that holds what the snapshot brings is not given it.
    let untold = |raft: &Raft| (raft.install.as_ref()).is_some_and(|install| !install.told);
    let held = untold(before) && after.install.is_none();
    let mut handed = if held {
        after.log.begin()
    } else {
        before.handed
    };
    for output in outputs {
        match output {
            Output::Send(envelope) => check_send(before, after, envelope)?,
            Output::Apply(batches) => handed = check_apply(after, handed, batches)?,
            Output::InstallSnapshot(snapshot) => {
                check_install(after, snapshot)?;
                handed = after.log.begin();
            }
            // A later one may be written in the same step.
            Output::SendSnapshot { term, snapshot, .. } => ensure(
                after.role.leader().is_some()
                    && after.disk.hard_state().term == *term
                    && [before, after].iter().any(|raft| {
                        raft.snapshot.as_ref() == Some(snapshot)
                            && raft.snapshot_seq <= after.disk.completed()
                    }),
                "I4 a leader sends a snapshot that its disk counts on",
                || format!("{snapshot:?} in {term}"),
            )?,
            Output::ReadReady { index, lease, .. } => {
                check_read(before, after, *index, *lease)?;
            }
            Output::Persist(_)
            | Output::Load(_)
            | Output::TakeSnapshot
            | Output::Respond(_)
            | Output::Changed(_) => {}
        }
    }
    ensure(
        handed == after.handed,
        "I1 what is handed over is put out",
        || format!("{handed:?} of {:?}", after.handed),
    )
}

/// After the first failed write nothing this node says could be kept (I6).
fn check_halted(before: &Raft, after: &Raft, outputs: &[Output]) -> Verdict {
    let refuses = outputs
        .iter()
        .all(|output| matches!(output, Output::Respond(Response::Rejected { .. })));
    ensure(
        refuses && before.fingerprint() == after.fingerprint(),
        "I6 a halted node does nothing but refuse",
        || format!("{outputs:?}"),
    )
}

/// What never goes back: terms, votes, commit, what is committed, and a leader's own log.
fn check_history(before: &Raft, after: &Raft) -> Verdict {
    ensure(
        after.hard.term >= before.hard.term,
        "I7 the term never decreases",
        || format!("{} after {}", after.hard.term, before.hard.term),
    )?;
    ensure(
        after.hard.term > before.hard.term
            || before.hard.vote.is_none()
            || after.hard.vote == before.hard.vote,
        "I7 a vote never changes within a term",
        || format!("{:?} after {:?}", after.hard, before.hard),
    )?;
    ensure(
        after.commit >= before.commit
            && after.handed >= before.handed
            && after.applied >= before.applied
            && after.disk.completed() >= before.disk.completed(),
        "I1 commit, handed, applied and completed never move back",
        || format!("commit {:?} after {:?}", after.commit, before.commit),
    )?;
    let committed = before.log.position(before.commit);
    let same = match after.log.position_in(before.commit) {
        Some(position) => position == committed,
        // A snapshot that covers more stands in its place.
        None => after.log.start().index() > committed.index(),
    };
    ensure(same, "I1 what is committed never changes", || {
        format!("{committed}")
    })?;
    let campaigns = |raft: &Raft| match &raft.role {
        Role::PreCandidate(_) | Role::Candidate(_) => true,
        Role::Follower(_) | Role::Leader(_) => false,
    };
    ensure(
        campaigns(before) || !campaigns(after) || after.may_stand(),
        "H10 only voters campaign, and who was one before a change that is not committed",
        || format!("{:?}", after.memberships),
    )?;
    let Role::Leader(_) = &after.role else {
        return Ok(());
    };
    // Leadership is entered from a candidacy of the same term, or kept. A follower cannot become
    // leader in one step: its own vote would not be durable.
    match &before.role {
        Role::Leader(_) if before.hard.term == after.hard.term => ensure(
            after.log.end() >= before.log.end()
                && after.log.position(before.log.end()) == before.log.last(),
            "I7 a leader's log only grows",
            || format!("{} after {}", after.log.last(), before.log.last()),
        ),
        Role::Candidate(_) => ensure(
            before.hard.term == after.hard.term,
            "I7 a candidate leads the term it campaigned in",
            || format!("{} after {}", after.hard.term, before.hard.term),
        ),
        Role::Leader(_) | Role::Follower(_) | Role::PreCandidate(_) => {
            ensure(false, "I7 only a candidate becomes leader", || {
                format!("from {:?}", before.role())
            })
        }
    }
}

/// At most one write, the next in number, and the log and hard state before it plus what it says are
/// the log and hard state after it.
fn check_writes(before: &Raft, after: &Raft, outputs: &[Output]) -> Verdict {
    let mut writes = outputs.iter().filter_map(|output| match output {
        Output::Persist(write) => Some(write),
        Output::Send(_)
        | Output::Apply(_)
        | Output::Load(_)
        | Output::ReadReady { .. }
        | Output::SendSnapshot { .. }
        | Output::InstallSnapshot(_)
        | Output::TakeSnapshot
        | Output::Respond(_)
        | Output::Changed(_) => None,
    });
    let write = writes.next();
    ensure(
        writes.next().is_none(),
        "I2 at most one write a step",
        || format!("{outputs:?}"),
    )?;
    let mut end = before.log.last();
    let mut hard = before.hard;
    if let Some(write) = write {
        ensure(
            write.seq == before.disk.issued().next() && write.seq == after.disk.issued(),
            "I2 writes are dense",
            || format!("{} after {}", write.seq, before.disk.issued()),
        )?;
        (hard, end) = replay(before, after, write)?;
    } else {
        ensure(
            before.log.start() == after.log.start(),
            "I2 the log begins where the last write has said",
            || format!("{}", after.log.start()),
        )?;
    }
    ensure(
        hard == after.hard && end == after.log.last(),
        "I2 writes describe exactly what changed",
        || format!("{hard:?} {end}, not {:?} {}", after.hard, after.log.last()),
    )
}

/// Does the log hold this very boundary, as far as is known?
fn stands(raft: &Raft, position: Position) -> bool {
    let at = raft.log.boundary_after(position.index());
    at.is_some_and(|at| raft.log.position(at) == position)
}

/// What the disk will hold once it has done this write and all before it.
fn replay(before: &Raft, after: &Raft, write: &Write) -> Result<(HardState, Position), Violation> {
    let mut end = before.log.last();
    let mut log_begins = before.log.start();
    if let Some(SnapshotWrite { snapshot, reset }) = &write.snapshot {
        let position = snapshot.position;
        // Or it stands where the step has read the log's old shape back.
        let held = stands(before, position) || !*reset && stands(after, position);
        let news = position.index() > before.commit();
        let replaces = news && !held && write.truncate.is_none() && write.append.is_empty();
        ensure(
            if *reset { replaces } else { held },
            "I2 a snapshot stands in the log, or replaces one that lacks it",
            || format!("{write:?}"),
        )?;
        if *reset {
            (end, log_begins) = (position, position);
        }
    }
    if let Some(start) = write.compact {
        let covered = (write.snapshot.as_ref().map(|write| &write.snapshot))
            .or(before.snapshot.as_ref())
            .is_some_and(|snapshot| start.index() <= snapshot.position.index());
        ensure(
            covered && (stands(before, start) || stands(after, start)),
            "B8 what is dropped is covered by a durable snapshot",
            || format!("{write:?}"),
        )?;
        log_begins = start;
    }
    ensure(
        log_begins == after.log.start(),
        "I2 writes say where the log begins",
        || format!("{log_begins}, not {}", after.log.start()),
    )?;
    if let Some(cut) = write.truncate {
        let known = before.log.boundary_after(cut.index());
        ensure(
            known.is_some_and(|at| before.log.position(at) == cut && at >= before.commit),
            "I2 a cut lies in the log and above what is committed",
            || format!("{cut}"),
        )?;
        end = cut;
    }
    // Survivors join the log behind the batches that close the gap before them, if nothing is cut.
    let cuts = write.truncate.is_some() || write.snapshot.as_ref().is_some_and(|s| s.reset);
    let mut survivors = (before.damage.iter())
        .filter(|_| !cuts)
        .flat_map(|damaged| damaged.survivors.iter().copied())
        .peekable();
    for batch in &write.append {
        ensure(
            batch.header.follows(&end),
            "I2 an append follows the log",
            || format!("{:?} after {end}", batch.header),
        )?;
        end = batch.header.position();
        while let Some(survivor) = survivors.next_if(|survivor| survivor.follows(&end)) {
            end = survivor.position();
        }
    }
    let still_open = after.edge().is_some() || after.lacks_snapshot();
    ensure(
        write.healed != Some(Healed::All) || !still_open,
        "R13 what is not whole is not healed",
        || format!("{write:?}"),
    )?;
    Ok((write.hard_state.unwrap_or(before.hard), end))
}
