//! How a test wants its cluster.

use crate::Chain;
use duraft_core::{Config, GroupId, NodeId, Plant, Position, Term};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Shape and checks of a [`Cluster`](crate::Cluster). Logs start empty unless given.
#[derive(Clone, Debug)]
pub struct Options {
    /// Voting nodes.
    pub voters: Vec<NodeId>,
    /// Nodes that only receive.
    pub learners: Vec<NodeId>,
    /// Members that have no core: the test speaks for them.
    pub puppets: Vec<NodeId>,
    /// Logs that nodes start with.
    pub logs: BTreeMap<NodeId, Chain>,
    /// Durable terms that nodes start with, where not the term of their last entry.
    pub terms: BTreeMap<NodeId, Term>,
    /// Where all logs start.
    pub start: Position,
    /// Seed of every election timeout.
    pub seed: u64,
    /// Template of the configuration; id and seed are filled in for each node.
    pub config: Config,
    /// Run each step twice and compare (I9).
    pub check_replay: bool,
    /// Check the release table.
    pub check_release: bool,
    /// Check the core's own invariants after every so many steps; 0 is never.
    pub check_core_every: u32,
    /// Keep a trace, all messages sent and all writes.
    pub record: bool,
    /// Collect broken rules instead of failing at the first.
    pub tolerate: bool,
    /// A fault planted in every core.
    pub plant: Option<Plant>,
    /// How much nodes want to lead, where not as the template says.
    pub priorities: BTreeMap<NodeId, u8>,
    /// Hosts take a snapshot after so many entries.
    pub snapshot_every: Option<u64>,
    /// State machines have disks of their own: a crash takes nothing from them.
    pub durable_machine: bool,
}

thread_local! {
    static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
}

/// Does this with a fault planted in every core that is made meanwhile: to see tests fail.
pub fn with_plant<R>(plant: Plant, act: impl FnOnce() -> R) -> R {
    struct Back(Option<Plant>);
    impl Drop for Back {
        fn drop(&mut self) {
            PLANTED.set(self.0);
        }
    }
    let _back = Back(PLANTED.replace(Some(plant)));
    act()
}

/// The fault that [`with_plant`] has planted.
pub fn planted() -> Option<Plant> {
    PLANTED.get()
}

impl Options {
    /// A cluster of `voters` nodes numbered from 1, with empty logs and all checks.
    pub fn new(voters: u64) -> Options {
        Options {
            voters: (1..=voters).map(NodeId).collect(),
            learners: Vec::new(),
            puppets: Vec::new(),
            logs: BTreeMap::new(),
            terms: BTreeMap::new(),
            start: Position::START,
            seed: 1,
            config: Config::new(NodeId(0), GroupId(7), 0),
            check_replay: true,
            check_release: true,
            check_core_every: 1,
            record: true,
            tolerate: false,
            plant: PLANTED.get(),
            priorities: BTreeMap::new(),
            snapshot_every: None,
            durable_machine: false,
        }
    }

    /// These voters instead.
    pub fn voters(mut self, voters: &[NodeId]) -> Options {
        self.voters = voters.to_vec();
        self
    }

    /// These learners.
    pub fn learners(mut self, learners: &[NodeId]) -> Options {
        self.learners = learners.to_vec();
        self
    }

    /// These members have no core.
    pub fn puppets(mut self, puppets: &[NodeId]) -> Options {
        self.puppets = puppets.to_vec();
        self
    }

    /// `node` starts with this log.
    pub fn log(mut self, node: NodeId, log: Chain) -> Options {
        self.logs.insert(node, log);
        self
    }

    /// `node` starts in this term, without a vote.
    pub fn term(mut self, node: NodeId, term: u64) -> Options {
        self.terms.insert(node, Term(term));
        self
    }

    /// All logs start here: what comes before is compacted.
    pub fn start(mut self, start: Position) -> Options {
        self.start = start;
        self
    }

    /// Seed of the election timeouts.
    pub fn seed(mut self, seed: u64) -> Options {
        self.seed = seed;
        self
    }

    /// Candidates campaign without asking first.
    pub fn without_pre_vote(mut self) -> Options {
        self.config.pre_vote = false;
        self
    }

    /// Leaders do not step down for want of contact, voters do not defend them.
    pub fn without_check_quorum(mut self) -> Options {
        self.config.check_quorum = false;
        self
    }

    /// Plain Raft: the two above.
    pub fn plain(self) -> Options {
        self.without_pre_vote().without_check_quorum()
    }

    /// Hosts take a snapshot after so many entries, and logs keep nothing behind it.
    pub fn snapshot_every(mut self, entries: u64) -> Options {
        self.snapshot_every = Some(entries);
        self.config.trailing_bytes_max = 0;
        self
    }

    /// State machines have disks of their own.
    pub fn durable_machine(mut self) -> Options {
        self.durable_machine = true;
        self
    }

    /// Changes the configuration of every node.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Options {
        change(&mut self.config);
        self
    }

    /// Collects broken rules, for tests of the tests.
    pub fn tolerant(mut self) -> Options {
        self.tolerate = true;
        self
    }

    /// Plants a fault in every core and collects what it breaks. `checks` says whether the checks of
    /// single messages and steps run too, or only those of the history.
    pub fn planted(mut self, plant: Plant, checks: bool) -> Options {
        self.plant = Some(plant);
        self.only_history(!checks)
    }

    /// Collects what is broken; where `only`, by the rules of the history alone.
    pub fn only_history(mut self, only: bool) -> Options {
        self.tolerate = true;
        self.check_release = !only;
        self.check_core_every = 0;
        self.check_replay = false;
        self
    }

    /// For runs of many thousand steps: no trace, no second run of each step, the core's own
    /// invariants now and then.
    pub fn fast(mut self) -> Options {
        self.check_replay = false;
        self.check_core_every = 61;
        self.record = false;
        self
    }
}
