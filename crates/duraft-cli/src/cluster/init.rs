//! Making stores.

use crate::output::say;
use crate::serve::config::{self, Config, Peer, Problem};
use crate::serve::setup::{Begin, SetupError, make_store};
use crate::serve::{ServeFailure, read_config};
use clap::Args;
use std::io;
use std::path::{Path, PathBuf};

/// Flags of `duraft cluster init`.
#[derive(Args)]
pub(super) struct InitArgs {
    /// The node's configuration file.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "local",
        conflicts_with = "local"
    )]
    config: Option<PathBuf>,
    /// Set a field, as for `duraft serve`.
    #[arg(long, value_name = "FIELD=VALUE", requires = "config")]
    set: Vec<String>,
    /// A node with a new id, which a living cluster will add.
    #[arg(long, requires = "config", conflicts_with = "wiped")]
    join: bool,
    /// A member that has lost its disk: it promises nothing until its peers have told it what it
    /// promised before. Needs storage.on_damage = "repair-from-peers".
    #[arg(long, requires = "config")]
    wiped: bool,
    /// Make a cluster of so many nodes on this machine.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=9))]
    local: Option<u64>,
    /// Folder of the nodes' folders, for --local.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "duraft-local",
        conflicts_with = "config"
    )]
    dir: PathBuf,
    /// Loopback address of the nodes, for --local.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1",
        conflicts_with = "config"
    )]
    host: String,
    /// First of the ports, for --local: node 1 takes PORT+1 for peers, PORT+101 for Redis clients,
    /// PORT+201 for HTTP and PORT+301 for administration.
    #[arg(long, value_name = "PORT", default_value_t = 7100, conflicts_with = "config",
        value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
}

/// Why no store was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error(transparent)]
    Config(#[from] ServeFailure),
    #[error("no store was made for node {id}: {source}")]
    Store { id: u64, source: SetupError },
    #[error("{} cannot be written: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("these addresses cannot be used:\n  {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    Local(Vec<Problem>),
}

pub(super) fn run(args: &InitArgs) -> Result<(), InitError> {
    if let Some(nodes) = args.local {
        return local(args, nodes);
    }
    let config = read_config(args.config.as_ref(), &args.set)?;
    let begin = match (args.join, args.wiped) {
        (true, _) => Begin::Join,
        (_, true) => Begin::Wiped,
        (false, false) => Begin::First,
    };
    make(&config, begin)?;
    let part = match begin {
        Begin::First => "one of the first members of its cluster",
        Begin::Join => "a node that its cluster has to add",
        Begin::Wiped => "a member that has lost its disk",
    };
    say(&format!(
        "node {} has a store in {}, as {part}",
        config.id, config.dir
    ));
    Ok(())
}

fn make(config: &Config, begin: Begin) -> Result<(), InitError> {
    let id = config.id;
    make_store(config, begin).map_err(|source| InitError::Store { id, source })
}

fn local(args: &InitArgs, nodes: u64) -> Result<(), InitError> {
    let peers: Vec<Peer> = (1..=nodes).map(|id| peer(args, id)).collect();
    let mut configs = Vec::new();
    for id in 1..=nodes {
        let folder = args.dir.join(format!("node-{id}"));
        let config = Config {
            id,
            cluster: "local".into(),
            dir: folder.join("data").display().to_string(),
            nodes: peers.clone(),
            ..Config::default()
        };
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(InitError::Local(problems));
        }
        configs.push((folder.join("duraft.toml"), folder, config));
    }
    for (file, folder, config) in &configs {
        let written = std::fs::create_dir_all(folder).and_then(|()| write_new(file, config));
        written.map_err(|source| InitError::File {
            path: file.clone(),
            source,
        })?;
        make(config, Begin::First)?;
    }
    say(&format!(
        "{nodes} stores are made. Start each node in a terminal of its own:"
    ));
    for (file, ..) in &configs {
        say(&format!("  duraft serve --config {}", file.display()));
    }
    let first = &peers[0];
    let (host, port) = first.client.rsplit_once(':').unwrap_or((&first.client, ""));
    say(&format!(
        "Then:\n  redis-cli -h {host} -p {port} set key value\n  duraft cluster status --admin {}",
        first.admin
    ));
    Ok(())
}

fn peer(args: &InitArgs, id: u64) -> Peer {
    let at = |offset: u64| format!("{}:{}", args.host, u64::from(args.port) + offset + id);
    Peer {
        id,
        peer: at(0),
        client: at(100),
        http: at(200),
        admin: at(300),
    }
}

/// Never over a file that is there.
fn write_new(file: &Path, config: &Config) -> io::Result<()> {
    let mut out = std::fs::File::create_new(file)?;
    io::Write::write_all(&mut out, config::print(config).as_bytes())
}
