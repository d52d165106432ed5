//! A state machine and a workload of your own in the simulator: accounts that can be locked, and a
//! planted bug. `cargo run --release -p duraft-sim --example own_state_machine` finds it; with `fixed`
//! behind it, it finds nothing.
#![allow(clippy::print_stdout)]

use bytes::Bytes;
use duraft::{ApplyContext, SnapshotWork, StateMachine};
use duraft_disk::SplitMix64;
use duraft_sim::{Call, Machine, Request, Sim, SimConfig, Violation, Workload};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;

/// Money by account. A locked account pays nothing out.
#[derive(Default)]
struct Accounts {
    money: BTreeMap<u8, u64>,
    locked: BTreeSet<u8>,
    /// The planted bug: a snapshot forgets which accounts are locked.
    forgets_locks: bool,
}

impl StateMachine for Accounts {
    /// Commands: deposit (0), move (1), lock or unlock (2), which takes an account that has been paid
    /// into: snapshots go by these. The answer is 1 if it was done.
    fn apply(&mut self, _context: ApplyContext, command: &[u8]) -> Bytes {
        let [kind, account, other, amount] = command else {
            return Bytes::from_static(&[0]);
        };
        let amount = u64::from(*amount);
        let done = match kind {
            0 => {
                *self.money.entry(*account).or_default() += amount;
                true
            }
            1 => {
                let has = self.money.get(account).copied().unwrap_or(0);
                let may = has >= amount && !self.locked.contains(account);
                if may {
                    self.money.insert(*account, has - amount);
                    *self.money.entry(*other).or_default() += amount;
                }
                may
            }
            _ => {
                let there = self.money.contains_key(account);
                if there && !self.locked.remove(account) {
                    self.locked.insert(*account);
                }
                there
            }
        };
        Bytes::copy_from_slice(&[u8::from(done)])
    }

    fn snapshot(&self) -> SnapshotWork {
        let (money, mut locked) = (self.money.clone(), self.locked.clone());
        if self.forgets_locks {
            locked.clear();
        }
        Box::new(move |out| {
            for (account, amount) in money {
                out.write_all(&[account, u8::from(locked.contains(&account))])?;
                out.write_all(&amount.to_le_bytes())?;
            }
            Ok(())
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        self.money.clear();
        self.locked.clear();
        for entry in bytes.chunks_exact(10) {
            let amount = entry[2..]
                .first_chunk()
                .map_or(0, |b| u64::from_le_bytes(*b));
            self.money.insert(entry[0], amount);
            if entry[1] == 1 {
                self.locked.insert(entry[0]);
            }
        }
        Ok(())
    }
}

impl Machine for Accounts {
    /// All the money there is.
    fn query(&self, _query: &[u8]) -> Bytes {
        let sum: u64 = self.money.values().sum();
        Bytes::copy_from_slice(&sum.to_le_bytes())
    }
}

/// Clients that deposit, move and lock, and ask how much there is.
#[derive(Debug)]
struct Bank {
    forgets_locks: bool,
}

impl Workload for Bank {
    fn machine(&self) -> Box<dyn Machine> {
        Box::new(Accounts {
            forgets_locks: self.forgets_locks,
            ..Accounts::default()
        })
    }

    fn request(&self, _client: u64, rng: &mut SplitMix64) -> Request {
        let mut byte = |below| u8::try_from(rng.below(below)).unwrap_or(0);
        let (kind, account) = (byte(3), byte(4));
        Request::Command(Bytes::from(vec![kind, account, byte(4), byte(100)]))
    }

    fn query(&self, _client: u64, _rng: &mut SplitMix64) -> Bytes {
        Bytes::new()
    }

    /// Money comes in and never goes away: a read never shows less than one that ended before it began.
    fn judge(&self, calls: &[Call]) -> Result<(), String> {
        let reads: Vec<(&Call, u64)> = calls
            .iter()
            .filter(|call| matches!(call.request, Request::Query(_)))
            .filter_map(|call| {
                let sum = call.response.as_ref()?.first_chunk()?;
                Some((call, u64::from_le_bytes(*sum)))
            })
            .collect();
        for (later, sum) in &reads {
            let before = reads.iter().filter(|(call, _)| call.ended < later.called);
            if let Some((_, more)) = before
                .max_by_key(|(_, sum)| *sum)
                .filter(|(_, more)| more > sum)
            {
                return Err(format!("money is gone: {more} was seen, then {sum}"));
            }
        }
        Ok(())
    }
}

/// Runs seeds until something is found.
pub(crate) fn search(forgets_locks: bool, seeds: u64) -> Option<Box<Violation>> {
    (0..seeds).find_map(|seed| {
        let mut config = SimConfig::from_seed(seed);
        config.workload = Arc::new(Bank { forgets_locks });
        Sim::new(config).run(500).err()
    })
}

#[allow(dead_code)]
fn main() {
    let fixed = std::env::args().any(|arg| arg == "fixed");
    match search(!fixed, 100) {
        Some(violation) => println!("found: {violation}"),
        None => println!("100 seeds, nothing found"),
    }
}
