//! `duraft cert`: certificates for trying out TLS between nodes.
//!
//! The library reads certificates and makes none; who runs a cluster for real has an authority
//! already, and its tools. What a certificate must look like is said by `duraft cert name`.

mod files;

use crate::output::say;
use clap::{Args, Subcommand};
use duraft::{ClusterId, NodeId, tls_name};
use files::Folder;
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `duraft cert`.
#[derive(Args)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Subcommand)]
enum CertCommand {
    /// Make an authority, and a certificate and key for each node, for tests and development.
    ///
    /// Writes ca.pem (what all nodes trust), ca.key, and node-<id>.pem and node-<id>.key for each
    /// node. Where the folder has an authority already, it issues the certificates that are missing:
    /// so nodes are added. Nothing is overwritten but with --renew, and then only certificates and
    /// keys of nodes. Keys can be read by their owner only.
    ///
    /// NOT FOR PRODUCTION as it is: the authority's key lies unprotected beside the others, and who
    /// has it can make a certificate for any node.
    ///
    /// Exit codes: 0 done; 2 could not.
    #[command(verbatim_doc_comment)]
    Dev(DevArgs),
    /// Print the name that a node's certificate must be issued for.
    Name(NameArgs),
}

#[derive(Args)]
struct DevArgs {
    /// The cluster: its name, of at most 16 bytes, or its identity in 32 hexadecimal digits.
    #[arg(long, value_parser = crate::offline::cluster_id)]
    cluster: ClusterId,

    /// Ids of the nodes, as in 1,2,3 or 1-3.
    #[arg(long, default_value = "1-3", value_parser = nodes)]
    nodes: Nodes,

    /// The folder to write to; made where it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// For how many days the nodes' certificates are valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,

    /// Replace the certificates and keys of these nodes.
    #[arg(long)]
    renew: bool,
}

#[derive(Args)]
struct NameArgs {
    /// The cluster: its name, of at most 16 bytes, or its identity in 32 hexadecimal digits.
    #[arg(long, value_parser = crate::offline::cluster_id)]
    cluster: ClusterId,

    /// Ids of the nodes, as in 1,2,3 or 1-3.
    #[arg(long, default_value = "1-3", value_parser = nodes)]
    nodes: Nodes,
}

/// Why no certificates were made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("cannot {what} {path}: {source}")]
    File {
        what: &'static str,
        path: String,
        source: std::io::Error,
    },
    #[error("{0} exists; --renew replaces certificates and keys of nodes")]
    Exists(String),
    #[error(
        "{path} is there and {other} is not: an authority needs both, put it back or take both away"
    )]
    HalfAuthority { path: String, other: String },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("what was made cannot be used: {0}")]
    Unusable(#[from] duraft::TlsSetupError),
    #[error("what was made cannot be used: {0}")]
    Refused(#[from] duraft::TlsRefusal),
}

/// Ids of nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Nodes(Vec<NodeId>);

/// Runs the command.
pub(crate) fn run(args: &CertArgs) -> Result<ExitCode, Problem> {
    match &args.command {
        CertCommand::Dev(args) => dev(args)?,
        CertCommand::Name(args) => {
            for node in &args.nodes.0 {
                say(&tls_name(args.cluster, *node));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn dev(args: &DevArgs) -> Result<(), Problem> {
    let folder = Folder::open(&args.out)?;
    let (authority, new) = folder.authority()?;
    let kept = if new { "made" } else { "kept" };
    say(&format!("{kept} {}", folder.path("ca.pem").display()));
    let mut issued = 0;
    for node in &args.nodes.0 {
        if folder.has_node(*node) && !args.renew {
            // Adding nodes: those that are there are none of this command's business.
            say(&format!(
                "kept {}",
                folder.path(&format!("node-{node}.pem")).display()
            ));
            continue;
        }
        folder.issue(&authority, args.cluster, *node, args.days, args.renew)?;
        issued += 1;
        let path = folder.path(&format!("node-{node}.pem"));
        let name = tls_name(args.cluster, *node);
        say(&format!("made {} for {name}", path.display()));
    }
    say(&format!(
        "{issued} certificates made, valid for {} days. For development only: keep ca.key away from others.",
        args.days
    ));
    Ok(())
}

/// Most nodes in one call: a slip of the finger must not fill a disk.
const NODES_MAX: usize = 1000;

fn nodes(text: &str) -> Result<Nodes, String> {
    let number = |text: &str| {
        let id: Result<u64, _> = text.trim().parse();
        id.map_err(|_| format!("'{text}' is no node id: write 1,2,3 or 1-3"))
    };
    let mut ids = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!(
                "'{part}' is no range: its end comes before its beginning"
            ));
        }
        if last - first >= NODES_MAX as u64 || ids.len() >= NODES_MAX {
            return Err(format!("more than {NODES_MAX} nodes"));
        }
        ids.extend((first..=last).map(NodeId));
    }
    Ok(Nodes(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_lists_and_ranges() {
        let ids = |ids: &[u64]| Ok(Nodes(ids.iter().map(|id| NodeId(*id)).collect()));
        assert_eq!(nodes("1-3"), ids(&[1, 2, 3]));
        assert_eq!(nodes("7"), ids(&[7]));
        assert_eq!(nodes("1, 4-5,9"), ids(&[1, 4, 5, 9]));
        for bad in ["", "a", "3-1", "1-", "1-100000"] {
            assert!(nodes(bad).is_err(), "{bad}");
        }
    }
}
