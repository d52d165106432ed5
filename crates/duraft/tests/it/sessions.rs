//! Exactly-once commands, through the shipped applier: what the log says, every node does alike.

use crate::common::Journal;
use bytes::Bytes;
use duraft::{
    Answer, Applied, Applier, ApplyBatch, Outcome, RejectReason, RequestError, Responder,
    SessionCommand, SessionId, SessionLimits, StopReason, TAGGED_CODEC, UnknownReason,
};
use duraft_core::{Batch, GroupId, Index, Membership, NodeId, Position, Term};
use duraft_storage::commands_body;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// A log of tagged commands and the applier at its end.
struct Log {
    applier: Applier,
    journal: Journal,
    end: Position,
    batches: Vec<Batch>,
}

fn tag(kind: u8, words: &[u64], command: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(command);
    bytes
}

fn open(limits: SessionLimits) -> Vec<u8> {
    let low = u64::from(limits.sessions_max) | u64::from(limits.answers_max) << 32;
    tag(2, &[low, limits.idle_entries_max], b"")
}

fn numbered(session: SessionId, number: u64, acknowledged: u64, command: &[u8]) -> Vec<u8> {
    tag(1, &[session.0, number, acknowledged], command)
}

fn rejected(reason: RejectReason) -> Outcome {
    Err(RequestError::Rejected {
        reason,
        leader: None,
    })
}

fn members() -> Membership {
    Membership::new([NodeId(1)], []).expect("valid")
}

impl Log {
    fn new() -> Log {
        let journal = Journal::default();
        let machine = Box::new(journal.clone());
        Log {
            applier: Applier::new(machine, Position::START, members()),
            journal,
            end: Position::START,
            batches: Vec::new(),
        }
    }

    fn batch(&mut self, commands: &[Vec<u8>], codec: u16) -> Batch {
        let body = commands_body(commands.iter().map(|c| &c[..]), codec).expect("a body");
        let batch = body.seal(GroupId(1), &self.end, Term(3)).expect("sealed");
        self.end = batch.header.position();
        self.batches.push(batch.clone());
        batch
    }

    /// Commits a batch of tagged commands and returns what their clients hear.
    fn commit(&mut self, commands: &[Vec<u8>]) -> Vec<Outcome> {
        let batch = self.batch(commands, TAGGED_CODEC | 7);
        apply(&mut self.applier, batch).expect("applied")
    }

    fn one(&mut self, command: Vec<u8>) -> Outcome {
        self.commit(&[command]).remove(0)
    }

    fn open(&mut self, limits: SessionLimits) -> SessionId {
        let opened = self.one(open(limits)).expect("opened");
        SessionId(opened.log_id.index.0)
    }

    /// Commits plain commands that nobody counts, so that time passes.
    fn idle(&mut self, entries: u64) {
        for _ in 0..entries {
            let batch = self.batch(&[b"noise".to_vec()], 7);
            apply(&mut self.applier, batch).expect("applied");
        }
    }

    fn effects(&self) -> Vec<Bytes> {
        let mut commands = self.journal.commands();
        commands.retain(|c| c != "noise");
        commands
    }
}

fn apply(applier: &mut Applier, batch: Batch) -> Result<Vec<Outcome>, StopReason> {
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let responders = (0..batch.header.count)
        .map(|_| {
            let outcomes = Arc::clone(&outcomes);
            let push = move |outcome| outcomes.lock().expect("unpoisoned").push(outcome);
            Some(Responder::call(push))
        })
        .collect();
    let mut answers = Vec::new();
    applier.apply(ApplyBatch { batch, responders }, &mut answers)?;
    answers.into_iter().for_each(Answer::deliver);
    let outcomes = outcomes.lock().expect("unpoisoned").clone();
    Ok(outcomes)
}

#[test]
fn repeated_command_takes_effect_once_and_is_answered_alike() {
    // A client that heard nothing sends again; the first attempt had arrived.
    let mut log = Log::new();
    let session = log.open(SessionLimits::default());
    let first = log.one(numbered(session, 1, 0, b"a"));
    let applied = first.clone().expect("applied");
    assert_eq!(applied.response, "0");
    assert_eq!(
        log.one(numbered(session, 1, 0, b"a")),
        first,
        "log id and all"
    );
    // Twice in one batch, too.
    let both = log.commit(&[
        numbered(session, 2, 0, b"b"),
        numbered(session, 2, 0, b"b"),
        tag(0, &[], b"plain"),
    ]);
    assert_eq!(both[0], both[1]);
    assert_eq!(log.effects(), ["a", "b", "plain"]);
}

#[test]
fn plain_batches_carry_no_tags() {
    // A plain command may begin with any byte.
    let mut log = Log::new();
    let batch = log.batch(&[vec![1], vec![2, 0, 0], vec![9]], 7);
    apply(&mut log.applier, batch).expect("applied");
    assert_eq!(log.effects(), [&[1][..], &[2, 0, 0], &[9]]);
}

#[test]
fn numbers_may_come_out_of_order_but_not_beyond_the_window() {
    let mut log = Log::new();
    let limits = SessionLimits {
        answers_max: 3,
        ..SessionLimits::default()
    };
    let session = log.open(limits);
    assert!(log.one(numbered(session, 3, 0, b"c")).is_ok());
    assert!(log.one(numbered(session, 1, 0, b"a")).is_ok());
    let beyond = log.one(numbered(session, 4, 0, b"d"));
    assert_eq!(beyond, rejected(RejectReason::SessionWindow));
    // Acknowledging makes room, and makes the answers below be forgotten.
    assert!(log.one(numbered(session, 4, 1, b"d")).is_ok());
    let old = log.one(numbered(session, 1, 1, b"a"));
    assert_eq!(old, rejected(RejectReason::SessionAcknowledged));
    assert!(log.one(numbered(session, 2, 1, b"b")).is_ok());
    assert_eq!(log.effects(), ["c", "a", "d", "b"]);
}

#[test]
fn idle_session_expires_by_the_log_and_a_used_one_does_not() {
    let mut log = Log::new();
    let limits = SessionLimits {
        idle_entries_max: 5,
        ..SessionLimits::default()
    };
    let session = log.open(limits);
    log.idle(4);
    assert!(log.one(numbered(session, 1, 0, b"a")).is_ok(), "5 later");
    log.idle(5);
    let late = log.one(numbered(session, 2, 1, b"b"));
    assert_eq!(late, rejected(RejectReason::SessionExpired), "6 later");
    let again = log.one(numbered(session, 1, 0, b"a"));
    assert_eq!(again, rejected(RejectReason::SessionExpired));
    assert_eq!(log.effects(), ["a"]);
}

#[test]
fn new_session_pushes_out_the_one_nearest_to_its_expiry() {
    let mut log = Log::new();
    let limits = SessionLimits {
        sessions_max: 2,
        ..SessionLimits::default()
    };
    let first = log.open(limits);
    let second = log.open(limits);
    assert!(log.one(numbered(first, 1, 0, b"a")).is_ok(), "used later");
    let third = log.open(limits);
    assert_eq!(log.applier.sessions(), 2);
    let gone = log.one(numbered(second, 1, 0, b"x"));
    assert_eq!(gone, rejected(RejectReason::SessionExpired));
    assert!(log.one(numbered(first, 2, 0, b"b")).is_ok());
    assert!(log.one(numbered(third, 1, 0, b"c")).is_ok());
    assert!(log.one(tag(3, &[third.0], b"")).is_ok(), "closed");
    let closed = log.one(tag(3, &[third.0], b""));
    assert_eq!(closed, rejected(RejectReason::SessionExpired));
}

#[test]
fn answers_survive_a_snapshot() {
    // The command comes again after its node restarted from a snapshot, or at a node that got one.
    let mut log = Log::new();
    let session = log.open(SessionLimits::default());
    let first = log.one(numbered(session, 1, 0, b"a"));
    let mut other = restored(&mut log);
    assert_eq!(other.one(numbered(session, 1, 0, b"a")), first);
    assert_eq!(other.effects(), ["a"]);
}

/// Another node that got a snapshot of this one.
fn restored(log: &mut Log) -> Log {
    let view = log.applier.snapshot().expect("a view").expect("a state");
    // What is applied after the view was taken is not in it.
    let after = log.end;
    let mut bytes = Vec::new();
    (view.work)(&mut bytes).expect("written");
    let mut other = Log::new();
    other
        .applier
        .restore(view.position, view.membership, &mut &bytes[..])
        .expect("restored");
    other.end = after;
    other
}

#[test]
fn snapshot_shows_one_moment() {
    // The view is written later, on another thread, while commands go on.
    let mut log = Log::new();
    let session = log.open(SessionLimits::default());
    log.one(numbered(session, 1, 0, b"a")).expect("applied");
    let view = log.applier.snapshot().expect("a view").expect("a state");
    let position = log.end;
    log.one(numbered(session, 2, 0, b"b")).expect("applied");
    let mut bytes = Vec::new();
    (view.work)(&mut bytes).expect("written");
    assert_eq!(view.position, position);
    let mut other = Log::new();
    let restore = other.applier.restore(position, members(), &mut &bytes[..]);
    restore.expect("restored");
    other.end = position;
    assert_eq!(other.effects(), ["a"]);
    assert!(other.one(numbered(session, 2, 0, b"b")).is_ok(), "new here");
}

#[test]
fn damaged_table_of_sessions_is_an_error() {
    let mut log = Log::new();
    let session = log.open(SessionLimits::default());
    for number in 1..4 {
        log.one(numbered(session, number, 0, b"abc"))
            .expect("applied");
    }
    let view = log.applier.snapshot().expect("a view").expect("a state");
    let mut bytes = Vec::new();
    (view.work)(&mut bytes).expect("written");
    let own: usize = log.effects().iter().map(|c| 8 + c.len()).sum();
    let table = bytes.len() - own;
    for len in 0..table {
        let mut other = Log::new().applier;
        let restore = other.restore(view.position, members(), &mut &bytes[..len]);
        assert!(
            matches!(restore, Err(StopReason::RestoreFailed { .. })),
            "{len} of {table} bytes"
        );
    }
    for (at, value) in [(0, b'X'), (4, 9), (6, 1), (11, 0xFF), (39, 0xFF), (51, 1)] {
        let mut bad = bytes.clone();
        bad[at] = value;
        let mut other = Log::new().applier;
        let restore = other.restore(view.position, members(), &mut &bad[..]);
        assert!(
            matches!(restore, Err(StopReason::RestoreFailed { .. })),
            "byte {at} as {value}"
        );
    }
}

#[test]
fn bytes_that_are_no_tag_stop_the_node() {
    for bad in [vec![], vec![4], vec![1, 0], tag(3, &[1], b"more")] {
        let mut log = Log::new();
        let batch = log.batch(std::slice::from_ref(&bad), TAGGED_CODEC);
        let stopped = apply(&mut log.applier, batch);
        assert!(
            matches!(stopped, Err(StopReason::BatchDamaged { .. })),
            "{bad:?}"
        );
    }
}

/// One step of a drawn log.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open {
        sessions_max: u32,
        answers_max: u32,
        idle: u64,
    },
    Command {
        session: usize,
        number: u64,
        acknowledged: u64,
    },
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1u32..4, 1u32..5, 1u64..30).prop_map(|(sessions_max, answers_max, idle)| Step::Open {
            sessions_max,
            answers_max,
            idle,
        }),
        12 => (0usize..4, 1u64..8, 0u64..6).prop_map(|(session, number, acknowledged)| {
            Step::Command { session, number, acknowledged }
        }),
        1 => Just(Step::Snapshot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is sent in whatever order: no number takes effect twice, every repetition of a known
    /// number has the first answer, and a node that comes from a snapshot at any point goes the very
    /// same way.
    #[test]
    fn every_log_takes_each_number_at_most_once(steps in prop::collection::vec(step(), 1..120)) {
        let mut log = Log::new();
        let mut twin = Log::new();
        let mut sessions = Vec::new();
        let mut first: BTreeMap<(u64, u64), Applied> = BTreeMap::new();
        let mut effects = BTreeSet::new();
        for step in steps {
            match step {
                Step::Open { sessions_max, answers_max, idle } => {
                    let limits = SessionLimits { sessions_max, answers_max, idle_entries_max: idle };
                    let session = log.open(limits);
                    prop_assert_eq!(twin.open(limits), session);
                    sessions.push(session);
                }
                Step::Command { session, number, acknowledged } => {
                    let Some(session) = sessions.iter().rev().nth(session) else { continue };
                    let name = format!("{session}/{number}");
                    let command = numbered(*session, number, acknowledged, name.as_bytes());
                    let outcome = log.one(command.clone());
                    prop_assert_eq!(&twin.one(command), &outcome);
                    if let Ok(applied) = outcome {
                        let known = first.entry((session.0, number)).or_insert_with(|| applied.clone());
                        prop_assert_eq!(known.clone(), applied);
                        effects.insert(name);
                    }
                }
                Step::Snapshot => twin = restored(&mut twin),
            }
        }
        let applied = log.effects();
        prop_assert_eq!(applied.len(), effects.len(), "one effect per number");
        prop_assert_eq!(twin.effects(), applied);
        prop_assert_eq!(twin.applier.sessions(), log.applier.sessions());
    }
}

/// A state machine with its own disk.
struct Durable {
    journal: Journal,
    applied: Index,
}

impl duraft::StateMachine for Durable {
    fn apply(&mut self, context: duraft::ApplyContext, command: &[u8]) -> Bytes {
        assert!(context.log_id.index > self.applied, "given twice");
        self.journal.apply(context, command)
    }

    fn snapshot(&self) -> duraft::SnapshotWork {
        self.journal.snapshot()
    }

    fn restore(&mut self, source: &mut dyn std::io::Read) -> std::io::Result<()> {
        self.journal.restore(source)
    }

    fn applied(&self) -> Option<Index> {
        Some(self.applied)
    }
}

#[test]
fn state_machine_with_its_own_disk_gets_nothing_twice_and_sessions_know_all_of_it() {
    // The state machine has a number's effect on its disk; the table of sessions died with the life.
    // A repetition must not reach the state machine, wherever in the log it went on.
    let mut log = Log::new();
    let session = log.open(SessionLimits::default());
    for number in 1..=6 {
        let pair = [
            numbered(session, 2 * number, 0, b"even"),
            numbered(session, 2 * number + 1, 0, b"odd"),
        ];
        log.commit(&pair);
    }
    let whole = log.journal.commands();
    for has in 1..=13 {
        // What it has: the commands up to index `has`; the first index opened the session.
        let journal = Journal::default();
        let kept = usize::try_from(has - 1).expect("small");
        *journal.0.lock().expect("unpoisoned") = whole[..kept].to_vec();
        let machine = Durable {
            journal: journal.clone(),
            applied: Index(has),
        };
        let mut applier = Applier::new(Box::new(machine), Position::START, members());
        for batch in &log.batches {
            if batch.header.last() <= Index(has) {
                assert!(Applier::has_to_catch_up(&batch.header));
                applier.catch_up(batch).expect("caught up");
            } else {
                apply(&mut applier, batch.clone()).expect("applied");
            }
        }
        assert_eq!(journal.commands(), whole, "from {has} on");
        let mut again = Log::new();
        again.applier = applier;
        again.end = log.end;
        again.journal = journal;
        for number in 2..=13 {
            let outcome = again.one(numbered(session, number, 0, b"again"));
            let lost = RequestError::OutcomeUnknown {
                why: UnknownReason::AnswerLost,
            };
            // Index 1 opened the session, so number n has index n.
            if number <= has {
                assert_eq!(outcome, Err(lost), "{number} of {has}");
            } else {
                assert!(outcome.is_ok(), "{number} of {has}");
            }
        }
        assert_eq!(again.journal.commands(), whole);
    }
}

#[test]
fn session_command_is_plain_data() {
    // A service may carry it over its own protocol to another node.
    let session = duraft::Session::new(SessionId(4));
    let command: SessionCommand = session.number(Bytes::from("x"));
    assert_eq!(command, command.clone());
    assert_eq!((command.number, command.acknowledged), (1, 0));
}
