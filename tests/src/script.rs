//! Golden scripts: a situation told in commands, with everything the nodes did after each.
//!
//! A script is a text file. Lines that begin with `# ` are prose, lines that begin with `> ` are
//! commands; all other lines are what the nodes put out, and are compared. Options come first:
//!
//! ```text
//! > cluster 3 learners 1 plain window 2 trailing 0 lease
//! > log n1 1 1 2
//! > term n1 3
//! > start
//! ```
//!
//! Commands after that, one per line; messages are meant by kind, sender and receiver:
//!
//! ```text
//! lead n1                        n1 is elected and everybody follows it; nothing is told of that
//! together n1 n2 100             so much time passes for n1, with words between these two only; untold
//! campaign n1                    ticks until n1 starts a campaign
//! tick n1 5 | heartbeat n1       time passes for n1
//! patience n2                    n2 no longer defends the leader it heard
//! propose n1 x                   one command; several words are one batch
//! deliver [all] [vote] [from n1] [to n2]
//! lose ... | duplicate ... | newest ...   as above; the newest overtakes all others
//! isolate n1 | heal
//! hold n1 | complete n1 2 | free n1 | fail n1
//! hold-loads n1 | unreadable n1   reads of n1's log wait; those that wait find damage
//! crash n1 [keeping 1] | restart n1 | join n4
//! change n1 add n4 remove n2 learner n5 promote n6 [for n3] [explicit]
//! leave n1                       out of a joint membership
//! read n1 | lease-read n1 | suspend n1 20
//! transfer n1 n2 | step-down n1 | forget n1 | unreachable n1 n2
//! snapshot n1                    the host of n1 takes one
//! hold-snapshots | free-snapshots
//! again n1 n3                    n3 has received the latest snapshot of n1
//! carry n3 | give-up n3 | move n3   the snapshot under way to n3
//! damage n1 3 4 [end-unknown] [term 1]   batches of n1, which is down, cannot be read
//! wipe n1                        n1, which is down, comes back with an empty disk
//! state                          one line per node
//! ```

use crate::net::{Kind, Pick, any};
use crate::{
    Chain, Cluster, Loss, Options, Store, add, commands_body, learner, loss, promoted, remove, show,
};
use duraft_core::{HardState, Lease, Leave, LoadError, MemberChange, NodeId, Position, Term};

/// Runs a script and returns it with the outputs as they are now.
pub fn run(text: &str) -> Result<String, String> {
    let mut player = Player {
        options: Options::new(3),
        cluster: None,
        told: 0,
        out: String::new(),
    };
    for line in text.lines() {
        if line.starts_with('#') || line.is_empty() {
            player.say(line);
        } else if let Some(command) = line.strip_prefix("> ") {
            player.say(line);
            player
                .perform(command)
                .map_err(|why| format!("{command}: {why}"))?;
        }
    }
    Ok(player.out)
}

struct Player {
    options: Options,
    cluster: Option<Cluster>,
    told: usize,
    out: String,
}

impl Player {
    fn say(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn perform(&mut self, command: &str) -> Result<(), String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (verb, rest) = words.split_first().ok_or("an empty command")?;
        if self.cluster.is_none() {
            return self.prepare(verb, rest);
        }
        if *verb == "state" {
            for line in self.states() {
                self.say(&line);
            }
            return Ok(());
        }
        let cluster = self.cluster.as_mut().ok_or("not started")?;
        if *verb == "lead" {
            let id = node(rest.first().ok_or("who leads?")?)?;
            cluster.elect(id);
            cluster.heartbeat(id);
            cluster.deliver_all();
            self.told = cluster.trace().len();
            return Ok(());
        }
        if *verb == "together" {
            let [a, b, ticks] = rest else {
                return Err("who together, and for how long?".into());
            };
            together(cluster, node(a)?, node(b)?, number(ticks)?);
            self.told = cluster.trace().len();
            return Ok(());
        }
        act(cluster, verb, rest)?;
        let news: Vec<String> = cluster.trace()[self.told..].to_vec();
        self.told += news.len();
        for line in news {
            self.say(&line);
        }
        Ok(())
    }

    fn prepare(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        match verb {
            "cluster" => self.shape(rest),
            "log" => {
                let (id, terms) = rest.split_first().ok_or("log of which node?")?;
                let terms: Result<Vec<u64>, String> = terms.iter().map(|t| number(t)).collect();
                self.options
                    .logs
                    .insert(node(id)?, Chain::of_terms(&terms?));
                Ok(())
            }
            "term" => {
                let [id, term] = rest else {
                    return Err("term of which node?".into());
                };
                let term = duraft_core::Term(number(term)?);
                self.options.terms.insert(node(id)?, term);
                Ok(())
            }
            "start" => {
                let mut cluster = Cluster::build(self.options.clone());
                cluster.follow_specification();
                self.told = cluster.trace().len();
                self.cluster = Some(cluster);
                Ok(())
            }
            _ => Err("not a command before 'start'".into()),
        }
    }

    fn shape(&mut self, rest: &[&str]) -> Result<(), String> {
        let (voters, more) = rest.split_first().ok_or("how many voters?")?;
        let voters = number(voters)?;
        self.options = Options::new(voters);
        let mut more = more.iter();
        while let Some(word) = more.next() {
            match *word {
                "plain" => self.options = self.options.clone().plain(),
                "learners" => {
                    let count = number(more.next().ok_or("how many learners?")?)?;
                    self.options.learners = (voters + 1..=voters + count).map(NodeId).collect();
                }
                "trailing" => {
                    let bytes = number(more.next().ok_or("how many bytes?")?)?;
                    self.options.config.trailing_bytes_max = bytes;
                }
                "lease" => {
                    self.options.config.lease = Some(Lease { drift_ppm: 100_000 });
                }
                "window" => {
                    let count = number(more.next().ok_or("how many messages?")?)?;
                    let count = usize::try_from(count).map_err(|_| "too many")?;
                    self.options.config.inflight_messages_max = count;
                }
                _ => return Err(format!("what is {word}?")),
            }
        }
        Ok(())
    }

    fn states(&self) -> Vec<String> {
        let Some(c) = &self.cluster else {
            return Vec::new();
        };
        let line = |id: NodeId| {
            if !c.alive(id) {
                return format!("n{id} is down");
            }
            let durable = show::place(&c.durable(id).last());
            let log: Vec<String> = c.log(id);
            let start = match c.issued(id).start {
                Position::START => String::new(),
                start => format!("from {}, ", show::place(&start)),
            };
            let members = match c.in_use(id) {
                members if members == *c.first_membership() => String::new(),
                members if members.is_unknown() => ", knows no members".into(),
                members => format!(", {}", show::membership(&members)),
            };
            let damage = damage(c.issued(id));
            format!(
                "n{id} {:?} t{} commit {} applied {} durable {durable} log {start}[{}]{members}{damage}",
                c.role(id),
                c.term(id),
                c.commit(id),
                c.applied(id),
                log.join(" ")
            )
        };
        c.ids().into_iter().map(line).collect()
    }
}

fn together(c: &mut Cluster, a: NodeId, b: NodeId, ticks: u64) {
    let before = c.net.pool.len();
    for _ in 0..ticks {
        let old: Vec<_> = c.net.pool.drain(..).collect();
        c.tick(a, 1);
        c.deliver_only(any().from(a).to(b));
        c.deliver_only(any().from(b).to(a));
        c.net.pool = old;
    }
    assert_eq!(
        c.net.pool.len(),
        before,
        "what was under way stays, nothing is added"
    );
}

/// `, damaged: lacks 3..4, holds 5@2 "y", end unknown`.
fn damage(store: &Store) -> String {
    let (Some(damage), Some(wounds)) = (store.damage(), &store.wounds) else {
        return String::new();
    };
    let mut parts = Vec::new();
    for (first, last) in &damage.missing {
        parts.push(format!("lacks {first}..{last}"));
    }
    if !wounds.survivors.is_empty() {
        parts.push(format!("holds {}", show::batches(&wounds.survivors)));
    }
    if wounds.lost_suffix {
        parts.push("end unknown".into());
    }
    if wounds.vote_uncertain {
        parts.push("term unknown".into());
    }
    if parts.is_empty() {
        parts.push("whole again, not yet told so".into());
    }
    format!(", damaged: {}", parts.join(", "))
}

fn act(c: &mut Cluster, verb: &str, rest: &[&str]) -> Result<(), String> {
    match verb {
        "deliver" if rest == ["all"] => c.deliver_all(),
        "deliver" => {
            c.deliver(pick(rest)?);
        }
        "newest" => {
            let pick = pick(rest)?;
            let at = c.net.pool.iter().rposition(|envelope| pick.takes(envelope));
            let envelope = c.net.pool.remove(at.ok_or("no such message")?);
            c.deliver_one(envelope);
        }
        "lose" => {
            c.lose(pick(rest)?);
        }
        "duplicate" => {
            c.duplicate(pick(rest)?);
        }
        "heal" => c.heal(),
        "hold-snapshots" => c.hold_snapshots(),
        "free-snapshots" => c.free_snapshots(),
        _ => return act_on_node(c, verb, rest),
    }
    Ok(())
}

fn act_on_node(c: &mut Cluster, verb: &str, rest: &[&str]) -> Result<(), String> {
    let (id, rest) = rest.split_first().ok_or("which node?")?;
    let id = node(id)?;
    let count = |default: u64| rest.last().map_or(Ok(default), |word| number(word));
    match verb {
        "campaign" => c.campaign(id),
        "heartbeat" => c.heartbeat(id),
        "patience" => c.lose_patience(id),
        "tick" => c.tick(id, u32::try_from(count(1)?).map_err(|_| "too many")?),
        "propose" => {
            c.propose_body(id, commands_body(rest));
        }
        "isolate" => c.isolate(id),
        "hold" => c.hold_disk(id),
        "hold-loads" => c.hold_loads(id),
        "unreadable" => while c.fail_load(id, LoadError::Corrupt) {},
        "free" => c.free_disk(id),
        "complete" => c.complete(id, usize::try_from(count(1)?).map_err(|_| "too many")?),
        "fail" => c.fail_disk(id),
        "crash" => c.crash_keeping(id, usize::try_from(count(0)?).map_err(|_| "too many")?),
        "restart" => c.restart(id),
        "join" => c.join(id),
        _ => return ask(c, verb, id, rest),
    }
    Ok(())
}

/// What clients, operators and hosts ask for.
fn ask(c: &mut Cluster, verb: &str, id: NodeId, rest: &[&str]) -> Result<(), String> {
    let other = || node(rest.first().ok_or("and which other node?")?);
    let found = |was: bool| {
        let none = "no snapshot is under way to it";
        was.then_some(()).ok_or_else(|| none.to_string())
    };
    match verb {
        "change" => {
            let (changes, leave) = changes(rest)?;
            c.change_by(id, &changes, leave);
        }
        "damage" => c.damage(id, &what_is_lost(rest)?),
        "wipe" => c.wipe(id),
        "leave" => {
            c.leave_joint(id);
        }
        "read" => {
            c.read(id);
        }
        "lease-read" => {
            c.read_by_lease(id);
        }
        "suspend" => c.suspend(id, number(rest.first().ok_or("for how long?")?)?),
        "transfer" => {
            c.transfer(id, other()?);
        }
        "step-down" => {
            c.step_down(id);
        }
        "forget" => c.forget_leader(id),
        "unreachable" => c.unreachable(id, other()?),
        "snapshot" => {
            c.take_snapshot(id);
        }
        "again" => {
            let to = other()?;
            let latest = c.issued(id).snapshot.clone().ok_or("it has no snapshot")?;
            c.receive_snapshot(id, Term(c.term(id)), to, latest);
        }
        "carry" => return found(c.deliver_snapshot(id)),
        "give-up" => return found(c.fail_snapshot(id)),
        "move" => return found(c.move_snapshot(id)),
        _ => return Err("no such command".into()),
    }
    Ok(())
}

fn what_is_lost(words: &[&str]) -> Result<Loss, String> {
    let mut lost = loss([]);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "end-unknown" => lost = lost.end_unknown(),
            "term" => {
                let term = Term(number(words.next().ok_or("which term is left?")?)?);
                lost = lost.hard_state(HardState { term, vote: None });
            }
            _ => {
                lost.indices.insert(number(word)?);
            }
        }
    }
    Ok(lost)
}

fn changes(words: &[&str]) -> Result<(Vec<MemberChange>, Leave), String> {
    let (mut changes, mut leave) = (Vec::new(), Leave::Automatic);
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        if *word == "explicit" {
            leave = Leave::Explicit;
            continue;
        }
        let id = node(words.next().ok_or("which node?")?)?;
        changes.push(match *word {
            "add" => add(id),
            "remove" => remove(id),
            "learner" => learner(id),
            "promote" if words.next_if_eq(&&"for").is_some() => {
                promoted(id, Some(node(words.next().ok_or("for whom?")?)?))
            }
            "promote" => promoted(id, None),
            _ => return Err(format!("what change is {word}?")),
        });
    }
    Ok((changes, leave))
}

fn pick(words: &[&str]) -> Result<Pick, String> {
    let mut pick = any();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        pick = match *word {
            "from" => pick.from(node(words.next().ok_or("from whom?")?)?),
            "to" => pick.to(node(words.next().ok_or("to whom?")?)?),
            "prevote" => pick.kind(Kind::PreVote),
            "prevote-reply" => pick.kind(Kind::PreVoteReply),
            "vote" => pick.kind(Kind::Vote),
            "vote-reply" => pick.kind(Kind::VoteReply),
            "append" => pick.kind(Kind::Append),
            "append-reply" => pick.kind(Kind::AppendReply),
            "heartbeat" => pick.kind(Kind::Heartbeat),
            "heartbeat-reply" => pick.kind(Kind::HeartbeatReply),
            "timeout-now" => pick.kind(Kind::TimeoutNow),
            "read-index" => pick.kind(Kind::ReadIndex),
            "read-index-reply" => pick.kind(Kind::ReadIndexReply),
            "fetch" => pick.kind(Kind::Fetch),
            "fetched" => pick.kind(Kind::Fetched),
            "damage-report" => pick.kind(Kind::DamageReport),
            "heal" => pick.kind(Kind::Heal),
            "term-query" => pick.kind(Kind::TermQuery),
            "term-reply" => pick.kind(Kind::TermReply),
            "rolled-back" => pick.kind(Kind::RolledBack),
            _ => return Err(format!("which messages are {word}?")),
        };
    }
    Ok(pick)
}

fn node(word: &str) -> Result<NodeId, String> {
    let digits = word.strip_prefix('n').ok_or("nodes are n1, n2, ...")?;
    number(digits).map(NodeId)
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is not a number"))
}
