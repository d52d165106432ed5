//! Golden scripts: a situation told in commands, with everything the nodes did after each.
//!
//! A script is a text file. Lines that begin with `# ` are prose, lines that begin with `> ` are
//! commands; all other lines are what the nodes put out, and are compared. Options come first:
//!
//! ```text
//! > cluster 3 learners 1 plain window 2
//! > log n1 1 1 2
//! > term n1 3
//! > start
//! ```
//!
//! Commands after that, one per line; messages are meant by kind, sender and receiver:
//!
//! ```text
//! campaign n1                    ticks until n1 starts a campaign
//! tick n1 5 | heartbeat n1       time passes for n1
//! patience n2                    n2 no longer defends the leader it heard
//! propose n1 x                   one command; several words are one batch
//! deliver [all] [vote] [from n1] [to n2]
//! lose ... | duplicate ...       as above
//! isolate n1 | heal
//! hold n1 | complete n1 2 | free n1 | fail n1
//! crash n1 [keeping 1] | restart n1
//! state                          one line per node
//! ```

use crate::net::{Kind, Pick, any};
use crate::{Chain, Cluster, Options, commands_body, show};
use duraft_core::NodeId;

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
                let cluster = Cluster::build(self.options.clone());
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
            format!(
                "n{id} {:?} t{} commit {} applied {} durable {durable} log [{}]",
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

fn act(c: &mut Cluster, verb: &str, rest: &[&str]) -> Result<(), String> {
    match verb {
        "deliver" if rest == ["all"] => c.deliver_all(),
        "deliver" => {
            c.deliver(pick(rest)?);
        }
        "lose" => {
            c.lose(pick(rest)?);
        }
        "duplicate" => {
            c.duplicate(pick(rest)?);
        }
        "heal" => c.heal(),
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
        "free" => c.free_disk(id),
        "complete" => c.complete(id, usize::try_from(count(1)?).map_err(|_| "too many")?),
        "fail" => c.fail_disk(id),
        "crash" => c.crash_keeping(id, usize::try_from(count(0)?).map_err(|_| "too many")?),
        "restart" => c.restart(id),
        _ => return Err("no such command".into()),
    }
    Ok(())
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
