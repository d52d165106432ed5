//! Three nodes of openraft 0.9 over duraft's log behind its adaptor: a call of the network is a call of the
//! other node, within one runtime of tokio with a thread per core. Commands are stored as bytes.

use super::{Cluster, NODES, PATIENCE};
use crate::Result;
use bytes::Bytes;
use duraft_openraft::LogStore;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{
    BasicNode, Config, Entry, EntryPayload, LogId, OptionalSend, Raft, RaftLogId, SnapshotMeta,
    StorageError, StoredMembership, TokioRuntime,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Command(#[serde(with = "serde_bytes")] Vec<u8>);

openraft::declare_raft_types!(
    pub(super) Types:
        D = Command,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        Entry = Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = TokioRuntime
);

type Failed = StorageError<u64>;
type Called<R, E = RaftError<u64>> = std::result::Result<R, RPCError<u64, BasicNode, E>>;

/// All nodes, by their ids.
type Peers = Arc<Mutex<BTreeMap<u64, Raft<Types>>>>;

#[derive(Clone)]
struct Calls(Peers, u64);

impl RaftNetworkFactory<Types> for Calls {
    type Network = Calls;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Calls {
        Calls(Arc::clone(&self.0), target)
    }
}

impl Calls {
    fn peer<E: std::error::Error>(&self) -> Called<Raft<Types>, E> {
        let peer = self.0.lock().expect("no panic").get(&self.1).cloned();
        peer.ok_or_else(|| RPCError::Unreachable(Unreachable::new(&fmt::Error)))
    }
}

fn unreachable<E: std::error::Error>(
    error: &(impl std::error::Error + 'static),
) -> RPCError<u64, BasicNode, E> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetwork<Types> for Calls {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Called<AppendEntriesResponse<u64>> {
        let answer = self.peer()?.append_entries(request).await;
        answer.map_err(|error| unreachable(&error))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Called<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>> {
        let answer = self.peer()?.install_snapshot(request).await;
        answer.map_err(|error| unreachable(&error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Called<VoteResponse<u64>> {
        let answer = self.peer()?.vote(request).await;
        answer.map_err(|error| unreachable(&error))
    }
}

/// It holds nothing but what openraft asks for.
#[derive(Clone, Default)]
struct Machine {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
}

impl Machine {
    fn snapshot(&self) -> Snapshot<Types> {
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
                snapshot_id: format!("{:?}", self.applied),
            },
            snapshot: Box::default(),
        }
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> std::result::Result<Snapshot<Types>, Failed> {
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> std::result::Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), Failed> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> std::result::Result<Vec<()>, Failed>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let id = *entry.get_log_id();
            self.applied = Some(id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(id), membership);
            }
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> std::result::Result<Box<Cursor<Vec<u8>>>, Failed> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        _snapshot: Box<Cursor<Vec<u8>>>,
    ) -> std::result::Result<(), Failed> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> std::result::Result<Option<Snapshot<Types>>, Failed> {
        Ok(self.applied.is_some().then(|| self.snapshot()))
    }
}

struct Nodes {
    runtime: Runtime,
    leader: Raft<Types>,
    peers: Peers,
}

pub(super) fn start_on_duraft(dir: &Path) -> Result<Box<dyn Cluster>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let peers = Peers::default();
    let leader = runtime.block_on(start(dir, &peers))?;
    Ok(Box::new(Nodes {
        runtime,
        leader,
        peers,
    }))
}

async fn start(dir: &Path, peers: &Peers) -> Result<Raft<Types>> {
    let config = Config {
        election_timeout_min: 1_000,
        election_timeout_max: 2_000,
        heartbeat_interval: 200,
        max_payload_entries: 4_096,
        ..Config::default()
    };
    let config = Arc::new(config.validate()?);
    for id in 1..=NODES {
        let log: LogStore<Types> = LogStore::open(dir.join(format!("node-{id}")))?;
        let network = Calls(Arc::clone(peers), 0);
        let raft = Raft::new(id, Arc::clone(&config), network, log, Machine::default()).await?;
        peers.lock().expect("no panic").insert(id, raft);
    }
    let first = peers.lock().expect("no panic")[&1].clone();
    let members: BTreeMap<u64, BasicNode> =
        (1..=NODES).map(|id| (id, BasicNode::default())).collect();
    first.initialize(members).await?;
    let state = first
        .wait(Some(PATIENCE))
        .metrics(|m| m.current_leader.is_some(), "a leader")
        .await?;
    let leader = state.current_leader.ok_or("no leader")?;
    let leader = peers.lock().expect("no panic")[&leader].clone();
    leader
        .wait(Some(PATIENCE))
        .metrics(|m| m.state.is_leader(), "it leads")
        .await?;
    Ok(leader)
}

impl Cluster for Nodes {
    fn propose(&self, client: u32, command: Bytes, done: &Sender<u32>) -> Result<()> {
        let (leader, done) = (self.leader.clone(), done.clone());
        self.runtime.spawn(async move {
            // A command that failed is missed by its client, who reports it.
            if leader.client_write(Command(command.to_vec())).await.is_ok() {
                let _ = done.send(client);
            }
        });
        Ok(())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let nodes = std::mem::take(&mut *self.peers.lock().expect("no panic"));
        for node in nodes.into_values() {
            if let Err(error) = self.runtime.block_on(node.shutdown()) {
                eprintln!("openraft: {error}");
            }
        }
    }
}
