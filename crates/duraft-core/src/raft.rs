//! The Raft state machine: one node's part of one group.
//!
//! # Raft in a page
//!
//! Nodes elect a leader per term; a node votes once per term and only for a candidate whose log is
//! at least as up to date as its own. The leader gives every batch of commands its place in the log
//! and replicates it; what a quorum of voters holds **durably** in the leader's own term is
//! committed, and so is everything before it. A follower that learns of a later term follows it.
//!
//! # What this core adds
//!
//! **The durability gate is inside.** Every output may be performed the moment it is emitted. What
//! a crash must not be able to break waits in here until the disk has reported:
//!
//! | output | leaves when |
//! |---|---|
//! | RequestVote, the own vote | term and vote are durable (and, with one FIFO, the log it claims) |
//! | vote grant | term and vote are durable |
//! | append acknowledgement up to m | m is durable and was verified against this term's leader |
//! | the leader's own copy counts | it is durable |
//! | anything else that carries a term | the term is durable |
//! | pre-vote and its answer | at once: they promise nothing, and carry the durable term |
//! | Apply | committed and durable here |
//!
//! **Waiting answers are derived, not queued**: `Owed` keeps at most one per kind and peer,
//! and they are gone when the term they were promised in is gone.
//!
//! **One write per step.** Handlers change the state in memory and stage what the disk must learn;
//! the end of the step makes one [`Write`] of it. Emitting a write never waits for another.
//!
//! **One place changes the role**: handlers return a `Transition`, [`Raft::step`] carries it out.
//!
//! # What it does not know
//!
//! Bodies (passed on unread, but for memberships), files, sockets, clocks. The shape of the log (48 bytes
//! a batch) is held in memory as far as that is allowed (`shape.rs`).
//!
//! The rest is in `receive.rs` (messages as they come in), `election.rs` (votes, timers),
//! `follower.rs` (appends received), `leader.rs` (replication, commit), `change.rs` (membership),
//! `reads.rs` and `lease.rs` (reads), `transfer.rs` (giving the leadership up), `apply.rs` (handing over
//! committed batches, loads), `compaction.rs`, `sending.rs` and `install.rs` (snapshots), `damage.rs`,
//! `fetch.rs` and `rollback.rs` (logs that have lost something), `divergence.rs` (logs that contradict
//! each other), `flow.rs` (when to take no more).

use crate::batch::Batch;
use crate::boot::{Boot, BootError, check_chain, check_memberships, check_state, check_term};
use crate::config::Config;
use crate::damage::{self, Damaged};
use crate::digest::mix64;
use crate::durability::{Durability, NeverIssued};
use crate::fetch::Fetches;
use crate::install::Install;
use crate::io::{
    Completion, Event, Fault, Healed, Input, Output, Reject, Response, RoleKind, SnapshotWrite,
    Write,
};
use crate::log::{Boundary, Log};
use crate::memberships::Memberships;
use crate::message::{Envelope, Message};
use crate::pace::Pace;
use crate::plant::{Plant, Plants};
use crate::reads::Reads;
use crate::rng::Rng;
use crate::role::{Ballot, Candidate, Follower, Role, Transition};
use crate::shape::Paging;
use crate::snapshot::Snapshot;
use crate::transfer::{Reluctance, Transfer};
use crate::types::{
    GroupId, HardState, Incarnation, Index, LoadId, NodeId, Position, ProposalId, Term, WriteSeq,
};
use alloc::vec::Vec;

/// What a write weighs beside its batches.
const WRITE_BYTES: u64 = 64;

/// So many terms and votes may be on their way to the disk. A node whose disk does not come along learns
/// of no later term before it does.
pub(crate) const TERMS_UNDER_WAY_MAX: usize = 8;

/// One node's part of one Raft group. See the module documentation.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) me: Sender,
    /// The memberships of the log. Every quorum is asked of the active one, and only there.
    pub(crate) memberships: Memberships,
    /// Draws election timeouts and nothing else.
    pub(crate) rng: Rng,
    /// Changed by `enter` only.
    pub(crate) role: Role,
    /// Term and vote, durable or not. Decisions are taken on these: a vote that is on its way to the
    /// disk is given. What leaves the node is decided on `disk`.
    pub(crate) hard: HardState,
    /// The log, durable or not.
    pub(crate) log: Log,
    /// What of `hard` and `log` survives a crash.
    pub(crate) disk: Durability,
    /// Committed up to here; never moves back.
    pub(crate) commit: Boundary,
    /// Given to the state machine up to here; never above `commit` nor the durable log.
    pub(crate) handed: Boundary,
    /// Reported applied up to here.
    pub(crate) applied: Boundary,
    /// Cost of the batches between `applied` and `handed`.
    pub(crate) unapplied_bytes: u64,
    /// Cost of the committed batches that it was not given yet.
    pub(crate) unhanded_bytes: u64,
    /// Compared with the log of this term's leader up to here. It outlives a pre-campaign: the leader
    /// of a term is one and the same.
    pub(crate) verified: Boundary,
    /// What the state machine held when this life began. More than `applied` where the log was damaged.
    pub(crate) machine: Index,
    /// The latest snapshot of this node, durable as a file.
    pub(crate) snapshot: Option<Snapshot>,
    /// The write that records it.
    pub(crate) snapshot_seq: WriteSeq,
    /// The boundary at which it stands, as long as the log holds that.
    pub(crate) snapshot_at: Boundary,
    /// What of the log's shape is being read back.
    pub(crate) paging: Paging,
    /// Tick at which the host was last asked for another one.
    pub(crate) snapshot_wanted: Option<u64>,
    /// The snapshot that is on its way into the state machine. Until it is there, `applied` and, before
    /// the host is told, `handed` are boundaries of the log before it.
    pub(crate) install: Option<Install>,
    /// What of the log is lost and not made up for.
    pub(crate) damage: Option<Damaged>,
    /// Batches that are fetched from others, and for others.
    pub(crate) fetches: Fetches,
    /// The batches at `handed` are being read from disk.
    pub(crate) apply_load: Option<LoadId>,
    /// Identity of the next load. Never used again in this life, so a late answer is known as such.
    pub(crate) next_load: LoadId,
    /// Ticks since the election timer was reset.
    pub(crate) elapsed: u32,
    /// Ticks until this node (pre-)campaigns.
    pub(crate) timeout: u32,
    /// Ticks of this life.
    pub(crate) now: u64,
    /// Ticks of this life until which this node helps nobody into office (`lease.rs`).
    pub(crate) promised: u64,
    /// How this node's disk keeps up.
    pub(crate) pace: Pace,
    /// Reads that wait.
    pub(crate) reads: Reads,
    /// The leadership is being given up.
    pub(crate) transfer: Option<Transfer>,
    /// When this node may hand over by itself.
    pub(crate) reluctance: Reluctance,
    /// What this step has changed and not yet written. Empty between steps.
    pub(crate) staged: Staged,
    /// Once set, this life only refuses.
    pub(crate) halted: Option<Fault>,
    /// Faults planted by tests; in release builds a value without content.
    pub(crate) plants: Plants,
}

/// The parts of an envelope that never change in a life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sender {
    /// This node.
    pub(crate) id: NodeId,
    pub(crate) group: GroupId,
    pub(crate) incarnation: Incarnation,
}

impl Sender {
    /// A message in `term`. Whether it may leave now is the caller's decision, by the table in the
    /// module documentation.
    pub(crate) fn send(self, to: NodeId, term: Term, message: Message) -> Output {
        Output::Send(Envelope {
            group: self.group,
            from: self.id,
            incarnation: self.incarnation,
            to,
            term,
            message,
        })
    }
}

/// What the disk must learn of this step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Staged {
    /// Term or vote changed; the write carries them as they are at the end of the step.
    pub(crate) hard_state: bool,
    /// The log was cut; it now ends here, before what is appended.
    pub(crate) truncate: Option<Position>,
    /// Batches added to the end of the log.
    pub(crate) append: Vec<Batch>,
    /// A snapshot to record.
    pub(crate) snapshot: Option<SnapshotWrite>,
    /// The log now begins here.
    pub(crate) compact: Option<Position>,
    /// What of a damage is over.
    pub(crate) healed: Option<Healed>,
}

impl Staged {
    pub(crate) fn is_empty(&self) -> bool {
        let Staged {
            hard_state,
            truncate,
            append,
            snapshot,
            compact,
            healed,
        } = self;
        !hard_state
            && truncate.is_none()
            && append.is_empty()
            && snapshot.is_none()
            && compact.is_none()
            && healed.is_none()
    }
}

impl Raft {
    /// A node as recovery found it: a follower, whatever it was before the crash. Nothing is known to
    /// be committed but the start of the log.
    pub fn new(config: Config, mut boot: Boot) -> Result<Raft, BootError> {
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(BootError::Config(problems));
        }
        check_chain(config.group, &boot)?;
        let stored_start = boot.start;
        let damage = damage::open(config.group, &mut boot)?;
        let last = check_chain(config.group, &boot)?;
        let (hard, staged) = check_term(&boot, last, damage.as_ref(), stored_start)?;
        let memberships = check_memberships(&boot, last)?;
        let applied = check_state(&boot, last, damage.as_ref())?;
        let machine = boot.applied.unwrap_or_default();
        let log = Log::new(boot.start, boot.batches.into());
        // What a snapshot covers or a state machine has applied was committed.
        let applied = log.floor(applied);
        // Equal seeds on all nodes, or on all lives of one, must not give equal timeouts for ever.
        let seed = mix64(config.seed ^ mix64(config.id.0 ^ mix64(boot.incarnation.0)));
        let mut raft = Raft {
            me: Sender {
                id: config.id,
                group: config.group,
                incarnation: boot.incarnation,
            },
            memberships: Memberships::new(boot.start.index(), boot.membership, memberships),
            rng: Rng::new(seed),
            role: Role::Follower(Follower::default()),
            hard,
            disk: Durability::new(log.end(), boot.hard_state),
            commit: applied,
            handed: applied,
            applied,
            unapplied_bytes: 0,
            unhanded_bytes: 0,
            verified: log.begin(),
            machine,
            snapshot_at: (boot.snapshot.as_ref())
                .map_or(log.begin(), |snapshot| log.floor(snapshot.position.index())),
            paging: Paging::default(),
            snapshot: boot.snapshot,
            snapshot_seq: WriteSeq(0),
            snapshot_wanted: None,
            install: None,
            damage,
            fetches: Fetches::new(),
            apply_load: None,
            next_load: LoadId(1),
            elapsed: 0,
            timeout: 0,
            now: 0,
            promised: 0,
            pace: Pace::default(),
            reads: Reads::default(),
            transfer: None,
            reluctance: Reluctance::default(),
            staged,
            halted: None,
            plants: Plants::default(),
            log,
            config,
        };
        raft.draw_timeout();
        Ok(raft)
    }

    /// Takes in what happened and appends what to do to `out`. Total: every input in every state.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        if self.halted.is_some() {
            self.refuse_halted(&input, out);
            return;
        }
        let before = self.summary();
        let membership_before = self.membership_summary();
        let durable_before = self.disk.log();
        // First what happened changes the state, role last.
        let mut transition = self.dispatch(input, out);
        while let Some(wanted) = transition {
            transition = self.enter(wanted, out);
        }
        self.conclude_damage(out);
        // Then everything leaves that the disk covers by now: it may have been owed for long, or since
        // a moment ago. What this step has staged is not covered: it is not even written.
        while let Some(wanted) = self.release(durable_before, out) {
            let next = self.enter(wanted, out);
            assert!(next.is_none(), "what a release leads to stands");
        }
        // Then the one write of this step, and what it does not concern: committed batches for the
        // state machine, and the bodies that need not be kept.
        if self.halted.is_none() {
            self.settle_damage();
            self.issue_write(out);
            self.hand_over(out);
            self.log
                .trim_cache(self.config.cache_bytes_max, self.disk.log());
            self.trim_shape();
        }
        self.end_transfer(out);
        self.end_reads(out);
        if before != self.summary() {
            out.push(Output::Changed(Event::Role {
                role: self.role(),
                term: self.term(),
                leader: self.leader(),
            }));
        }
        let membership = self.membership_summary();
        if membership_before != membership {
            let (at, committed) = membership;
            out.push(Output::Changed(Event::Membership { at, committed }));
        }
        if let Some(fault) = self.halted {
            out.push(Output::Changed(Event::Halted(fault)));
        }
    }

    /// Lets the handler of this input change the state.
    fn dispatch(&mut self, input: Input, out: &mut Vec<Output>) -> Option<Transition> {
        match input {
            Input::Tick => {
                let transition = self.on_tick(out);
                if transition.is_some() {
                    return transition;
                }
                self.tend_damage(out);
                self.publish_membership(out);
                self.tend_fetches(out)
            }
            // What a boot has to write goes alone: a log that begins behind a gap must be written down as
            // such before anything is appended to it. A message can always be lost.
            Input::Received(_) if !self.staged.is_empty() => None,
            Input::Received(envelope) => self.on_received(envelope, out),
            Input::Propose { id, body } => {
                self.on_propose(id, body, out);
                None
            }
            Input::ChangeMembership { id, changes, leave } => {
                self.on_change_membership(id, &changes, leave, out);
                None
            }
            Input::LeaveJoint { id } => {
                self.on_leave_joint(id, out);
                None
            }
            Input::Read { id, basis } => {
                self.on_read(id, basis, out);
                None
            }
            Input::TransferLeadership { id, to } => {
                self.on_transfer(id, to, out);
                None
            }
            Input::StepDown { id } => self.on_step_down(id, out),
            Input::ForgetLeader => self.on_forget_leader(),
            Input::Unreachable { peer } => {
                self.on_unreachable(peer);
                None
            }
            Input::Completed(completion) => self.on_completed(completion, out),
        }
    }

    fn on_completed(
        &mut self,
        completion: Completion,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        match completion {
            // The disk has caught up. What waited for it leaves in `release`; here the leader counts
            // its own copy.
            Completion::Persisted { upto } => match self.disk.persisted(upto) {
                Ok(()) => {
                    self.plant_completed(upto);
                    self.pace.persisted(upto, self.now);
                    if !self.plants.has(Plant::SoloNeverCommits) {
                        self.advance_commit(out);
                    }
                    None
                }
                Err(NeverIssued) => Some(Transition::Halt(Fault::UnknownCompletion)),
            },
            Completion::WriteFailed if self.plants.has(Plant::SurvivesWriteFailed) => {
                let upto = self.disk.issued();
                self.on_completed(Completion::Persisted { upto }, out)
            }
            // Nothing written since is durable and nothing more will be: whatever this node still
            // owes can never be promised in this life.
            Completion::WriteFailed => Some(Transition::Halt(Fault::WriteFailed)),
            // Room in the window of unapplied bytes. Nothing else depends on it: commit does not wait
            // for the state machine.
            Completion::Applied { upto } => self.on_applied(upto),
            // Old batches for a peer or for the state machine, if whoever asked still waits.
            Completion::Loaded { load, result } => self.on_loaded(load, result, out),
            // What it covers may be dropped.
            Completion::SnapshotTaken { snapshot } => self.on_snapshot_taken(snapshot, out),
            // A leader's snapshot has arrived whole.
            Completion::SnapshotReceived {
                from,
                term,
                snapshot,
            } => self.on_snapshot_received(from, term, snapshot, out),
            // How a snapshot for a peer fares.
            Completion::SnapshotSending { to, at, progress } => {
                self.on_snapshot_sending(to, at, progress);
                None
            }
        }
    }

    /// The only place where the role changes.
    pub(crate) fn enter(
        &mut self,
        transition: Transition,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        match transition {
            // A later term, a leader that has spoken, a lost campaign, or a leadership given up.
            Transition::Follow { term, leader } => {
                self.become_follower(term, leader);
                None
            }
            // The vote was just given. A pre-candidate gives its own plan up with it; the grant waits
            // for the disk.
            Transition::Grant { to } => {
                assert!(
                    self.hard.vote == Some(to) || self.plants.has(Plant::VotesTwice),
                    "a grant follows the vote"
                );
                self.become_follower(self.hard.term, None);
                let follower = self.role.follower_mut().expect("entered just above");
                follower.owed.grant = Some(to);
                None
            }
            // The timer ran out. Nothing changes but the role: no term, no vote, no write.
            Transition::PreCampaign => {
                self.role = Role::PreCandidate(Ballot::default());
                self.begin_pre_campaign(out)
            }
            // A new term with the own vote in it. Both are only staged here: until they are durable this
            // node asks nobody and counts nothing, its own vote included.
            Transition::Campaign { forced } => {
                let term = self.hard.term.next().expect("checked before campaigning");
                self.set_hard_state(HardState {
                    term,
                    vote: Some(self.me.id),
                });
                self.role = Role::Candidate(Candidate {
                    forced,
                    ..Candidate::default()
                });
                self.draw_timeout();
                None
            }
            // A quorum has granted, this node's durable vote among them. Leading begins with an entry of
            // the own term.
            Transition::Lead => {
                assert!(
                    self.is_hard_state_durable() || self.plants.has(Plant::EarlyRequestVote),
                    "a node leads a term only when that term and its own vote in it are durable"
                );
                self.role = Role::Leader(self.new_leader());
                self.begin_term(out);
                None
            }
            // The end of this life: role data and everything owed go with it.
            Transition::Halt(fault) => {
                self.become_follower(self.hard.term, None);
                // Nothing more is written in this life, not even what this step has staged.
                self.staged = Staged::default();
                self.halted = Some(fault);
                None
            }
        }
    }

    /// Follows in `term`. The part of a candidate or leader ends here, with all that belonged to it.
    fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.hard.term, "a term never decreases (5.1)");
        let later = term > self.hard.term;
        self.plant_step_down();
        if later {
            self.set_hard_state(HardState { term, vote: None });
        }
        let owes = self.plants.has(Plant::OwesAcrossTerms);
        if !later && self.plants.has(Plant::ForgetsVote) && self.role.kind() == RoleKind::Candidate
        {
            (self.hard.vote, self.staged.hard_state) = (None, true);
        }
        match &mut self.role {
            // Only the leader became known: what is owed in this term is still owed.
            Role::Follower(follower) if !later || owes => follower.leader = leader,
            // A follower's timer runs on when it only learns of a term: a candidate that cannot win
            // must not keep others from trying.
            Role::Follower(follower) => {
                *follower = Follower {
                    leader,
                    ..Follower::default()
                };
            }
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                self.role = Role::Follower(Follower {
                    leader,
                    ..Follower::default()
                });
                self.draw_timeout();
            }
        }
    }

    /// Changes term or vote in memory; the end of the step writes them.
    pub(crate) fn set_hard_state(&mut self, hard: HardState) {
        let old = self.hard;
        let later = hard.term > old.term;
        assert!(
            later || (hard.term == old.term && old.vote.is_none() && hard.vote.is_some()),
            "a term never decreases and a vote never changes within it (5.2)"
        );
        if later {
            // Another term, another leader: nothing of its log is known.
            self.verified = self.log.begin();
        }
        self.hard = hard;
        self.staged.hard_state = true;
    }

    /// Term and vote as they are now survive a crash. They only ever move forward, so equal values
    /// mean that the latest change is durable.
    pub(crate) fn is_hard_state_durable(&self) -> bool {
        self.disk.hard_state() == self.hard
    }

    /// The current term survives a crash.
    pub(crate) fn is_term_durable(&self) -> bool {
        self.disk.hard_state().term == self.hard.term || self.plants.has(Plant::EarlyTerm)
    }

    /// Lets go what the disk now covers. Each role derives it from its state: there is no list of
    /// messages that could grow, go stale or be released twice.
    fn release(&mut self, durable_before: Boundary, out: &mut Vec<Output>) -> Option<Transition> {
        match &self.role {
            Role::Follower(_) => {
                self.release_owed(durable_before, out);
                None
            }
            Role::Candidate(candidate) if !candidate.asked => self.release_campaign(out),
            // The membership that leaves this leader out is committed: its part is done.
            Role::Leader(_) if self.is_removed() => Some(self.resign(out)),
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => None,
        }
    }

    /// Makes one write of everything this step has changed.
    fn issue_write(&mut self, out: &mut Vec<Output>) {
        if self.staged.is_empty() {
            return;
        }
        self.plant_vote_before_term(out);
        // The parts take effect in this order on disk too: hard state, cut, append. A crash keeps all
        // of a write or nothing, and of several writes a prefix.
        let staged = core::mem::take(&mut self.staged);
        self.plant_written(self.disk.issued().next());
        let appended: u64 = staged.append.iter().map(Batch::cost).sum();
        let seq = self.disk.issue(appended + WRITE_BYTES);
        self.pace.issued(seq, self.now);
        if staged.hard_state {
            self.disk.hard_state_written(seq, self.hard);
        }
        let reset = staged.snapshot.as_ref().is_some_and(|write| write.reset);
        if !staged.append.is_empty() || reset {
            self.disk.appended(seq, self.log.end());
        }
        if let (Some(healed), Some(damaged)) = (staged.healed, &mut self.damage) {
            damaged.healing = Some((healed, seq));
        }
        if let Some(write) = &staged.snapshot {
            self.snapshot = Some(write.snapshot.clone());
            self.snapshot_seq = seq;
            if let Some(install) = &mut self.install
                && install.seq.is_none()
            {
                install.seq = Some(seq);
            }
        }
        out.push(Output::Persist(Write {
            seq,
            hard_state: staged.hard_state.then_some(self.hard),
            snapshot: staged.snapshot,
            truncate: staged.truncate,
            append: staged.append,
            compact: staged.compact,
            healed: staged.healed,
        }));
    }

    /// A halted node: clients learn that nothing will happen, everything else is silence.
    fn refuse_halted(&self, input: &Input, out: &mut Vec<Output>) {
        match input {
            Input::Propose { id, .. }
            | Input::Read { id, .. }
            | Input::ChangeMembership { id, .. }
            | Input::LeaveJoint { id }
            | Input::TransferLeadership { id, .. }
            | Input::StepDown { id } => self.reject(*id, Reject::Halted, out),
            Input::Tick
            | Input::Received(_)
            | Input::ForgetLeader
            | Input::Unreachable { .. }
            | Input::Completed(_) => {}
        }
    }

    /// Certainly not done, and where to try instead.
    pub(crate) fn reject(&self, id: ProposalId, reason: Reject, out: &mut Vec<Output>) {
        out.push(Output::Respond(Response::Rejected {
            id,
            reason,
            leader: self.leader(),
        }));
    }

    /// What observers are told when it changes.
    fn summary(&self) -> (RoleKind, Term, Option<NodeId>) {
        (self.role(), self.term(), self.leader())
    }
}
