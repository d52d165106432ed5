//! Three nodes of raft-rs, each a thread with the loop that its documentation describes: append messages
//! leave the leader before its own disk has answered, acknowledgements after. Proposals that wait are taken
//! together, and share appends (`batch_append`) and syncs.
//!
//! The log is raft-engine's, with what was written lately in a `MemStorage` beside it, so that nothing is
//! read back; or duraft's, behind its adaptor.

use super::{Cluster, NODES, wait_for};
use crate::Result;
use crate::logs::Entries;
use bytes::Bytes;
use duraft_raft_rs::LogStorage;
use raft::eraftpb::{ConfState, Entry, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode, Ready, StateRole, Storage};
use raft_engine::{Engine, LogBatch};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);
/// Taken together at most.
const MAIL_MAX: usize = 4096;
/// So many entries are kept, and as many again before they are cut.
const KEPT: u64 = 50_000;

enum Mail {
    Raft(Message),
    Propose {
        client: u32,
        command: Bytes,
        done: Sender<u32>,
    },
    Stop,
}

/// What the loop wants of a log.
trait Durable: Sized + Send + 'static {
    type Store: Storage + Send;
    fn open(dir: PathBuf, voters: ConfState) -> Result<(Self, Self::Store)>;
    /// Entries and hard state: durable when it returns.
    fn write(&mut self, store: &Self::Store, ready: &Ready) -> Result<()>;
    fn compact(&mut self, store: &Self::Store, upto: u64) -> Result<()>;
}

impl Durable for Engine {
    type Store = MemStorage;

    fn open(dir: PathBuf, voters: ConfState) -> Result<(Engine, MemStorage)> {
        let dir = dir.display().to_string();
        let engine = Engine::open(raft_engine::Config {
            dir,
            ..Default::default()
        })?;
        Ok((engine, MemStorage::new_with_conf_state(voters)))
    }

    fn write(&mut self, store: &MemStorage, ready: &Ready) -> Result<()> {
        let mut batch = LogBatch::default();
        batch.add_entries::<Entries>(1, ready.entries())?;
        if let Some(hard) = ready.hs() {
            batch.put_message(1, b"hard".to_vec(), hard)?;
            store.wl().set_hardstate(hard.clone());
        }
        Engine::write(self, &mut batch, ready.must_sync())?;
        Ok(store.wl().append(ready.entries())?)
    }

    fn compact(&mut self, store: &MemStorage, upto: u64) -> Result<()> {
        self.compact_to(1, upto + 1);
        Ok(store.wl().compact(upto + 1)?)
    }
}

/// The adaptor is its own handle.
struct DuraftLog;

impl Durable for DuraftLog {
    type Store = LogStorage;

    fn open(dir: PathBuf, voters: ConfState) -> Result<(DuraftLog, LogStorage)> {
        let store = LogStorage::open(dir)?;
        store.initialize(&voters)?;
        Ok((DuraftLog, store))
    }

    fn write(&mut self, store: &LogStorage, ready: &Ready) -> Result<()> {
        if !ready.must_sync() {
            // The commit index alone: a restart finds it out again.
            return Ok(());
        }
        let (told, durable) = std::sync::mpsc::sync_channel(1);
        store.write(ready, Some(Box::new(move |made| drop(told.send(made)))))?;
        Ok(durable.recv()??)
    }

    fn compact(&mut self, store: &LogStorage, upto: u64) -> Result<()> {
        Ok(store.compact(upto, None)?)
    }
}

struct Nodes {
    mailboxes: Vec<Sender<Mail>>,
    leader: usize,
    threads: Vec<JoinHandle<Result<()>>>,
}

pub(super) fn start_on_raft_engine(dir: &Path) -> Result<Box<dyn Cluster>> {
    start::<Engine>(dir)
}

pub(super) fn start_on_duraft(dir: &Path) -> Result<Box<dyn Cluster>> {
    start::<DuraftLog>(dir)
}

fn start<D: Durable>(dir: &Path) -> Result<Box<dyn Cluster>> {
    let (mailboxes, letters): (Vec<_>, Vec<_>) = (0..NODES).map(|_| channel()).unzip();
    let leader = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for (id, letters) in (1..).zip(letters) {
        let (peers, leader) = (mailboxes.clone(), Arc::clone(&leader));
        let dir = dir.join(format!("node-{id}"));
        threads.push(std::thread::spawn(move || {
            Member::<D>::run(id, dir, peers, letters, &leader)
        }));
    }
    let leader = wait_for(|| Some(leader.load(Ordering::Relaxed)).filter(|id| *id > 0))?;
    Ok(Box::new(Nodes {
        mailboxes,
        leader: leader as usize - 1,
        threads,
    }))
}

impl Cluster for Nodes {
    fn propose(&self, client: u32, command: Bytes, done: &Sender<u32>) -> Result<()> {
        let mail = Mail::Propose {
            client,
            command,
            done: done.clone(),
        };
        self.mailboxes[self.leader]
            .send(mail)
            .map_err(|_| "the leader has stopped".into())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for mailbox in &self.mailboxes {
            let _ = mailbox.send(Mail::Stop);
        }
        for thread in self.threads.drain(..) {
            if let Ok(Err(error)) = thread.join() {
                eprintln!("raft-rs: {error}");
            }
        }
    }
}

struct Member<D: Durable> {
    node: RawNode<D::Store>,
    log: D,
    peers: Vec<Sender<Mail>>,
    /// Who waits for which proposal.
    waiting: BTreeMap<u64, (u32, Sender<u32>)>,
    proposed: u64,
    applied: u64,
}

impl<D: Durable> Member<D> {
    fn run(
        id: u64,
        dir: PathBuf,
        peers: Vec<Sender<Mail>>,
        letters: Receiver<Mail>,
        leader: &AtomicU64,
    ) -> Result<()> {
        let voters = ConfState::from(((1..=NODES).collect::<Vec<_>>(), vec![]));
        let (log, store) = D::open(dir, voters)?;
        let config = Config {
            max_inflight_msgs: 256,
            max_size_per_msg: 1 << 20,
            batch_append: true,
            pre_vote: true,
            election_tick: 10,
            heartbeat_tick: 3,
            ..Config::new(id)
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&config, store, &logger)?;
        if id == 1 {
            node.campaign()?;
        }
        let waiting = BTreeMap::new();
        let mut member = Member::<D> {
            node,
            log,
            peers,
            waiting,
            proposed: 0,
            applied: 0,
        };
        let mut tick = Instant::now() + TICK;
        loop {
            match letters.recv_timeout(tick.saturating_duration_since(Instant::now())) {
                Ok(Mail::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(mail) => {
                    member.take(mail)?;
                    for mail in letters.try_iter().take(MAIL_MAX) {
                        if matches!(mail, Mail::Stop) {
                            return Ok(());
                        }
                        member.take(mail)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= tick {
                member.node.tick();
                tick += TICK;
            }
            while member.node.has_ready() {
                member.turn()?;
            }
            if member.node.raft.state == StateRole::Leader {
                leader.store(id, Ordering::Relaxed);
            }
        }
    }

    fn take(&mut self, mail: Mail) -> Result<()> {
        match mail {
            // Messages of the past are refused.
            Mail::Raft(message) => drop(self.node.step(message)),
            Mail::Propose {
                client,
                command,
                done,
            } => {
                self.proposed += 1;
                self.waiting.insert(self.proposed, (client, done));
                self.node
                    .propose(self.proposed.to_le_bytes().to_vec(), command.to_vec())?;
            }
            Mail::Stop => {}
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let mut ready = self.node.ready();
        self.send(ready.take_messages());
        self.apply(ready.take_committed_entries());
        self.log.write(self.node.store(), &ready)?;
        self.send(ready.take_persisted_messages());
        let mut light = self.node.advance(ready);
        self.send(light.take_messages());
        self.apply(light.take_committed_entries());
        self.node.advance_apply();
        let first = self.node.store().first_index()?;
        if self.applied > first + 2 * KEPT {
            let upto = self.applied - KEPT;
            self.log.compact(self.node.store(), upto)?;
        }
        Ok(())
    }

    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            // A node that has stopped hears nothing.
            let _ = self.peers[message.to as usize - 1].send(Mail::Raft(message));
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.applied = entry.index;
            let Ok(number) = entry.context.as_ref().try_into() else {
                continue;
            };
            if let Some((client, done)) = self.waiting.remove(&u64::from_le_bytes(number)) {
                let _ = done.send(client);
            }
        }
    }
}
