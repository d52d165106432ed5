//! Nodes of which a part sticks while clients ask for more than there is room for: what waits for the
//! part stays within the limits, and each refusal says which limit it was. No time passes but ticks;
//! what is counted are the bytes that the nodes hold for the disk, the state machine and the peers.

use bytes::Bytes;
use duraft::{
    ApplyBatch, BusyReason, Driver, DriverInput, DriverOptions, Effect, Now, Proposal,
    RequestError, Responder,
};
use duraft_core::{
    Boot, Completion, Config, Envelope, GroupId, HardState, Incarnation, Membership, Message,
    NodeId, Position, Raft, RoleKind, Write,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

const GENERATION: u64 = 1;
const COMMAND_BYTES: usize = 1000;
const BATCH_BYTES: u32 = 4096;
const APPEND_BYTES: u64 = 8 << 10;
const INFLIGHT_BYTES: u64 = 32 << 10;
const UNCOMMITTED_BYTES: u64 = 64 << 10;
const UNAPPLIED_BYTES: u64 = 48 << 10;
const COMMANDS_MAX: usize = 400;
/// One batch that is admitted although it passes a limit, with its descriptor.
const ONE_BATCH: u64 = BATCH_BYTES as u64 + 64;

/// What clients were told, by kind.
type Answers = Arc<Mutex<BTreeMap<&'static str, u64>>>;

struct Host {
    driver: Driver,
    inputs: VecDeque<DriverInput>,
    sent: VecDeque<Envelope>,
    writes: VecDeque<Write>,
    work: VecDeque<ApplyBatch>,
    disk_sticks: bool,
    machine_sticks: bool,
    tick: u64,
    /// The most that was seen.
    most_written: u64,
    most_handed: u64,
    answers: Answers,
}

fn config(id: u64) -> Config {
    let mut config = Config::new(NodeId(id), GroupId(1), id);
    config.max_batch_bytes = BATCH_BYTES;
    config.append_bytes_max = APPEND_BYTES;
    config.inflight_bytes_max = INFLIGHT_BYTES;
    config.uncommitted_bytes_max = UNCOMMITTED_BYTES;
    config.unapplied_bytes_max = UNAPPLIED_BYTES;
    config
}

fn bytes_of(write: &Write) -> u64 {
    write.append.iter().map(duraft_core::Batch::cost).sum()
}

impl Host {
    fn new(id: u64, voters: u64) -> Host {
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
        let raft = Raft::new(config(id), boot).expect("a fresh node starts");
        let options = DriverOptions {
            max_batch_bytes: BATCH_BYTES,
            commands_max: COMMANDS_MAX,
            batches_in_flight_max: 1024,
            ..DriverOptions::default()
        };
        Host {
            driver: Driver::new(raft, GENERATION, options),
            inputs: VecDeque::new(),
            sent: VecDeque::new(),
            writes: VecDeque::new(),
            work: VecDeque::new(),
            disk_sticks: false,
            machine_sticks: false,
            tick: 0,
            most_written: 0,
            most_handed: 0,
            answers: Answers::default(),
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
            for effect in effects.drain(..) {
                self.perform(effect);
            }
            self.work_off();
            if self.inputs.is_empty() {
                return;
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(write) => self.writes.push_back(write),
            Effect::Send(envelope) => self.sent.push_back(envelope),
            Effect::Apply(batches) => self.work.extend(batches),
            Effect::Fail(responder, error) => responder.answer(Err(error)),
            Effect::Redial(_) | Effect::Event(_) => {}
            Effect::Load(load) => {
                // Bodies that have left the cache would come from the disk: it reads nothing here.
                self.complete(Completion::Loaded {
                    load: load.id,
                    result: Err(duraft_core::LoadError::Io),
                });
            }
            other @ (Effect::Read(_)
            | Effect::FailRead(..)
            | Effect::Answer(..)
            | Effect::SendSnapshot { .. }
            | Effect::InstallSnapshot(_)
            | Effect::TakeSnapshot
            | Effect::Retire(_)
            | Effect::Stopped(_)) => panic!("not in these tests: {other:?}"),
        }
    }

    /// Disk and state machine do all they were given, or nothing.
    fn work_off(&mut self) {
        let written: u64 = self.writes.iter().map(bytes_of).sum();
        self.most_written = self.most_written.max(written);
        let handed = self.work.iter().map(|work| work.batch.cost()).sum();
        self.most_handed = self.most_handed.max(handed);
        if !self.disk_sticks {
            for write in std::mem::take(&mut self.writes) {
                self.complete(Completion::Persisted { upto: write.seq });
            }
        }
        if !self.machine_sticks {
            for work in std::mem::take(&mut self.work) {
                let header = work.batch.header;
                for (i, responder) in work.responders.into_iter().enumerate() {
                    if let Some(responder) = responder {
                        let mut log_id = header.last_id();
                        log_id.index = duraft_core::Index(header.first.0 + i as u64);
                        let response = Bytes::new();
                        responder.answer(Ok(duraft::Applied { log_id, response }));
                    }
                }
                self.complete(Completion::Applied {
                    upto: header.last(),
                });
            }
        }
    }

    fn propose(&mut self) {
        let answers = Arc::clone(&self.answers);
        let responder = Responder::call(move |outcome: duraft::Outcome| {
            let name = match outcome {
                Ok(_) => "done",
                Err(RequestError::Busy { why }) => match why {
                    BusyReason::Requests => "requests",
                    BusyReason::Uncommitted => "uncommitted",
                    BusyReason::Unapplied => "unapplied",
                    BusyReason::Storage => "storage",
                    BusyReason::Reads | BusyReason::Snapshot | _ => "other",
                },
                Err(_) => "other",
            };
            *answers.lock().expect("unpoisoned").entry(name).or_default() += 1;
        });
        let command = Bytes::from(vec![7; COMMAND_BYTES]);
        let proposal = Proposal::plain(command, None, responder);
        self.inputs.push_back(DriverInput::Propose(proposal));
    }

    fn answered(&self, name: &str) -> u64 {
        let answers = self.answers.lock().expect("unpoisoned");
        answers.get(name).copied().unwrap_or(0)
    }
}

/// Bytes of batches in a message.
fn bytes_in(envelope: &Envelope) -> u64 {
    let Message::Append { batches, .. } = &envelope.message else {
        return 0;
    };
    batches.iter().map(duraft_core::Batch::cost).sum()
}

/// Three nodes of which `silent` reads nothing; what is sent to it is counted and lost.
struct Cluster {
    hosts: Vec<Host>,
    silent: Option<usize>,
    sent_to_silent: u64,
}

impl Cluster {
    fn elected() -> (Cluster, usize) {
        let mut cluster = Cluster {
            hosts: (1..=3).map(|id| Host::new(id, 3)).collect(),
            silent: None,
            sent_to_silent: 0,
        };
        for _ in 0..500 {
            cluster.tick();
            let leads = |host: &Host| host.driver.raft().role() == RoleKind::Leader;
            if let Some(leader) = cluster.hosts.iter().position(leads) {
                cluster.tick();
                return (cluster, leader);
            }
        }
        panic!("no leader within 500 ticks");
    }

    fn tick(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.tick += 1);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            self.hosts.iter_mut().for_each(Host::run);
            let sent = self.hosts.iter_mut().flat_map(|host| host.sent.drain(..));
            let sent: Vec<Envelope> = sent.collect();
            if sent.is_empty() {
                return;
            }
            for envelope in sent {
                let place = |id: NodeId| usize::try_from(id.0).expect("small") - 1;
                let (from, to) = (place(envelope.from), place(envelope.to));
                if self.silent == Some(to) {
                    self.sent_to_silent += bytes_in(&envelope);
                } else if self.silent != Some(from) {
                    let input = DriverInput::Received(envelope);
                    self.hosts[to].inputs.push_back(input);
                }
            }
        }
    }

    /// Clients of `place` ask for a thousand commands more, some at a time.
    fn load(&mut self, place: usize) {
        for _ in 0..100 {
            for _ in 0..10 {
                self.hosts[place].propose();
            }
            self.settle();
        }
    }

    /// Everything that is under way is done, on all nodes.
    fn all_is_done(&self) -> bool {
        let last = self.hosts[0].driver.raft().last();
        let done = |host: &Host| {
            let raft = host.driver.raft();
            raft.last() == last
                && raft.applied() == last.index()
                && raft.is_quiet()
                && host.driver.waiting() == 0
        };
        self.hosts.iter().all(done)
    }

    fn settle_in(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.tick();
            if self.all_is_done() {
                return;
            }
        }
        panic!("not everything is done after {ticks} ticks");
    }
}

#[test]
fn silent_follower_is_sent_one_window_and_no_more() {
    let (mut cluster, leader) = Cluster::elected();
    let silent = (leader + 1) % 3;
    cluster.silent = Some(silent);
    cluster.load(leader);
    let bound = INFLIGHT_BYTES + APPEND_BYTES + ONE_BATCH;
    assert!(cluster.sent_to_silent > 0, "it was spoken to");
    assert!(
        cluster.sent_to_silent <= bound,
        "{}",
        cluster.sent_to_silent
    );
    assert_eq!(cluster.hosts[leader].answered("done"), 1000, "two go on");
    cluster.silent = None;
    cluster.settle_in(200);
}

#[test]
fn leader_without_followers_says_that_too_much_is_not_committed() {
    // Both followers are deaf for a while that is shorter than the leader's patience.
    let (mut cluster, leader) = Cluster::elected();
    for follower in (0..3).filter(|place| *place != leader) {
        cluster.hosts[follower].disk_sticks = true;
    }
    cluster.load(leader);
    let host = &cluster.hosts[leader];
    let held = host.driver.raft().uncommitted_bytes().expect("it leads");
    assert!(held <= UNCOMMITTED_BYTES + ONE_BATCH, "{held}");
    assert!(host.answered("uncommitted") > 0, "{:?}", host.answers);
    assert_eq!(host.answered("done"), 0);
    for host in &cluster.hosts {
        let bound = UNCOMMITTED_BYTES + ONE_BATCH;
        assert!(host.most_written <= bound, "{}", host.most_written);
    }
    cluster
        .hosts
        .iter_mut()
        .for_each(|host| host.disk_sticks = false);
    cluster.settle_in(200);
}

#[test]
fn stuck_state_machine_is_given_one_window() {
    for on_leader in [true, false] {
        let (mut cluster, leader) = Cluster::elected();
        let stuck = (leader + usize::from(!on_leader)) % 3;
        cluster.hosts[stuck].machine_sticks = true;
        cluster.load(leader);
        let handed = cluster.hosts[stuck].most_handed;
        assert!(handed > 0, "it was given work");
        assert!(handed <= UNAPPLIED_BYTES + ONE_BATCH, "{handed}");
        let waiting = cluster.hosts[leader].driver.waiting();
        assert!(waiting <= COMMANDS_MAX, "{waiting}");
        if on_leader {
            let host = &cluster.hosts[leader];
            assert_eq!(host.answered("done"), 0);
            let refused = host.answered("unapplied") + host.answered("requests");
            assert!(refused > 0, "{:?}", host.answers);
        }
        cluster.hosts[stuck].machine_sticks = false;
        cluster.settle_in(200);
    }
}
