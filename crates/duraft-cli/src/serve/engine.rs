//! Carrying out what clients ask for, wherever the leader is.
//!
//! A request ends in one of three ways, as in the library: with an answer, refused and certainly
//! without effect, or unknown. What was certainly without effect is tried again by itself until the
//! request's time is over: it can be tried without any risk. What is unknown is never tried again and
//! never answered: the connection of its client is closed.

use super::book::Book;
use super::command::{Look, Op, encode};
use super::config::Config;
use super::machine::Machine;
use super::proxy::{NoResponse, Proxy};
use super::reply::{Reply, answers};
use super::stats::Stats;
use bytes::Bytes;
use duraft::{Node, NodeId, ReadBasis, RejectReason, RequestError, RoleKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Pause before something is tried again that nobody could take; a change of the leader ends it.
const PAUSE: Duration = Duration::from_millis(25);

/// Who leads, as this node knows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lead {
    pub(crate) leader: Option<NodeId>,
    pub(crate) role: Option<RoleKind>,
    /// Why the node has stopped.
    pub(crate) stopped: Option<String>,
}

/// What to do with a write where another node leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Elsewhere {
    /// Pass it on.
    Pass,
    /// Tell the client where.
    Redirect,
    /// Refuse, at once: it was passed on already.
    Refuse,
}

/// Which state a read may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freshness {
    Linearizable,
    /// Whatever this node has applied.
    Stale,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Without effect; the text is for the client and begins with a code.
    Refused(String),
    /// Another node leads, and the client wants to go there itself.
    Moved(NodeId),
    /// Another node leads, or none.
    NotLeader(Option<NodeId>),
    /// May have an effect: nothing may be said.
    Unknown(String),
}

/// One attempt's result that is no answer.
enum Attempt {
    /// Without effect, and worth trying again.
    Again(String),
    End(Failure),
}

/// See the module documentation.
pub(crate) struct Engine {
    pub(crate) node: Node,
    pub(crate) config: Config,
    pub(crate) book: Arc<Book>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) lead: watch::Receiver<Lead>,
    pub(crate) proxy: Proxy,
}

impl Engine {
    /// Carries out operations as one entry of the log.
    pub(crate) async fn write(
        &self,
        ops: &[Op<Bytes>],
        elsewhere: Elsewhere,
    ) -> Result<Vec<Reply>, Failure> {
        self.stats.writes.add(ops.len() as u64);
        let response = self.enter(encode(ops), elsewhere).await?;
        let unreadable = || Failure::Unknown("the node's answer cannot be read".into());
        answers(&response, ops.len()).ok_or_else(unreadable)
    }

    /// Gives an entry to whoever leads and returns the state machine's response.
    pub(crate) async fn enter(&self, entry: Bytes, elsewhere: Elsewhere) -> Result<Bytes, Failure> {
        let outcome = self.enter_until_known(entry, elsewhere).await;
        match &outcome {
            Err(Failure::Refused(_) | Failure::NotLeader(_)) => self.stats.refused.add(1),
            Err(Failure::Moved(_)) => self.stats.redirected.add(1),
            Err(Failure::Unknown(_)) => self.stats.unknown.add(1),
            Ok(_) => self.stats.entries.add(1),
        }
        outcome
    }

    async fn enter_until_known(
        &self,
        entry: Bytes,
        elsewhere: Elsewhere,
    ) -> Result<Bytes, Failure> {
        let until = Instant::now() + self.config.clients.request_timeout;
        let mut lead = self.lead.clone();
        loop {
            let leader = lead.borrow_and_update().leader;
            let attempt = match (leader, elsewhere) {
                (Some(id), _) if id == self.node.id() => self.propose(entry.clone()).await,
                (id, Elsewhere::Refuse) => Err(Attempt::End(Failure::NotLeader(id))),
                (Some(id), Elsewhere::Redirect) => Err(Attempt::End(Failure::Moved(id))),
                (Some(id), Elsewhere::Pass) => self.pass_on(id, &entry, until).await,
                (None, _) => Err(Attempt::Again("no leader is known".into())),
            };
            match attempt {
                Ok(response) => return Ok(response),
                Err(Attempt::End(failure)) => return Err(failure),
                Err(Attempt::Again(why)) => {
                    if elsewhere == Elsewhere::Refuse {
                        return Err(Failure::NotLeader(None));
                    }
                    self.pause(&mut lead, until, &why).await?;
                }
            }
        }
    }

    /// Waits a little, or until another node leads; ends with a refusal when time is over.
    async fn pause(
        &self,
        lead: &mut watch::Receiver<Lead>,
        until: Instant,
        why: &str,
    ) -> Result<(), Failure> {
        if let Some(reason) = &lead.borrow().stopped {
            return Err(Failure::Refused(format!("CLUSTERDOWN {reason}")));
        }
        let now = Instant::now();
        if now + PAUSE >= until {
            let text = format!("CLUSTERDOWN nobody took it in time: {why}");
            return Err(Failure::Refused(text));
        }
        // An error says that the node has ended, which the next round sees.
        let _ = timeout(PAUSE, lead.changed()).await;
        Ok(())
    }

    async fn propose(&self, entry: Bytes) -> Result<Bytes, Attempt> {
        match self.node.propose(entry).await {
            Ok(applied) => Ok(applied.response),
            Err(error) => Err(attempt_of(&error)),
        }
    }

    async fn pass_on(
        &self,
        leader: NodeId,
        entry: &Bytes,
        until: Instant,
    ) -> Result<Bytes, Attempt> {
        let Some(peer) = self.book.find(leader.0) else {
            let text = format!("node {leader} leads, and its address is not known here");
            return Err(Attempt::Again(text));
        };
        if !self.config.may_pass_on_to(&peer.client) {
            return Err(Attempt::End(Failure::Moved(leader)));
        }
        self.stats.passed_on.add(1);
        let response = self.proxy.ask(&peer.client, entry, until).await;
        response.map_err(|why| match why {
            NoResponse::Elsewhere(why) => Attempt::Again(why),
            NoResponse::Refused(text) => Attempt::End(Failure::Refused(text)),
            NoResponse::Unknown(why) => Attempt::End(Failure::Unknown(why)),
        })
    }

    /// Answers reads, all of one state.
    pub(crate) async fn read(
        &self,
        looks: Vec<Look<Bytes>>,
        freshness: Freshness,
    ) -> Result<Vec<Reply>, Failure> {
        self.stats.reads.add(looks.len() as u64);
        if freshness == Freshness::Stale {
            self.stats.stale_reads.add(looks.len() as u64);
        }
        let until = Instant::now() + self.config.clients.request_timeout;
        let mut lead = self.lead.clone();
        let looks = Arc::new(looks);
        let bytes_max = usize::try_from(self.config.limits.reply_bytes_max).unwrap_or(usize::MAX);
        loop {
            let asked = Arc::clone(&looks);
            let look = move |machine: &Machine| -> Vec<Reply> {
                asked
                    .iter()
                    .map(|look| machine.look(look, bytes_max))
                    .collect()
            };
            let pending = match freshness {
                Freshness::Linearizable => self.node.read(self.basis(), look),
                Freshness::Stale => self.node.read_stale(look),
            };
            let why = match pending.await {
                Ok(replies) => return Ok(replies),
                // A read leaves nothing behind, so an unknown one is as good as none.
                Err(RequestError::OutcomeUnknown { why }) => why.to_string(),
                Err(error) => match attempt_of(&error) {
                    Attempt::Again(why) => why,
                    Attempt::End(failure) => return Err(failure),
                },
            };
            self.pause(&mut lead, until, &why).await?;
        }
    }

    /// What makes a read linearizable: clocks only where the configuration says how good they are.
    fn basis(&self) -> ReadBasis {
        match self.config.raft.lease_drift_ppm {
            0 => ReadBasis::Quorum,
            1.. => ReadBasis::Lease,
        }
    }

    /// Waits until the node has stopped; says why.
    pub(crate) async fn stopped(&self) -> String {
        let mut lead = self.lead.clone();
        match lead.wait_for(|lead| lead.stopped.is_some()).await {
            Ok(lead) => lead.stopped.clone().unwrap_or_default(),
            Err(_) => "the node has ended".into(),
        }
    }

    /// Keys and bytes of this node's state, as far as it has applied.
    pub(crate) async fn sizes(&self) -> (u64, u64) {
        let look = |machine: &Machine| (machine.keys(), machine.bytes());
        self.node.read_stale(look).await.unwrap_or_default()
    }
}

fn attempt_of(error: &RequestError) -> Attempt {
    let refused = |code: &str| Attempt::End(Failure::Refused(format!("{code} {error}")));
    match error {
        RequestError::Busy { .. } => refused("TRYAGAIN"),
        RequestError::Rejected {
            reason: RejectReason::Stopped,
            ..
        } => refused("CLUSTERDOWN"),
        RequestError::Rejected { .. } if error.is_retryable() => Attempt::Again(error.to_string()),
        RequestError::Rejected { .. } => refused("ERR"),
        // Unknown, or a kind that a later version of the library adds.
        RequestError::OutcomeUnknown { .. } | _ => {
            Attempt::End(Failure::Unknown(error.to_string()))
        }
    }
}
