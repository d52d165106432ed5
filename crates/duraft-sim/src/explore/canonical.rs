//! What makes two cores the same: everything that `Debug` shows of them but the fields named here.
//!
//! Writes are numbered from the last durable one on: how many came before it nobody asks.
//!
//! A field that is added to the core is part of its state from that day on, whoever adds it.

use duraft_core::WriteSeq;
use std::fmt::{Debug, Write};

/// Fields that only say when something happened or will, or that never change.
const TIMES: [&str; 16] = [
    "config",
    "rng",
    "elapsed",
    "timeout",
    "now",
    "pace",
    "heard",
    "moved",
    "since",
    "confirmed_at",
    "heartbeat_elapsed",
    "catch_up",
    "snapshot_wanted",
    "reluctance",
    "promised",
    "next_load",
];

/// The value in words, without the fields above, with writes numbered from `durable` on.
pub(super) fn words(value: &impl Debug, durable: WriteSeq) -> String {
    let mut all = String::new();
    let _ = write!(all, "{value:?}");
    let mut kept = String::with_capacity(all.len());
    let mut rest = all.as_str();
    while let Some(colon) = rest.find(": ") {
        let (head, tail) = rest.split_at(colon);
        let name = head
            .rsplit(|c: char| !(c.is_alphanumeric() || c == '_'))
            .next();
        kept.push_str(head);
        rest = tail;
        if name.is_some_and(|name| TIMES.contains(&name)) {
            rest = &rest[value_end(rest)..];
        } else {
            kept.push_str(": ");
            rest = &rest[2..];
        }
    }
    kept.push_str(rest);
    renumber(&kept, durable)
}

fn renumber(text: &str, durable: WriteSeq) -> String {
    const NAME: &str = "WriteSeq(";
    let mut parts = text.split(NAME);
    let mut words = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (number, rest) = part.split_once(')').unwrap_or((part, ""));
        let number = number.parse::<u64>().map(|n| n.saturating_sub(durable.0));
        let _ = write!(words, "+{}{rest}", number.unwrap_or_default());
    }
    words
}

/// Where the value ends that `text` begins with.
fn value_end(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' if depth == 0 => return at,
            '}' | ')' | ']' => depth -= 1,
            ',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    #[allow(dead_code, reason = "shown")]
    struct Clock {
        now: u64,
        term: Option<(u64, u64)>,
        rng: Option<[u64; 2]>,
        last: Vec<WriteSeq>,
    }

    #[test]
    fn times_are_left_out_and_nothing_else() {
        let clock = |now, rng, term| {
            words(
                &Clock {
                    now,
                    term: Some((term, 2)),
                    rng,
                    last: vec![WriteSeq(11), WriteSeq(9)],
                },
                WriteSeq(10),
            )
        };
        assert_eq!(clock(1, None, 5), clock(2, Some([3, 4]), 5));
        assert_ne!(clock(1, None, 5), clock(1, None, 6));
        assert_eq!(
            clock(1, None, 5),
            "Clock { now, term: Some((5, 2)), rng, last: [+1, +0] }"
        );
    }
}
