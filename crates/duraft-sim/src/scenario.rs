//! A run as a command line names it: a seed, how long, and what is left out of it.

use crate::config::{Recover, SimConfig};
use crate::fault::FaultKind;
use crate::sim::{Report, Sim, Violation};
use std::collections::BTreeSet;
use std::fmt;

/// Ticks of a run unless said otherwise.
pub const TICKS: u64 = 1_000;

/// See the module documentation. Equal scenarios give equal runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// Where all choices come from.
    pub seed: u64,
    /// Ticks with faults, before everything is healed.
    pub ticks: u64,
    /// Another number of nodes than the seed's.
    pub nodes: Option<u64>,
    /// Kinds of trouble that do not happen.
    pub without: BTreeSet<FaultKind>,
    /// The only occurrences of trouble that happen, by their numbers.
    pub only: Option<BTreeSet<u64>>,
    /// No trouble at all: [`SimConfig::calm`].
    pub calm: bool,
    /// Disks lie: their syncs do nothing. A negative run, which must be found.
    pub lies: bool,
    /// Recovery at crashes only, not at every promise: [`Recover::AtCrashes`].
    pub sparse: bool,
    /// Without recovery at every promise and without the specification, and with the core's invariants
    /// after one of 16 steps only.
    pub cheap: bool,
}

impl Scenario {
    /// All that the seed draws.
    pub fn new(seed: u64) -> Scenario {
        Scenario {
            seed,
            ticks: TICKS,
            nodes: None,
            without: BTreeSet::new(),
            only: None,
            calm: false,
            lies: false,
            sparse: false,
            cheap: false,
        }
    }

    /// The whole configuration.
    pub fn config(&self) -> SimConfig {
        let mut config = if self.calm {
            SimConfig::calm(self.seed)
        } else {
            SimConfig::from_seed(self.seed)
        };
        for kind in &self.without {
            config = config.without(*kind);
        }
        if let Some(nodes) = self.nodes {
            let others = config.pool - config.nodes;
            config.nodes = nodes;
            config.pool = nodes + others;
        }
        config.only.clone_from(&self.only);
        config.disk.lies = self.lies;
        if self.sparse {
            config.recover = Recover::AtCrashes;
        }
        if self.cheap {
            config.recover = Recover::Never;
            config.check_spec = false;
            config.invariants_every = 16;
        }
        config
    }

    /// Runs it.
    pub fn run(&self) -> Result<Report, Box<Violation>> {
        Sim::new(self.config()).run(self.ticks)
    }

    /// Runs it and keeps everything that happened.
    pub fn run_traced(&self) -> Result<Report, Box<Violation>> {
        let mut config = self.config();
        config.trace = true;
        Sim::new(config).run(self.ticks)
    }
}

/// The arguments that name it.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        if self.ticks != TICKS {
            write!(f, " --ticks {}", self.ticks)?;
        }
        if let Some(nodes) = self.nodes {
            write!(f, " --nodes {nodes}")?;
        }
        for (set, flag) in [
            (self.calm, "--calm"),
            (self.lies, "--lies"),
            (self.sparse, "--sparse"),
            (self.cheap, "--cheap"),
        ] {
            if set {
                write!(f, " {flag}")?;
            }
        }
        if !self.without.is_empty() {
            let names: Vec<&str> = self.without.iter().map(|kind| kind.name()).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if let Some(only) = &self.only {
            let numbers: Vec<String> = only.iter().map(u64::to_string).collect();
            write!(
                f,
                " --only {}",
                if only.is_empty() {
                    "0".into()
                } else {
                    numbers.join(",")
                }
            )?;
        }
        Ok(())
    }
}
