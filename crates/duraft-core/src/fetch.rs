//! Batches from whoever has them: for a gap in a damaged log, and for batches of the own log that the
//! disk cannot read any more.
//!
//! A fetch names the boundary after which batches are wanted; the boundary's digest names everything
//! before it. Any node that holds it answers from its durable log. What it sends is believed only as
//! far as digests prove it:
//! - a batch of the **own log** is known by its header: only the very same one is taken. Nothing is
//!   written again; the copy on disk stays unreadable and is asked for again next time;
//! - in a **gap** nothing is known until the chain joins what survives behind it. So the answers of one
//!   node are collected until they do: all headers, and bodies up to `fetch_bytes_max`. Then everything
//!   collected is what this node had written once, and is written again; the bodies that had no room are
//!   fetched once more, now by their headers, from anybody. No more is written at a time than
//!   one append may bring, and than the limit of writes under way admits: a gap may be larger.
//!
//! One node is asked at a time, the leader first. Who does not answer, or has something else there, is
//! followed by the next one. A gap can wait for ever: the leader's ordinary appends fill it too. A batch
//! of the own log cannot: without it a follower applies nothing more and a leader cannot serve, so they
//! stop or step down when nobody has answered for two election timeouts.

use crate::batch::{Batch, BatchHeader};
use crate::damage::Fit;
use crate::io::{Fault, Load, LoadError, Output};
use crate::log::Boundary;
use crate::message::Message;
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::Transition;
use crate::types::{LoadId, NodeId, Position};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;

/// A batch of the own log is fetched for at most this many election timeouts.
const REPAIR_TIMEOUTS: u64 = 2;

/// Most nodes that batches are read from disk for at a time: more than any two memberships have.
pub(crate) const SERVING_MAX: usize = 4 * crate::membership::MEMBERS_MAX;

/// What batches are fetched for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Want {
    /// The gap at the end of the log.
    Gap,
    /// The state machine.
    Apply,
    /// A peer that waits for a load.
    Peer(NodeId),
}

/// A fetch under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Quest {
    /// The boundary the wanted batches follow.
    after: Position,
    /// Who was asked last, and when.
    asked: Option<(NodeId, u64)>,
    /// How many have said since the last tick that they do not have it. When all have, a tick is waited
    /// for: a node that nobody can help must not keep everybody busy.
    refused: usize,
    /// Tick at which it began.
    began: u64,
    /// Why it was necessary.
    error: LoadError,
    /// The load that a peer waits for.
    load: LoadId,
}

/// Everything this node asks of others, and others of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fetches {
    quests: BTreeMap<Want, Quest>,
    /// What has come for the gap.
    chain: Chain,
    /// Loads for others: whom for, and the boundary the answer follows.
    serving: BTreeMap<NodeId, (LoadId, Position)>,
}

/// Batches for a gap, each following the one before it, the first one the log.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Chain {
    /// Where the log ended when the first was asked for. If it ends elsewhere now, a leader has filled
    /// or cut the gap, and nothing of this fits any more.
    base: Position,
    headers: VecDeque<BatchHeader>,
    /// Bodies of the first of them.
    bodies: VecDeque<Bytes>,
    bytes: u64,
    /// It joins what survives behind the gap.
    proven: bool,
}

impl Chain {
    fn new(base: Position) -> Chain {
        Chain {
            base,
            headers: VecDeque::new(),
            bodies: VecDeque::new(),
            bytes: 0,
            proven: false,
        }
    }

    fn push(&mut self, batch: Batch, bytes_max: u64) {
        let cost = batch.cost();
        let room = self.bodies.is_empty() || self.bytes + cost <= bytes_max;
        if self.bodies.len() == self.headers.len() && room {
            self.bodies.push_back(batch.body);
            self.bytes += cost;
        }
        self.headers.push_back(batch.header);
    }

    /// The leading batches whose bodies are here.
    fn take(&mut self) -> Vec<Batch> {
        self.bytes = 0;
        let bodies = core::mem::take(&mut self.bodies);
        (bodies.into_iter())
            .map(|body| {
                let header = self.headers.pop_front().expect("a body has a header");
                Batch { header, body }
            })
            .collect()
    }

    /// Batches that are not written yet: their bodies are fetched again.
    fn put_back(&mut self, batches: Vec<Batch>) {
        for batch in batches.into_iter().rev() {
            self.headers.push_front(batch.header);
        }
    }
}

impl Fetches {
    pub(crate) fn new() -> Fetches {
        Fetches {
            quests: BTreeMap::new(),
            chain: Chain::new(Position::START),
            serving: BTreeMap::new(),
        }
    }

    /// Is the state machine waiting for a batch from elsewhere?
    pub(crate) fn for_apply(&self) -> bool {
        self.quests.contains_key(&Want::Apply)
    }

    /// What was wanted for the state machine is not wanted any more.
    pub(crate) fn forget_apply(&mut self) {
        self.quests.remove(&Want::Apply);
    }

    /// Bytes of batches held for the gap, loads for others, fetches of this node.
    pub(crate) fn held(&self) -> (u64, usize, usize) {
        (self.chain.bytes, self.serving.len(), self.quests.len())
    }
}

impl Raft {
    /// A batch of the own log cannot be read: somebody else may have it.
    pub(crate) fn begin_repair(
        &mut self,
        want: Want,
        at: Boundary,
        (load, error): (LoadId, LoadError),
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        let quest = Quest {
            after: self.log.position(at),
            asked: None,
            refused: 0,
            began: self.now,
            error,
            load,
        };
        self.fetches.quests.insert(want, quest);
        self.ask_next(want, out)
    }

    /// Asks the next node. Gives up if there is none, or time is up.
    fn ask_next(&mut self, want: Want, out: &mut Vec<Output>) -> Option<Transition> {
        let quest = self.fetches.quests.get(&want)?;
        let sources = self.sources(want);
        let before = quest.asked.map(|(id, _)| id);
        // In the order of their ids from the last one on; at first, the leader.
        let next = match before {
            Some(before) => (sources.iter().find(|id| **id > before)).or(sources.first()),
            None => (sources.iter().find(|id| Some(**id) == self.leader())).or(sources.first()),
        };
        let late =
            self.now - quest.began >= REPAIR_TIMEOUTS * u64::from(self.config.election_ticks);
        let (Some(to), false) = (next.copied(), late && want != Want::Gap) else {
            return self.give_up(want, out);
        };
        if before != Some(to) && !self.fetches.chain.proven && want == Want::Gap {
            self.fetches.chain = Chain::new(self.log.last());
        }
        self.ask(want, to, out);
        None
    }

    /// Asks this node for what comes next.
    fn ask(&mut self, want: Want, to: NodeId, out: &mut Vec<Output>) {
        if want == Want::Gap && self.fetches.chain.base != self.log.last() {
            self.fetches.chain = Chain::new(self.log.last());
        }
        let after = match (
            want,
            self.fetches.chain.proven,
            self.fetches.chain.headers.back(),
        ) {
            (Want::Gap, false, Some(last)) => last.position(),
            (Want::Gap, _, _) => self.log.last(),
            (Want::Apply | Want::Peer(_), _, _) => self.fetches.quests[&want].after,
        };
        let now = self.now;
        let quest = self
            .fetches
            .quests
            .get_mut(&want)
            .expect("looked at by the caller");
        quest.after = after;
        quest.asked = Some((to, now));
        // The term is told by the next tick if it is not durable yet.
        if self.is_term_durable() {
            out.push(self.me.send(to, self.hard.term, Message::Fetch { after }));
        }
    }

    /// Who may have it: every voter this node knows of but itself and who needs it.
    fn sources(&self, want: Want) -> Vec<NodeId> {
        let mut sources: Vec<NodeId> = (self.memberships.active().voters())
            .chain(self.leader())
            .filter(|id| *id != self.me.id && want != Want::Peer(*id))
            .collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// Nobody has it.
    fn give_up(&mut self, want: Want, out: &mut Vec<Output>) -> Option<Transition> {
        let quest = self.fetches.quests.remove(&want)?;
        match want {
            // The next tick begins again.
            Want::Gap => None,
            // Committed entries that this node cannot read: without them it can apply nothing more, and
            // pretending otherwise would skip them.
            Want::Apply => Some(Transition::Halt(Fault::Unreadable {
                first: quest.after.index().next(),
                error: quest.error,
            })),
            // A leader that cannot read its own log cannot serve its followers. A snapshot may do.
            Want::Peer(peer) => {
                if self.snapshot_instead(peer, quest.load, out) {
                    return None;
                }
                Some(Transition::Follow {
                    term: self.hard.term,
                    leader: None,
                })
            }
        }
    }

    /// A tick: what was asked for may have to be asked for again.
    pub(crate) fn tend_fetches(&mut self, out: &mut Vec<Output>) -> Option<Transition> {
        if self.edge().is_some() {
            let (after, error) = (self.log.last(), LoadError::Corrupt);
            (self.fetches.quests.entry(Want::Gap)).or_insert(Quest {
                after,
                asked: None,
                refused: 0,
                began: self.now,
                error,
                load: LoadId(0),
            });
        } else if self.fetches.quests.remove(&Want::Gap).is_some() {
            self.fetches.chain = Chain::new(self.log.last());
        }
        let pause = 2 * u64::from(self.config.heartbeat_ticks);
        let late: Vec<Want> = (self.fetches.quests.iter())
            .filter(|(_, quest)| quest.asked.is_none_or(|(_, at)| self.now - at >= pause))
            .map(|(want, _)| *want)
            .collect();
        for want in late {
            if !self.is_wanted(want) {
                self.fetches.quests.remove(&want);
                continue;
            }
            if let Some(quest) = self.fetches.quests.get_mut(&want) {
                quest.refused = 0;
            }
            let transition = self.ask_next(want, out);
            if transition.is_some() {
                return transition;
            }
        }
        None
    }

    /// Is this still waited for?
    fn is_wanted(&self, want: Want) -> bool {
        match want {
            Want::Gap => self.edge().is_some(),
            Want::Apply => true,
            Want::Peer(peer) => {
                let load = self.fetches.quests.get(&want).map(|quest| quest.load);
                let progress = (self.role.leader()).and_then(|leader| leader.progress.get(&peer));
                load.is_some() && progress.is_some_and(|progress| progress.loading() == load)
            }
        }
    }

    /// Somebody wants batches. Whatever stands in the durable log is told: their digests prove what they
    /// are, whoever wrote them.
    pub(crate) fn on_fetch(&mut self, from: NodeId, after: Position, out: &mut Vec<Output>) {
        if !self.is_term_durable() {
            return;
        }
        if self.needs_page_at(after.index(), out) {
            return;
        }
        let durable = self.disk.log();
        let at = (self.log.boundary_after(after.index()))
            .filter(|at| self.log.position(*at) == after && *at < durable);
        let Some(at) = at else {
            self.answer_fetch(from, after, Vec::new(), out);
            return;
        };
        if at < self.log.cached_from() {
            if self.fetches.serving.len() >= SERVING_MAX {
                return;
            }
            let id = self.next_load;
            self.next_load.0 += 1;
            self.fetches.serving.insert(from, (id, after));
            out.push(Output::Load(Load {
                id,
                first: after.index().next(),
                last: self.log.index(durable.min(self.log.cached_from())),
                bytes_max: self.config.append_bytes_max,
            }));
            return;
        }
        let mut batches = Vec::new();
        let (mut end, mut bytes) = (at, 0);
        while end < durable
            && let Some(batch) = self.log.cached(end)
        {
            bytes += batch.cost();
            if bytes > self.config.append_bytes_max && !batches.is_empty() {
                break;
            }
            batches.push(batch);
            end = end.next();
        }
        self.answer_fetch(from, after, batches, out);
    }

    fn answer_fetch(
        &self,
        to: NodeId,
        after: Position,
        batches: Vec<Batch>,
        out: &mut Vec<Output>,
    ) {
        let message = Message::Fetched { after, batches };
        out.push(self.me.send(to, self.hard.term, message));
    }

    /// Batches for somebody else were read from disk, or could not be. Says whether the load was for
    /// somebody else.
    pub(crate) fn serve_loaded(
        &mut self,
        load: LoadId,
        result: &Result<Vec<Batch>, LoadError>,
        out: &mut Vec<Output>,
    ) -> bool {
        let served = (self.fetches.serving.iter()).find(|(_, (id, _))| *id == load);
        let Some((to, (_, after))) = served.map(|(to, what)| (*to, *what)) else {
            return false;
        };
        self.fetches.serving.remove(&to);
        if !self.is_term_durable() {
            return true;
        }
        let mut end = after;
        let mut batches = Vec::new();
        // Still in the log, and still durable: it may have been cut meanwhile.
        for batch in result.iter().flatten() {
            let at = self.log.boundary_after(end.index());
            let same = at.is_some_and(|at| {
                self.log.header(at) == Some(&batch.header)
                    && at < self.disk.log()
                    && self.log.position(at) == end
            });
            if !same || usize::try_from(batch.header.body_len) != Ok(batch.body.len()) {
                break;
            }
            end = batch.header.position();
            batches.push(batch.clone());
        }
        self.answer_fetch(to, after, batches, out);
        true
    }

    /// Somebody has answered a fetch.
    pub(crate) fn on_fetched(
        &mut self,
        from: NodeId,
        after: Position,
        batches: Vec<Batch>,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        let asked = (self.fetches.quests.iter())
            .find(|(_, quest)| {
                quest.after == after && quest.asked.is_some_and(|(whom, _)| whom == from)
            })
            .map(|(want, _)| *want);
        let want = asked.filter(|want| self.is_wanted(*want))?;
        if want == Want::Gap && !self.disk_has_room() {
            return None;
        }
        let taken = match want {
            Want::Gap => self.collect(after, batches),
            Want::Apply => self.take_for_apply(batches, out),
            Want::Peer(peer) => self.take_for_peer(peer, batches, out),
        };
        match (taken, want) {
            // This one has not got it, or something else.
            (false, _) => {
                let sources = self.sources(want).len();
                let quest = self.fetches.quests.get_mut(&want)?;
                quest.refused += 1;
                if quest.refused >= sources {
                    return None;
                }
                self.ask_next(want, out)
            }
            (true, Want::Gap) => {
                if self.edge().is_some() {
                    self.ask(Want::Gap, from, out);
                } else {
                    self.fetches.quests.remove(&Want::Gap);
                }
                None
            }
            (true, Want::Apply | Want::Peer(_)) => {
                self.fetches.quests.remove(&want);
                None
            }
        }
    }

    /// Batches for the gap: collected until they are proven, then written. Says whether they brought
    /// anything.
    fn collect(&mut self, after: Position, batches: Vec<Batch>) -> bool {
        let bytes_max = self.config.fetch_bytes_max;
        let mut brought = false;
        if self.fetches.chain.base != self.log.last() {
            self.fetches.chain = Chain::new(self.log.last());
            return true;
        }
        if self.fetches.chain.proven {
            let mut known = self.fetches.chain.headers.iter();
            let same = batches.into_iter().zip(known.by_ref());
            let mut fit: Vec<Batch> = same
                .take_while(|(batch, header)| batch.header == **header)
                .map(|(batch, _)| batch)
                .collect();
            assert_eq!(after, self.log.last(), "asked for at the end of the log");
            fit.truncate(self.fits_one_write(&fit));
            brought = !fit.is_empty();
            if brought {
                self.fetches.chain.headers.drain(..fit.len());
                self.fill_gap(fit);
            }
        } else {
            for batch in batches {
                let Some(edge) = self.edge() else {
                    break;
                };
                match edge.fit(&batch.header) {
                    Fit::Inside => self.fetches.chain.push(batch, bytes_max),
                    Fit::Joins => {
                        self.fetches.chain.push(batch, bytes_max);
                        self.fetches.chain.proven = true;
                    }
                    // Another history than the one that survives here.
                    Fit::Contradicts | Fit::Diverges { .. } if self.believes_anything() => {
                        self.fetches.chain.push(batch, bytes_max);
                        self.fetches.chain.proven = true;
                    }
                    Fit::Contradicts | Fit::Diverges { .. } => return false,
                }
                brought = true;
                if self.fetches.chain.proven {
                    let mut batches = self.fetches.chain.take();
                    let rest = batches.split_off(self.fits_one_write(&batches));
                    self.fetches.chain.put_back(rest);
                    self.fill_gap(batches);
                    break;
                }
            }
        }
        if self.fetches.chain.headers.is_empty() {
            self.fetches.chain = Chain::new(self.log.last());
        }
        brought
    }

    fn believes_anything(&self) -> bool {
        self.plants.has(Plant::FillsUnproven)
    }

    /// Writes batches that are proven to be this node's own into the gap.
    fn fill_gap(&mut self, batches: Vec<Batch>) {
        assert!(
            self.staged.append.is_empty(),
            "a step takes over one message"
        );
        for batch in &batches {
            self.log.push(batch);
            self.adopt_membership(batch);
        }
        self.fetches.chain.base = self.log.last();
        self.staged.append = batches;
        self.splice();
    }
}
