//! Drivers with the real core, of which each can lose its disk, its state machine or its ears for a
//! while. No time passes but ticks; the bytes that wait for each part are counted.

use bytes::Bytes;
use duraft::{
    ApplyBatch, BusyReason, Driver, DriverInput, DriverOptions, Effect, Lease, Now, Proposal,
    ReadWork, RequestError, Responder,
};
use duraft_core::{
    Boot, Completion, Config, Envelope, GroupId, HardState, Incarnation, Membership, Message,
    NodeId, Position, Raft, RoleKind, Write,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const GENERATION: u64 = 1;
pub(crate) const COMMAND_BYTES: usize = 1000;
pub(crate) const BATCH_BYTES: u32 = 4096;
pub(crate) const APPEND_BYTES: u64 = 8 << 10;
pub(crate) const INFLIGHT_BYTES: u64 = 32 << 10;
pub(crate) const UNCOMMITTED_BYTES: u64 = 64 << 10;
pub(crate) const UNAPPLIED_BYTES: u64 = 48 << 10;
/// More than is handed over, so that some waits for the state machine.
pub(crate) const BACKLOG_BYTES: u64 = 96 << 10;
pub(crate) const UNPERSISTED_BYTES: u64 = 80 << 10;
pub(crate) const COMMANDS_MAX: usize = 400;
pub(crate) const TICK: Duration = Duration::from_millis(25);
/// How long a round vouches for reads: shorter than the least election timeout.
pub(crate) const LEASE: Duration = Duration::from_millis(150);
/// One batch that is admitted although it passes a limit, with its descriptor.
pub(crate) const ONE_BATCH: u64 = BATCH_BYTES as u64 + 64;

/// What clients were told, by kind.
pub(crate) type Answers = Arc<Mutex<BTreeMap<&'static str, u64>>>;

pub(crate) struct Host {
    pub(crate) driver: Driver,
    pub(crate) inputs: VecDeque<DriverInput>,
    pub(crate) sent: VecDeque<Envelope>,
    pub(crate) writes: VecDeque<Write>,
    pub(crate) work: VecDeque<ApplyBatch>,
    pub(crate) disk_sticks: bool,
    pub(crate) machine_sticks: bool,
    pub(crate) tick: u64,
    /// The most that was seen.
    pub(crate) most_written: u64,
    pub(crate) most_handed: u64,
    pub(crate) answers: Answers,
    /// Reads that may be answered.
    pub(crate) reads: Vec<ReadWork>,
    /// Peers whose connection was asked to be made anew.
    pub(crate) redials: Vec<NodeId>,
    /// Time on the clock that counts suspend, besides that of the ticks.
    pub(crate) suspended: Duration,
}

pub(crate) fn config(id: u64) -> Config {
    let mut config = Config::new(NodeId(id), GroupId(1), id);
    config.max_batch_bytes = BATCH_BYTES;
    config.append_bytes_max = APPEND_BYTES;
    config.inflight_bytes_max = INFLIGHT_BYTES;
    config.uncommitted_bytes_max = UNCOMMITTED_BYTES;
    config.unapplied_bytes_max = UNAPPLIED_BYTES;
    config.backlog_bytes_max = BACKLOG_BYTES;
    config.unpersisted_bytes_max = UNPERSISTED_BYTES;
    config.lease = Some(Lease { drift_ppm: 1000 });
    config
}

pub(crate) fn bytes_of(write: &Write) -> u64 {
    write.append.iter().map(duraft_core::Batch::cost).sum()
}

impl Host {
    pub(crate) fn new(id: u64, voters: u64) -> Host {
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
            lease: Some(LEASE),
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
            reads: Vec::new(),
            redials: Vec::new(),
            suspended: Duration::ZERO,
        }
    }

    pub(crate) fn complete(&mut self, completion: Completion) {
        self.inputs.push_back(DriverInput::Completed {
            generation: GENERATION,
            completion,
        });
    }

    /// The clock that counts suspend.
    pub(crate) fn now(&self) -> Duration {
        TICK * u32::try_from(self.tick).expect("a short test") + self.suspended
    }

    /// Turns until nothing is left to do without more messages or ticks.
    pub(crate) fn run(&mut self) {
        let mut effects = Vec::new();
        loop {
            let now = Now {
                tick: self.tick,
                boottime: self.now(),
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

    pub(crate) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(write) => self.writes.push_back(write),
            Effect::Send(envelope) => self.sent.push_back(envelope),
            Effect::Apply(batches) => self.work.extend(batches),
            Effect::Fail(responder, error) => responder.answer(Err(error)),
            Effect::Redial(peer) => self.redials.push(peer),
            Effect::Event(_) => {}
            Effect::Read(work) => self.reads.push(work),
            Effect::Load(load) => {
                // Bodies that have left the cache would come from the disk: it reads nothing here.
                self.complete(Completion::Loaded {
                    load: load.id,
                    result: Err(duraft_core::LoadError::Io),
                });
            }
            Effect::FailRead(job, error) => job.fail(error),
            Effect::Stopped(_) => {}
            other @ (Effect::Answer(..)
            | Effect::SendSnapshot { .. }
            | Effect::InstallSnapshot(_)
            | Effect::TakeSnapshot
            | Effect::Retire(_)) => panic!("not in these tests: {other:?}"),
        }
    }

    /// Disk and state machine do all they were given, or nothing.
    pub(crate) fn work_off(&mut self) {
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

    pub(crate) fn propose(&mut self) {
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

    pub(crate) fn answered(&self, name: &str) -> u64 {
        let answers = self.answers.lock().expect("unpoisoned");
        answers.get(name).copied().unwrap_or(0)
    }
}

/// Bytes of batches in a message.
pub(crate) fn bytes_in(envelope: &Envelope) -> u64 {
    let Message::Append { batches, .. } = &envelope.message else {
        return 0;
    };
    batches.iter().map(duraft_core::Batch::cost).sum()
}

/// Three nodes of which `silent` reads nothing; what is sent to it is counted and lost.
pub(crate) struct Cluster {
    pub(crate) hosts: Vec<Host>,
    pub(crate) silent: Option<usize>,
    pub(crate) sent_to_silent: u64,
    /// A peer to which appends are lost, while heartbeats get through.
    pub(crate) black_hole: Option<usize>,
}

impl Cluster {
    pub(crate) fn elected() -> (Cluster, usize) {
        let mut cluster = Cluster {
            hosts: (1..=3).map(|id| Host::new(id, 3)).collect(),
            silent: None,
            sent_to_silent: 0,
            black_hole: None,
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

    pub(crate) fn tick(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.tick += 1);
        self.settle();
    }

    /// What was sent arrives, and is taken in.
    pub(crate) fn exchange(&mut self) -> bool {
        self.hosts.iter_mut().for_each(Host::run);
        let sent = self.hosts.iter_mut().flat_map(|host| host.sent.drain(..));
        let sent: Vec<Envelope> = sent.collect();
        let some = !sent.is_empty();
        for envelope in sent {
            let place = |id: NodeId| usize::try_from(id.0).expect("small") - 1;
            let (from, to) = (place(envelope.from), place(envelope.to));
            if self.silent == Some(to) {
                self.sent_to_silent += bytes_in(&envelope);
            } else if self.black_hole == Some(to)
                && matches!(envelope.message, Message::Append { .. })
            {
                // Nobody hears of it.
            } else if self.silent != Some(from) {
                let input = DriverInput::Received(envelope);
                self.hosts[to].inputs.push_back(input);
            }
        }
        some
    }

    pub(crate) fn settle(&mut self) {
        while self.exchange() {}
    }

    /// Clients of `place` ask for a thousand commands more, some at a time.
    pub(crate) fn load(&mut self, place: usize) {
        for _ in 0..100 {
            for _ in 0..10 {
                self.hosts[place].propose();
            }
            self.settle();
        }
    }

    /// Everything that is under way is done, on all nodes.
    pub(crate) fn all_is_done(&self) -> bool {
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

    pub(crate) fn settle_in(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.tick();
            if self.all_is_done() {
                return;
            }
        }
        panic!("not everything is done after {ticks} ticks");
    }
}
