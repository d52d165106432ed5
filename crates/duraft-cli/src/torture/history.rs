//! What clients asked and heard, and whether one order of it explains everything.
//!
//! Registers are checked one by one. An operation whose outcome nobody knows stays open: it may take
//! effect at any time after it was asked, or never. A read without an answer says nothing.

use super::words::{Op, OpId, Seen};
use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One operation that may have happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) id: OpId,
    pub(super) key: u32,
    pub(super) op: Op,
    /// Nanoseconds since the run began.
    pub(super) called: i64,
    /// When and what its client heard.
    pub(super) heard: Option<(i64, Seen)>,
}

/// The verdict on all registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Linearizable,
    /// These registers have no explanation.
    Violated(Vec<u32>),
    /// The search for one did not end in time.
    Undecided(Vec<u32>),
}

#[derive(Clone, Debug)]
struct Register;

impl Model for Register {
    type State = Option<u64>;
    type Op = (Op, Option<Seen>);
    type Metadata = ();

    fn init() -> Option<u64> {
        None
    }

    fn step(state: &Option<u64>, (op, seen): &(Op, Option<Seen>)) -> (bool, Option<u64>) {
        match (*op, *seen) {
            (Op::Get, None) => (true, *state),
            (Op::Get, Some(Seen::Value(value))) => (value == *state, *state),
            (Op::Put { value }, None | Some(Seen::Written)) => (true, Some(value)),
            (Op::Swap { from, to }, None) => (true, if *state == from { Some(to) } else { *state }),
            (Op::Swap { from, to }, Some(Seen::Swapped(swapped))) => {
                let state_after = if swapped { Some(to) } else { *state };
                (swapped == (*state == from), state_after)
            }
            // An answer to another question.
            (Op::Get, Some(Seen::Written | Seen::Swapped(_)))
            | (Op::Put { .. }, Some(Seen::Value(_) | Seen::Swapped(_)))
            | (Op::Swap { .. }, Some(Seen::Value(_) | Seen::Written)) => (false, *state),
        }
    }
}

/// Is the history linearizable? `time` is for each register.
pub(super) fn check(events: &[Event], time: Duration) -> Verdict {
    let mut by_key: BTreeMap<u32, Vec<Operation<Register>>> = BTreeMap::new();
    for event in events {
        let (end, seen) = match event.heard {
            Some((end, seen)) => (end, Some(seen)),
            None if event.op == Op::Get => continue,
            None => (i64::MAX, None),
        };
        by_key.entry(event.key).or_default().push(Operation {
            client_id: Some(event.id.client),
            call_time: event.called,
            return_time: end,
            op: (event.op, seen),
            metadata: None,
        });
    }
    let mut verdicts: BTreeMap<u32, CheckResult> = BTreeMap::new();
    for (key, operations) in by_key {
        verdicts.insert(key, check_operations_timeout(&operations, time));
    }
    let keys = |wanted: CheckResult| -> Vec<u32> {
        let found = verdicts.iter().filter(|(_, verdict)| **verdict == wanted);
        found.map(|(key, _)| *key).collect()
    };
    let (illegal, unknown) = (keys(CheckResult::Illegal), keys(CheckResult::Unknown));
    if !illegal.is_empty() {
        Verdict::Violated(illegal)
    } else if !unknown.is_empty() {
        Verdict::Undecided(unknown)
    } else {
        Verdict::Linearizable
    }
}

/// The writes that clients were told of: these must be in the log.
pub(super) fn acknowledged(events: &[Event]) -> BTreeSet<OpId> {
    let written = |event: &&Event| event.op != Op::Get && event.heard.is_some();
    events
        .iter()
        .filter(written)
        .map(|event| event.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64, op: Op, called: i64, heard: Option<(i64, Seen)>) -> Event {
        Event {
            id: OpId { client: 1, number },
            key: 0,
            op,
            called,
            heard,
        }
    }

    const TIME: Duration = Duration::from_secs(10);
    const PUT: Op = Op::Put { value: 5 };

    #[test]
    fn a_stale_read_has_no_explanation() {
        let stale = [
            event(1, PUT, 0, Some((10, Seen::Written))),
            event(2, Op::Get, 11, Some((12, Seen::Value(None)))),
        ];
        assert_eq!(check(&stale, TIME), Verdict::Violated(vec![0]));
        let at_once = [
            stale[0],
            event(2, Op::Get, 9, Some((12, Seen::Value(None)))),
        ];
        assert_eq!(check(&at_once, TIME), Verdict::Linearizable);
    }

    #[test]
    fn an_unknown_write_may_have_happened_late_or_never_but_not_before_it_was_asked() {
        let read =
            |number, at, value| event(number, Op::Get, at, Some((at + 1, Seen::Value(value))));
        let unknown = event(1, PUT, 10, None);
        let late = [unknown, read(2, 20, None), read(3, 30, Some(5))];
        assert_eq!(check(&late, TIME), Verdict::Linearizable);
        let never = [unknown, read(2, 20, None), read(3, 30, None)];
        assert_eq!(check(&never, TIME), Verdict::Linearizable);
        let early = [unknown, read(2, 5, Some(5))];
        assert_eq!(check(&early, TIME), Verdict::Violated(vec![0]));
        let undone = [unknown, read(2, 20, Some(5)), read(3, 30, None)];
        assert_eq!(check(&undone, TIME), Verdict::Violated(vec![0]));
    }

    #[test]
    fn two_swaps_from_one_value_cannot_both_succeed() {
        let swap = |number, to| {
            let op = Op::Swap { from: None, to };
            event(number, op, 0, Some((10, Seen::Swapped(true))))
        };
        assert_eq!(
            check(&[swap(1, 7), swap(2, 8)], TIME),
            Verdict::Violated(vec![0])
        );
        assert_eq!(check(&[swap(1, 7)], TIME), Verdict::Linearizable);
        assert_eq!(acknowledged(&[swap(1, 7)]).len(), 1);
    }
}
