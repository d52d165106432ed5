//! `POST /v1/cluster/ACTION`: what `duraft cluster` asks for.
//!
//! A request must say that its body is JSON: a page in an operator's browser cannot send that to
//! another server without asking, and is not allowed to; one that carries an `Origin` is refused as well.

use super::{Answer, json, problem};
use crate::serve::command::{Op, encode};
use crate::serve::config::Peer;
use crate::serve::engine::{Elsewhere, Engine, Failure};
use bytes::Bytes;
use duraft::{MemberChange, NodeId, Promotion, RequestError, RoleKind};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, ORIGIN};
use hyper::http::request::Parts;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for a change to be committed, or for a snapshot.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is wanted, by the path; fields that a path does not need are left out.
#[derive(Serialize, Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminRequest {
    #[serde(default)]
    pub(crate) id: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) peer: Option<Peer>,
    /// Of `add`: make it a voter as soon as it has caught up.
    #[serde(default)]
    pub(crate) promote: bool,
}

/// What came of it.
#[derive(Serialize, Deserialize, Debug, Default)]
pub(crate) struct AdminResponse {
    /// What happened, in words.
    #[serde(default)]
    pub(crate) done: String,
    #[serde(default)]
    pub(crate) error: String,
    /// `none`: without effect. `unknown`: nobody can tell; look at the status.
    #[serde(default)]
    pub(crate) outcome: String,
    /// Another node leads; its admin address, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) leader: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) leader_admin: Option<String>,
}

fn done(text: String) -> Answer {
    json(
        StatusCode::OK,
        &AdminResponse {
            done: text,
            outcome: "done".into(),
            ..AdminResponse::default()
        },
    )
}

pub(super) async fn answer(parts: &Parts, body: &Bytes, engine: &Engine) -> Answer {
    let kind = parts.headers.get(CONTENT_TYPE);
    if kind.is_none_or(|kind| kind.as_bytes() != b"application/json") {
        let text = "the content type must be application/json";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    if parts.headers.contains_key(ORIGIN) {
        let text = "pages of browsers may not administer a cluster";
        return problem(StatusCode::FORBIDDEN, text);
    }
    let request: AdminRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let path = parts.uri.path();
    let action = path.strip_prefix("/v1/cluster/").unwrap_or(path);
    if action != "snapshot"
        && let Some(elsewhere) = other_leader(engine)
    {
        return elsewhere;
    }
    match action {
        "add" => add(engine, request).await,
        "promote" => {
            let change = MemberChange::AddVoter(NodeId(request.id));
            let status = engine.node.status();
            if !status.membership.learners().any(|id| id.0 == request.id) {
                let text = format!("node {} is no learner: add it first", request.id);
                return problem(StatusCode::CONFLICT, &text);
            }
            let what = format!("node {} becomes a voter", request.id);
            change_membership(engine, change, what).await
        }
        "remove" => {
            let change = MemberChange::Remove(NodeId(request.id));
            let what = format!("node {} is removed", request.id);
            change_membership(engine, change, what).await
        }
        "replace" => replace(engine, request).await,
        "transfer" => transfer(engine, NodeId(request.id)).await,
        "snapshot" => snapshot(engine).await,
        _ => problem(StatusCode::NOT_FOUND, "there is no such action"),
    }
}

/// What to say where this node does not lead.
fn other_leader(engine: &Engine) -> Option<Answer> {
    let status = engine.node.status();
    if status.role == RoleKind::Leader {
        return None;
    }
    let peer = status.leader.and_then(|id| engine.book.find(id.0));
    let error = match status.leader {
        Some(id) => format!("node {id} leads; ask it"),
        None => "no leader is known; try again when one is elected".into(),
    };
    let response = AdminResponse {
        error,
        outcome: "none".into(),
        leader: status.leader.map(|id| id.0),
        leader_admin: peer
            .map(|peer| peer.admin)
            .filter(|admin| !admin.is_empty()),
        ..AdminResponse::default()
    };
    Some(json(StatusCode::MISDIRECTED_REQUEST, &response))
}

fn refused(error: &RequestError) -> Answer {
    let outcome = match error {
        RequestError::Busy { .. } | RequestError::Rejected { .. } => "none",
        // A kind that a later version of the library adds: nothing may be concluded.
        RequestError::OutcomeUnknown { .. } | _ => "unknown",
    };
    let response = AdminResponse {
        error: error.to_string(),
        outcome: outcome.into(),
        ..AdminResponse::default()
    };
    json(StatusCode::CONFLICT, &response)
}

async fn change_membership(engine: &Engine, change: MemberChange, what: String) -> Answer {
    match engine.node.change_membership(vec![change]).await {
        Ok(applied) => done(format!("{what}: committed at {}", applied.log_id)),
        Err(error) => refused(&error),
    }
}

/// Every node learns where the new one is before any log says that it is a member.
async fn announce(engine: &Engine, peer: &Peer) -> Result<(), Box<Answer>> {
    if peer.id == 0
        || [&peer.peer, &peer.client, &peer.http]
            .iter()
            .any(|a| a.is_empty())
    {
        let text = "the new node needs an id and its peer, client and http addresses";
        return Err(Box::new(problem(StatusCode::BAD_REQUEST, text)));
    }
    let text = serde_json::to_vec(peer).expect("numbers and text can be written as JSON");
    let op = Op::Member {
        id: peer.id,
        text: Bytes::from(text),
    };
    match engine.enter(encode(&[op]), Elsewhere::Refuse).await {
        Ok(_) => Ok(()),
        Err(Failure::Unknown(why)) => {
            let response = AdminResponse {
                error: format!("the new address may or may not be known: {why}. Try again"),
                outcome: "unknown".into(),
                ..AdminResponse::default()
            };
            Err(Box::new(json(StatusCode::GATEWAY_TIMEOUT, &response)))
        }
        Err(Failure::Refused(text)) => {
            Err(Box::new(problem(StatusCode::SERVICE_UNAVAILABLE, &text)))
        }
        Err(Failure::Moved(_) | Failure::NotLeader(_)) => {
            let text = "leadership has just changed; try again";
            Err(Box::new(problem(StatusCode::SERVICE_UNAVAILABLE, text)))
        }
    }
}

async fn add(engine: &Engine, request: AdminRequest) -> Answer {
    let Some(peer) = request.peer else {
        return problem(
            StatusCode::BAD_REQUEST,
            "the new node's addresses are missing",
        );
    };
    if engine.node.status().membership.contains(NodeId(peer.id)) {
        let text = format!("node {} is a member already", peer.id);
        return problem(StatusCode::CONFLICT, &text);
    }
    if let Err(refusal) = announce(engine, &peer).await {
        return *refusal;
    }
    let promotion = if request.promote {
        Promotion::WhenCaughtUp { replacing: None }
    } else {
        Promotion::Never
    };
    let change = MemberChange::AddLearner {
        id: NodeId(peer.id),
        promotion,
    };
    let becomes = if request.promote {
        ", a voter when it has caught up"
    } else {
        ""
    };
    let what = format!("node {} is a learner{becomes}", peer.id);
    change_membership(engine, change, what).await
}

async fn replace(engine: &Engine, request: AdminRequest) -> Answer {
    let Some(peer) = request.peer else {
        return problem(
            StatusCode::BAD_REQUEST,
            "the new node's addresses are missing",
        );
    };
    let membership = engine.node.status().membership;
    let (old, new) = (NodeId(request.id), NodeId(peer.id));
    if !membership.is_voter(old) {
        return problem(StatusCode::CONFLICT, &format!("node {old} is no voter"));
    }
    if membership.contains(new) {
        return problem(
            StatusCode::CONFLICT,
            &format!("node {new} is a member already"),
        );
    }
    if let Err(refusal) = announce(engine, &peer).await {
        return *refusal;
    }
    match engine.node.replace(old, new).await {
        Ok(applied) => done(format!(
            "node {new} learns, and takes the place of node {old} when it has caught up: committed \
             at {}",
            applied.log_id
        )),
        Err(error) => refused(&error),
    }
}

async fn transfer(engine: &Engine, to: NodeId) -> Answer {
    match timeout(PATIENCE, engine.node.transfer_leadership(to)).await {
        Ok(Ok(())) => done(format!("this node has handed leadership to node {to}")),
        Ok(Err(error)) => refused(&error),
        Err(_) => problem(
            StatusCode::GATEWAY_TIMEOUT,
            "no end in time; look at the status",
        ),
    }
}

async fn snapshot(engine: &Engine) -> Answer {
    match timeout(PATIENCE, engine.node.snapshot()).await {
        Ok(Ok(taken)) => done(format!(
            "node {} has a snapshot up to {}, of {} bytes",
            engine.node.id(),
            taken.upto,
            taken.bytes
        )),
        Ok(Err(error)) => refused(&error),
        Err(_) => problem(StatusCode::GATEWAY_TIMEOUT, "it is still being written"),
    }
}
