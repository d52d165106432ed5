//! What the pipeline reports is on the disk: at every report, recovery is run on what is durable at
//! that moment, and must hold each group up to the write reported. Syncs fail in turn, in every way.

use super::drive::{Plan, Story, blank, mix};
use super::engine;
use duraft_core::{GroupId, HardState, NodeId, Position, Term, Write, WriteSeq};
use duraft_disk::{CacheAfter, DiskOp, Effect, Fault, FaultDisk, SplitMix64};
use duraft_storage::{Durable, Pipeline, PipelineEvent, Submission, commands_body};
use std::collections::{BTreeMap, VecDeque};

/// Writes of one life.
const WRITES: u64 = 40;

#[derive(Default)]
pub(super) struct PromiseSearch {
    /// Reports checked by a recovery.
    pub(super) reports: u64,
    /// Lives whose disk refused a sync.
    pub(super) failed: u64,
    pub(super) stories: Vec<Story>,
}

/// Where each group's log ends, and how many writes it was sent.
type Ends = BTreeMap<GroupId, (Position, u64)>;

impl PromiseSearch {
    pub(super) fn run(plan: &Plan) -> PromiseSearch {
        let mut search = PromiseSearch::default();
        for nth in 1.. {
            let before = search.failed;
            for cache in [CacheAfter::OldContent, CacheAfter::NewContent] {
                if let Err(why) = search.life(plan, nth, cache) {
                    search.stories.push(Story(format!("{why}\nplan {plan:?}")));
                    return search;
                }
            }
            if search.failed == before {
                return search;
            }
        }
        search
    }

    /// A life whose `nth` sync fails.
    fn life(&mut self, plan: &Plan, nth: u64, cache: CacheAfter) -> Result<(), String> {
        let disk = blank(plan);
        let setup = &plan.setup;
        engine::bootstrap(&disk, setup, plan.seed).map_err(|why| format!("{why:?}"))?;
        let disk = disk.process_crash();
        let mut pipeline = match engine::pipeline(&disk, setup, 300, mix(plan.seed, nth)) {
            Ok(pipeline) => pipeline,
            Err(why) => return Err(format!("{why:?}")),
        };
        let done = disk.ops(DiskOp::SyncData);
        disk.inject(
            Fault::new(Effect::SyncFails {
                cache,
                landed: None,
            })
            .on(DiskOp::SyncData)
            .nth(done + nth),
        );
        let mut ends: Ends = (0..setup.groups)
            .map(|group| (GroupId(group), (Position::START, 0)))
            .collect();
        let mut rng = SplitMix64::new(mix(plan.seed, nth));
        let (mut queue, mut sent) = (VecDeque::new(), 0);
        for now in 0.. {
            if sent == WRITES && queue.is_empty() {
                return Ok(());
            }
            for _ in 0..rng.below(5).min(WRITES - sent) {
                queue.push_back(next(&mut rng, &mut ends));
                sent += 1;
            }
            let mut events = Vec::new();
            pipeline.turn(now, &mut queue, &mut events);
            let mut over = false;
            for event in events {
                match event {
                    PipelineEvent::Durable(durable) => {
                        self.check(plan, &disk, &pipeline, durable)?;
                    }
                    PipelineEvent::Failed { .. } => over = true,
                    PipelineEvent::StorageLow => return Err("no room on an empty disk".into()),
                }
            }
            while pipeline.preparer().turn().unwrap_or(false) {}
            if over {
                self.failed += 1;
                return Ok(());
            }
        }
        Ok(())
    }

    fn check(
        &mut self,
        plan: &Plan,
        disk: &FaultDisk,
        pipeline: &Pipeline,
        durable: Durable,
    ) -> Result<(), String> {
        self.reports += 1;
        let Durable {
            generation,
            group,
            upto,
        } = durable;
        if generation != pipeline.generation() {
            return Err(format!("a report of generation {generation}"));
        }
        let left = disk.durable_view();
        let (_, found) = engine::open(&left, &plan.setup, mix(plan.seed, self.reports))
            .map_err(|why| format!("reported up to {upto:?}, and then {why:?}"))?;
        // Each write appends one batch of one command.
        let held = found.0[&group].end().index();
        if held.0 < upto.0 {
            return Err(format!("group {group}: reported {upto:?}, holds {held}"));
        }
        Ok(())
    }
}

fn next(rng: &mut SplitMix64, ends: &mut Ends) -> Submission {
    let group = GroupId(rng.below(ends.len() as u64));
    let (end, seq) = ends.get_mut(&group).expect("a group");
    *seq += 1;
    let body = commands_body([&b"command"[..]].into_iter(), 0).expect("small");
    let batch = body.seal(group, end, Term(1)).expect("follows");
    *end = batch.header.position();
    let hard_state = HardState {
        term: Term(1),
        vote: Some(NodeId(1)),
    };
    let write = Write {
        seq: WriteSeq(*seq),
        hard_state: (*seq == 1).then_some(hard_state),
        snapshot: None,
        truncate: None,
        append: vec![batch],
        compact: None,
        healed: None,
    };
    Submission { group, write }
}
