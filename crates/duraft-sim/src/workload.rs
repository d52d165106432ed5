//! What simulated clients ask of what state machine. A [`Workload`] of your own goes into
//! [`SimConfig::workload`](crate::SimConfig::workload); [`KeyValue`] is what runs otherwise.

use crate::linear::{Model, Timed, Verdict, check, proves};
use bytes::Bytes;
use duraft::{ApplyContext, SnapshotWork, StateMachine};
use duraft_disk::SplitMix64;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

/// A state machine that clients can also read from.
pub trait Machine: StateMachine {
    /// Answers a question without changing anything.
    fn query(&self, query: &[u8]) -> Bytes;
}

/// What a client wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// A command for the log.
    Command(Bytes),
    /// A linearizable read of the state machine.
    Query(Bytes),
}

/// What one client asked, when, and what it was told. Times are numbers of events; a client that was
/// told nothing certain about a command that took effect has no response, and its end is when the
/// first node applied the command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// The client. No client asks twice at a time.
    pub client: u64,
    /// When it asked.
    pub called: u64,
    /// When it was told, or the command had certainly taken effect.
    pub ended: u64,
    /// What it asked.
    pub request: Request,
    /// What it was told.
    pub response: Option<Bytes>,
    /// A command's place among all that were applied: the order that the log gave. Only a hint to whoever
    /// looks for an order; whether it is one that clients could have seen is to be checked.
    pub place: Option<u64>,
}

/// A state machine, what clients ask of it, and what must be true of the answers.
///
/// Whatever the workload is, the simulator checks that all nodes apply the same commands in the same
/// order, give the same answers to them and end with byte-equal snapshots, that each acknowledged
/// command was applied exactly once, and that reads show what was known before they were asked.
pub trait Workload: fmt::Debug + Send + Sync {
    /// The state machine at the beginning of a life, empty.
    fn machine(&self) -> Box<dyn Machine>;

    /// What a client asks next. Commands may have any content; the simulator puts a number before it
    /// that the state machine does not see.
    fn request(&self, client: u64, rng: &mut SplitMix64) -> Request;

    /// What a client asks next if it reads.
    fn query(&self, client: u64, rng: &mut SplitMix64) -> Bytes;

    /// Judges all that clients were told. Called once, when the run is over.
    fn judge(&self, calls: &[Call]) -> Result<(), String>;
}

/// Registers under a few keys: written, compared and exchanged, added to, and read, by command or
/// without one. Judged by linearizability, each key by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyValue {
    /// How many keys. A client uses one of two.
    pub keys: u64,
}

/// An operation on one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Get,
    Put(u32),
    /// From what to what.
    Exchange(u32, u32),
    /// Changes the value in a way that shows the order of changes.
    Append(u32),
}

impl Action {
    fn encode(self, key: u8) -> Bytes {
        let (kind, a, b) = match self {
            Action::Get => (0, 0, 0),
            Action::Put(value) => (1, value, 0),
            Action::Exchange(from, to) => (2, from, to),
            Action::Append(value) => (3, value, 0),
        };
        let head: [u8; 2] = [kind, key];
        Bytes::from([&head[..], &u32::to_le_bytes(a), &u32::to_le_bytes(b)].concat())
    }

    /// Anything that is no command reads key 0: a state machine must not stop at what it gets.
    fn decode(bytes: &[u8]) -> (u8, Action) {
        let word = |at: usize| {
            let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>);
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let action = match bytes.first() {
            Some(1) => Action::Put(word(2)),
            Some(2) => Action::Exchange(word(2), word(6)),
            Some(3) => Action::Append(word(2)),
            _ => Action::Get,
        };
        (bytes.get(1).copied().unwrap_or(0), action)
    }

    /// The value afterwards, and the answer.
    fn apply(self, value: u32) -> (u32, u32) {
        match self {
            Action::Get => (value, value),
            Action::Put(new) => (new, value),
            Action::Exchange(from, to) if from == value => (to, value),
            Action::Exchange(..) => (value, value),
            Action::Append(word) => {
                let new = value.wrapping_mul(31).wrapping_add(word);
                (new, new)
            }
        }
    }
}

/// The state machine of [`KeyValue`].
#[derive(Clone, Debug, Default)]
struct Registers(BTreeMap<u8, u32>);

impl StateMachine for Registers {
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let (key, action) = Action::decode(command);
        let value = self.0.entry(key).or_default();
        let (new, answer) = action.apply(*value);
        *value = new;
        Bytes::copy_from_slice(&answer.to_le_bytes())
    }

    fn snapshot(&self) -> SnapshotWork {
        let view = self.0.clone();
        Box::new(move |out| {
            for (key, value) in view {
                out.write_all(&[key])?;
                out.write_all(&value.to_le_bytes())?;
            }
            Ok(())
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        let entry = |b: &[u8]| (b[0], u32::from_le_bytes([b[1], b[2], b[3], b[4]]));
        self.0 = bytes.chunks_exact(5).map(entry).collect();
        Ok(())
    }
}

impl Machine for Registers {
    fn query(&self, query: &[u8]) -> Bytes {
        let (key, _) = Action::decode(query);
        let value = self.0.get(&key).copied().unwrap_or(0);
        Bytes::copy_from_slice(&value.to_le_bytes())
    }
}

impl KeyValue {
    /// Steps that the search for an order may take for one key.
    const STEPS_MAX: u64 = 300_000;

    fn key(&self, client: u64, rng: &mut SplitMix64) -> u8 {
        let key = (client + rng.below(2)) % self.keys.max(1);
        u8::try_from(key).unwrap_or(0)
    }

    /// The histories of all keys, in the form that a judge of linearizability takes.
    pub fn histories(calls: &[Call]) -> Vec<Vec<Timed<KeyOp>>> {
        let mut keys: BTreeMap<u8, Vec<Timed<KeyOp>>> = BTreeMap::new();
        for call in calls {
            let (bytes, is_query) = match &call.request {
                Request::Command(bytes) => (bytes, false),
                Request::Query(bytes) => (bytes, true),
            };
            let (key, action) = Action::decode(bytes);
            let response = call.response.as_ref();
            let answer =
                response.and_then(|r| r.first_chunk::<4>().map(|b| u32::from_le_bytes(*b)));
            let action = if is_query { Action::Get } else { action };
            keys.entry(key).or_default().push(Timed {
                call: call.called,
                end: call.ended,
                op: KeyOp {
                    action,
                    answer,
                    place: call.place,
                },
            });
        }
        keys.into_values().collect()
    }
}

/// An operation on one key, with its answer where one is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyOp {
    action: Action,
    answer: Option<u32>,
    place: Option<u64>,
}

impl KeyOp {
    /// The key's value after this operation, if it could have been answered so at `value`.
    pub fn step(&self, value: u32) -> Option<u32> {
        let (new, answer) = self.action.apply(value);
        self.answer.is_none_or(|told| told == answer).then_some(new)
    }
}

/// One key as a sequential object.
struct Key;

impl Model for Key {
    type State = u32;
    type Op = KeyOp;

    fn init(&self) -> u32 {
        0
    }

    fn step(&self, state: &u32, op: &KeyOp) -> Option<u32> {
        op.step(*state)
    }
}

impl Workload for KeyValue {
    fn machine(&self) -> Box<dyn Machine> {
        Box::new(Registers::default())
    }

    fn request(&self, client: u64, rng: &mut SplitMix64) -> Request {
        let key = self.key(client, rng);
        let word = |rng: &mut SplitMix64| u32::try_from(rng.below(1 << 20)).unwrap_or(0);
        let action = match rng.below(8) {
            0 => Action::Get,
            1 | 2 => Action::Append(word(rng)),
            // Small values, or none would ever be met.
            3 | 4 => Action::Exchange(word(rng) % 3, word(rng) % 3),
            5 => Action::Put(word(rng) % 3),
            _ => Action::Put(word(rng)),
        };
        Request::Command(action.encode(key))
    }

    fn query(&self, client: u64, rng: &mut SplitMix64) -> Bytes {
        Action::Get.encode(self.key(client, rng))
    }

    fn judge(&self, calls: &[Call]) -> Result<(), String> {
        for history in KeyValue::histories(calls) {
            if proves(&Key, &history, &order_of_the_log(&history)) {
                continue;
            }
            match check(&Key, &history, KeyValue::STEPS_MAX) {
                Verdict::Linearizable => {}
                Verdict::Unknown => return Err("D1: the search for an order takes too long".into()),
                Verdict::Not => {
                    return Err(format!(
                        "D1: what clients were told of one key has no order: {history:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The order that the log gave to the commands of a history, and reads where they fit: each as early as
/// its answer and what ended before it allow. Nothing says that it is a right one.
fn order_of_the_log(history: &[Timed<KeyOp>]) -> Vec<usize> {
    let (mut commands, mut reads): (Vec<usize>, Vec<usize>) =
        (0..history.len()).partition(|i| history[*i].op.place.is_some());
    commands.sort_by_key(|i| history[*i].op.place);
    reads.sort_by_key(|i| (history[*i].end, history[*i].call));
    let mut values = vec![0];
    for command in &commands {
        let value = values[values.len() - 1];
        values.push(history[*command].op.action.apply(value).0);
    }
    // After how many commands each read stands.
    let mut after: Vec<(usize, usize)> = Vec::with_capacity(reads.len());
    for read in reads {
        let Timed { call, op, .. } = history[read];
        let ended = commands.iter().rposition(|i| history[*i].end < call);
        let earlier = after.iter().filter(|(_, i)| history[*i].end < call);
        let earlier = earlier.map(|(place, _)| *place).max().unwrap_or(0);
        let first = earlier.max(ended.map_or(0, |last| last + 1));
        let fits = (first..values.len()).find(|place| op.step(values[*place]).is_some());
        after.push((fits.unwrap_or(first), read));
    }
    after.sort_by_key(|(place, i)| (*place, history[*i].call));
    let mut reads = after.into_iter().peekable();
    let mut order = Vec::with_capacity(history.len());
    for place in 0..values.len() {
        while let Some((_, read)) = reads.next_if(|(at, _)| *at == place) {
            order.push(read);
        }
        order.extend(commands.get(place));
    }
    order
}
