//! Linearizability of a history (Wing and Gong's search, with Lowe's memory of what was tried): is
//! there one order of the operations that respects real time and that a sequential object allows?
//!
//! A second judge, porcupine-rs, is asked the same questions in the tests of this crate.

use std::collections::BTreeSet;

/// A sequential object.
pub trait Model {
    /// Its state.
    type State: Clone + Ord;
    /// An operation together with what its client was told, if anything.
    type Op;

    /// The state at the beginning.
    fn init(&self) -> Self::State;

    /// The state after an operation, if it could have been answered so in this state.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;
}

/// An operation and when it was under way. Of two that touch in one moment neither is first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timed<Op> {
    /// When the client asked.
    pub call: u64,
    /// When it was told, or when the operation had certainly taken effect.
    pub end: u64,
    /// What.
    pub op: Op,
}

/// What came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Not,
    /// The search took more steps than it may.
    Unknown,
}

/// Is this an order of all operations that respects real time and that the object allows? A system that
/// orders operations itself has one to offer, and no search is needed where it is right.
pub fn proves<M: Model>(model: &M, history: &[Timed<M::Op>], order: &[usize]) -> bool {
    let mut unused: BTreeSet<usize> = (0..history.len()).collect();
    if order.len() != history.len() || !order.iter().all(|op| unused.remove(op)) {
        return false;
    }
    let mut ends = u64::MAX;
    let in_time = order.iter().rev().all(|op| {
        // Nothing behind it had ended before it was called.
        let fits = history[*op].call <= ends;
        ends = ends.min(history[*op].end);
        fits
    });
    let mut state = Some(model.init());
    for op in order {
        state = state.and_then(|state| model.step(&state, &history[*op].op));
    }
    in_time && state.is_some()
}

/// A place in the list of calls and ends that are still to be passed.
#[derive(Clone, Copy)]
struct Link {
    /// The operation, and whether this is its call.
    op: usize,
    is_call: bool,
    next: usize,
    previous: usize,
}

/// Searches for an order, in at most `steps_max` steps.
pub fn check<M: Model>(model: &M, history: &[Timed<M::Op>], steps_max: u64) -> Verdict {
    let mut list = Entries::new(history);
    let mut state = model.init();
    let mut done = vec![0u64; history.len().div_ceil(64)];
    let mut tried: BTreeSet<(Vec<u64>, M::State)> = BTreeSet::new();
    let mut path: Vec<(usize, M::State)> = Vec::new();
    let mut at = list.first();
    for _ in 0..steps_max {
        let Some(link) = list.get(at) else {
            return Verdict::Linearizable;
        };
        if link.is_call {
            let next = model.step(&state, &history[link.op].op);
            done[link.op / 64] |= 1 << (link.op % 64);
            let new = next.filter(|next| tried.insert((done.clone(), next.clone())));
            if let Some(next) = new {
                path.push((at, std::mem::replace(&mut state, next)));
                list.lift(at);
                at = list.first();
            } else {
                done[link.op / 64] &= !(1 << (link.op % 64));
                at = link.next;
            }
            continue;
        }
        // An operation ended that has no place yet: the last choice was wrong.
        let Some((chosen, before)) = path.pop() else {
            return Verdict::Not;
        };
        state = before;
        let op = list.links[chosen].op;
        done[op / 64] &= !(1 << (op % 64));
        list.put_back(chosen);
        at = list.links[chosen].next;
    }
    Verdict::Unknown
}

/// Calls and ends in the order of time, linked, so that an operation can be taken out and put back.
struct Entries {
    links: Vec<Link>,
    /// The place of each operation's end.
    ends: Vec<usize>,
}

impl Entries {
    /// The first link is a head that stands for nothing; `0` also ends the list.
    fn new<Op>(history: &[Timed<Op>]) -> Entries {
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * history.len());
        for (op, timed) in history.iter().enumerate() {
            assert!(timed.call <= timed.end, "an operation ends after its call");
            order.push((timed.call, false, op));
            order.push((timed.end, true, op));
        }
        // Calls before ends in the same moment.
        order.sort_unstable();
        let count = order.len();
        let mut links = vec![Link {
            op: 0,
            is_call: false,
            next: usize::from(count > 0),
            previous: count,
        }];
        let mut ends = vec![0; history.len()];
        for (place, (_, is_end, op)) in order.into_iter().enumerate() {
            if is_end {
                ends[op] = place + 1;
            }
            links.push(Link {
                op,
                is_call: !is_end,
                next: if place + 1 == count { 0 } else { place + 2 },
                previous: place,
            });
        }
        Entries { links, ends }
    }

    fn first(&self) -> usize {
        self.links[0].next
    }

    fn get(&self, at: usize) -> Option<Link> {
        (at != 0).then(|| self.links[at])
    }

    /// Takes out a call and its end.
    fn lift(&mut self, call: usize) {
        for at in [call, self.ends[self.links[call].op]] {
            let Link { next, previous, .. } = self.links[at];
            self.links[previous].next = next;
            self.links[next].previous = previous;
        }
    }

    /// Undoes the last [`Entries::lift`] that is not undone.
    fn put_back(&mut self, call: usize) {
        for at in [self.ends[self.links[call].op], call] {
            let Link { next, previous, .. } = self.links[at];
            self.links[previous].next = at;
            self.links[next].previous = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that begins with 0: writes of a value, reads of one.
    struct Register;

    enum Op {
        Write(u64),
        Read(u64),
    }

    impl Model for Register {
        type State = u64;
        type Op = Op;

        fn init(&self) -> u64 {
            0
        }

        fn step(&self, state: &u64, op: &Op) -> Option<u64> {
            match op {
                Op::Write(value) => Some(*value),
                Op::Read(value) => (value == state).then_some(*value),
            }
        }
    }

    fn verdict(ops: Vec<(u64, u64, Op)>) -> Verdict {
        let timed = ops.into_iter();
        let timed: Vec<Timed<Op>> = timed
            .map(|(call, end, op)| Timed { call, end, op })
            .collect();
        check(&Register, &timed, 10_000)
    }

    #[test]
    fn concurrent_operations_may_take_either_order() {
        let both = |seen| {
            verdict(vec![
                (0, 10, Op::Write(1)),
                (0, 10, Op::Write(2)),
                (11, 12, Op::Read(seen)),
            ])
        };
        assert_eq!(both(1), Verdict::Linearizable);
        assert_eq!(both(2), Verdict::Linearizable);
        assert_eq!(both(0), Verdict::Not);
        assert_eq!(verdict(Vec::new()), Verdict::Linearizable);
    }

    #[test]
    fn an_order_is_a_proof_only_if_it_is_whole_in_time_and_allowed() {
        let history = [
            (0, 5, Op::Write(1)),
            (0, 9, Op::Write(2)),
            (7, 8, Op::Read(1)),
        ];
        let history = history.map(|(call, end, op)| Timed { call, end, op });
        let is_proof = |order: &[usize]| proves(&Register, &history, order);
        assert!(is_proof(&[1, 0, 2]));
        assert!(is_proof(&[0, 2, 1]));
        assert!(!is_proof(&[0, 1, 2]), "the read would see 2");
        assert!(!is_proof(&[2, 0, 1]), "the write of 1 had ended");
        assert!(!is_proof(&[0, 2]) && !is_proof(&[0, 2, 2]) && !is_proof(&[0, 2, 3]));
    }

    #[test]
    fn stale_read_is_not_linearizable() {
        let ops = vec![
            (0, 1, Op::Write(1)),
            (2, 3, Op::Read(1)),
            (4, 5, Op::Read(0)),
        ];
        assert_eq!(verdict(ops), Verdict::Not);
    }

    #[test]
    fn reads_that_disagree_on_the_order_of_writes_are_not_linearizable() {
        let ops = vec![
            (0, 1, Op::Write(1)),
            (0, 1, Op::Write(2)),
            (2, 3, Op::Read(1)),
            (4, 5, Op::Read(2)),
        ];
        assert_eq!(verdict(ops), Verdict::Not);
    }

    #[test]
    fn search_that_takes_too_long_says_so() {
        let ops: Vec<Timed<Op>> = (0..30)
            .map(|value| Timed {
                call: 0,
                end: 100,
                op: Op::Write(value),
            })
            .chain([Timed {
                call: 101,
                end: 102,
                op: Op::Read(77),
            }])
            .collect();
        assert_eq!(check(&Register, &ops, 1_000), Verdict::Unknown);
    }
}
