//! All the states a power loss can leave, or as many as can be afforded: crash tests as a library.
//!
//! [`explore`] runs a workload once per operation, lets the power fail within that operation,
//! builds the disks that may be left, and asks a check about each. It knows nothing of logs or
//! databases: what was promised is whatever the workload returns.
//!
//! Which subsets of the pending items are visited (see [`Subsets`]):
//! - all of them where few items are pending;
//! - else all prefixes in the order of writing, each single item missing, each single item present,
//!   and a number of drawn ones. A bug that needs two particular sectors lost out of hundreds may
//!   escape the draw; a smaller sector count (larger sectors, shorter writes) makes it exhaustive.
//!
//! # Example
//!
//! A toy log with a bug that tests by killing processes do not find: it writes a record and the
//! count of records, and syncs both at once, trusting that the record reaches the disk first.
//!
//! ```
//! use duraft_disk::{Disk, DiskError, FaultDisk, FaultOptions, Subsets, explore};
//!
//! /// Sector 0 holds the number of records, sector n the n-th record. Returns what was promised.
//! fn append(disk: &FaultDisk) -> Result<u8, (u8, DiskError)> {
//!     let mut promised = 0;
//!     let mut run = || -> Result<(), DiskError> {
//!         let file = disk.open("log")?;
//!         for n in 1..=3_u8 {
//!             file.write_at(&[n; 512], u64::from(n) * 512)?;
//!             file.write_at(&[n], 0)?; // the bug: nothing orders this after the record
//!             file.sync_data()?;
//!             promised = n;
//!         }
//!         Ok(())
//!     };
//!     match run() {
//!         Ok(()) => Ok(promised),
//!         Err(error) => Err((promised, error)),
//!     }
//! }
//!
//! fn recover(disk: &FaultDisk, promised: u8) -> Result<(), String> {
//!     let file = disk.open("log").map_err(|e| e.to_string())?;
//!     let mut bytes = [0; 2048];
//!     file.read_at(&mut bytes, 0).map_err(|e| e.to_string())?;
//!     if bytes[0] < promised {
//!         return Err(format!("promised {promised} records, found {}", bytes[0]));
//!     }
//!     match (1..=bytes[0]).find(|n| bytes[usize::from(*n) * 512] != *n) {
//!         Some(n) => Err(format!("record {n} is counted and not there")),
//!         None => Ok(()),
//!     }
//! }
//!
//! let start = FaultDisk::new(FaultOptions::default());
//! let file = start.create("log")?;
//! file.fill_zero(2048)?;
//! file.sync_data()?;
//! start.sync_dir("")?;
//!
//! let promised = |disk: &FaultDisk| append(disk).unwrap_or_else(|(promised, _)| promised);
//! let violation = explore(&start, &Subsets::default(), promised, |promised, state| {
//!     recover(&state.disk, *promised)
//! })
//! .expect_err("the count can outrun the record");
//! assert_eq!(violation.message, "record 1 is counted and not there");
//! // The shortest story: crash in the second write, the record lost, the count kept.
//! assert_eq!(violation.mutation, 2);
//! println!("{violation}");
//! # Ok::<(), DiskError>(())
//! ```

use crate::crash::{CrashPoint, Tear, newest};
use crate::fault::{FaultDisk, TraceEntry};
use crate::rng::SplitMix64;
use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;

/// Which of the possible outcomes of a power loss are visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subsets {
    /// Up to so many pending items every outcome is visited, older versions included.
    pub exhaustive_max: usize,
    /// How many outcomes are drawn where there are more items.
    pub drawn: usize,
    /// How many outcomes with torn sectors are drawn besides, however many items there are. Only
    /// for engines that do not rely on whole sectors.
    pub torn: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Visit outcomes that leave equal disks once only.
    pub dedupe: bool,
}

impl Default for Subsets {
    /// Exhaustive up to 12 items, 2,000 draws above, no torn sectors, seed 0, equal disks once.
    fn default() -> Subsets {
        Subsets {
            exhaustive_max: 12,
            drawn: 2000,
            torn: 0,
            seed: 0,
            dedupe: true,
        }
    }
}

/// Most outcomes that 'all of them' may mean. Items with many versions can exceed it although they
/// are few; then they are drawn.
const OUTCOMES_MAX: u64 = 1 << 16;

/// One disk that a power loss may leave.
pub struct CrashState<'a> {
    /// The disk in its next life.
    pub disk: FaultDisk,
    /// What was pending.
    pub point: &'a CrashPoint,
    /// What became of it; see [`Survival::Fates`](crate::Survival::Fates).
    pub fates: &'a [u8],
    /// Which of the surviving sectors are torn.
    pub tears: &'a [Tear],
}

impl fmt::Display for CrashState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.point.describe(self.fates))?;
        for tear in self.tears {
            let item = &self.point.items()[tear.item];
            write!(f, "; torn: {item}, kept bytes {:?}", tear.kept)?;
        }
        Ok(())
    }
}

/// How many crash states were visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Moments at which the power failed.
    pub points: u64,
    /// Moments at which every outcome was visited.
    pub exhaustive: u64,
    /// Outcomes built.
    pub built: u64,
    /// Outcomes visited: all that were built, or those that differ from the others of their moment.
    pub visited: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.points += other.points;
        self.exhaustive += other.exhaustive;
        self.built += other.built;
        self.visited += other.visited;
    }
}

/// A crash state in which a check failed, and how to get there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The mutation within which the power failed; one past the last where the workload had ended.
    pub mutation: u64,
    /// The mutations up to there.
    pub trace: Vec<TraceEntry>,
    /// What became of each pending item.
    pub fates: Vec<u8>,
    /// Which of the surviving sectors are torn.
    pub tears: Vec<Tear>,
    /// The same in words.
    pub outcome: String,
    /// What the check said.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.message)?;
        writeln!(f, "power failed in mutation {} of:", self.mutation)?;
        for entry in &self.trace {
            writeln!(f, "  {entry}")?;
        }
        write!(f, "{} (fates {:?})", self.outcome, self.fates)
    }
}

impl std::error::Error for Violation {}

/// Visits the disks that a power loss at this moment may leave. Works on a crashed disk too;
/// changes nothing. Stops where the visitor breaks.
pub fn for_each_crash_state<B>(
    disk: &FaultDisk,
    subsets: &Subsets,
    mut visit: impl FnMut(CrashState<'_>) -> ControlFlow<B>,
) -> (Tally, ControlFlow<B>) {
    let point = disk.crash_point();
    let mut seen = HashSet::new();
    let mut tally = Tally {
        points: 1,
        ..Tally::default()
    };
    let mut show = |fates: &[u8], tears: &[Tear]| {
        tally.built += 1;
        let disk = point.torn_image(fates, tears);
        if subsets.dedupe && !seen.insert(disk.fingerprint()) {
            return ControlFlow::Continue(());
        }
        tally.visited += 1;
        visit(CrashState {
            disk,
            point: &point,
            fates,
            tears,
        })
    };
    let (exhaustive, mut flow) = for_each_outcome(&point, subsets, |fates| show(fates, &[]));
    let mut rng = SplitMix64::new(subsets.seed);
    for _ in 0..subsets.torn {
        if flow.is_continue() {
            let fates = point.drawn(&mut rng);
            flow = show(&fates, &point.drawn_tears(&fates, &mut rng));
        }
    }
    tally.exhaustive = u64::from(exhaustive);
    (tally, flow)
}

/// Visits the fates that [`Subsets`] asks for. Returns whether those were all there are.
pub fn for_each_outcome<B>(
    point: &CrashPoint,
    subsets: &Subsets,
    visit: impl FnMut(&[u8]) -> ControlFlow<B>,
) -> (bool, ControlFlow<B>) {
    let newest: Vec<u8> = point.items().iter().map(newest).collect();
    let outcomes = newest.iter().try_fold(1_u64, |product, newest| {
        let product = product * (u64::from(*newest) + 1);
        (product <= OUTCOMES_MAX).then_some(product)
    });
    if newest.len() <= subsets.exhaustive_max && outcomes.is_some() {
        (true, all(&newest, visit))
    } else {
        (false, chosen(point, &newest, subsets, visit))
    }
}

/// Every combination, as a counter whose digits have their own bases.
fn all<B>(newest: &[u8], mut visit: impl FnMut(&[u8]) -> ControlFlow<B>) -> ControlFlow<B> {
    let mut fates = vec![0; newest.len()];
    loop {
        visit(&fates)?;
        let Some(place) = (0..fates.len()).find(|place| fates[*place] < newest[*place]) else {
            return ControlFlow::Continue(());
        };
        fates[place] += 1;
        fates[..place].fill(0);
    }
}

fn chosen<B>(
    point: &CrashPoint,
    newest: &[u8],
    subsets: &Subsets,
    mut visit: impl FnMut(&[u8]) -> ControlFlow<B>,
) -> ControlFlow<B> {
    // Prefixes: every version in the order of writing, up to some place in that order.
    let mut steps: Vec<(u64, usize, u8)> = Vec::new();
    for (item, pending) in point.items().iter().enumerate() {
        for (mutation, version) in pending.versions.iter().zip(1..=u8::MAX) {
            steps.push((*mutation, item, version));
        }
    }
    steps.sort_unstable();
    let mut fates = vec![0; newest.len()];
    visit(&fates)?;
    for (_, item, version) in steps {
        fates[item] = version;
        visit(&fates)?;
    }
    // All but one, the one being lost or older; and one alone.
    let mut missing = newest.to_vec();
    let mut present = vec![0; newest.len()];
    for (item, newest) in newest.iter().enumerate() {
        for fate in 0..*newest {
            missing[item] = fate;
            visit(&missing)?;
            present[item] = fate + 1;
            visit(&present)?;
        }
        missing[item] = *newest;
        present[item] = 0;
    }
    let mut rng = SplitMix64::new(subsets.seed);
    for _ in 0..subsets.drawn {
        visit(&point.drawn(&mut rng))?;
    }
    ControlFlow::Continue(())
}

/// Runs the workload on copies of `start`, the power failing within each of its mutations in turn
/// and after the last, and checks every disk that may be left. The workload gets errors when its
/// disk is dead and returns what it has promised until then; it must do the same thing every time.
///
/// Stops at the first crash point with a violation, and returns of that point the one with the
/// fewest items lost or kept.
pub fn explore<T>(
    start: &FaultDisk,
    subsets: &Subsets,
    workload: impl Fn(&FaultDisk) -> T,
    check: impl Fn(&T, &CrashState<'_>) -> Result<(), String>,
) -> Result<Tally, Box<Violation>> {
    let mut tally = Tally::default();
    for mutation in 1.. {
        let disk = start.fork();
        disk.start_trace();
        disk.crash_at(mutation);
        let promised = workload(&disk);
        let ended = !disk.crashed();
        let mut worst: Option<(usize, Violation)> = None;
        let (visited, _) = for_each_crash_state(&disk, subsets, |state| {
            if let Err(message) = check(&promised, &state) {
                let size = story_size(state.fates) + 2 * state.tears.len();
                if worst.as_ref().is_none_or(|(least, _)| size < *least) {
                    let violation = Violation {
                        mutation,
                        trace: disk.trace(),
                        fates: state.fates.to_vec(),
                        tears: state.tears.to_vec(),
                        outcome: state.to_string(),
                        message,
                    };
                    worst = Some((size, violation));
                }
            }
            ControlFlow::<()>::Continue(())
        });
        tally += visited;
        if let Some((_, violation)) = worst {
            return Err(Box::new(violation));
        }
        if ended {
            break;
        }
    }
    Ok(tally)
}

/// How much must be said to tell an outcome: what was lost, or what was kept, whichever is less. A
/// torn sector takes more words.
fn story_size(fates: &[u8]) -> usize {
    let lost = fates.iter().filter(|fate| **fate == 0).count();
    lost.min(fates.len() - lost)
}
