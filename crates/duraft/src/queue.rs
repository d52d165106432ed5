//! The bounded queue between threads: many producers, one consumer that takes everything at once.
//!
//! Items carry a cost, usually bytes. Two ways in, for two kinds of producer: [`Queue::push_wait`]
//! waits for room (socket readers, who pass the pressure on to the peer), and [`Queue::push_exempt`]
//! never waits, for items whose number is bounded elsewhere (completions of what was asked for,
//! commands that hold a permit). The consumer is woken only when it sleeps.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Instant;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    room: Condvar,
    cost_max: u64,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    cost: u64,
    closed: bool,
    consumer_sleeps: bool,
    producers_wait: usize,
}

/// What the consumer finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// At least one item.
    Items,
    /// Nothing came in time.
    TimedOut,
    /// Nothing is left and nothing will come.
    Closed,
}

impl<T> Queue<T> {
    /// A queue that holds items of this total cost; an empty one admits any item.
    pub(crate) fn new(cost_max: u64) -> Queue<T> {
        Queue {
            state: Mutex::new(State {
                items: VecDeque::new(),
                cost: 0,
                closed: false,
                consumer_sleeps: false,
                producers_wait: 0,
            }),
            ready: Condvar::new(),
            room: Condvar::new(),
            cost_max,
        }
    }

    /// Adds an item, waiting for room. Gives it back when the queue is closed.
    pub(crate) fn push_wait(&self, item: T, cost: u64) -> Result<(), T> {
        let mut state = self.state.lock();
        while !state.closed && !self.has_room(&state, cost) {
            state.producers_wait += 1;
            self.room.wait(&mut state);
            state.producers_wait -= 1;
        }
        if state.closed {
            return Err(item);
        }
        self.add(&mut state, item, cost);
        Ok(())
    }

    /// Adds an item, or gives it back when there is no room or the queue is closed.
    pub(crate) fn push_or_drop(&self, item: T, cost: u64) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed || !self.has_room(&state, cost) {
            return Err(item);
        }
        self.add(&mut state, item, cost);
        Ok(())
    }

    /// Adds an item whose number is bounded elsewhere. Gives it back when the queue is closed.
    pub(crate) fn push_exempt(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        self.add(&mut state, item, 0);
        Ok(())
    }

    /// Moves everything into `into`, which must be empty, waiting until `until` (or for ever) for a
    /// first item.
    pub(crate) fn take_all(&self, into: &mut VecDeque<T>, until: Option<Instant>) -> Taken {
        assert!(into.is_empty(), "the consumer has finished the last turn");
        let mut state = self.state.lock();
        while state.items.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            state.consumer_sleeps = true;
            let timed_out = match until {
                Some(until) => self.ready.wait_until(&mut state, until).timed_out(),
                None => {
                    self.ready.wait(&mut state);
                    false
                }
            };
            state.consumer_sleeps = false;
            if timed_out && state.items.is_empty() {
                return Taken::TimedOut;
            }
        }
        std::mem::swap(&mut state.items, into);
        state.cost = 0;
        if state.producers_wait > 0 {
            self.room.notify_all();
        }
        Taken::Items
    }

    /// No item comes in any more; what is there can still be taken.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
        self.room.notify_all();
    }

    /// Drops what is left in a closed queue, without holding its lock.
    pub(crate) fn discard(&self) {
        let left = std::mem::take(&mut self.state.lock().items);
        drop(left);
    }

    fn has_room(&self, state: &State<T>, cost: u64) -> bool {
        state.cost == 0 || state.cost.saturating_add(cost) <= self.cost_max
    }

    fn add(&self, state: &mut State<T>, item: T, cost: u64) {
        state.items.push_back(item);
        state.cost += cost;
        if state.consumer_sleeps {
            // Cleared here so that a burst of producers pays for one wake-up.
            state.consumer_sleeps = false;
            self.ready.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn exempt_items_need_no_room() {
        let queue = Queue::new(10);
        assert_eq!(
            queue.push_wait('a', 50),
            Ok(()),
            "an empty queue admits any item"
        );
        assert_eq!(queue.push_exempt('b'), Ok(()));
        let mut taken = VecDeque::new();
        assert_eq!(queue.take_all(&mut taken, None), Taken::Items);
        assert_eq!(taken, ['a', 'b']);
    }

    #[test]
    fn closed_queue_is_emptied_first() {
        let queue = Queue::new(10);
        assert_eq!(queue.push_wait(1, 1), Ok(()));
        queue.close();
        assert_eq!(queue.push_exempt(2), Err(2));
        assert_eq!(queue.push_wait(2, 1), Err(2));
        let mut taken = VecDeque::new();
        assert_eq!(queue.take_all(&mut taken, None), Taken::Items);
        taken.clear();
        assert_eq!(queue.take_all(&mut taken, None), Taken::Closed);
    }

    #[test]
    fn waiting_producers_and_consumer_lose_nothing() {
        // Four producers through a queue with room for one item: every hand-over waits.
        let queue = Arc::new(Queue::new(1));
        let producers: Vec<_> = (0..4u64)
            .map(|p| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    for i in 0..1000 {
                        queue.push_wait(p * 1000 + i, 1).expect("the queue is open");
                    }
                })
            })
            .collect();
        let mut seen = Vec::new();
        let mut taken = VecDeque::new();
        while seen.len() < 4000 {
            assert_eq!(queue.take_all(&mut taken, None), Taken::Items);
            seen.extend(taken.drain(..));
        }
        for producer in producers {
            producer.join().expect("producers do not panic");
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..4000).collect::<Vec<_>>());
    }
}
