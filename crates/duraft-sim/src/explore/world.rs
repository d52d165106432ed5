//! The worlds, walked breadth first.

use super::local::{Failure, Happening, Locals, MessageId, StateId, Step};
use crate::spec::walk::{Twice, hash128};
use crate::spec::{Action, Log, Node};
use duraft_core::{AppendReply, Config, GroupId, Message, NodeId, Raft, RoleKind};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// How large the world is.
#[derive(Clone)]
pub struct Options {
    /// Number of nodes, all of them voters.
    pub nodes: u64,
    /// Nobody campaigns beyond this term.
    pub terms: u64,
    /// Commands that are proposed, beside the entry that begins each term.
    pub commands: u8,
    /// Crashes, all nodes together.
    pub crashes: u8,
    /// Rounds of heartbeats, all leaders together.
    pub beats: u8,
    /// Do nodes ask before they campaign?
    pub pre_vote: bool,
    /// Check the core's own invariants too; off to see what is found without them.
    pub own_checks: bool,
    /// The host reports a write while the one before it is under way: a fault to be found.
    pub early_reports: bool,
    /// Goes deep first: finds worlds that have all of others sooner, and longer schedules.
    pub deep: bool,
    /// The terms of the entries that each node begins with, oldest first, in the order of the ids. Who is
    /// not named begins with nothing, as all do by default.
    pub logs: Vec<Vec<u64>>,
    /// Give up after so many worlds.
    pub worlds_max: usize,
    /// Done to every core when a life begins: tests plant faults here.
    pub prepare: Arc<dyn Fn(&mut Raft)>,
}

impl Options {
    /// A small world, all of which is walked.
    pub fn new(nodes: u64, terms: u64, commands: u8, crashes: u8) -> Options {
        Options {
            nodes,
            terms,
            commands,
            crashes,
            beats: 0,
            pre_vote: false,
            own_checks: true,
            early_reports: false,
            deep: false,
            logs: Vec::new(),
            worlds_max: usize::MAX,
            prepare: Arc::new(|_| {}),
        }
    }

    pub(super) fn core_config(&self, id: NodeId, group: GroupId) -> Config {
        let mut config = Config::new(id, group, 1);
        config.election_ticks = 4;
        config.heartbeat_ticks = 1;
        config.pre_vote = self.pre_vote;
        config.check_quorum = false;
        config.stall_ticks = None;
        config
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} nodes, {} terms, {} commands, {} crashes, {} beats, pre-votes {}",
            self.nodes, self.terms, self.commands, self.crashes, self.beats, self.pre_vote
        )?;
        if self.logs.is_empty() {
            return Ok(());
        }
        write!(f, ", logs {:?}", self.logs)
    }
}

/// What was found where nothing was wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Worlds.
    pub worlds: usize,
    /// Ways from one to another.
    pub moves: u64,
    /// Worlds that were left out when another was found that has all of them.
    pub subsumed: u64,
    /// States of a core with its disk.
    pub states: usize,
    /// Steps of cores that were run.
    pub steps: u64,
    /// Messages.
    pub messages: usize,
    /// Steps that were run again from a state that was called equal.
    pub doubles: u64,
    /// There was nothing more to walk.
    pub complete: bool,
    /// Most moves from the beginning.
    pub depth: usize,
}

/// A world that must not be, and how to get there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// What is wrong.
    pub failure: Failure,
    /// The moves that lead there, in words: as few as there can be.
    pub schedule: Vec<String>,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.failure.what)?;
        for (number, line) in (1..).zip(&self.schedule) {
            writeln!(f, "{number:>4}. {line}")?;
        }
        Ok(())
    }
}

/// Everything there is at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    cores: Vec<StateId>,
    /// Everything that was sent and may still matter.
    sent: Sent,
    crashes: u8,
    commands: u8,
    beats: u8,
    /// Who has led, by term.
    leaders: Vec<(u64, u64, StateLife)>,
    /// What was called committed, by term: the longest.
    committed: Vec<(u64, Log)>,
}

impl World {
    /// All of it but what was sent and what is remembered.
    fn key(&self) -> u128 {
        let World {
            cores,
            sent: _,
            crashes,
            commands,
            beats,
            leaders: _,
            committed: _,
        } = self;
        hash128(&(cores, crashes, commands, beats))
    }
}

/// A set of messages.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Sent(Vec<u64>);

impl Sent {
    fn insert(&mut self, id: MessageId) {
        let word = id as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id % 64);
    }

    fn remove(&mut self, id: MessageId) {
        self.0[id as usize / 64] &= !(1 << (id % 64));
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_within(&self, other: &Sent) -> bool {
        let more = self.0.len() <= other.0.len();
        more && self.0.iter().zip(&other.0).all(|(a, b)| a & !b == 0)
    }

    fn iter(&self) -> impl Iterator<Item = MessageId> + '_ {
        (0..).zip(&self.0).flat_map(|(word, bits)| {
            let bits = *bits;
            (0..64)
                .filter(move |bit| bits >> bit & 1 == 1)
                .map(move |bit| word * 64 + bit)
        })
    }
}

/// The life of a leader.
type StateLife = u64;
type Fast = BuildHasherDefault<Twice>;

/// Walks all worlds.
pub struct Explorer {
    options: Options,
    locals: Locals,
    initial: Vec<StateId>,
    /// What was sent in the worlds seen, by all else: of these sets none is within another.
    seen: HashMap<u128, Vec<Sent>, Fast>,
    /// What worlds remember, by number.
    facts: HashMap<(u64, u64, u64, u128), MessageId>,
    /// Worlds that were left out because another has all of them.
    subsumed: u64,
    /// How each world was first reached: from which, and by which move of which core.
    trail: Vec<(u32, u8, Happening)>,
    moves: u64,
}

impl fmt::Debug for Explorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Explorer of {:?}", self.options)
    }
}

impl Explorer {
    /// Begins with fresh nodes, or with the logs of the options.
    ///
    /// # Errors
    ///
    /// A core that does not begin as its disk says; logs that no cluster can have: terms that decrease, or
    /// an entry of the same term and index behind different ones.
    pub fn new(options: Options) -> Result<Explorer, Failure> {
        let mut locals = Locals::new(options.clone());
        let initial: Result<Vec<StateId>, Failure> = (1..=options.nodes)
            .map(|id| locals.first(NodeId(id)))
            .collect();
        Ok(Explorer {
            options,
            locals,
            initial: initial?,
            seen: HashMap::default(),
            facts: HashMap::new(),
            subsumed: 0,
            trail: Vec::new(),
            moves: 0,
        })
    }

    /// Walks until there is nothing more, something is wrong, or the bound is reached.
    pub fn run(&mut self) -> Result<Found, Box<Stop>> {
        let first = World {
            cores: self.initial.clone(),
            sent: Sent::default(),
            crashes: 0,
            commands: 0,
            beats: 0,
            leaders: Vec::new(),
            committed: Vec::new(),
        };
        self.is_news(&first);
        self.trail.push((0, 0, Happening::Done));
        let mut frontier = VecDeque::from([(0_u32, first, 0_usize)]);
        let (mut complete, mut deepest) = (true, 0);
        while let Some((id, world, depth)) = self.next(&mut frontier) {
            deepest = deepest.max(depth);
            if self.trail.len() >= self.options.worlds_max {
                complete = false;
                break;
            }
            // A world that has all of this one may have been found since.
            let all = self.all_of(&world);
            if !self.seen[&world.key()].contains(&all) {
                self.subsumed += 1;
                continue;
            }
            for (core, happening) in self.possible(&world) {
                let after = self.after(&world, core, happening);
                let after = after.map_err(|failure| self.stop(id, core, happening, failure))?;
                let Some(after) = after else {
                    continue;
                };
                self.moves += 1;
                if self.is_news(&after) {
                    let next = u32::try_from(self.trail.len()).expect("fewer than 2^32 worlds");
                    self.trail
                        .push((id, u8::try_from(core).unwrap_or(u8::MAX), happening));
                    frontier.push_back((next, after, depth + 1));
                }
            }
        }
        let doubles = self.locals.check_doubles();
        let doubles = doubles.map_err(|failure| {
            let schedule = Vec::new();
            Box::new(Stop { failure, schedule })
        })?;
        Ok(Found {
            worlds: self.trail.len(),
            moves: self.moves,
            subsumed: self.subsumed,
            states: self.locals.cores.len(),
            steps: self.locals.run,
            messages: self.locals.messages.len(),
            doubles,
            complete,
            depth: deepest,
        })
    }

    /// Which world to go on from: the first found, or the last found.
    fn next<T>(&self, frontier: &mut VecDeque<T>) -> Option<T> {
        if self.options.deep {
            frontier.pop_back()
        } else {
            frontier.pop_front()
        }
    }

    /// Is there no world yet that is the same but for more that was sent, or is remembered? Whatever can
    /// happen, or be found wrong, here can happen there.
    fn is_news(&mut self, world: &World) -> bool {
        let all = self.all_of(world);
        let known = self.seen.entry(world.key()).or_default();
        if known.iter().any(|sent| all.is_within(sent)) {
            return false;
        }
        known.retain(|sent| !sent.is_within(&all));
        known.push(all);
        true
    }

    /// Messages in even places, what is remembered in odd ones.
    fn all_of(&mut self, world: &World) -> Sent {
        let mut all = Sent::default();
        for id in world.sent.iter() {
            all.insert(2 * id);
        }
        let leaders = world
            .leaders
            .iter()
            .map(|(term, id, life)| (*term, *id, *life, 0));
        let committed = world.committed.iter();
        let committed = committed.map(|(term, log)| (*term, 0, 0, hash128(log)));
        for fact in leaders.chain(committed) {
            let next = MessageId::try_from(self.facts.len()).expect("few facts");
            all.insert(2 * *self.facts.entry(fact).or_insert(next) + 1);
        }
        all
    }

    /// Every move that might be possible.
    fn possible(&self, world: &World) -> Vec<(usize, Happening)> {
        let mut moves = Vec::new();
        for (core, state) in world.cores.iter().enumerate() {
            // The names are given in the order of the first moves.
            let alike = self.options.logs.is_empty();
            if alike && core > 0 && world.cores[core - 1] == self.initial[core - 1] {
                break;
            }
            let (role, term) = self.locals.role(*state);
            let leads = role == RoleKind::Leader;
            if !leads && term < self.options.terms {
                moves.push((core, Happening::Timeout));
            }
            if self.locals.is_writing(*state) {
                moves.push((core, Happening::Done));
                if self.options.early_reports {
                    moves.push((core, Happening::EarlyReport));
                }
            }
            if leads && world.commands < self.options.commands {
                moves.push((core, Happening::Propose(world.commands + 1)));
            }
            if leads && world.beats < self.options.beats {
                moves.push((core, Happening::Beat));
            }
            if world.crashes < self.options.crashes {
                moves.push((core, Happening::Crash));
            }
            let to = NodeId(core as u64 + 1);
            let arriving = world.sent.iter();
            let arriving = arriving.filter(|id| self.locals.messages[*id as usize].to == to);
            moves.extend(arriving.map(|id| (core, Happening::Deliver(id))));
        }
        moves
    }

    /// The world after a move; `None` if nothing changes.
    fn after(
        &mut self,
        world: &World,
        core: usize,
        happening: Happening,
    ) -> Result<Option<World>, Failure> {
        let Some(step) = self.locals.step(world.cores[core], happening)? else {
            return Ok(None);
        };
        let mut after = world.clone();
        let before = world.cores[core];
        after.cores[core] = step.to;
        for id in &step.sent {
            let to = self.locals.messages[*id as usize].to.0 - 1;
            let to = after.cores[usize::try_from(to).expect("few nodes")];
            if !self.locals.is_dead(to, *id)? {
                after.sent.insert(*id);
            }
        }
        match happening {
            Happening::Crash => after.crashes += 1,
            Happening::Propose(_) => after.commands += 1,
            Happening::Beat => after.beats += 1,
            Happening::Deliver(_)
            | Happening::Done
            | Happening::EarlyReport
            | Happening::Timeout => {
                if step.to == before && after.sent == world.sent {
                    return Ok(None);
                }
            }
        }
        self.check(world, &mut after, core, &step)?;
        let to = NodeId(core as u64 + 1);
        for id in world.sent.iter() {
            let addressed = self.locals.messages[id as usize].to == to;
            if addressed && self.locals.is_dead(step.to, id)? {
                after.sent.remove(id);
            }
        }
        Ok(Some(after))
    }

    /// What can only be seen of all nodes together.
    fn check(
        &self,
        world: &World,
        after: &mut World,
        core: usize,
        step: &Step,
    ) -> Result<(), Failure> {
        let logs = &self.locals.names.logs;
        let me = core as u64 + 1;
        let mut old = &self.locals.cores[world.cores[core] as usize].seen;
        for (action, new) in &step.actions {
            match *action {
                Action::Lead { .. } => self.check_election(world, after, me, new)?,
                Action::Commit { upto } => self.check_quorum(world, me, new, upto)?,
                Action::Done { commit, .. } if commit > old.commit => {
                    self.check_quorum(world, me, new, commit)?;
                }
                Action::Timeout
                | Action::Learn { .. }
                | Action::Resign
                | Action::Grant { .. }
                | Action::Client { .. }
                | Action::RecvAE { .. }
                | Action::Done { .. }
                | Action::Crash { .. } => {}
            }
            if new.commit > old.commit {
                let (term, prefix) = (new.record.term, logs.prefix(new.record.log, new.commit));
                let agrees = |log: Log| logs.is_prefix(log, prefix) || logs.is_prefix(prefix, log);
                if !after.committed.iter().all(|(_, log)| agrees(*log)) {
                    return fail(format!(
                        "StateMachineSafety: node {me} commits something else"
                    ));
                }
                match after
                    .committed
                    .binary_search_by_key(&term, |(term, _)| *term)
                {
                    Ok(at) => {
                        let longest = &mut after.committed[at].1;
                        if logs.is_prefix(*longest, prefix) {
                            *longest = prefix;
                        }
                    }
                    Err(at) => after.committed.insert(at, (term, prefix)),
                }
            }
            old = new;
        }
        let seen = |id: &StateId| &self.locals.cores[*id as usize].seen;
        for (term, log) in &after.committed {
            let holders = (1..)
                .zip(&after.cores)
                .filter(|(_, state)| logs.is_prefix(*log, seen(state).durable.log));
            let holders: Vec<NodeId> = holders.map(|(id, _)| NodeId(id)).collect();
            if !self.locals.membership().is_quorum(holders.iter().copied()) {
                let at = logs.len(*log);
                return fail(format!(
                    "CommittedDurable: index {at}, committed in term {term}, is durable on {holders:?} only"
                ));
            }
        }
        Ok(())
    }

    /// A node leads: a quorum has voted for it, nobody else leads the term, and it has everything that
    /// was committed before.
    fn check_election(
        &self,
        world: &World,
        after: &mut World,
        me: u64,
        new: &Node,
    ) -> Result<(), Failure> {
        let term = new.record.term;
        let own = new.durable.term == term && new.durable.vote == Some(me);
        let voters = world.sent.iter().filter_map(|id| {
            let envelope = &self.locals.messages[id as usize];
            let granted = envelope.message == Message::VoteReply { granted: true };
            let counts = granted && envelope.term.0 == term && envelope.to.0 == me;
            counts.then_some(envelope.from)
        });
        let voters = voters.chain(own.then_some(NodeId(me)));
        if !self.locals.membership().is_quorum(voters) {
            return fail("no action of the specification: a node leads without a quorum's votes");
        }
        let life = after.cores.get(usize::try_from(me - 1).unwrap_or(0));
        let life = life.map_or(0, |state| self.locals.life(*state));
        if after
            .leaders
            .iter()
            .any(|(t, id, l)| *t == term && (*id, *l) != (me, life))
        {
            return fail(format!("ElectionSafety: two leaders in term {term}"));
        }
        if let Err(at) = after.leaders.binary_search(&(term, me, life)) {
            after.leaders.insert(at, (term, me, life));
        }
        let logs = &self.locals.names.logs;
        let mut earlier = after.committed.iter().filter(|(t, _)| *t < term);
        if earlier.any(|(_, log)| !logs.is_prefix(*log, new.record.log)) {
            return fail(format!(
                "LeaderCompleteness: the leader of {term} lacks what is committed"
            ));
        }
        Ok(())
    }

    /// A leader commits: an entry of its term that a quorum has said to hold, itself by its disk.
    fn check_quorum(&self, world: &World, me: u64, new: &Node, upto: u64) -> Result<(), Failure> {
        let logs = &self.locals.names.logs;
        let entry = logs.last(logs.prefix(new.record.log, upto));
        let own = (new.held(logs) >= upto).then_some(NodeId(me));
        let holders = world.sent.iter().filter_map(|id| {
            let envelope = &self.locals.messages[id as usize];
            let Message::AppendReply(AppendReply::Accepted { matched }) = envelope.message else {
                return None;
            };
            let counts = envelope.term.0 == new.record.term && envelope.to.0 == me;
            (counts && matched.0 >= upto).then_some(envelope.from)
        });
        if !self.locals.membership().is_quorum(holders.chain(own)) {
            return fail("no action of the specification: a commit that no quorum holds");
        }
        if (entry.last, entry.term) != (upto, new.record.term) {
            return fail("no action of the specification: a commit of an older term by counting");
        }
        Ok(())
    }

    /// How a failure came about.
    fn stop(&self, world: u32, core: usize, happening: Happening, failure: Failure) -> Box<Stop> {
        let mut moves = vec![(core, happening)];
        let mut at = world;
        while at != 0 {
            let (from, core, happening) = self.trail[at as usize];
            moves.push((usize::from(core), happening));
            at = from;
        }
        moves.reverse();
        let schedule = moves.into_iter().map(|(core, happening)| {
            let node = core + 1;
            match happening {
                Happening::Deliver(id) => self.locals.describe(id),
                Happening::Done => format!("node {node}: its oldest write is durable"),
                Happening::EarlyReport => {
                    format!("node {node}: its second write is reported first")
                }
                Happening::Crash => format!("node {node} crashes and begins another life"),
                Happening::Timeout => format!("node {node} campaigns"),
                Happening::Beat => format!("node {node} sends heartbeats"),
                Happening::Propose(number) => format!("node {node} is given command {number}"),
            }
        });
        let schedule = schedule.collect();
        Box::new(Stop { failure, schedule })
    }
}

fn fail<T>(what: impl Into<String>) -> Result<T, Failure> {
    let what = what.into();
    Err(Failure { what })
}
