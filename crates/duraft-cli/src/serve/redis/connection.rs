//! One client's connection: read what is there, carry it out, answer in order.
//!
//! While commands are carried out nothing more is read, so a client that sends faster than the cluster
//! commits fills its own socket and nothing here. A connection that is silent holds no buffer.

use super::commands::{Action, Session, understand};
use super::plan::{Item, OPS_MAX, RIDERS_MAX, Step, plan};
use super::session::{self, Terms};
use super::{Budget, Share};
use crate::serve::command::{Look, Op, decode};
use crate::serve::engine::{Elsewhere, Engine, Failure, Freshness};
use crate::serve::proxy::NOT_LEADER;
use crate::serve::reply::Reply;
use crate::serve::resp::{BadRequest, Parser, RequestLimits};
use bytes::{Bytes, BytesMut};
use duraft::NodeId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Room made for one read.
const READ_BYTES: usize = 16 << 10;
/// Once so much is there it is worked on before more is read.
const TURN_BYTES: usize = 256 << 10;
/// Replies go out when there are so many bytes of them.
const FLUSH_BYTES: usize = 64 << 10;
/// What a client that is being cut off may still send, so that it can read why.
const LINGER_BYTES: u64 = 16 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// Why a connection ended, other than by its client's wish.
#[derive(Debug)]
pub(super) enum End {
    Io(io::Error),
    BadRequest(BadRequest),
    Unknown(String),
    SlowClient { unsent: usize, after: Duration },
    PartialRequest { bytes: usize, after: Duration },
    OutOfMemory,
}

impl End {
    pub(super) fn note(self, engine: &Engine, peer: SocketAddr) {
        let stats = &engine.stats;
        match self {
            End::Io(error) => tracing::debug!(%peer, "the connection failed: {error}"),
            End::BadRequest(error) => {
                stats.bad_requests.add(1);
                tracing::warn!(%peer, "closed: {error}");
            }
            End::Unknown(why) => {
                tracing::warn!(%peer, "closed: the outcome of a command is unknown: {why}");
            }
            End::SlowClient { unsent, after } => {
                stats.slow_clients.add(1);
                tracing::warn!(
                    %peer,
                    "closed: a slow client did not take its replies for {after:?} \
                     (clients.slow_client_timeout); at least {unsent} bytes are unsent"
                );
            }
            End::PartialRequest { bytes, after } => {
                stats.partial_requests.add(1);
                tracing::warn!(
                    %peer,
                    "closed: the rest of a request did not come for {after:?} \
                     (clients.partial_request_timeout) after {bytes} bytes"
                );
            }
            End::OutOfMemory => {
                stats.out_of_memory.add(1);
                tracing::warn!(
                    %peer,
                    "closed: requests that are not whole take up limits.request_memory_bytes_max"
                );
            }
        }
    }
}

/// See the module documentation.
pub(super) struct Connection<'a> {
    engine: &'a Engine,
    stream: TcpStream,
    input: BytesMut,
    parser: Parser,
    limits: RequestLimits,
    out: BytesMut,
    terms: Terms,
    share: Share,
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        stream: TcpStream,
        id: u64,
        budget: Arc<Budget>,
    ) -> Connection<'a> {
        let config = &engine.config;
        let whole = size(config.raft.batch_bytes_max);
        let mut terms = Terms::new(id);
        terms.redirect = config.clients.redirect == "always";
        Connection {
            engine,
            stream,
            input: BytesMut::new(),
            parser: Parser::default(),
            limits: RequestLimits {
                arguments_max: size(config.limits.arguments_max),
                argument_bytes_max: whole,
                request_bytes_max: whole,
            },
            out: BytesMut::new(),
            terms,
            share: Share::new(budget),
        }
    }

    /// Serves until the client leaves, or something is wrong.
    pub(super) async fn run(mut self) -> Result<(), End> {
        loop {
            let (actions, bad) = self.take_requests();
            if actions.is_empty() && bad.is_none() {
                if !self.read().await? {
                    return Ok(());
                }
                continue;
            }
            let goes_on = self.carry_out(actions).await;
            if let Some(error) = bad {
                let text = format!("ERR {error}");
                self.reply(&Reply::error(text));
                self.flush().await?;
                self.linger().await;
                return Err(End::BadRequest(error));
            }
            // What is known is told even where the rest is not.
            self.flush().await?;
            if !goes_on? {
                self.linger().await;
                return Ok(());
            }
        }
    }

    /// Takes whole requests out of what has been read.
    fn take_requests(&mut self) -> (Vec<Action>, Option<BadRequest>) {
        let max = size(self.engine.config.limits.pipeline_max);
        let mut actions = Vec::new();
        while actions.len() < max {
            match self.parser.next(&mut self.input, &self.limits) {
                Ok(Some(request)) => {
                    actions.push(understand(&request, &self.engine.config.limits));
                    if actions.last() == Some(&Action::Session(Session::Quit)) {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => return (actions, Some(error)),
            }
        }
        self.engine.stats.commands.add(actions.len() as u64);
        (actions, None)
    }

    /// Reads what is there, at least something; false at the end.
    async fn read(&mut self) -> Result<bool, End> {
        if self.input.is_empty() {
            self.input = BytesMut::new();
            self.out = BytesMut::new();
            self.share.hold(0);
            self.stream.readable().await.map_err(End::Io)?;
        }
        let after = self.engine.config.clients.partial_request_timeout;
        let until = Instant::now() + after;
        let before = self.input.len();
        loop {
            if self.input.capacity() - self.input.len() < READ_BYTES {
                // Doubling, so that a long request is not copied again and again.
                let wanted = (self.input.len() + READ_BYTES).max(2 * self.input.len());
                let wanted = wanted.min(self.input.len() + self.limits.request_bytes_max);
                if !self.share.hold(wanted) {
                    let text = "ERR too many requests are under way that are not whole yet";
                    self.reply(&Reply::error(text));
                    self.flush().await?;
                    self.linger().await;
                    return Err(End::OutOfMemory);
                }
                self.input.reserve(wanted - self.input.len());
            }
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => return Ok(self.input.len() > before),
                Ok(_) if self.input.len() - before >= TURN_BYTES => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.input.len() > before {
                        return Ok(true);
                    }
                    if self.input.is_empty() {
                        self.input = BytesMut::new();
                        self.stream.readable().await.map_err(End::Io)?;
                        continue;
                    }
                    let readable = timeout_at(until, self.stream.readable()).await;
                    let bytes = self.input.len();
                    readable
                        .map_err(|_| End::PartialRequest { bytes, after })?
                        .map_err(End::Io)?;
                }
                Err(error) => return Err(End::Io(error)),
            }
        }
    }

    /// Carries commands out in order; false where the client has said goodbye.
    async fn carry_out(&mut self, actions: Vec<Action>) -> Result<bool, End> {
        let entry_bytes_max = self.limits.request_bytes_max / 2;
        for step in plan(actions, entry_bytes_max) {
            match step {
                Step::Write(items) => self.write(items).await?,
                Step::Read(items) => self.look(items).await?,
                Step::Session(Session::Quit) => {
                    self.reply(&Reply::Ok);
                    return Ok(false);
                }
                Step::Session(session) => self.session(session).await?,
            }
        }
        Ok(true)
    }

    async fn write(&mut self, items: Vec<Item<Op<Bytes>>>) -> Result<(), End> {
        let mut ops = Vec::with_capacity(items.len());
        let known: Vec<Option<Reply>> = items
            .into_iter()
            .map(|item| match item {
                Item::Now(reply) => Some(reply),
                Item::Ask(op) => {
                    ops.push(op);
                    None
                }
            })
            .collect();
        let elsewhere = match &self.engine.config.clients.redirect[..] {
            "never" => Elsewhere::Pass,
            _ if self.terms.redirect => Elsewhere::Redirect,
            _ => Elsewhere::Pass,
        };
        let engine = self.engine;
        let replies = match engine.write(&ops, elsewhere).await {
            Ok(replies) => replies,
            Err(Failure::Unknown(why)) => return Err(End::Unknown(why)),
            Err(failure) => ops.iter().map(|op| refusal(engine, &failure, op)).collect(),
        };
        self.reply_all(known, replies).await
    }

    async fn look(&mut self, items: Vec<Item<Look<Bytes>>>) -> Result<(), End> {
        let mut looks = Vec::with_capacity(items.len());
        let known: Vec<Option<Reply>> = items
            .into_iter()
            .map(|item| match item {
                Item::Now(reply) => Some(reply),
                Item::Ask(look) => {
                    looks.push(look);
                    None
                }
            })
            .collect();
        let freshness = if self.terms.stale {
            Freshness::Stale
        } else {
            Freshness::Linearizable
        };
        let asked = looks.len();
        let replies = if looks.is_empty() {
            Vec::new()
        } else {
            match self.engine.read(looks, freshness).await {
                Ok(replies) => replies,
                // A read has no effect, so it can be refused where its outcome is unknown.
                Err(Failure::Unknown(text) | Failure::Refused(text)) => {
                    vec![Reply::error(text); asked]
                }
                Err(Failure::Moved(_) | Failure::NotLeader(_)) => {
                    vec![Reply::error("CLUSTERDOWN no leader is known"); asked]
                }
            }
        };
        self.reply_all(known, replies).await
    }

    /// Replies in order: what was known at once, and one after another of the rest.
    async fn reply_all(
        &mut self,
        known: Vec<Option<Reply>>,
        replies: Vec<Reply>,
    ) -> Result<(), End> {
        let mut replies = replies.into_iter();
        for known in known {
            let Some(reply) = known.or_else(|| replies.next()) else {
                return Err(End::Unknown("fewer answers than questions".into()));
            };
            self.reply(&reply);
            if self.out.len() >= FLUSH_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn session(&mut self, session: Session) -> Result<(), End> {
        let engine = self.engine;
        let terms = &mut self.terms;
        let reply = match session {
            Session::Hello(args) => session::hello(engine, terms, &args),
            Session::ReadOnly(stale) => {
                terms.stale = stale;
                Reply::Ok
            }
            Session::Client(args) => session::client(terms, &args),
            Session::Cluster(args) => session::cluster(engine, terms, &args),
            Session::Config(args) => session::config(engine, &args),
            Session::Command(args) => session::command(&args),
            Session::Info(args) => {
                let (keys, bytes) = engine.sizes().await;
                session::info(engine, keys, bytes, &args)
            }
            Session::Reset => {
                *terms = Terms::new(terms.id);
                terms.redirect = engine.config.clients.redirect == "always";
                Reply::Word("RESET")
            }
            Session::Quit => Reply::Ok,
            Session::Forward(entry) => forward(engine, entry).await?,
        };
        self.reply(&reply);
        Ok(())
    }

    fn reply(&mut self, reply: &Reply) {
        reply.write(self.terms.dialect, &mut self.out);
    }

    /// Sends the replies; gives up on a client that does not take them.
    async fn flush(&mut self) -> Result<(), End> {
        let after = self.engine.config.clients.slow_client_timeout;
        let mut sent = 0;
        while sent < self.out.len() {
            let end = (sent + FLUSH_BYTES).min(self.out.len());
            let written = timeout(after, self.stream.write_all(&self.out[sent..end])).await;
            let unsent = self.out.len() - sent;
            written
                .map_err(|_| End::SlowClient { unsent, after })?
                .map_err(End::Io)?;
            sent = end;
        }
        if self.out.capacity() > 2 * FLUSH_BYTES {
            self.out = BytesMut::new();
        }
        self.out.clear();
        Ok(())
    }

    /// Lets the client read the last replies: a socket that is closed with unread bytes resets the
    /// connection, and what was sent may be lost with it.
    async fn linger(&mut self) {
        let _ = timeout(LINGER, async {
            self.stream.shutdown().await?;
            let mut left = (&mut self.stream).take(LINGER_BYTES);
            tokio::io::copy(&mut left, &mut tokio::io::sink()).await
        })
        .await;
    }
}

/// What a client is told whose operation was refused.
fn refusal(engine: &Engine, failure: &Failure, op: &Op<Bytes>) -> Reply {
    match failure {
        Failure::Refused(text) => Reply::error(text.clone()),
        Failure::Moved(leader) => moved(engine, *leader, op),
        Failure::NotLeader(_) | Failure::Unknown(_) => {
            Reply::error("CLUSTERDOWN no leader is known")
        }
    }
}

fn moved(engine: &Engine, leader: NodeId, op: &Op<Bytes>) -> Reply {
    match engine.book.find(leader.0) {
        Some(peer) => {
            let (host, port) = session::host_and_port(&peer);
            let slot = session::slot(op.first_key());
            Reply::error(format!("MOVED {slot} {host}:{port}"))
        }
        None => Reply::error(format!(
            "TRYAGAIN node {leader} leads; its address is not known"
        )),
    }
}

/// Carries out an entry that another node has passed on.
async fn forward(engine: &Engine, entry: Bytes) -> Result<Reply, End> {
    let fits = decode(&entry).is_ok_and(|ops| {
        let riders = ops.iter().filter(|op| op.tells_value()).count();
        let is_clients = |op: &Op<&[u8]>| !matches!(op, Op::Member { .. });
        ops.len() <= OPS_MAX && riders <= RIDERS_MAX && ops.iter().all(is_clients)
    });
    if !fits {
        return Ok(Reply::error(
            "ERR an entry that is passed on cannot be read here",
        ));
    }
    match engine.enter(entry, Elsewhere::Refuse).await {
        Ok(response) => Ok(Reply::Bulk(response)),
        Err(Failure::Refused(text)) => Ok(Reply::error(text)),
        Err(Failure::NotLeader(leader)) => {
            let leader = leader.map_or("none".into(), |id| id.to_string());
            Ok(Reply::error(format!("{NOT_LEADER} {leader}")))
        }
        Err(Failure::Moved(leader)) => Ok(Reply::error(format!("{NOT_LEADER} {leader}"))),
        Err(Failure::Unknown(why)) => Err(End::Unknown(why)),
    }
}
