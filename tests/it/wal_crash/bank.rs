//! The bank of storage faults: what other logs got wrong, done wrong here on purpose, each to be found
//! by one of the searches. A search that finds nothing where something is wrong proves nothing.

use super::damage::DamageSearch;
use super::drive::{Plan, Search, Story};
use super::engine::{Plant, Setup};
use super::faults::FaultSearch;
use super::plan;
use super::promise::PromiseSearch;
use duraft_storage::{Ablation, SnapshotAblation};

/// Who finds a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finder {
    /// The power fails at every operation.
    Crash,
    /// The process dies at every operation, and then the power fails at every operation of the next
    /// life.
    Kill,
    /// Operations fail, the process dies, the cache lies.
    Failure,
    /// A sector goes bad.
    Damage,
    /// What is reported must be on the disk.
    Promise,
}

impl Finder {
    /// Searches one plan: the states and reports checked, and what was found.
    fn search(self, plan: &Plan) -> (u64, Vec<Story>) {
        match self {
            Finder::Crash => {
                let search = Search::run(plan);
                (search.counts.total(), search.stories)
            }
            Finder::Kill => {
                let mut plan = plan.clone();
                plan.history.truncate(1);
                plan.levels[0].process_every = 1;
                plan.levels[0].descend_every = 0;
                plan.levels[0].drawn = 0;
                plan.levels[1].descend_every = 0;
                plan.levels[1].process_every = 0;
                let search = Search::run(&plan);
                (search.counts.total(), search.stories)
            }
            Finder::Failure => {
                let search = FaultSearch::run(plan);
                (search.counts.recoveries, search.stories)
            }
            Finder::Damage => {
                let search = DamageSearch::run(plan);
                (search.counts.done, search.stories)
            }
            Finder::Promise => {
                let search = PromiseSearch::run(plan);
                (search.reports, search.stories)
            }
        }
    }
}

/// What is done wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Store(Ablation),
    Files(SnapshotAblation),
    Host(Plant),
    HostAndStore(Plant, Ablation),
}

impl Wrong {
    fn spoil(self, setup: &mut Setup) {
        match self {
            Wrong::Store(ablation) => setup.ablation = Some(ablation),
            Wrong::Files(ablation) => setup.files = Some(ablation),
            Wrong::Host(plant) => setup.plant = Some(plant),
            Wrong::HostAndStore(plant, ablation) => {
                setup.plant = Some(plant);
                setup.ablation = Some(ablation);
            }
        }
    }
}

use Finder::{Crash, Damage, Failure, Kill, Promise};
use Wrong::{Files, Host, HostAndStore, Store};

const BANK: &[(&str, Wrong, Finder)] = &[
    (
        "retry after a failed sync",
        Store(Ablation::RetrySync),
        Failure,
    ),
    (
        "no sync of the old segment on roll",
        Store(Ablation::NoSyncAtRoll),
        Crash,
    ),
    (
        "rename without a sync of the folder",
        Files(SnapshotAblation::NoDirSync),
        Crash,
    ),
    (
        "rename before the file is synced",
        Files(SnapshotAblation::NoSyncBeforeRename),
        Crash,
    ),
    (
        "snapshot named before its file is there",
        Host(Plant::RecordFirst),
        Crash,
    ),
    (
        "torn middle of a batch accepted",
        Store(Ablation::NoBodyChecksum),
        Crash,
    ),
    (
        "stale records of a recycled slot accepted",
        Store(Ablation::NoLifeNonce),
        Crash,
    ),
    (
        "truncated in place, then rewritten",
        Store(Ablation::WipeTruncated),
        Crash,
    ),
    (
        "snapshot committed before the log is reset",
        Host(Plant::SplitReset),
        Crash,
    ),
    (
        "log emptied before the snapshot is committed",
        Host(Plant::EmptyFirst),
        Crash,
    ),
    (
        "compaction before its snapshot is durable",
        HostAndStore(Plant::CompactFirst, Ablation::CompactUncovered),
        Crash,
    ),
    (
        "checksum over a length that is trusted",
        Store(Ablation::NoHeaderChecksum),
        Damage,
    ),
    (
        "end of the log and damage confused",
        Store(Ablation::StopAtHole),
        Damage,
    ),
    (
        "watermarks are not read",
        Store(Ablation::NoWatermark),
        Crash,
    ),
    (
        "completion of a failed write counted",
        Store(Ablation::ReportFailed),
        Promise,
    ),
    (
        "completions ahead of their sync",
        Store(Ablation::ReportEarly),
        Promise,
    ),
    (
        "group commit wakes waiters of the next one",
        Store(Ablation::ReportQueued),
        Promise,
    ),
    (
        "off by one at the segment boundary",
        Store(Ablation::OneTooFar),
        Crash,
    ),
    ("term and vote in two writes", Host(Plant::SplitVote), Crash),
    (
        "vote in the page cache only",
        Store(Ablation::ControlUnsynced),
        Crash,
    ),
    (
        "slots used again at once",
        Store(Ablation::ReuseAtOnce),
        Kill,
    ),
    (
        "unproven blocks left where they are",
        Store(Ablation::NoCopy),
        Failure,
    ),
    (
        "appended behind a torn tail",
        Store(Ablation::AppendInPlace),
        Failure,
    ),
    (
        "one checkpoint only",
        Store(Ablation::OneCheckpoint),
        Damage,
    ),
    (
        "receipts without the groups",
        Store(Ablation::NoTables),
        Damage,
    ),
    (
        "damage forgotten by the next open",
        Store(Ablation::ForgetDamage),
        Damage,
    ),
];

/// How many faults there are.
pub(crate) fn faults() -> usize {
    BANK.len()
}

/// What a fault is, and who looks for it.
pub(crate) fn name(fault: usize) -> (&'static str, &'static str) {
    let (name, _, finder) = &BANK[fault];
    let who = match finder {
        Finder::Crash => "4.E; searched: power cuts",
        Finder::Kill => "4.E; searched: kills",
        Finder::Failure => "4.E; searched: failing operations",
        Finder::Damage => "4.E; searched: bad sectors",
        Finder::Promise => "4.E; searched: reports",
    };
    (name, who)
}

/// What switches a fault on.
pub(crate) fn plant(fault: usize) -> String {
    match BANK[fault].1 {
        Store(ablation) => format!("Ablation::{ablation:?}"),
        Files(ablation) => format!("SnapshotAblation::{ablation:?}"),
        Host(plant) => format!("host: {plant:?}"),
        HostAndStore(plant, ablation) => format!("host: {plant:?}, Ablation::{ablation:?}"),
    }
}

/// What one plan says of a fault, or of the same plan without it.
pub(crate) fn tries(fault: usize, seed: u64, planted: bool) -> Option<String> {
    let (_, wrong, finder) = &BANK[fault];
    let (sector, slot) = SIZES[usize::try_from(seed).ok()? % SIZES.len()];
    let mut plan = plan(seed, sector, slot);
    if planted {
        wrong.spoil(&mut plan.setup);
    }
    let (_, stories) = finder.search(&plan);
    stories.into_iter().next().map(|story| story.0)
}

/// Sector bytes and KiB of a slot of the plans in turn.
const SIZES: [(usize, u64); 4] = [(4096, 32), (1024, 16), (2048, 24), (512, 32)];

/// Searches until something is found: how many states that took, and in how many plans.
fn find(wrong: Wrong, finder: Finder, plans: u64) -> Option<(u64, u64, Story)> {
    let mut states = 0;
    for (seed, (sector, slot)) in (0..plans).zip(SIZES.into_iter().cycle()) {
        let mut plan = plan(seed, sector, slot);
        wrong.spoil(&mut plan.setup);
        let (more, mut stories) = finder.search(&plan);
        states += more;
        if let Some(story) = stories.pop() {
            return Some((states, seed + 1, story));
        }
    }
    None
}

#[test]
fn every_fault_of_the_bank_is_found() {
    let mut missed = Vec::new();
    println!("fault | finder | states until found");
    for (fault, wrong, finder) in BANK {
        let Some((states, plans, Story(story))) = find(*wrong, *finder, 12) else {
            missed.push(fault);
            continue;
        };
        let first: String = story
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(80)
            .collect();
        println!("{fault} | {finder:?} | {states} in {plans} | {first}");
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn pipeline_reports_are_on_the_disk() {
    // RULES.md 9: nothing is reported before its sync, after a failed one, or for another commit.
    let mut reports = 0;
    for (seed, (sector, slot)) in
        (0..6).zip([(4096, 32), (512, 16), (1024, 24)].into_iter().cycle())
    {
        let plan = plan(seed, sector, slot);
        let search = PromiseSearch::run(&plan);
        let told: Vec<String> = search.stories.into_iter().map(|story| story.0).collect();
        assert!(told.is_empty(), "{}", told.join("\n"));
        assert!(search.failed > 10, "{} failed syncs", search.failed);
        reports += search.reports;
    }
    println!("{reports} reports checked");
    assert!(reports > 2_000, "{reports}");
}
