//! The driver with the real core, a disk that is always done at once, and no time but ticks.

use crate::common::{read_list, write_list};
use bytes::Bytes;
use duraft::{
    Answer, Applied, Applier, ApplyContext, BusyReason, Driver, DriverInput, DriverOptions, Effect,
    Now, Outcome, Proposal, ReadBasis, ReadJob, ReadRequest, ReadWork, RejectReason, RequestError,
    RequestErrorKind, Responder, SnapshotWork, StateMachine, StopReason, UnknownReason,
};
use duraft_core::{
    Boot, Completion, Config, Digest, Envelope, GroupId, HardState, Incarnation, Index, LogId,
    Membership, NodeId, Position, Raft, RoleKind, Term,
};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GENERATION: u64 = 1;
const BUSY: RequestError = RequestError::Busy {
    why: BusyReason::Requests,
};

/// Answers with the command and remembers what it applied.
struct Echo(Arc<Mutex<Vec<Bytes>>>);

impl StateMachine for Echo {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        assert_ne!(command, b"poison", "a command this machine cannot bear");
        let command = Bytes::copy_from_slice(command);
        self.0
            .lock()
            .expect("no panic while locked")
            .push(command.clone());
        command
    }

    fn snapshot(&self) -> SnapshotWork {
        let commands = self.0.lock().expect("unpoisoned").clone();
        Box::new(move |out| write_list(&commands, out))
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        *self.0.lock().expect("unpoisoned") = read_list(source)?;
        Ok(())
    }
}

/// Outcomes in the order of the commands; several for one command would be a bug.
#[derive(Clone, Default)]
struct Outcomes(Arc<Mutex<Vec<Vec<Outcome>>>>);

impl Outcomes {
    fn responder(&self) -> (usize, Responder) {
        let mut all = self.0.lock().expect("unpoisoned");
        let at = all.len();
        all.push(Vec::new());
        let outcomes = self.clone();
        let responder = Responder::call(move |outcome| {
            outcomes.0.lock().expect("unpoisoned")[at].push(outcome);
        });
        (at, responder)
    }

    fn of(&self, at: usize) -> Option<Outcome> {
        self.0.lock().expect("unpoisoned")[at].first().cloned()
    }
}

struct Host {
    driver: Driver,
    applier: Applier,
    applied: Arc<Mutex<Vec<Bytes>>>,
    inputs: VecDeque<DriverInput>,
    sent: VecDeque<Envelope>,
    /// Completions that are not reported while this is set.
    hold_disk: bool,
    held: VecDeque<DriverInput>,
    tick: u64,
    stopped: Option<StopReason>,
}

impl Host {
    fn new(id: u64, voters: u64, options: DriverOptions) -> Host {
        let config = Config::new(NodeId(id), GroupId(1), 7);
        let boot = Boot {
            incarnation: Incarnation(GENERATION),
            hard_state: HardState::default(),
            start: Position::START,
            batches: Vec::new(),
            membership: Membership::new((1..=voters).map(NodeId), []).expect("valid"),
            memberships: Vec::new(),
            snapshot: None,
            applied: None,
            damage: None,
        };
        let (start, membership) = (boot.start, boot.membership.clone());
        let raft = Raft::new(config, boot).expect("a fresh node starts");
        let applied = Arc::new(Mutex::new(Vec::new()));
        Host {
            driver: Driver::new(raft, GENERATION, options),
            applier: Applier::new(Box::new(Echo(Arc::clone(&applied))), start, membership),
            applied,
            inputs: VecDeque::new(),
            sent: VecDeque::new(),
            hold_disk: false,
            held: VecDeque::new(),
            tick: 0,
            stopped: None,
        }
    }

    fn complete(&mut self, completion: Completion) {
        self.inputs.push_back(DriverInput::Completed {
            generation: GENERATION,
            completion,
        });
    }

    /// Turns until nothing is left to do without more messages or ticks.
    fn run(&mut self) {
        let mut effects = Vec::new();
        loop {
            let now = Now {
                tick: self.tick,
                ..Now::default()
            };
            self.driver.turn(now, &mut self.inputs, &mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects.drain(..) {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(write) => {
                let done = DriverInput::Completed {
                    generation: GENERATION,
                    completion: Completion::Persisted { upto: write.seq },
                };
                if self.hold_disk {
                    self.held.push_back(done);
                } else {
                    self.inputs.push_back(done);
                }
            }
            Effect::Send(envelope) => self.sent.push_back(envelope),
            Effect::Apply(batches) => {
                for batch in batches {
                    let mut answers = Vec::new();
                    match self.applier.apply(batch, &mut answers) {
                        Ok(upto) => self.complete(Completion::Applied { upto }),
                        Err(reason) => self.inputs.push_back(DriverInput::Stop(reason)),
                    }
                    answers.into_iter().for_each(Answer::deliver);
                }
            }
            Effect::Load(load) => panic!("the cache holds everything in these tests: {load:?}"),
            Effect::Fail(responder, error) => responder.answer(Err(error)),
            Effect::Read(_) | Effect::FailRead(..) | Effect::Answer(..) => {
                panic!("nobody reads or hands over in these tests")
            }
            Effect::SendSnapshot { .. }
            | Effect::InstallSnapshot(_)
            | Effect::TakeSnapshot
            | Effect::Retire(_) => {
                panic!("there are no snapshots in these tests")
            }
            Effect::Redial(_) | Effect::Event(_) => {}
            Effect::Stopped(reason) => self.stopped = Some(reason),
        }
    }

    fn propose(&mut self, command: &[u8], outcomes: &Outcomes, deadline: Option<u64>) -> usize {
        let (at, responder) = outcomes.responder();
        let command = Bytes::copy_from_slice(command);
        let proposal = Proposal::plain(command, deadline, responder);
        self.inputs.push_back(DriverInput::Propose(proposal));
        at
    }

    fn tick(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.tick += 1;
            self.run();
        }
    }

    fn release_disk(&mut self) {
        self.hold_disk = false;
        self.inputs.append(&mut self.held);
        self.run();
    }
}

/// Delivers everything between the hosts until silence; `cut` names a host that hears and says
/// nothing.
fn settle(hosts: &mut [Host], cut: Option<u64>) {
    loop {
        hosts.iter_mut().for_each(Host::run);
        let sent: Vec<Envelope> = hosts.iter_mut().flat_map(|h| h.sent.drain(..)).collect();
        if sent.is_empty() {
            return;
        }
        for envelope in sent {
            if cut != Some(envelope.from.0) && cut != Some(envelope.to.0) {
                let to = usize::try_from(envelope.to.0).expect("small") - 1;
                hosts[to].inputs.push_back(DriverInput::Received(envelope));
            }
        }
    }
}

fn elect(hosts: &mut [Host], cut: Option<u64>) -> usize {
    for _ in 0..500 {
        for host in hosts.iter_mut() {
            host.tick += 1;
        }
        settle(hosts, cut);
        let leader = (0..hosts.len()).find(|i| {
            cut != Some(*i as u64 + 1) && hosts[*i].driver.raft().role() == RoleKind::Leader
        });
        if let Some(leader) = leader {
            return leader;
        }
    }
    panic!("no leader within 500 ticks");
}

fn three() -> Vec<Host> {
    (1..=3)
        .map(|id| Host::new(id, 3, DriverOptions::default()))
        .collect()
}

#[test]
fn command_before_the_first_election_is_applied_later() {
    // Nobody should need a warm-up write: while no leader is known a command waits.
    let mut host = Host::new(1, 1, DriverOptions::default());
    let outcomes = Outcomes::default();
    let at = host.propose(b"early", &outcomes, None);
    host.run();
    assert_eq!(outcomes.of(at), None);
    host.tick(30);
    let Some(Ok(Applied { log_id, response })) = outcomes.of(at) else {
        panic!("{:?}", outcomes.of(at));
    };
    assert_eq!(
        (log_id.index, &response[..]),
        (Index(2), &b"early"[..]),
        "after the no-op"
    );
}

#[test]
fn command_that_finds_no_leader_is_rejected_with_certainty() {
    let mut host = Host::new(1, 3, DriverOptions::default());
    let outcomes = Outcomes::default();
    let at = host.propose(b"nobody listens", &outcomes, None);
    host.run();
    host.tick(DriverOptions::default().leaderless_ticks_max);
    assert_eq!(
        outcomes.of(at),
        Some(Err(RequestError::Rejected {
            reason: RejectReason::NotLeader,
            leader: None
        }))
    );
}

#[test]
fn follower_rejects_with_the_leader_as_hint() {
    let mut hosts = three();
    let leader = elect(&mut hosts, None);
    let follower = (leader + 1) % 3;
    let outcomes = Outcomes::default();
    let at = hosts[follower].propose(b"x", &outcomes, None);
    settle(&mut hosts, None);
    let error = outcomes.of(at).expect("at once").expect_err("rejected");
    assert_eq!(error.leader(), Some(NodeId(leader as u64 + 1)));
    assert!(error.is_retryable());
}

#[test]
fn waiting_commands_share_a_batch() {
    // One body, one checksum, one descriptor for all commands of a turn.
    let mut host = Host::new(1, 1, DriverOptions::default());
    host.tick(30);
    let outcomes = Outcomes::default();
    for i in 0..100u8 {
        host.propose(&[i], &outcomes, None);
    }
    host.run();
    let last = host
        .driver
        .raft()
        .headers()
        .next_back()
        .copied()
        .expect("a log");
    assert_eq!(last.count, 100);
    for at in 0..100 {
        let applied = outcomes.of(at).expect("answered").expect("applied");
        assert_eq!(applied.log_id.index, Index(last.first.0 + at as u64));
        assert_eq!(
            &applied.response[..],
            &[u8::try_from(at).expect("below 100")],
            "the answer to its own command"
        );
    }
}

#[test]
fn batches_keep_within_max_batch() {
    let options = DriverOptions {
        batches_in_flight_max: 1,
        ..DriverOptions::default()
    };
    let mut host = Host::new(1, 1, options);
    host.tick(30);
    let outcomes = Outcomes::default();
    let command = vec![1; 300 << 10];
    for _ in 0..10 {
        host.propose(&command, &outcomes, None);
    }
    host.hold_disk = true;
    host.run();
    let in_log = host
        .driver
        .raft()
        .headers()
        .next_back()
        .copied()
        .expect("a log");
    assert_eq!(in_log.count, 3, "three of 300 KiB fit 1 MiB");
    host.release_disk();
    assert!((0..10).all(|at| matches!(outcomes.of(at), Some(Ok(_)))));
    let counts: Vec<u32> = host
        .driver
        .raft()
        .headers()
        .skip(1)
        .map(|h| h.count)
        .collect();
    assert_eq!(counts, [3, 3, 3, 1]);
}

#[test]
fn command_over_the_limit_is_too_large() {
    let mut host = Host::new(1, 1, DriverOptions::default());
    host.tick(30);
    let outcomes = Outcomes::default();
    let max = (1u64 << 20) - 4;
    let fits = host.propose(&vec![0; (1 << 20) - 4], &outcomes, None);
    let over = host.propose(&vec![0; (1 << 20) - 3], &outcomes, None);
    host.run();
    assert!(matches!(outcomes.of(fits), Some(Ok(_))));
    let error = outcomes.of(over).expect("at once").expect_err("refused");
    assert_eq!(
        error,
        RequestError::Rejected {
            reason: RejectReason::TooLarge { len: max + 1, max },
            leader: None
        }
    );
    assert!(!error.is_retryable());
}

#[test]
fn saturated_driver_says_busy() {
    let options = DriverOptions {
        commands_max: 3,
        ..DriverOptions::default()
    };
    let mut host = Host::new(1, 1, options);
    host.tick(30);
    host.hold_disk = true;
    let outcomes = Outcomes::default();
    for _ in 0..5 {
        host.propose(b"x", &outcomes, None);
    }
    host.run();
    assert_eq!(outcomes.of(3), Some(Err(BUSY)));
    assert_eq!(outcomes.of(4), Some(Err(BUSY)));
    host.release_disk();
    assert!((0..3).all(|at| matches!(outcomes.of(at), Some(Ok(_)))));
}

#[test]
fn no_answer_before_the_disk() {
    let mut host = Host::new(1, 1, DriverOptions::default());
    host.tick(30);
    host.hold_disk = true;
    let outcomes = Outcomes::default();
    let at = host.propose(b"x", &outcomes, None);
    host.tick(50);
    assert_eq!(outcomes.of(at), None);
    host.release_disk();
    assert!(matches!(outcomes.of(at), Some(Ok(_))));
}

#[test]
fn completions_of_another_opening_are_dropped() {
    // What an earlier opening of the store made durable says nothing about this one's writes.
    let mut host = Host::new(1, 1, DriverOptions::default());
    host.tick(30);
    host.hold_disk = true;
    let outcomes = Outcomes::default();
    let at = host.propose(b"x", &outcomes, None);
    host.run();
    let mut stale = std::mem::take(&mut host.held);
    for input in &mut stale {
        if let DriverInput::Completed { generation, .. } = input {
            *generation = GENERATION + 1;
        }
    }
    host.inputs.append(&mut stale);
    host.tick(5);
    assert_eq!(outcomes.of(at), None);
}

#[test]
fn deadline_is_certain_before_the_log_and_unknown_after() {
    let mut hosts = three();
    let leader = elect(&mut hosts, None);
    let outcomes = Outcomes::default();
    let cut = Some(leader as u64 + 1);
    let deadline = Some(hosts[leader].tick + 2);
    let in_log = hosts[leader].propose(b"in the log", &outcomes, deadline);
    settle(&mut hosts, cut);
    assert_eq!(outcomes.of(in_log), None);
    hosts[leader].tick(2);
    assert_eq!(
        outcomes.of(in_log),
        Some(Err(RequestError::OutcomeUnknown {
            why: UnknownReason::Deadline
        }))
    );
    let mut lonely = Host::new(1, 3, DriverOptions::default());
    let held = lonely.propose(b"held", &outcomes, Some(3));
    lonely.tick(3);
    assert_eq!(
        outcomes.of(held),
        Some(Err(RequestError::Rejected {
            reason: RejectReason::Expired,
            leader: None
        }))
    );
}

#[test]
fn deposed_leader_answers_when_the_place_is_taken() {
    // Losing leadership decides nothing: the answer waits until another entry is committed there.
    let mut hosts = three();
    let old = elect(&mut hosts, None);
    let cut = Some(old as u64 + 1);
    let outcomes = Outcomes::default();
    let at = hosts[old].propose(b"lost", &outcomes, None);
    settle(&mut hosts, cut);
    let new = elect(&mut hosts, cut);
    assert_ne!(old, new);
    assert_eq!(
        outcomes.of(at),
        None,
        "still undecided while the old leader is cut off"
    );
    for _ in 0..40 {
        hosts.iter_mut().for_each(|h| h.tick += 1);
        settle(&mut hosts, None);
    }
    assert_eq!(
        outcomes.of(at),
        Some(Err(RequestError::Rejected {
            reason: RejectReason::Superseded,
            leader: Some(NodeId(new as u64 + 1))
        }))
    );
    for host in &hosts {
        assert!(
            host.applied.lock().expect("unpoisoned").is_empty(),
            "superseded means no effect"
        );
    }
}

#[test]
fn deposed_leader_reports_what_its_successor_committed() {
    // The entry reached a follower before the leader was cut off; the successor commits it.
    let mut hosts = three();
    let old = elect(&mut hosts, None);
    let outcomes = Outcomes::default();
    let at = hosts[old].propose(b"kept", &outcomes, None);
    hosts[old].run();
    let sent: Vec<Envelope> = hosts[old].sent.drain(..).collect();
    for envelope in sent {
        let to = usize::try_from(envelope.to.0).expect("small") - 1;
        hosts[to].inputs.push_back(DriverInput::Received(envelope));
        hosts[to].run();
        hosts[to].sent.clear();
    }
    let cut = Some(old as u64 + 1);
    elect(&mut hosts, cut);
    assert_eq!(outcomes.of(at), None);
    for _ in 0..40 {
        hosts.iter_mut().for_each(|h| h.tick += 1);
        settle(&mut hosts, None);
    }
    assert!(
        matches!(outcomes.of(at), Some(Ok(_))),
        "{:?}",
        outcomes.of(at)
    );
}

#[test]
fn write_failure_stops_the_node_and_ends_every_wait() {
    let mut host = Host::new(1, 1, DriverOptions::default());
    host.tick(30);
    host.hold_disk = true;
    let outcomes = Outcomes::default();
    let in_log = host.propose(b"x", &outcomes, None);
    host.run();
    host.complete(Completion::WriteFailed);
    host.run();
    assert!(
        matches!(host.stopped, Some(StopReason::Halted(_))),
        "{:?}",
        host.stopped
    );
    let unknown = Some(Err(RequestError::OutcomeUnknown {
        why: UnknownReason::Stopped,
    }));
    assert_eq!(outcomes.of(in_log), unknown);
    let later = host.propose(b"y", &outcomes, None);
    host.release_disk();
    assert_eq!(
        outcomes.of(later),
        Some(Err(RequestError::Rejected {
            reason: RejectReason::Stopped,
            leader: None
        }))
    );
    assert_eq!(
        outcomes.of(in_log),
        unknown,
        "a late completion changes nothing"
    );
    assert!(host.sent.is_empty());
}

#[test]
fn state_machine_panic_stops_the_node() {
    let mut host = Host::new(1, 1, DriverOptions::default());
    host.tick(30);
    let outcomes = Outcomes::default();
    let before = host.propose(b"good", &outcomes, None);
    host.run();
    let at = host.propose(b"poison", &outcomes, None);
    host.run();
    assert!(matches!(outcomes.of(before), Some(Ok(_))));
    assert_eq!(
        outcomes.of(at).map(|o| o.map_err(|e| e.kind())),
        Some(Err(RequestErrorKind::OutcomeUnknown)),
        "the command is committed; its effect is unknown"
    );
    let Some(StopReason::StateMachinePanicked { index, message }) = host.stopped else {
        panic!("{:?}", host.stopped);
    };
    assert_eq!(index, Index(3));
    assert!(message.contains("cannot bear"), "{message}");
}

#[test]
fn what_a_clock_showed_before_the_first_turn_counts_for_nothing() {
    // RULES.md 26: a voter that has started again must wait for all of an election timeout, whatever
    // clock its host goes by.
    let mut hosts = three();
    let host = &mut hosts[0];
    let begins = host.driver.raft().campaigns_in_ticks();
    for passed in 0..3 {
        host.tick = 1_000 + u64::from(passed);
        host.run();
        let left = host.driver.raft().campaigns_in_ticks();
        assert_eq!(left, begins - passed);
    }
}

#[test]
fn ticks_of_a_long_pause_are_not_all_believed() {
    // A node that was suspended must hear what waits for it before it concludes that all are silent.
    let mut hosts = three();
    let leader = elect(&mut hosts, None);
    let term = hosts[leader].driver.raft().term();
    let follower = (leader + 1) % 3;
    hosts[follower].tick += 10_000;
    settle(&mut hosts, None);
    assert_eq!(hosts[follower].driver.raft().role(), RoleKind::Follower);
    assert_eq!(hosts[follower].driver.raft().term(), term);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Propose { node: usize, patient: bool },
    Tick { ticks: u64 },
    Cut { node: Option<u64> },
    HoldDisk { node: usize },
    ReleaseDisk { node: usize },
    Settle,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..3usize, any::<bool>()).prop_map(|(node, patient)| Op::Propose { node, patient }),
        4 => (1..20u64).prop_map(|ticks| Op::Tick { ticks }),
        2 => prop::option::of(1..=3u64).prop_map(|node| Op::Cut { node }),
        1 => (0..3usize).prop_map(|node| Op::HoldDisk { node }),
        2 => (0..3usize).prop_map(|node| Op::ReleaseDisk { node }),
        2 => Just(Op::Settle),
    ];
    prop::collection::vec(op, 1..120)
}

#[test]
fn read_that_waits_for_an_index_ends_with_its_deadline() {
    // A node that is cut off may never apply the index it was told: its clients would wait for ever.
    let mut applier = applier_at(Position::START);
    let (work, answer) = read_of(Index(3));
    let mut done = Vec::new();
    applier.read(work, &mut done);
    applier.expire_reads(4);
    assert!(done.is_empty() && applier.has_reads());
    assert_eq!(*answer.lock().expect("unpoisoned"), None);
    applier.expire_reads(5);
    assert!(!applier.has_reads());
    let expired = RequestError::Rejected {
        reason: RejectReason::Expired,
        leader: None,
    };
    assert_eq!(*answer.lock().expect("unpoisoned"), Some(Err(expired)));
}

#[test]
fn read_at_a_node_that_has_lost_its_state_waits_for_another_nodes() {
    // The log begins at 73, and what came before cannot be read: index 73 is not applied here.
    let begin = Position {
        id: LogId {
            term: Term(6),
            index: Index(73),
        },
        digest: Digest(1),
    };
    let mut source = applier_at(begin);
    let view = source.snapshot().expect("no panic").expect("a state");
    let mut bytes = Vec::new();
    (view.work)(&mut bytes).expect("written");

    let mut applier = applier_at(begin);
    applier.lose_state();
    assert_eq!(applier.position(), Position::START);
    assert!(applier.snapshot().expect("no panic").is_none());
    let (work, answer) = read_of(Index(73));
    let (stale, refused) = read_of(Index(0));
    let mut done = Vec::new();
    applier.read(work, &mut done);
    applier.read(stale, &mut done);
    applier.run_reads(&mut done);
    assert!(done.is_empty() && applier.has_reads());
    let busy = RequestError::Busy {
        why: BusyReason::Snapshot,
    };
    assert_eq!(*refused.lock().expect("unpoisoned"), Some(Err(busy)));
    (applier.restore(begin, view.membership, &mut &bytes[..])).expect("restored");
    applier.run_reads(&mut done);
    for read in done {
        assert!(read.deliver(Duration::ZERO).is_ok());
    }
    assert_eq!(*answer.lock().expect("unpoisoned"), Some(Ok(())));
}

type ReadAnswer = Arc<Mutex<Option<Result<(), RequestError>>>>;

/// An applier of a log that begins at `start`.
fn applier_at(start: Position) -> Applier {
    let members = Membership::new([NodeId(1)], []).expect("valid");
    let machine = Echo(Arc::new(Mutex::new(Vec::new())));
    Applier::new(Box::new(machine), start, members)
}

/// A read of what is applied at `index`, until tick 5, and where its answer comes.
fn read_of(index: Index) -> (ReadWork, ReadAnswer) {
    let answer = ReadAnswer::default();
    let heard = Arc::clone(&answer);
    let responder = Responder::call(move |outcome: Result<(), RequestError>| {
        *heard.lock().expect("unpoisoned") = Some(outcome);
    });
    let work = ReadWork {
        index,
        lease_until: None,
        request: ReadRequest {
            basis: ReadBasis::Quorum,
            deadline: Some(5),
            job: ReadJob::new(|_: &Echo| (), responder),
        },
    };
    (work, answer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens, each command ends exactly once; what was answered as applied is applied
    /// exactly once everywhere, what was rejected nowhere.
    #[test]
    fn every_command_gets_exactly_one_true_outcome(ops in ops()) {
        let mut hosts = three();
        let outcomes = Outcomes::default();
        let mut commands = Vec::new();
        let mut cut = None;
        elect(&mut hosts, None);
        for op in ops {
            match op {
                Op::Propose { node, patient } => {
                    let command = (commands.len() as u64).to_le_bytes();
                    let deadline = (!patient).then(|| hosts[node].tick + 5);
                    commands.push(hosts[node].propose(&command, &outcomes, deadline));
                }
                Op::Tick { ticks } => {
                    for _ in 0..ticks {
                        hosts.iter_mut().for_each(|h| h.tick += 1);
                        settle(&mut hosts, cut);
                    }
                }
                Op::Cut { node } => cut = node,
                Op::HoldDisk { node } => hosts[node].hold_disk = true,
                Op::ReleaseDisk { node } => hosts[node].release_disk(),
                Op::Settle => settle(&mut hosts, cut),
            }
        }
        hosts.iter_mut().for_each(Host::release_disk);
        elect(&mut hosts, None);
        // A disk that was slow makes elections slow, to a bound; several may follow one another.
        for _ in 0..1000 {
            hosts.iter_mut().for_each(|h| h.tick += 1);
            settle(&mut hosts, None);
        }
        let logs: Vec<Vec<Bytes>> = hosts.iter().map(|h| h.applied.lock().expect("unpoisoned").clone()).collect();
        prop_assert_eq!(&logs[0], &logs[1]);
        prop_assert_eq!(&logs[0], &logs[2]);
        for host in &mut hosts {
            host.inputs.push_back(DriverInput::Stop(StopReason::Shutdown));
            host.run();
            prop_assert_eq!(host.driver.waiting(), 0);
        }
        let all = outcomes.0.lock().expect("unpoisoned").clone();
        for (at, ends) in all.iter().enumerate() {
            prop_assert_eq!(ends.len(), 1, "command {} ended {:?}", at, ends);
            let copies = logs[0].iter().filter(|c| c[..] == (at as u64).to_le_bytes()).count();
            match &ends[0] {
                Ok(_) => prop_assert_eq!(copies, 1),
                Err(RequestError::OutcomeUnknown { .. }) => prop_assert!(copies <= 1),
                Err(_) => prop_assert_eq!(copies, 0, "command {} was rejected", at),
            }
        }
    }
}
