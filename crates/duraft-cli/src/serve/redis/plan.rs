//! What one read of a socket brought, put together into as few steps as its order allows.
//!
//! Commands of one connection take effect in their order. Writes that stand next to each other become
//! one entry of the log; a read between them rides along in the entry, so that it sees what stands
//! before it and nothing behind. Reads alone leave no trace in the log: neighbours see one state. Reads
//! whose answers may be long do not ride, because every node computes what rides.

use super::commands::{Action, Session};
use crate::serve::command::{Look, Op};
use crate::serve::reply::Reply;
use bytes::Bytes;

/// Most reads that tell a value and ride in one entry.
pub(crate) const RIDERS_MAX: usize = 16;
/// Most operations of one entry.
pub(crate) const OPS_MAX: usize = 4096;

/// A step: its commands are carried out together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// One entry of the log. Replies that need no looking stand among the operations.
    Write(Vec<Item<Op<Bytes>>>),
    /// Reads of one state.
    Read(Vec<Item<Look<Bytes>>>),
    Session(Session),
}

/// A command of a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<T> {
    Now(Reply),
    Ask(T),
}

/// Puts commands together; an entry of the log has at most `entry_bytes_max` bytes where its first
/// command lets it.
pub(crate) fn plan(actions: Vec<Action>, entry_bytes_max: usize) -> Vec<Step> {
    let mut plan = Plan {
        steps: Vec::new(),
        entry_bytes_max,
        bytes: 0,
        riders: 0,
    };
    for action in actions {
        match action {
            Action::Now(reply) => plan.now(reply),
            Action::Op(op) => plan.op(op),
            Action::Look(look) => plan.look(look),
            Action::Session(session) => plan.steps.push(Step::Session(session)),
        }
    }
    plan.steps
}

struct Plan {
    steps: Vec<Step>,
    entry_bytes_max: usize,
    /// Of the last step, if it writes.
    bytes: usize,
    riders: usize,
}

impl Plan {
    fn now(&mut self, reply: Reply) {
        match self.steps.last_mut() {
            Some(Step::Write(items)) => items.push(Item::Now(reply)),
            Some(Step::Read(items)) => items.push(Item::Now(reply)),
            Some(Step::Session(_)) | None => self.steps.push(Step::Read(vec![Item::Now(reply)])),
        }
    }

    fn op(&mut self, op: Op<Bytes>) {
        self.let_reads_ride();
        let (bytes, riders) = (
            self.bytes + op.cost(),
            self.riders + usize::from(op.tells_value()),
        );
        let (max, item) = (self.entry_bytes_max, Item::Ask(op));
        match self.steps.last_mut() {
            Some(Step::Write(items))
                if bytes <= max && riders <= RIDERS_MAX && items.len() < OPS_MAX =>
            {
                items.push(item);
                (self.bytes, self.riders) = (bytes, riders);
            }
            Some(_) | None => {
                self.bytes = bytes - self.bytes;
                self.riders = riders - self.riders;
                self.steps.push(Step::Write(vec![item]));
            }
        }
    }

    fn look(&mut self, look: Look<Bytes>) {
        if let Some(Step::Write(_)) = self.steps.last() {
            match rider(look) {
                Ok(op) => self.op(op),
                Err(look) => self.steps.push(Step::Read(vec![Item::Ask(look)])),
            }
        } else if let Some(Step::Read(items)) = self.steps.last_mut() {
            items.push(Item::Ask(look));
        } else {
            self.steps.push(Step::Read(vec![Item::Ask(look)]));
        }
    }

    /// Makes the last step, of a few short reads, the beginning of an entry: one wait instead of two.
    fn let_reads_ride(&mut self) {
        let rides = |item: &Item<Look<Bytes>>| match item {
            Item::Now(_) => true,
            Item::Ask(look) => can_ride(look),
        };
        let Some(Step::Read(items)) = self.steps.last() else {
            return;
        };
        if items.len() > RIDERS_MAX || !items.iter().all(rides) {
            return;
        }
        let Some(Step::Read(items)) = self.steps.pop() else {
            return;
        };
        (self.bytes, self.riders) = (0, 0);
        let mut ride = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Now(reply) => ride.push(Item::Now(reply)),
                Item::Ask(look) => {
                    let op = rider(look).expect("all of them were looked at");
                    self.bytes += op.cost();
                    self.riders += usize::from(op.tells_value());
                    ride.push(Item::Ask(op));
                }
            }
        }
        self.steps.push(Step::Write(ride));
    }
}

fn can_ride(look: &Look<Bytes>) -> bool {
    match look {
        Look::Get(_) | Look::Strlen(_) => true,
        Look::Exists(keys) => keys.len() == 1,
        Look::MGet(_) | Look::Type(_) | Look::Scan { .. } | Look::Size => false,
    }
}

fn rider(look: Look<Bytes>) -> Result<Op<Bytes>, Look<Bytes>> {
    match look {
        Look::Get(key) => Ok(Op::Get(key)),
        Look::Strlen(key) => Ok(Op::Strlen(key)),
        Look::Exists(mut keys) if keys.len() == 1 => Ok(Op::Exists(keys.pop().unwrap_or_default())),
        look @ (Look::Exists(_)
        | Look::MGet(_)
        | Look::Type(_)
        | Look::Scan { .. }
        | Look::Size) => Err(look),
    }
}

#[cfg(test)]
mod tests {
    use super::super::commands::understand;
    use super::*;
    use crate::serve::config::Config;

    /// The steps of these commands: W, R or S, and the commands in each.
    fn steps(lines: &[&str], entry_bytes_max: usize) -> Vec<String> {
        let limits = Config::default().limits;
        let actions = lines.iter().map(|line| {
            let words: Vec<Bytes> = line
                .split_whitespace()
                .map(|word| Bytes::copy_from_slice(word.as_bytes()))
                .collect();
            understand(&words, &limits)
        });
        let steps = plan(actions.collect(), entry_bytes_max);
        let shown = steps.iter().map(|step| match step {
            Step::Write(items) => format!("W{}", items.len()),
            Step::Read(items) => format!("R{}", items.len()),
            Step::Session(_) => "S".to_string(),
        });
        shown.collect()
    }

    #[test]
    fn neighbours_are_carried_out_together_and_the_order_stays() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["set a 1", "set b 2", "incr c"], &["W3"]),
            (&["get a", "get b", "dbsize", "ping"], &["R4"]),
            (&["set a 1", "get a", "set a 2", "ping", "get a"], &["W5"]),
            (&["get a", "set a 1"], &["W2"]),
            (&["ping", "set a 1", "bad", "get a"], &["W4"]),
            // What may be long does not ride, and nothing moves past it.
            (&["set a 1", "mget a b", "set a 2"], &["W1", "R1", "W1"]),
            (&["mget a b", "get a", "set a 2"], &["R2", "W1"]),
            (&["set a 1", "scan 0", "get a"], &["W1", "R2"]),
            (&["set a 1", "readonly", "get a"], &["W1", "S", "R1"]),
            (&["hello 3", "ping"], &["S", "R1"]),
            (&["exists a", "exists a b", "set a 1"], &["R2", "W1"]),
        ];
        for (lines, expected) in cases {
            assert_eq!(steps(lines, 1 << 20), *expected, "{lines:?}");
        }
    }

    #[test]
    fn entries_stay_within_their_limits() {
        let many: Vec<String> = (0..40).map(|n| format!("getset k{n} v")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(steps(&many, 1 << 20), ["W16", "W16", "W8"]);
        assert_eq!(steps(&["set a 1"; 5], 64), ["W2", "W2", "W1"]);
        let gets = ["get a"; 20];
        let mut lines = gets.to_vec();
        lines.push("set a 1");
        assert_eq!(steps(&lines, 1 << 20), ["R20", "W1"]);
        assert_eq!(steps(&["set a 1"; OPS_MAX + 1], 1 << 30).len(), 2);
        let pings = ["set a 1", "ping", "ping"];
        assert_eq!(steps(&pings, 1), ["W3"], "a reply takes no room in the log");
    }
}
