//! The table of `duraft cluster status`.

use super::ClusterFailure;
use super::ask::{AskError, ask};
use crate::output::say;
use crate::serve::http::ClusterStatus;
use std::process::ExitCode;

pub(super) fn run(address: &str, json: bool) -> Result<ExitCode, ClusterFailure> {
    let asked = ask(address, "/v1/cluster/status", None)?;
    if asked.status != 200 {
        return Err(AskError::NotHttp(address.into()).into());
    }
    let status: ClusterStatus = serde_json::from_str(&asked.text).map_err(AskError::Json)?;
    if json {
        say(asked.text.trim_end());
    } else {
        say(&table(&status));
    }
    let whole = status.leader.is_some() && status.members.iter().all(|m| m.status.is_some());
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn table(status: &ClusterStatus) -> String {
    let head = [
        "node",
        "role",
        "part",
        "term",
        "last",
        "durable",
        "commit",
        "applied",
        "lag",
        "sync p99",
        "keys",
        "client address",
    ];
    let mut rows = vec![head.map(String::from)];
    for member in &status.members {
        let part = member.part.clone();
        let address = member.peer.client.clone();
        rows.push(match &member.status {
            Some(s) => [
                member.peer.id.to_string(),
                s.stopped
                    .as_ref()
                    .map_or(s.role.clone(), |_| "stopped".into()),
                if s.damaged {
                    format!("{part}, damaged")
                } else {
                    part
                },
                s.term.to_string(),
                s.last.to_string(),
                s.durable.to_string(),
                s.commit.to_string(),
                s.applied.to_string(),
                member.lag.map_or("-".into(), |lag| lag.to_string()),
                format!("{}.{:03} ms", s.sync.p99_us / 1000, s.sync.p99_us % 1000),
                s.keys.to_string(),
                address,
            ],
            None => {
                let mut row = ["-"; 12].map(String::from);
                row[0] = member.peer.id.to_string();
                row[1] = "no answer".into();
                row[2] = part;
                row[11] = address;
                row
            }
        });
    }
    let mut out = match status.leader {
        Some(id) => format!("node {id} leads in term {}", status.term),
        None => "no leader is known".to_string(),
    };
    if status.joint {
        out.push_str("; a change of voters is under way");
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push('\n');
        out.push_str(line.trim_end());
    }
    for member in &status.members {
        let stopped = member.status.as_ref().and_then(|s| s.stopped.as_ref());
        if let Some(why) = member.error.as_ref().or(stopped) {
            out.push_str(&format!("\nnode {}: {why}", member.peer.id));
        }
    }
    out
}
