//! Two judges of linearizability, the simulator's own and porcupine-rs, on the histories of clusters:
//! they agree, on what happened and on what was tampered with.

use bytes::Bytes;
use duraft_core::{Plant, mix64};
use duraft_disk::SplitMix64;
use duraft_sim::linear::{self, Timed, Verdict};
use duraft_sim::{Call, KeyOp, KeyValue, Machine, Request, Sim, SimConfig, Workload};
use porcupine_rs::Operation;
use std::sync::{Arc, Mutex};

/// One key as both judges see it.
#[derive(Clone, Debug)]
struct Key;

impl linear::Model for Key {
    type State = u32;
    type Op = KeyOp;

    fn init(&self) -> u32 {
        0
    }

    fn step(&self, state: &u32, op: &KeyOp) -> Option<u32> {
        op.step(*state)
    }
}

impl porcupine_rs::Model for Key {
    type State = u32;
    type Op = KeyOp;
    type Metadata = ();

    fn init() -> u32 {
        0
    }

    fn step(state: &u32, op: &KeyOp) -> (bool, u32) {
        op.step(*state).map_or((false, *state), |next| (true, next))
    }
}

/// What porcupine says of one key's history.
fn porcupine(history: &[Timed<KeyOp>]) -> bool {
    let time = |at: u64| i64::try_from(at).expect("runs are short");
    let operation = |timed: &Timed<KeyOp>| Operation::<Key> {
        client_id: None,
        call_time: time(timed.call),
        return_time: time(timed.end),
        op: timed.op,
        metadata: None,
    };
    let history: Vec<Operation<Key>> = history.iter().map(operation).collect();
    porcupine_rs::check_operations(&history)
}

/// What the simulator's own judge says.
fn own(history: &[Timed<KeyOp>]) -> bool {
    match linear::check(&Key, history, 1_000_000) {
        Verdict::Linearizable => true,
        Verdict::Not => false,
        Verdict::Unknown => panic!("too many steps"),
    }
}

/// The ordinary workload, keeping what clients were told.
#[derive(Debug)]
struct Kept {
    inner: KeyValue,
    calls: Mutex<Vec<Call>>,
}

impl Workload for Kept {
    fn machine(&self) -> Box<dyn Machine> {
        self.inner.machine()
    }

    fn request(&self, client: u64, rng: &mut SplitMix64) -> Request {
        self.inner.request(client, rng)
    }

    fn query(&self, client: u64, rng: &mut SplitMix64) -> Bytes {
        self.inner.query(client, rng)
    }

    fn judge(&self, calls: &[Call]) -> Result<(), String> {
        *self.calls.lock().expect("one thread") = calls.to_vec();
        Ok(())
    }
}

/// A run whose clients' calls are judged here only. `None` where another check was first.
fn calls_of(seed: u64, change: impl Fn(&mut SimConfig)) -> Option<Vec<Call>> {
    let mut config = SimConfig::from_seed(seed);
    change(&mut config);
    let kept = Arc::new(Kept {
        inner: KeyValue { keys: 3 },
        calls: Mutex::default(),
    });
    config.workload = kept.clone();
    Sim::new(config).run(500).ok()?;
    let calls = kept.calls.lock().expect("one thread").clone();
    Some(calls)
}

/// What both judges say of a run.
fn judged(calls: &[Call]) -> bool {
    let keys = KeyValue::histories(calls);
    keys.iter().fold(true, |all, history| {
        let verdicts = (own(history), porcupine(history));
        assert_eq!(verdicts.0, verdicts.1, "the judges differ: {history:?}");
        all && verdicts.0
    })
}

#[test]
fn histories_of_clusters_are_linearizable_for_both_judges() {
    let mut sum = 0;
    for seed in 0..40 {
        let calls = calls_of(seed, |_| {}).expect("no violation");
        assert!(judged(&calls), "seed {seed}");
        sum += calls.len();
    }
    assert!(sum > 2_000, "{sum}");
}

#[test]
fn stale_reads_are_rejected_by_both_judges() {
    // A leader of nobody any more answers reads: planted, and seen by the answers alone.
    let stale = |config: &mut SimConfig| {
        config.nodes = 3;
        config.pool = 3;
        config.clients.plain = 20;
        config.clients.read = 9_000;
        config.clients.handover = 300;
        config.network.repartition = 300;
        config.check_invariants = false;
        config.check_spec = false;
        config.check_reads = false;
        config.prepare = Some(|raft| raft.plant(Plant::ReadBeforeTerm));
    };
    let runs = (0..60).filter_map(|seed| calls_of(seed, stale));
    assert!(
        runs.into_iter().any(|calls| !judged(&calls)),
        "no stale read was seen"
    );
}

#[test]
fn lost_updates_are_rejected_by_both_judges() {
    // An acknowledged command vanishes from the middle of what happened: whoever saw it contradicts.
    let mut rejected = 0;
    for seed in 0..20 {
        let mut calls = calls_of(seed, |_| {}).expect("no violation");
        let commands = |call: &Call| matches!(call.request, Request::Command(_));
        calls.sort_by_key(|call| call.called);
        if let Some(at) = calls
            .iter()
            .position(|call| commands(call) && call.called > 1_000)
        {
            calls.remove(at);
            rejected += u32::from(!judged(&calls));
        }
    }
    assert!(rejected >= 3, "{rejected}");
}

#[test]
fn judges_agree_on_tampered_answers() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..20 {
        let calls = calls_of(seed, |_| {}).expect("no violation");
        let mut rng = SplitMix64::new(mix64(seed));
        for _ in 0..10 {
            let mut calls = calls.clone();
            let from = usize::try_from(rng.below(calls.len() as u64)).expect("few calls");
            let to = usize::try_from(rng.below(calls.len() as u64)).expect("few calls");
            // The answer of another call, or an interval moved into the past.
            if rng.below(2) == 0 {
                calls[to].response = calls[from].response.clone();
            } else {
                let length = calls[to].ended - calls[to].called;
                calls[to].called = calls[to].called.saturating_sub(rng.below(400));
                calls[to].ended = calls[to].called + length;
            }
            if judged(&calls) {
                good += 1;
            } else {
                bad += 1;
            }
        }
    }
    assert!(good > 10 && bad > 10, "{good} good, {bad} bad");
}
