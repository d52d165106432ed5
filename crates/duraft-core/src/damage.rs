//! A log that has lost something (RULES.md 13 to 18).
//!
//! Recovery tells what is lost; it stays durable state until a write says that it is over. The log in
//! `log.rs` is the unbroken front; batches that survive behind a gap are kept apart here.
//!
//! | lost | until it is over | over when |
//! |---|---|---|
//! | indices in the middle (a gap) | no candidacy; votes for nothing below what this node may have acknowledged | filled, by a chain that joins what survives behind it |
//! | perhaps the end (`lost_suffix`) | as above, and no votes at all | durable through the leader's last index when it heard of this, under that leader and term |
//! | perhaps a later term or vote | no vote, no acknowledgement, no heartbeat answer, no candidacy | every other voter has told its term in this life; the greatest is adopted with the vote spent |
//! | the snapshot | nothing is applied, no candidacy | a leader has sent one |
//!
//! **Gaps.** Leaders fill them in the ordinary way, as they fill any log that ends too early: the log
//! ends at the gap. Any other node may fill them too (`fetch.rs`), without a leader: batches whose chain
//! joins what survives are what this node had written, whoever sends them. What survives is cut away
//! only where a leader's own batch shows that it is of a dead leader's log.
//!
//! **Terms.** A majority of answers would not do from five voters on: a candidate outside of it may hold
//! this node's lost grant and still win with a voter that has answered before it granted (ADR). And the
//! voters are those that the answers name as well as those this node knows: its membership may be old,
//! but a majority of any membership's voters knows the next one.
//!
//! Whatever ends is written down, and counts when that is durable: a crash in between starts over.

use crate::batch::{BatchHeader, check_count};
use crate::boot::{Boot, BootError};
use crate::io::{Event, Healed, Output};
use crate::log::Boundary;
use crate::membership::Membership;
use crate::message::Message;
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::{Leader, Role};
use crate::types::{
    GroupId, HardState, Incarnation, Index, LogId, NodeId, Position, Term, WriteSeq,
};
use crate::view::{Awaited, DamageStatus};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

/// Most nodes that are asked for their terms: more than any two memberships have.
pub(crate) const ASKED_MAX: usize = 4 * crate::membership::MEMBERS_MAX;

/// See the module documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Damaged {
    /// Batches behind the first gap, in order.
    pub(crate) survivors: VecDeque<BatchHeader>,
    /// The memberships among them.
    pub(crate) memberships: VecDeque<(Index, Membership)>,
    /// Where the stored log ends, where that is known.
    pub(crate) end: Option<Position>,
    pub(crate) lost_suffix: bool,
    pub(crate) vote_uncertain: bool,
    pub(crate) snapshot_lost: bool,
    /// The greatest LogId this node may have acknowledged, as far as known.
    pub(crate) floor: LogId,
    /// The log up to here was not read back but joined: its bodies are on disk only.
    pub(crate) spliced: Boundary,
    /// A leader's answer: whole when durable through here, in this term.
    pub(crate) heal: Option<(Term, Index)>,
    /// It was, once.
    pub(crate) suffix_whole: bool,
    /// Voters to ask for their terms, besides those of the membership in use.
    pub(crate) asked: BTreeSet<NodeId>,
    /// Those that have answered.
    pub(crate) answered: BTreeSet<NodeId>,
    /// The write that ends what is over.
    pub(crate) healing: Option<(Healed, WriteSeq)>,
}

/// What lies behind a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Edge {
    /// A batch that survives.
    Batch(BatchHeader),
    /// Nothing but the knowledge where the log ended.
    End(Position),
}

/// How a batch stands to what lies behind the gap it would go into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fit {
    /// More is missing behind it.
    Inside,
    /// It closes the gap.
    Joins,
    /// It is of a log in which what lies behind the gap does not stand.
    Contradicts,
    /// One (term, index), two contents.
    Diverges { ours: Position },
}

impl Edge {
    /// The first index behind the gap.
    fn first(&self) -> Index {
        match self {
            Edge::Batch(header) => header.first,
            Edge::End(end) => end.index().next(),
        }
    }

    fn position(&self) -> Position {
        match self {
            Edge::Batch(header) => header.position(),
            Edge::End(end) => *end,
        }
    }

    /// How does a batch that continues the log before the gap stand to this?
    pub(crate) fn fit(&self, header: &BatchHeader) -> Fit {
        let ours = self.position();
        let after = header.last().next();
        if header.term > ours.term() {
            return Fit::Contradicts;
        }
        if after < self.first() {
            return Fit::Inside;
        }
        let joins = match self {
            Edge::Batch(survivor) => survivor.follows(&header.position()),
            Edge::End(end) => header.position() == *end,
        };
        if after == self.first() && joins {
            return Fit::Joins;
        }
        // Where a batch of the same term holds an index that stands here in another batch, or ends where
        // this log ended, its content is another.
        let same_place = match self {
            Edge::Batch(survivor) => after > survivor.first,
            Edge::End(_) => true,
        };
        if same_place && header.term == ours.term() {
            Fit::Diverges { ours }
        } else {
            Fit::Contradicts
        }
    }
}

impl Damaged {
    /// What lies behind the first gap of a log whose unbroken front ends at `last`; `None` without gap.
    pub(crate) fn edge(&self, last: Position) -> Option<Edge> {
        match (self.survivors.front(), self.end) {
            (Some(survivor), _) => Some(Edge::Batch(*survivor)),
            (None, Some(end)) if end.index() > last.index() => Some(Edge::End(end)),
            (None, Some(_) | None) => None,
        }
    }

    /// What lies behind the gap is no part of this log any more.
    pub(crate) fn cut(&mut self) {
        self.survivors.clear();
        self.memberships.clear();
        self.end = None;
    }

    /// The log may have lost what this node has acknowledged, and no leader has made up for it yet.
    fn lacks_suffix(&self, last: Position) -> bool {
        let short = self.edge(last).is_none() && self.floor > last.id;
        (self.lost_suffix || short) && !self.suffix_whole
    }
}

/// Takes the damage out of a boot, after its log has been checked, and makes of a log that begins
/// before a gap which a snapshot covers one that begins with the snapshot.
pub(crate) fn open(group: GroupId, boot: &mut Boot) -> Result<Option<Damaged>, BootError> {
    let Some(damage) = boot.damage.take() else {
        return Ok(None);
    };
    let mut survivors: VecDeque<BatchHeader> = damage.survivors.into();
    let last = |boot: &Boot| (boot.batches.last()).map_or(boot.start, BatchHeader::position);
    if let Some(snapshot) = &boot.snapshot
        && snapshot.position.index() > last(boot).index()
    {
        let start = snapshot.position;
        boot.start = start;
        boot.membership = snapshot.membership.clone();
        boot.memberships.retain(|(at, _)| *at > start.index());
        boot.batches.clear();
        survivors.retain(|header| header.last() > start.index());
        while let Some(header) = survivors.front()
            && header.follows(&last(boot))
        {
            boot.batches.push(*header);
            survivors.pop_front();
        }
    }
    let front = last(boot);
    let mut end = front;
    for header in &survivors {
        let gap = header.first > end.index().next();
        let first = end == front;
        let sound = header.group == group
            && check_count(header.kind, header.count).is_ok()
            && header.last().0.checked_add(2).is_some()
            && header.term >= end.term()
            && (gap || !first && header.follows(&end));
        if !sound {
            return Err(BootError::BrokenDamage);
        }
        end = header.position();
    }
    let known_end = damage.end.filter(|known| known.index() > front.index());
    if let Some(known) = known_end
        && (known.index() < end.index()
            || known.index() == end.index() && known != end
            || known.term() < end.term())
    {
        return Err(BootError::BrokenDamage);
    }
    let end = known_end.unwrap_or(end);
    // A missing range behind which nothing is known, and an acknowledgement of what is not known of.
    let unproven = (damage.missing.last()).is_some_and(|(_, last)| *last > end.index());
    let mut memberships = boot.memberships.clone();
    memberships.retain(|(at, _)| *at > front.index());
    boot.memberships.retain(|(at, _)| *at <= front.index());
    Ok(Some(Damaged {
        survivors,
        memberships: memberships.into(),
        end: known_end,
        lost_suffix: damage.lost_suffix || unproven || damage.floor > end.id,
        vote_uncertain: damage.vote_uncertain,
        // A leader may have sent another one since, in a life that ended before it could say so.
        snapshot_lost: damage.snapshot_lost
            && (boot.snapshot.as_ref()).is_none_or(|s| s.position.index() < boot.start.index()),
        floor: damage.floor.max(end.id),
        spliced: Boundary::default(),
        heal: None,
        suffix_whole: false,
        asked: BTreeSet::new(),
        answered: BTreeSet::new(),
        healing: None,
    }))
}

impl Raft {
    /// What lies behind the gap at the end of the log, if there is one.
    pub(crate) fn edge(&self) -> Option<Edge> {
        self.damage.as_ref()?.edge(self.log.last())
    }

    /// The freshest log this node may have acknowledged: it votes for no less.
    pub(crate) fn freshest(&self) -> LogId {
        let own = self.log.last().id;
        let floor = self.damage.as_ref().map(|damaged| damaged.floor);
        if self.plants.has(Plant::ForgetsFloor) {
            return own;
        }
        floor.map_or(own, |floor| floor.max(own))
    }

    /// A later term or vote may be lost: nothing that this node says in its term may count.
    pub(crate) fn is_uncertain(&self) -> bool {
        let uncertain = self
            .damage
            .as_ref()
            .is_some_and(|damaged| damaged.vote_uncertain);
        uncertain && !self.plants.has(Plant::TrustsLostVote)
    }

    /// This node cannot tell which log deserves its vote, or whether it has given it away.
    pub(crate) fn abstains(&self) -> bool {
        let lost = (self.damage.as_ref()).is_some_and(|damaged| damaged.lost_suffix);
        let short = (self.damage.as_ref()).is_some_and(|d| d.lacks_suffix(self.log.last()));
        self.is_uncertain() || (lost || short) && !self.plants.has(Plant::VotesWithLostSuffix)
    }

    /// The snapshot that the log begins with is lost, and no other one has come yet.
    pub(crate) fn lacks_snapshot(&self) -> bool {
        self.damage
            .as_ref()
            .is_some_and(|damaged| damaged.snapshot_lost)
    }

    /// Batches that survive behind the end of the log join it. Their bodies are on disk.
    pub(crate) fn splice(&mut self) {
        let Some(damaged) = &mut self.damage else {
            return;
        };
        while let Some(header) = damaged.survivors.front()
            && header.follows(&self.log.last())
        {
            self.log.push_stored(*header);
            damaged.survivors.pop_front();
        }
        damaged.spliced = self.log.end();
        while let Some((at, membership)) = damaged.memberships.pop_front() {
            if at > self.log.last().index() {
                damaged.memberships.push_front((at, membership));
                break;
            }
            self.memberships.adopt(at, membership);
        }
    }

    /// The damage as users see it.
    pub(crate) fn describe_damage(&self, damaged: &Damaged) -> DamageStatus {
        let last = self.log.last();
        let edge = damaged.edge(last);
        let others = self.others_to_hear(damaged);
        let missing = (others.iter())
            .filter(|id| !damaged.answered.contains(id))
            .count();
        let vote_open = damaged.vote_uncertain && damaged.healing.is_none();
        let waits_for = if others.is_empty() && (vote_open || edge.is_some()) {
            Awaited::Operator
        } else if vote_open {
            Awaited::Terms { missing }
        } else if edge.is_some() {
            Awaited::Batches
        } else if damaged.lacks_suffix(last) || !self.knows_members() {
            Awaited::Leader
        } else if damaged.snapshot_lost {
            Awaited::Snapshot
        } else {
            Awaited::Disk
        };
        DamageStatus {
            missing: edge.map(|edge| (last.index().next(), edge.first().previous())),
            lost_suffix: damaged.lost_suffix || damaged.lacks_suffix(last),
            vote_uncertain: damaged.vote_uncertain,
            snapshot_lost: damaged.snapshot_lost,
            waits_for,
        }
    }

    /// The voters whose terms this node must know: those of its own membership, and those that the
    /// others have named.
    fn others_to_hear(&self, damaged: &Damaged) -> BTreeSet<NodeId> {
        (self.memberships.active().voters())
            .chain(damaged.asked.iter().copied())
            .filter(|id| *id != self.me.id)
            .collect()
    }

    /// Asks for what is missing, again and again.
    pub(crate) fn tend_damage(&mut self, out: &mut Vec<Output>) {
        let Some(damaged) = &self.damage else {
            return;
        };
        if !self
            .now
            .is_multiple_of(u64::from(self.config.heartbeat_ticks))
        {
            return;
        }
        let durable = self.disk.hard_state().term;
        if damaged.vote_uncertain {
            for peer in self.others_to_hear(damaged) {
                if !damaged.answered.contains(&peer) {
                    out.push(self.me.send(peer, durable, Message::TermQuery));
                }
            }
        }
        let answered = damaged.heal.is_some_and(|(term, _)| term == self.hard.term);
        let needs_snapshot = damaged.snapshot_lost.then(|| self.log.start().index());
        if let Role::Follower(follower) = &self.role
            && let Some(leader) = follower.leader
            && self.is_term_durable()
            && (!answered || needs_snapshot.is_some())
        {
            let message = Message::DamageReport {
                lost_suffix: damaged.lost_suffix || damaged.lacks_suffix(self.log.last()),
                needs_snapshot,
            };
            out.push(self.me.send(leader, self.hard.term, message));
        }
    }

    /// The write that ends something of the damage is durable: what has waited for that may leave now.
    pub(crate) fn conclude_damage(&mut self, out: &mut Vec<Output>) {
        let completed = self.disk.completed();
        let Some(damaged) = &mut self.damage else {
            return;
        };
        if let Some((healed, seq)) = damaged.healing
            && seq <= completed
        {
            damaged.healing = None;
            match healed {
                Healed::Vote => damaged.vote_uncertain = false,
                Healed::All => {
                    self.damage = None;
                    out.push(Output::Changed(Event::Healed));
                }
            }
        }
    }

    /// A wiped node that does not know who votes cannot take part in full. What it was told must be
    /// committed: it may be cut off again, and nobody would say it once more to a node that is whole.
    fn knows_members(&self) -> bool {
        let index = self.log.position(self.commit).index();
        !self.memberships.at(index).is_unknown()
    }

    /// Is anything over by now? Then it is written down.
    pub(crate) fn settle_damage(&mut self) {
        let durable = self.log.position_in(self.verified.min(self.disk.log()));
        let last = self.log.last();
        let term = self.hard.term;
        let known = self.knows_members();
        let any_leader = self.plants.has(Plant::HealsUnderAnyLeader);
        let Some(damaged) = &mut self.damage else {
            return;
        };
        if let Some((under, to)) = damaged.heal
            && (under == term || any_leader)
            && durable.is_some_and(|durable| durable.index() >= to)
        {
            damaged.suffix_whole = true;
        }
        let whole = damaged.edge(last).is_none() && damaged.spliced <= self.disk.log();
        let over = whole
            && known
            && !damaged.lacks_suffix(last)
            && !damaged.vote_uncertain
            && !damaged.snapshot_lost;
        if over && damaged.healing.is_none() {
            self.staged.healed = Some(Healed::All);
        }
    }

    /// Another node does not know its term and vote. It hears this one's, and who votes: but only from
    /// a node that knows both.
    pub(crate) fn on_term_query(
        &mut self,
        from: NodeId,
        asker: Incarnation,
        out: &mut Vec<Output>,
    ) {
        if self.damage.is_some() || !self.is_term_durable() {
            return;
        }
        let voters: BTreeSet<NodeId> = self.memberships.active().voters().collect();
        let voters = voters.into_iter().collect();
        let message = Message::TermReply { asker, voters };
        out.push(self.me.send(from, self.hard.term, message));
    }

    /// A voter has told its durable term, which this node has adopted if it is a later one, and whom it
    /// knows as voters.
    pub(crate) fn on_term_reply(&mut self, from: NodeId, asker: Incarnation, voters: &[NodeId]) {
        let majority = self.plants.has(Plant::AsksMajority);
        if asker != self.me.incarnation {
            return;
        }
        let Some(mut damaged) = self.damage.take() else {
            return;
        };
        if damaged.answered.len() < ASKED_MAX {
            damaged.answered.insert(from);
        }
        for voter in voters {
            if damaged.asked.len() < ASKED_MAX {
                damaged.asked.insert(*voter);
            }
        }
        let others = self.others_to_hear(&damaged);
        let heard = others
            .iter()
            .filter(|id| damaged.answered.contains(id))
            .count();
        let all = heard == others.len() || majority && heard > others.len().div_ceil(2);
        let known = damaged.asked.len() < ASKED_MAX && !others.is_empty();
        let open = damaged.vote_uncertain && damaged.healing.is_none();
        self.damage = Some(damaged);
        if !(all && known && open) {
            return;
        }
        // The greatest term anybody else has, and no vote left to give in it: what this node has
        // promised and forgotten was promised in this term or an earlier one, or to somebody who has
        // not told the truth.
        if self.hard.vote.is_none() {
            let term = self.hard.term;
            let vote = Some(self.me.id);
            self.set_hard_state(HardState { term, vote });
        }
        self.staged.healed = Some(Healed::Vote);
    }

    /// A node that knows no member at all asks whoever speaks to it.
    pub(crate) fn note_sender(&mut self, from: NodeId) {
        let unknown = self.memberships.active().is_unknown();
        if let Some(damaged) = &mut self.damage
            && damaged.vote_uncertain
            && unknown
            && damaged.asked.len() < ASKED_MAX
        {
            damaged.asked.insert(from);
        }
    }

    /// A follower reports that its log is damaged. What it has acknowledged in earlier lives counts no
    /// more; it is whole when it holds everything this leader has now: that is everything committed,
    /// whoever acknowledged it.
    pub(crate) fn on_damage_report(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        needs_snapshot: Option<Index>,
        out: &mut Vec<Output>,
    ) {
        let term = self.hard.term;
        let (end, to) = (self.log.end(), self.log.last().index());
        let keeps = self.plants.has(Plant::KeepsLostMatch);
        if self.heard_from(from, incarnation, term).is_none() {
            return;
        }
        let Some((leader, line)) = self.line() else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&from) else {
            return;
        };
        if progress.reported != Some(incarnation) {
            progress.reported = Some(incarnation);
            if !keeps {
                progress.forget(end);
            }
        }
        let covers = |index| line.snapshot.is_some_and(|s| s.position.index() >= index);
        let covered = needs_snapshot.is_none_or(covers);
        if needs_snapshot.is_some() && covered && !progress.is_receiving() {
            line.send_snapshot(from, progress, out);
        }
        if !covered {
            self.want_snapshot(out);
        }
        let message = Message::Heal {
            asker: incarnation,
            to,
        };
        out.push(self.me.send(from, term, message));
        self.replicate_to(from, out);
    }

    /// The membership a cluster was founded with stands in no batch: a node that has lost its disk would
    /// get the whole log back and still not know who votes. So while somebody has reported damage, and
    /// no batch says who votes, one is appended that changes nothing.
    pub(crate) fn publish_membership(&mut self, out: &mut Vec<Output>) {
        let due = |leader: &Leader| {
            !leader.published && leader.progress.values().any(|p| p.reported.is_some())
        };
        if !self.role.leader().is_some_and(due) || self.refuses_change().is_some() {
            return;
        }
        let logged = !self.memberships.later().is_empty();
        if logged || (self.append_membership(self.memberships.active().clone())).is_ok() {
            self.replicate_to_all(out);
            if let Some(leader) = self.role.leader_mut() {
                leader.published = true;
            }
        }
    }

    /// The leader's answer to a report of this life. The first one stands: it was given after this life
    /// began, so everything this node has acknowledged in earlier ones lies before it.
    pub(crate) fn on_heal(&mut self, from: NodeId, term: Term, asker: Incarnation, to: Index) {
        let ours = asker == self.me.incarnation || self.plants.has(Plant::TakesOldHeal);
        if term != self.hard.term || !ours || !self.follows(from) {
            return;
        }
        if let Some(damaged) = &mut self.damage
            && damaged.heal.is_none_or(|(under, _)| under != term)
        {
            damaged.heal = Some((term, to));
        }
    }
}
