//! Messages, writes and batches as one line of text, for traces and golden scripts.

use crate::commands_of;
use duraft_core::{
    AppendReply, Batch, BatchKind, Envelope, Event, Healed, Membership, Message, NodeId, Output,
    Position, Reject, Response, Snapshot, Write,
};

/// `n1 -> n2 t3 Append after 4@2: [5@3 "x"], commit 4`.
pub fn envelope(envelope: &Envelope) -> String {
    format!(
        "n{} -> n{} t{} {}",
        envelope.from,
        envelope.to,
        envelope.term,
        message(&envelope.message)
    )
}

/// What the message says.
pub fn message(message: &Message) -> String {
    match message {
        Message::PreVote { wanted, last } => format!("PreVote for t{wanted}, last {last}"),
        Message::PreVoteReply { wanted, granted } => {
            format!("PreVoteReply for t{wanted}: {}", yes_no(*granted))
        }
        Message::Vote { last, forced } => {
            let forced = if *forced { " forced" } else { "" };
            format!("Vote{forced}, last {last}")
        }
        Message::VoteReply { granted } => format!("VoteReply: {}", yes_no(*granted)),
        Message::Append {
            prev,
            batches: list,
            commit,
        } => format!(
            "Append after {}: {}, commit {commit}",
            place(prev),
            batches(list)
        ),
        Message::AppendReply(AppendReply::Accepted { matched }) => {
            format!("AppendReply: matched {matched}")
        }
        Message::AppendReply(AppendReply::Rejected { prev, hint }) => {
            format!("AppendReply: no {prev}, try {hint}")
        }
        Message::AppendReply(AppendReply::Divergence { theirs, ours }) => {
            format!("AppendReply: divergence, theirs {theirs}, ours {ours}")
        }
        Message::Heartbeat { commit, round } => format!("Heartbeat {round}, commit {commit}"),
        Message::HeartbeatReply { round, health } if health.impaired => {
            format!("HeartbeatReply {round}, impaired")
        }
        Message::HeartbeatReply { round, .. } => format!("HeartbeatReply {round}"),
        Message::TimeoutNow => "TimeoutNow".into(),
        Message::ReadIndex { id } => format!("ReadIndex {id}"),
        Message::ReadIndexReply {
            id,
            index: Some(index),
            ..
        } => format!("ReadIndexReply {id}: {index}"),
        Message::ReadIndexReply {
            id, index: None, ..
        } => format!("ReadIndexReply {id}: cannot say"),
        Message::Fetch { after } => format!("Fetch after {}", place(after)),
        Message::Fetched {
            after,
            batches: list,
        } => format!("Fetched after {}: {}", place(after), batches(list)),
        Message::DamageReport {
            lost_suffix,
            needs_snapshot,
        } => {
            let lost = if *lost_suffix {
                "suffix lost"
            } else {
                "suffix known"
            };
            let needs = needs_snapshot.map_or(String::new(), |at| format!(", needs snapshot {at}"));
            format!("DamageReport: {lost}{needs}")
        }
        Message::Heal { to, .. } => format!("Heal: whole at {to}"),
        Message::TermQuery => "TermQuery".into(),
        Message::TermReply { .. } => "TermReply".into(),
        Message::RolledBack { seen } => format!("RolledBack: {seen} was acknowledged"),
    }
}

/// Several batches in brackets.
pub fn batches(list: &[Batch]) -> String {
    let all: Vec<String> = list.iter().map(batch).collect();
    format!("[{}]", all.join(" "))
}

/// `5@3 noop`, `6@3 "x"`, `7..9@3 "a" "b" "c"`.
pub fn batch(batch: &Batch) -> String {
    let header = &batch.header;
    let range = if header.count == 1 {
        format!("{}@{}", header.first, header.term)
    } else {
        format!("{}..{}@{}", header.first, header.last(), header.term)
    };
    match header.kind {
        BatchKind::Noop => format!("{range} noop"),
        BatchKind::Membership => match Membership::decode(&batch.body) {
            Ok(members) => format!("{range} {{{}}}", membership(&members)),
            Err(_) => format!("{range} membership"),
        },
        BatchKind::Commands => {
            let commands: Vec<String> = commands_of(batch)
                .iter()
                .map(|command| format!("{command:?}"))
                .collect();
            format!("{range} {}", commands.join(" "))
        }
    }
}

/// A boundary without its digest.
pub fn place(position: &Position) -> String {
    position.id.to_string()
}

/// `write 3: t2 vote n1, cut to 4@1, [5@2 noop]`.
pub fn write(write: &Write) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = write.hard_state {
        let vote = hard_state
            .vote
            .map_or("no vote".into(), |node| format!("vote n{node}"));
        parts.push(format!("t{} {vote}", hard_state.term));
    }
    if let Some(taken) = &write.snapshot {
        let reset = if taken.reset { ", reset to it" } else { "" };
        parts.push(format!("{}{reset}", snapshot(&taken.snapshot)));
    }
    if let Some(cut) = write.truncate {
        parts.push(format!("cut to {}", place(&cut)));
    }
    if !write.append.is_empty() {
        parts.push(batches(&write.append));
    }
    if let Some(upto) = write.compact {
        parts.push(format!("compact to {}", place(&upto)));
    }
    match write.healed {
        Some(Healed::Vote) => parts.push("term certain again".into()),
        Some(Healed::All) => parts.push("whole again".into()),
        None => {}
    }
    format!("write {}: {}", write.seq, parts.join(", "))
}

/// `snapshot 5@2`.
pub fn snapshot(snapshot: &Snapshot) -> String {
    format!("snapshot {}", place(&snapshot.position))
}

/// `voters n1 n2, outgoing n1 n3, learners n4`.
pub fn membership(membership: &Membership) -> String {
    let names = |ids: Vec<NodeId>| {
        let names: Vec<String> = ids.iter().map(|id| format!("n{id}")).collect();
        names.join(" ")
    };
    let mut parts = vec![format!("voters {}", names(membership.incoming().collect()))];
    if membership.is_joint() {
        parts.push(format!(
            "outgoing {}",
            names(membership.outgoing().collect())
        ));
    }
    let learners: Vec<NodeId> = membership.learners().collect();
    if !learners.is_empty() {
        parts.push(format!("learners {}", names(learners)));
    }
    for (id, replaced) in membership.promotions() {
        let instead = replaced.map_or(String::new(), |old| format!(" for n{old}"));
        parts.push(format!("promote n{id}{instead}"));
    }
    parts.join(", ")
}

/// One output of a node, as a line.
pub fn output(node: NodeId, output: &Output) -> String {
    match output {
        Output::Persist(w) => format!("n{node} {}", write(w)),
        Output::Send(e) => envelope(e),
        Output::Apply(list) => format!("n{node} apply {}", batches(list)),
        Output::Load(load) => format!("n{node} load {}..{}", load.first, load.last),
        Output::ReadReady { id, index, lease } => {
            let lease = lease.map_or(String::new(), |round| format!(", lease of round {round}"));
            format!("n{node} read {id} at {index}{lease}")
        }
        Output::SendSnapshot {
            to, snapshot: what, ..
        } => format!("n{node} sends n{to} {}", snapshot(what)),
        Output::InstallSnapshot(what) => format!("n{node} installs {}", snapshot(what)),
        Output::TakeSnapshot => format!("n{node} is to take a snapshot"),
        Output::Respond(response) => format!("n{node} {}", respond(response)),
        Output::Changed(event) => format!("n{node} {}", changed(event)),
    }
}

fn respond(response: &Response) -> String {
    match response {
        Response::Appended { id, first, count } => {
            format!("answers {id}: appended {count} at {first}")
        }
        Response::Done { id } => format!("answers {id}: done"),
        Response::Rejected { id, reason, leader } => {
            let hint = leader.map_or(String::new(), |node| format!(", leader n{node}"));
            format!("answers {id}: {}{hint}", rejection(*reason))
        }
    }
}

fn rejection(reason: Reject) -> String {
    format!("{reason:?}")
}

fn changed(event: &Event) -> String {
    match event {
        Event::Role { role, term, leader } => {
            let hint = leader.map_or(String::new(), |node| format!(", leader n{node}"));
            format!("is {role:?} in t{term}{hint}")
        }
        Event::Membership { at, committed } => {
            let committed = if *committed { "committed" } else { "in use" };
            format!("membership of {at} {committed}")
        }
        Event::Healed => "is healed".into(),
        Event::Halted(fault) => format!("halts: {fault:?}"),
    }
}

fn yes_no(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}
