//! Operations that fail while the machine goes on: what a life does after the first failed write or
//! sync, and what the next life makes of a cache that lies.

use super::drive::{self, Counts, Plan, Story, Task, mix};
use super::model::Expected;
use duraft_disk::{
    CacheAfter, DiskOp, Effect, Fault, FaultDisk, SplitMix64, Subsets, Survival,
    for_each_crash_state,
};
use std::ops::ControlFlow;

pub(super) struct FaultSearch<'a> {
    plan: &'a Plan,
    pub(super) counts: Counts,
    /// Failures injected that hit.
    pub(super) hits: u64,
    pub(super) stories: Vec<Story>,
}

/// Every way in which the operations of this kind fail.
fn effects(op: DiskOp, seed: u64) -> Vec<Effect> {
    if op == DiskOp::Write {
        let bytes = usize::try_from(seed % 8192).expect("below 8192");
        return vec![
            Effect::Io,
            Effect::NoSpace,
            Effect::Quota,
            Effect::ShortWrite { bytes },
        ];
    }
    let mut effects = vec![Effect::Io];
    for cache in [CacheAfter::OldContent, CacheAfter::NewContent] {
        for landed in [None, Some(seed), Some(seed + 1)] {
            effects.push(Effect::SyncFails { cache, landed });
        }
    }
    effects
}

impl<'a> FaultSearch<'a> {
    /// Fails each sync and each write of the plan's first life in turn, in every way.
    pub(super) fn run(plan: &'a Plan) -> FaultSearch<'a> {
        let mut search = FaultSearch {
            plan,
            counts: Counts::default(),
            hits: 0,
            stories: Vec::new(),
        };
        let base = match drive::base(plan) {
            Ok(base) => base,
            Err(story) => {
                search.stories.push(story);
                return search;
            }
        };
        for op in [DiskOp::SyncData, DiskOp::Write] {
            for nth in 1.. {
                let seed = mix(plan.seed, nth);
                let mut hit = false;
                for effect in effects(op, seed) {
                    let disk = base.disk.fork();
                    disk.start_trace();
                    disk.inject(Fault::new(effect).on(op).nth(nth));
                    hit = search.life(&disk, &base.expected, op, nth);
                    if search.stories.len() >= plan.violations_max {
                        return search;
                    }
                }
                if !hit {
                    break;
                }
            }
        }
        search
    }

    /// One life in which something fails, and the lives that may follow it. Returns whether the
    /// failure hit.
    fn life(&mut self, disk: &FaultDisk, expected: &Expected, op: DiskOp, nth: u64) -> bool {
        let seed = mix(self.plan.seed, 0x6661_756c);
        let mut lived = expected.clone();
        let told = match self.poisoned_life(disk, seed, &mut lived) {
            Ok(told) => told,
            Err(why) => {
                self.tell(disk, &why);
                true
            }
        };
        let hit = disk.ops(op) >= nth;
        self.hits += u64::from(hit);
        // A failed sync may be one of a file that the commit path does not need: of a slot that is
        // being prepared. Then the life goes on.
        if told || hit {
            self.next_lives(disk, &lived, mix(seed, nth));
        }
        hit
    }

    /// Writes until a failure, and checks that nothing is written or acknowledged after it. Returns
    /// whether there was one.
    fn poisoned_life(
        &mut self,
        disk: &FaultDisk,
        seed: u64,
        expected: &mut Expected,
    ) -> Result<bool, String> {
        let plan = self.plan;
        let Ok((mut store, found)) = drive::open(disk, plan, seed, expected) else {
            // Refusing to open on a failing disk is right; the next lives tell whether it harmed.
            return Ok(true);
        };
        *expected = Expected::exactly(found);
        let mut rng = SplitMix64::new(seed);
        let mut left = plan.levels[0].writes;
        let task = &mut Task::default();
        while left > 0 {
            let before = expected.clone();
            let drawn = drive::draw_commit(&store, plan, &mut rng, &mut left, expected, task);
            let Ok(commit) = drawn else {
                // A snapshot that cannot be written is not the end of the log.
                *expected = before;
                left = left.saturating_sub(1);
                continue;
            };
            let named = drive::naming(&commit);
            if store.commit(commit).is_err() {
                if !store.poisoned() {
                    return Err("a commit failed and the log is not poisoned".into());
                }
                let mut unused = expected.clone();
                let more = drive::draw_commit(&store, plan, &mut rng, &mut left, &mut unused, task);
                let more = more.unwrap_or_default();
                let before = disk.mutations();
                let refused = store.commit(more).is_err()
                    && store.receipt().is_err()
                    && store.close().is_err();
                if !refused || disk.mutations() != before {
                    return Err("the log went on after a failed write or sync".into());
                }
                return Ok(true);
            }
            expected.acknowledge();
            let _ = store.after_commit(&named);
            if rng.below(4) == 0 && store.receipt().is_err() {
                return Ok(true);
            }
            // A slot that cannot be made ready is not the end of the log.
            let _ = store.prepare();
        }
        Ok(false)
    }

    /// The process dies or the power fails; what is found must hold what was acknowledged, and
    /// stay.
    fn next_lives(&mut self, disk: &FaultDisk, expected: &Expected, seed: u64) {
        let mut starts = vec![
            ("the process was killed", disk.process_crash()),
            (
                "the process was killed and its cache evicted",
                disk.process_crash(),
            ),
        ];
        starts[1].1.evict_clean();
        starts.push(("the power failed", disk.power_loss(Survival::Nothing)));
        for (how, start) in starts {
            let why = self.reopen(&start, expected, seed);
            if let Err(Story(why)) = why {
                self.tell(disk, &format!("{why}\n  after {how}"));
            }
        }
        let subsets = Subsets {
            drawn: 20,
            exhaustive_max: 6,
            seed,
            torn: 0,
            dedupe: true,
        };
        let (_, _) = for_each_crash_state(disk, &subsets, |state| {
            self.counts.states[0] += 1;
            if let Err(Story(why)) = self.reopen(&state.disk, expected, seed) {
                self.tell(disk, &format!("{why}\n  after the power failed, {state}"));
            }
            ControlFlow::<()>::Continue(())
        });
    }

    /// Opens, then loses all that is not durable, and opens again: what was shown must be there.
    fn reopen(&mut self, start: &FaultDisk, expected: &Expected, seed: u64) -> Result<(), Story> {
        self.counts.recoveries += 2;
        let disk = start.fork();
        let (mut store, found) = drive::open(&disk, self.plan, mix(seed, 1), expected)?;
        let mut expected = Expected::exactly(found);
        // What the cache shows may be on no disk: opening must have made it durable.
        let worst = disk.durable_view();
        let (_, found) = drive::open(&worst, self.plan, mix(seed, 2), &expected)?;
        assert!(expected.find(&found).is_some(), "open has checked that");
        let mut rng = SplitMix64::new(seed);
        let mut left = 3;
        let task = &mut Task::default();
        while left > 0 {
            let commit =
                drive::draw_commit(&store, self.plan, &mut rng, &mut left, &mut expected, task);
            let commit = commit.map_err(Story)?;
            let named = drive::naming(&commit);
            store.commit(commit).map_err(Story)?;
            expected.acknowledge();
            store.after_commit(&named).map_err(Story)?;
        }
        let worst = disk.durable_view();
        drive::open(&worst, self.plan, mix(seed, 3), &expected)?;
        Ok(())
    }

    fn tell(&mut self, disk: &FaultDisk, why: &str) {
        self.counts.violations += 1;
        if self.stories.len() < self.plan.violations_max {
            let trace: Vec<String> = disk.trace().iter().map(|e| format!("  {e}")).collect();
            let trace = trace.join("\n");
            self.stories
                .push(Story(format!("{why}\n{trace}\nplan {:?}", self.plan)));
        }
    }
}
