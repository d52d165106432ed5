//! Messages, writes and batches as one line of text, for traces and golden scripts.

use crate::commands_of;
use duraft_core::{
    AppendReply, Batch, BatchKind, Envelope, Event, Message, NodeId, Output, Position, Reject,
    Response, Write,
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
        Message::Vote { last, .. } => format!("Vote, last {last}"),
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
        Message::HeartbeatReply { round, .. } => format!("HeartbeatReply {round}"),
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
        BatchKind::Membership => format!("{range} membership"),
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
    if let Some(cut) = write.truncate {
        parts.push(format!("cut to {}", place(&cut)));
    }
    if !write.append.is_empty() {
        parts.push(batches(&write.append));
    }
    if let Some(upto) = write.compact {
        parts.push(format!("compact to {}", place(&upto)));
    }
    format!("write {}: {}", write.seq, parts.join(", "))
}

/// One output of a node, as a line.
pub fn output(node: NodeId, output: &Output) -> String {
    match output {
        Output::Persist(w) => format!("n{node} {}", write(w)),
        Output::Send(e) => envelope(e),
        Output::Apply(list) => format!("n{node} apply {}", batches(list)),
        Output::Load(load) => format!("n{node} load {}..{}", load.first, load.last),
        Output::Respond(response) => format!("n{node} {}", respond(response)),
        Output::Changed(event) => format!("n{node} {}", changed(event)),
    }
}

fn respond(response: &Response) -> String {
    match response {
        Response::Appended { id, first, count } => {
            format!("answers {id}: appended {count} at {first}")
        }
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
        Event::Halted(fault) => format!("halts: {fault:?}"),
    }
}

fn yes_no(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}
