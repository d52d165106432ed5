//! Trace events as JSON, for Perfetto and other viewers of that format: lives and roles as slices,
//! writes from submission to completion, messages as flows, commit indices as counters.

use super::{Picture, quoted};
use crate::config::SimConfig;
use crate::trace::{TraceEvent, TraceKind};
use std::collections::BTreeMap;

/// Microseconds of one step: a tick stands for 25 ms.
fn micros(at: u64) -> u64 {
    at * 25_000 / SimConfig::TICK
}

const ROLES: [&str; 3] = ["follower", "candidate", "leader"];

/// Tracks of one node.
const ROLE: u64 = 1;
const MESSAGES: u64 = 2;
const DISK: u64 = 3;
const OTHER: u64 = 4;

/// What is open on a node's tracks.
#[derive(Default)]
struct Open {
    role: Option<(u64, u64)>,
    write: Option<u64>,
}

/// The whole file.
pub fn perfetto(picture: &Picture<'_>) -> String {
    let mut lines: Vec<String> = Vec::new();
    for node in 1..=picture.nodes {
        lines.push(format!(
            r#"{{"ph":"M","pid":{node},"name":"process_name","args":{{"name":"node {node}"}}}}"#
        ));
        for (track, name) in [
            (ROLE, "role"),
            (MESSAGES, "messages"),
            (DISK, "disk"),
            (OTHER, "other"),
        ] {
            lines.push(format!(
                r#"{{"ph":"M","pid":{node},"tid":{track},"name":"thread_name","args":{{"name":"{name}"}}}}"#
            ));
        }
    }
    let mut open: BTreeMap<u64, Open> = BTreeMap::new();
    for event in picture.trace {
        let node = event.node.unwrap_or(0);
        one(event, node, open.entry(node).or_default(), &mut lines);
    }
    let end = picture.trace.last().map_or(0, |event| event.at);
    for (node, open) in &mut open {
        end_role(open, *node, end, &mut lines);
    }
    format!("{{\"traceEvents\":[\n{}\n]}}\n", lines.join(",\n"))
}

fn one(event: &TraceEvent, node: u64, open: &mut Open, lines: &mut Vec<String>) {
    let (at, text) = (micros(event.at), quoted(&event.text));
    let slice = |track, name: &str, from: u64, until: u64| {
        let length = until.saturating_sub(from).max(1);
        format!(
            r#"{{"ph":"X","pid":{node},"tid":{track},"ts":{from},"dur":{length},"name":{name},"args":{{"what":{text}}}}}"#
        )
    };
    let flow = |phase: &str, message: u64| {
        let bind = if phase == "f" { r#","bp":"e""# } else { "" };
        format!(
            r#"{{"ph":"{phase}","pid":{node},"tid":{MESSAGES},"ts":{at},"id":{message},"cat":"message","name":"message"{bind}}}"#
        )
    };
    match event.kind {
        TraceKind::Sent | TraceKind::Arrived => {
            let name = quoted(
                text.split([' ', '(', '{'])
                    .next()
                    .unwrap_or("")
                    .trim_matches('"'),
            );
            lines.push(slice(MESSAGES, &name, at, at + 1_000));
            if let Some(message) = event.message {
                let phase = if event.kind == TraceKind::Sent {
                    "s"
                } else {
                    "f"
                };
                lines.push(flow(phase, message));
            }
        }
        TraceKind::Written => {
            open.write.get_or_insert(at);
        }
        TraceKind::Synced | TraceKind::Failed => {
            let from = open.write.take().unwrap_or(at);
            lines.push(slice(DISK, &quoted(event.kind.name()), from, at));
        }
        TraceKind::Role => {
            end_role(open, node, event.at, lines);
            open.role = Some((event.value, event.at));
        }
        TraceKind::Commit => lines.push(format!(
            r#"{{"ph":"C","pid":{node},"ts":{at},"name":"commit","args":{{"index":{}}}}}"#,
            event.value
        )),
        TraceKind::Crashed => {
            end_role(open, node, event.at, lines);
            open.write = None;
            lines.push(instant(node, at, event.kind, &text));
        }
        TraceKind::Lost
        | TraceKind::Started
        | TraceKind::Term
        | TraceKind::Fault
        | TraceKind::Client
        | TraceKind::Detail => lines.push(instant(node, at, event.kind, &text)),
    }
}

fn instant(node: u64, at: u64, kind: TraceKind, text: &str) -> String {
    format!(
        r#"{{"ph":"i","s":"t","pid":{node},"tid":{OTHER},"ts":{at},"name":"{}","args":{{"what":{text}}}}}"#,
        kind.name()
    )
}

fn end_role(open: &mut Open, node: u64, at: u64, lines: &mut Vec<String>) {
    if let Some((role, from)) = open.role.take() {
        let name = usize::try_from(role)
            .ok()
            .and_then(|role| ROLES.get(role))
            .unwrap_or(&"?");
        let (from, until) = (micros(from), micros(at));
        let length = until.saturating_sub(from).max(1);
        lines.push(format!(
            r#"{{"ph":"X","pid":{node},"tid":{ROLE},"ts":{from},"dur":{length},"name":"{name}"}}"#
        ));
    }
}
