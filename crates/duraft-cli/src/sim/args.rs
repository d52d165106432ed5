//! Flags of `duraft sim`.

use clap::{Args, Subcommand, ValueEnum};
use duraft_sim::{FaultKind, Scenario, TICKS};
use std::path::PathBuf;

/// What to simulate.
#[derive(Args)]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Subcommand)]
pub(crate) enum What {
    /// One cluster from one seed, and what it did.
    Run(RunArgs),
    /// Many seeds: every fault rate and option of each is drawn from it.
    Swarm(SwarmArgs),
    /// One seed again, with everything that happened in it.
    Replay(ReplayArgs),
    /// From a seed that fails to a shorter run that fails in the same way.
    Shrink(ShrinkArgs),
    /// The results of a swarm's parts as the result of the whole.
    Tally(TallyArgs),
    /// One seed as a picture: nodes, messages, writes, crashes, terms and commits over time.
    Show(ShowArgs),
}

/// Which run: a seed, how long, and what is left out of it.
#[derive(Args, Clone)]
pub(crate) struct Which {
    /// The seed that all choices come from.
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) how: How,

    /// Only these occurrences of trouble happen, by their numbers.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    pub(crate) only: Option<Vec<u64>>,
}

/// What all runs of a command have in common.
#[derive(Args, Clone)]
pub(crate) struct How {
    /// Ticks with faults; then everything is healed and the cluster must recover.
    #[arg(long, default_value_t = TICKS, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) ticks: u64,

    /// Nodes that the cluster begins with, instead of as many as the seed draws.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=7))]
    pub(crate) nodes: Option<u64>,

    /// Kinds of trouble that do not happen.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub(crate) without: Vec<FaultKind>,

    /// No trouble at all.
    #[arg(long)]
    pub(crate) calm: bool,

    /// Recovery of the synced bytes at crashes and at the end only, not at every promise.
    #[arg(long)]
    pub(crate) sparse: bool,

    /// Cheap checks only: no recovery of the synced bytes at every promise.
    #[arg(long)]
    pub(crate) cheap: bool,

    /// A negative run: disks whose syncs do nothing. The checks must find it.
    #[arg(long)]
    pub(crate) lies: bool,
}

impl How {
    /// Does the swarm draw everything?
    pub(crate) fn is_whole(&self) -> bool {
        let all = self.nodes.is_none() && self.without.is_empty();
        all && !(self.calm || self.cheap || self.sparse || self.lies)
    }

    /// What differs from a run of a seed with nothing said.
    pub(crate) fn flags(&self) -> String {
        let run = Scenario {
            ticks: TICKS,
            ..self.scenario(0)
        };
        run.to_string().trim_start_matches('0').to_string()
    }

    /// The run of a seed.
    pub(crate) fn scenario(&self, seed: u64) -> Scenario {
        Scenario {
            ticks: self.ticks,
            nodes: self.nodes,
            without: self.without.iter().copied().collect(),
            calm: self.calm,
            sparse: self.sparse,
            cheap: self.cheap,
            lies: self.lies,
            ..Scenario::new(seed)
        }
    }
}

impl Which {
    /// The run that is meant.
    pub(crate) fn scenario(&self) -> Scenario {
        Scenario {
            only: self.only.clone().map(|only| only.into_iter().collect()),
            ..self.how.scenario(self.seed)
        }
    }
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Write the result as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct SwarmArgs {
    /// Number of seeds.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,

    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) from: u64,

    #[command(flatten)]
    pub(crate) how: How,

    /// Recovery of the synced bytes at every promise in one of so many seeds, which are drawn; in the
    /// others as with --sparse.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) recover_every: u64,

    /// Every how many seeds one is run twice, to see that it takes the same course. 0: none.
    #[arg(long, default_value_t = 25)]
    pub(crate) twice_every: u64,

    /// The k-th of n parts of the seeds, as 'k/n': every n-th seed.
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    pub(crate) shard: Shard,

    /// Stop after so many violations.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) violations_max: u64,

    /// Write the result as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct TallyArgs {
    /// Results that 'duraft sim swarm --json' wrote.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) parts: Vec<PathBuf>,

    /// Write the sum as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// One part of several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    /// Which one, from 1.
    pub(crate) part: u64,
    /// Of how many.
    pub(crate) of: u64,
}

impl std::str::FromStr for Shard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Shard, &'static str> {
        let wrong = "two numbers such as 2/4: the second of four parts";
        let (part, of) = text.split_once('/').ok_or(wrong)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong);
        let (part, of) = (number(part)?, number(of)?);
        if part == 0 || part > of {
            return Err(wrong);
        }
        Ok(Shard { part, of })
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

#[derive(Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Only the verdict, without the events.
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Args)]
pub(crate) struct ShrinkArgs {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Most runs that the search may take.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) runs_max: u64,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) which: Which,

    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,

    /// What to write.
    #[arg(long, value_enum, default_value_t = Format::Html)]
    pub(crate) format: Format,
}

/// Formats of a picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// One page without network access: a space-time diagram to zoom and to move in.
    Html,
    /// A log with vector clocks for ShiViz.
    Shiviz,
    /// Trace events as JSON for Perfetto.
    Perfetto,
}
