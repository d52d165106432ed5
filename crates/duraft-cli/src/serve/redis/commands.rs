//! From a request's words to what is to be done.

use crate::serve::command::{Look, Op, When};
use crate::serve::config::Limits;
use crate::serve::machine::integer;
use crate::serve::reply::Reply;
use bytes::Bytes;

/// What a request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Answered without looking at anything.
    Now(Reply),
    /// A change, or a read that may ride along with changes.
    Op(Op<Bytes>),
    /// A read.
    Look(Look<Bytes>),
    /// About this connection or this node.
    Session(Session),
}

/// What concerns the connection or the node, not the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Session {
    Hello(Vec<Bytes>),
    ReadOnly(bool),
    Client(Vec<Bytes>),
    Cluster(Vec<Bytes>),
    Info(Vec<Bytes>),
    Config(Vec<Bytes>),
    Command(Vec<Bytes>),
    Reset,
    Quit,
    /// An entry that another node passes on.
    Forward(Bytes),
}

/// Name, arity with the name (negative: at least), flags, and first, last and step of the keys: what
/// COMMAND answers.
#[rustfmt::skip]
pub(crate) const COMMANDS: &[(&str, i64, &[&str], [i64; 3])] = &[
    ("append", 3, &["write", "denyoom"], [1, 1, 1]),
    ("cas", 4, &["write", "denyoom"], [1, 1, 1]),
    ("client", -2, &["noscript"], [0, 0, 0]),
    ("cluster", -2, &["noscript"], [0, 0, 0]),
    ("command", -1, &["noscript"], [0, 0, 0]),
    ("config", -2, &["admin", "noscript"], [0, 0, 0]),
    ("dbsize", 1, &["readonly", "fast"], [0, 0, 0]),
    ("decr", 2, &["write", "denyoom", "fast"], [1, 1, 1]),
    ("decrby", 3, &["write", "denyoom", "fast"], [1, 1, 1]),
    ("del", -2, &["write"], [1, -1, 1]),
    ("echo", 2, &["fast"], [0, 0, 0]),
    ("exists", -2, &["readonly", "fast"], [1, -1, 1]),
    ("get", 2, &["readonly", "fast"], [1, 1, 1]),
    ("getdel", 2, &["write", "fast"], [1, 1, 1]),
    ("getset", 3, &["write", "denyoom", "fast"], [1, 1, 1]),
    ("hello", -1, &["noscript", "fast"], [0, 0, 0]),
    ("incr", 2, &["write", "denyoom", "fast"], [1, 1, 1]),
    ("incrby", 3, &["write", "denyoom", "fast"], [1, 1, 1]),
    ("info", -1, &["noscript"], [0, 0, 0]),
    ("mget", -2, &["readonly", "fast"], [1, -1, 1]),
    ("mset", -3, &["write", "denyoom"], [1, -1, 2]),
    ("ping", -1, &["fast"], [0, 0, 0]),
    ("quit", -1, &["fast"], [0, 0, 0]),
    ("readonly", 1, &["fast"], [0, 0, 0]),
    ("readwrite", 1, &["fast"], [0, 0, 0]),
    ("reset", 1, &["noscript", "fast"], [0, 0, 0]),
    ("scan", -2, &["readonly"], [0, 0, 0]),
    ("select", 2, &["fast"], [0, 0, 0]),
    ("set", -3, &["write", "denyoom"], [1, 1, 1]),
    ("setnx", 3, &["write", "denyoom", "fast"], [1, 1, 1]),
    ("strlen", 2, &["readonly", "fast"], [1, 1, 1]),
    ("type", 2, &["readonly", "fast"], [1, 1, 1]),
    ("unlink", -2, &["write", "fast"], [1, -1, 1]),
];

/// Most keys that one SCAN looks at.
const SCAN_MAX: usize = 10_000;

/// A refusal, as text with its code.
type Refused = Reply;

/// Understands a request; what cannot be done is a reply that says why.
pub(crate) fn understand(request: &[Bytes], limits: &Limits) -> Action {
    act(request, limits).unwrap_or_else(Action::Now)
}

fn act(request: &[Bytes], limits: &Limits) -> Result<Action, Refused> {
    let (name, args) = request
        .split_first()
        .ok_or_else(|| Reply::error("ERR empty request"))?;
    let name = name.to_ascii_lowercase();
    if name == b"duraft.forward" {
        let [entry] = args else {
            return Err(Reply::error("ERR an entry is passed on alone"));
        };
        return Ok(Action::Session(Session::Forward(entry.clone())));
    }
    let known = COMMANDS.iter().find(|(known, ..)| known.as_bytes() == name);
    let Some((name, arity, ..)) = known else {
        let shown = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
        return Err(Reply::error(format!("ERR unknown command '{shown}'")));
    };
    let words = i64::try_from(request.len()).unwrap_or(i64::MAX);
    let fits = if *arity < 0 {
        words >= -arity
    } else {
        words == *arity
    };
    if !fits {
        return Err(wrong_number(name));
    }
    dispatch(name, args, &Checks { limits })
}

fn wrong_number(name: &str) -> Reply {
    Reply::error(format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}

fn syntax() -> Reply {
    Reply::error("ERR syntax error")
}

/// The number of words is right here.
fn dispatch(name: &str, args: &[Bytes], check: &Checks<'_>) -> Result<Action, Refused> {
    let session = |session: fn(Vec<Bytes>) -> Session| Action::Session(session(args.to_vec()));
    let first = || args.first().cloned().unwrap_or_default();
    Ok(match name {
        "get" => Action::Look(Look::Get(check.key(&args[0])?)),
        "set" => Action::Op(set(args, check)?),
        "setnx" => Action::Op(Op::SetNx {
            key: check.key(&args[0])?,
            value: check.value(&args[1])?,
        }),
        "getset" => Action::Op(Op::Set {
            key: check.key(&args[0])?,
            value: check.value(&args[1])?,
            when: When::Always,
            get: true,
        }),
        "mget" => Action::Look(Look::MGet(check.keys(args)?)),
        "mset" => Action::Op(mset(args, check)?),
        "del" | "unlink" => Action::Op(Op::Del(check.keys(args)?)),
        "getdel" => Action::Op(Op::GetDel(check.key(&args[0])?)),
        "exists" => Action::Look(Look::Exists(check.keys(args)?)),
        "strlen" => Action::Look(Look::Strlen(check.key(&args[0])?)),
        "type" => Action::Look(Look::Type(check.key(&args[0])?)),
        "incr" => incr(check.key(&args[0])?, 1),
        "decr" => incr(check.key(&args[0])?, -1),
        "incrby" => incr(check.key(&args[0])?, number(&args[1])?),
        "decrby" => {
            let by = number(&args[1])?.checked_neg().ok_or_else(not_a_number)?;
            incr(check.key(&args[0])?, by)
        }
        "append" => Action::Op(Op::Append {
            key: check.key(&args[0])?,
            value: check.value(&args[1])?,
            max: check.limits.value_bytes_max,
        }),
        "cas" => Action::Op(Op::Cas {
            key: check.key(&args[0])?,
            expected: check.value(&args[1])?,
            new: check.value(&args[2])?,
        }),
        "scan" => Action::Look(scan(args)?),
        "dbsize" => Action::Look(Look::Size),
        "ping" => match args {
            [] => Action::Now(Reply::Word("PONG")),
            [text] => Action::Now(Reply::Bulk(text.clone())),
            _ => return Err(wrong_number(name)),
        },
        "echo" => Action::Now(Reply::Bulk(first())),
        "select" if &first()[..] == b"0" => Action::Now(Reply::Ok),
        "select" => return Err(Reply::error("ERR there is one database, 0")),
        "hello" => session(Session::Hello),
        "readonly" => Action::Session(Session::ReadOnly(true)),
        "readwrite" => Action::Session(Session::ReadOnly(false)),
        "client" => session(Session::Client),
        "cluster" => session(Session::Cluster),
        "info" => session(Session::Info),
        "config" => session(Session::Config),
        "command" => session(Session::Command),
        "reset" => Action::Session(Session::Reset),
        "quit" => Action::Session(Session::Quit),
        _ => return Err(Reply::error(format!("ERR unknown command '{name}'"))),
    })
}

fn incr(key: Bytes, by: i64) -> Action {
    Action::Op(Op::Incr { key, by })
}

fn not_a_number() -> Reply {
    Reply::error("ERR value is not an integer or out of range")
}

fn number(text: &Bytes) -> Result<i64, Refused> {
    integer(text).ok_or_else(not_a_number)
}

fn mset(args: &[Bytes], check: &Checks<'_>) -> Result<Op<Bytes>, Refused> {
    let (pairs, rest) = args.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(wrong_number("mset"));
    }
    let pair = |[key, value]: &[Bytes; 2]| Ok((check.key(key)?, check.value(value)?));
    Ok(Op::MSet(pairs.iter().map(pair).collect::<Result<_, _>>()?))
}

fn set(args: &[Bytes], check: &Checks<'_>) -> Result<Op<Bytes>, Refused> {
    let key = check.key(&args[0])?;
    let value = check.value(&args[1])?;
    let (mut when, mut get) = (When::Always, false);
    let mut rest = args[2..].iter();
    while let Some(option) = rest.next() {
        let condition = match &option.to_ascii_lowercase()[..] {
            b"nx" => When::Absent,
            b"xx" => When::Present,
            b"ifeq" => When::Equal(check.value(rest.next().ok_or_else(syntax)?)?),
            b"get" => {
                get = true;
                continue;
            }
            // Keys do not expire, so the time to live is kept whatever happens.
            b"keepttl" => continue,
            b"ex" | b"px" | b"exat" | b"pxat" => {
                return Err(Reply::error(
                    "ERR keys do not expire here: SET takes no EX, PX, EXAT or PXAT",
                ));
            }
            _ => return Err(syntax()),
        };
        if when != When::Always {
            return Err(syntax());
        }
        when = condition;
    }
    Ok(Op::Set {
        key,
        value,
        when,
        get,
    })
}

fn scan(args: &[Bytes]) -> Result<Look<Bytes>, Refused> {
    let cursor = std::str::from_utf8(&args[0])
        .ok()
        .and_then(|c| c.parse().ok());
    let cursor = cursor.ok_or_else(|| Reply::error("ERR invalid cursor"))?;
    let (mut count, mut pattern) = (10, None);
    let mut rest = args[1..].iter();
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or_else(syntax)?;
        match &option.to_ascii_lowercase()[..] {
            b"match" => pattern = Some(value.clone()),
            b"count" => {
                let wanted = number(value)?;
                if wanted < 1 {
                    return Err(syntax());
                }
                count = usize::try_from(wanted).unwrap_or(SCAN_MAX).min(SCAN_MAX);
            }
            // All keys are strings.
            b"type" if value.eq_ignore_ascii_case(b"string") => {}
            b"type" => pattern = Some(Bytes::from_static(b"[]")),
            _ => return Err(syntax()),
        }
    }
    Ok(Look::Scan {
        cursor,
        count,
        pattern,
    })
}

/// Lengths of keys and values.
struct Checks<'a> {
    limits: &'a Limits,
}

impl Checks<'_> {
    fn key(&self, key: &Bytes) -> Result<Bytes, Refused> {
        let max = self.limits.key_bytes_max;
        if key.len() as u64 > max {
            return Err(Reply::error(format!(
                "ERR the key has {} bytes, more than limits.key_bytes_max = {max}",
                key.len()
            )));
        }
        Ok(key.clone())
    }

    fn keys(&self, keys: &[Bytes]) -> Result<Vec<Bytes>, Refused> {
        keys.iter().map(|key| self.key(key)).collect()
    }

    fn value(&self, value: &Bytes) -> Result<Bytes, Refused> {
        let max = self.limits.value_bytes_max;
        if value.len() as u64 > max {
            return Err(Reply::error(format!(
                "ERR the value has {} bytes, more than limits.value_bytes_max = {max}",
                value.len()
            )));
        }
        Ok(value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::config::Config;

    fn told(line: &str) -> Action {
        let words: Vec<Bytes> = line
            .split_whitespace()
            .map(|word| Bytes::copy_from_slice(word.as_bytes()))
            .collect();
        let mut limits = Config::default().limits;
        limits.key_bytes_max = 8;
        limits.value_bytes_max = 16;
        understand(&words, &limits)
    }

    fn refusal(line: &str) -> String {
        let action = told(line);
        let Action::Now(Reply::Error(text)) = action else {
            panic!("{line}: {action:?}");
        };
        text.into_owned()
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn options_of_set_are_understood_in_any_order() {
        let set = |when, get| {
            Action::Op(Op::Set {
                key: bytes("k"),
                value: bytes("v"),
                when,
                get,
            })
        };
        assert_eq!(told("set k v"), set(When::Always, false));
        assert_eq!(told("SET k v NX"), set(When::Absent, false));
        assert_eq!(told("SET k v get xx"), set(When::Present, true));
        assert_eq!(
            told("SET k v IFEQ old GET"),
            set(When::Equal(bytes("old")), true)
        );
        assert_eq!(told("SET k v KEEPTTL"), set(When::Always, false));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_reason() {
        let cases = [
            ("set k v ex 10", "do not expire"),
            ("set k v PXAT 10", "do not expire"),
            ("set k v nx xx", "syntax"),
            ("set k v nx ifeq v", "syntax"),
            ("set k v ifeq", "syntax"),
            ("set k v what", "syntax"),
            ("set k", "wrong number of arguments for 'set'"),
            ("get", "wrong number"),
            ("get a b", "wrong number"),
            ("mset a 1 b", "wrong number"),
            ("ping a b", "wrong number"),
            ("decrby k -9223372036854775808", "not an integer"),
            ("incrby k 1.5", "not an integer"),
            ("incrby k +1", "not an integer"),
            ("scan x", "invalid cursor"),
            ("scan 0 count 0", "syntax"),
            ("scan 0 match", "syntax"),
            ("select 1", "one database"),
            ("expire k 10", "unknown command 'expire'"),
            ("get 123456789", "limits.key_bytes_max = 8"),
            ("mget a 123456789", "limits.key_bytes_max = 8"),
            ("set k 12345678901234567", "limits.value_bytes_max = 16"),
            ("cas k a 12345678901234567", "limits.value_bytes_max = 16"),
        ];
        for (line, named) in cases {
            assert!(refusal(line).contains(named), "{line}: {}", refusal(line));
        }
    }

    #[test]
    fn every_command_of_the_table_is_understood() {
        // A command that COMMAND names and the dispatcher does not know would be "unknown".
        for (name, arity, ..) in COMMANDS {
            let words = usize::try_from(arity.abs()).expect("small");
            let mut line = vec![name.to_string()];
            line.extend((1..words).map(|_| "0".to_string()));
            match told(&line.join(" ")) {
                Action::Now(Reply::Error(text)) => panic!("{name}: {text}"),
                Action::Now(_) | Action::Op(_) | Action::Look(_) | Action::Session(_) => {}
            }
        }
    }
}
