//! A log with vector clocks for ShiViz. Parser: `(?<event>(?<host>\S*) (?<clock>{.*}) .*)`.

use super::{Picture, quoted};
use crate::trace::TraceKind;
use std::collections::BTreeMap;
use std::fmt::Write as _;

type Clock = BTreeMap<u64, u64>;

/// Every event of a node on a line, each with the vector clock that makes an arrival come behind its
/// message.
pub fn shiviz(picture: &Picture<'_>) -> String {
    let mut clocks: BTreeMap<u64, Clock> = BTreeMap::new();
    let mut sent: BTreeMap<u64, Clock> = BTreeMap::new();
    let mut out = String::new();
    for event in picture.trace {
        let Some(node) = event.node else { continue };
        let clock = clocks.entry(node).or_default();
        if event.kind == TraceKind::Arrived
            && let Some(other) = event.message.and_then(|message| sent.get(&message))
        {
            for (peer, count) in other {
                let known = clock.entry(*peer).or_default();
                *known = (*known).max(*count);
            }
        }
        *clock.entry(node).or_default() += 1;
        if event.kind == TraceKind::Sent
            && let Some(message) = event.message
        {
            sent.insert(message, clock.clone());
        }
        let clock: Vec<String> = clock
            .iter()
            .map(|(n, count)| format!("\"node{n}\":{count}"))
            .collect();
        let words = quoted(&event.text);
        let _ = writeln!(
            out,
            "node{node} {{{}}} {} {} {}",
            clock.join(", "),
            event.at,
            event.kind.name(),
            words.trim_matches('"')
        );
    }
    out
}
