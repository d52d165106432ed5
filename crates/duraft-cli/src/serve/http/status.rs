//! What a node says of itself and, asked for it, of all nodes.

use super::client;
use super::{Answer, problem, text};
use crate::serve::config::Peer;
use crate::serve::engine::Engine;
use crate::serve::stats::{Sample, micros};
use duraft::{Node, ReadBasis, RoleKind, Stage};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for the read that proves a node ready.
const READY_WAIT: Duration = Duration::from_secs(2);

/// One node. Fields are added and never changed in meaning.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub(crate) struct NodeStatus {
    pub(crate) id: u64,
    pub(crate) cluster: String,
    pub(crate) version: String,
    pub(crate) role: String,
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
    pub(crate) last: u64,
    pub(crate) durable: u64,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    pub(crate) incarnation: u64,
    pub(crate) voters: Vec<u64>,
    pub(crate) learners: Vec<u64>,
    /// A change of voters is under way.
    pub(crate) joint: bool,
    pub(crate) snapshot: Option<SnapshotView>,
    pub(crate) damaged: bool,
    /// Why it has stopped, if it has.
    pub(crate) stopped: Option<String>,
    pub(crate) commands_waiting: u64,
    pub(crate) keys: u64,
    pub(crate) key_value_bytes: u64,
    pub(crate) connections: u64,
    pub(crate) sync: SyncView,
}

#[derive(Serialize, Deserialize, Debug, Clone, Copy)]
pub(crate) struct SnapshotView {
    pub(crate) index: u64,
    pub(crate) bytes: u64,
}

/// How long the log's syncs took in this life, in microseconds.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, Default)]
pub(crate) struct SyncView {
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

/// A node as another one sees it.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Member {
    #[serde(flatten)]
    pub(crate) peer: Peer,
    /// `voter`, `learner`, or `none`.
    pub(crate) part: String,
    pub(crate) status: Option<NodeStatus>,
    /// Why there is no status.
    pub(crate) error: Option<String>,
    /// Entries that some node has committed and this one has not applied.
    pub(crate) lag: Option<u64>,
}

/// All nodes, as this one sees them.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct ClusterStatus {
    /// The node that was asked.
    pub(crate) asked: u64,
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    /// A change of voters is under way.
    pub(crate) joint: bool,
    pub(crate) members: Vec<Member>,
    /// Of the node that was asked.
    pub(crate) history: Vec<Sample>,
}

pub(crate) fn role_name(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Follower => "follower",
        RoleKind::PreCandidate => "pre-candidate",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
    }
}

pub(super) async fn of(engine: &Engine) -> NodeStatus {
    let (keys, key_value_bytes) = engine.sizes().await;
    let status = engine.node.status();
    let stats = engine.node.stats();
    let syncs = stats.stage(Stage::Sync);
    NodeStatus {
        id: status.id.0,
        cluster: engine.config.cluster.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        role: role_name(status.role).into(),
        term: status.term.0,
        leader: status.leader.map(|id| id.0),
        last: status.last.index.0,
        durable: status.durable.0,
        commit: status.commit.0,
        applied: status.applied.0,
        incarnation: status.incarnation.0,
        voters: status.membership.voters().map(|id| id.0).collect(),
        learners: status.membership.learners().map(|id| id.0).collect(),
        joint: status.membership.is_joint(),
        snapshot: status.snapshot.map(|snapshot| SnapshotView {
            index: snapshot.upto.index.0,
            bytes: snapshot.bytes,
        }),
        damaged: status.damage.is_some(),
        stopped: status.stopped.map(|reason| reason.to_string()),
        commands_waiting: status.commands_waiting as u64,
        keys,
        key_value_bytes,
        connections: engine.stats.connections.get(),
        sync: SyncView {
            count: syncs.count(),
            p50_us: micros(syncs.quantile(0.5)),
            p99_us: micros(syncs.quantile(0.99)),
            max_us: micros(syncs.max()),
        },
    }
}

pub(super) async fn of_all(engine: &Engine) -> ClusterStatus {
    let own = of(engine).await;
    let mut asked = Vec::new();
    for (id, peer) in engine.book.all() {
        // Who was removed is not asked any more.
        if id != own.id && !own.voters.contains(&id) && !own.learners.contains(&id) {
            continue;
        }
        let address = peer.http.clone();
        let task = (id != own.id).then(|| {
            tokio::spawn(async move {
                let body = client::get(&address, "/v1/status").await?;
                serde_json::from_slice::<NodeStatus>(&body).map_err(|error| error.to_string())
            })
        });
        asked.push((peer, task));
    }
    let mut members = Vec::new();
    for (peer, task) in asked {
        let found = match task {
            None => Ok(own.clone()),
            Some(task) => task.await.unwrap_or_else(|error| Err(error.to_string())),
        };
        let part = if own.voters.contains(&peer.id) {
            "voter"
        } else if own.learners.contains(&peer.id) {
            "learner"
        } else {
            "none"
        };
        let (status, error) = match found {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        members.push(Member {
            peer,
            part: part.into(),
            status,
            error,
            lag: None,
        });
    }
    let statuses = members.iter().filter_map(|member| member.status.as_ref());
    let commit = statuses.map(|status| status.commit).max().unwrap_or(0);
    for member in &mut members {
        let applied = member.status.as_ref().map(|status| status.applied);
        member.lag = applied.map(|applied| commit.saturating_sub(applied));
    }
    ClusterStatus {
        asked: own.id,
        leader: own.leader,
        term: own.term,
        joint: own.joint,
        members,
        history: engine.stats.history(),
    }
}

/// Does the process do its work? A node without a leader is healthy: restarting it helps nobody.
pub(super) fn health(engine: &Engine) -> Answer {
    match engine.node.status().stopped {
        None => text(StatusCode::OK, "text/plain", "ok\n".into()),
        Some(reason) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("the node has stopped: {reason}"),
        ),
    }
}

/// Can clients be served now? A read of a quorum says so.
pub(super) async fn ready(engine: &Engine) -> Answer {
    let node: &Node = &engine.node;
    let look = |_: &crate::serve::machine::Machine| ();
    let why = match timeout(READY_WAIT, node.read(ReadBasis::Quorum, look)).await {
        Ok(Ok(())) => return text(StatusCode::OK, "text/plain", "ok\n".into()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no quorum answered within {READY_WAIT:?}"),
    };
    problem(StatusCode::SERVICE_UNAVAILABLE, &why)
}
