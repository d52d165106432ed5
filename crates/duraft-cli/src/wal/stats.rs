//! `duraft wal stats`.

use super::text::{Bucket, Powers, bytes, ratio};
use super::{Problem, look};
use crate::output::publish;
use clap::Args;
use duraft_storage::inspect::{LogRecord, Settled, Sight, SlotUse, View};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

pub(super) const EXAMPLES: &str = "\
Examples:
  duraft wal stats /var/lib/app/node-1
  duraft wal stats /var/lib/app/node-1 --json | jq .write_amplification";

/// Version of the JSON layout.
const SCHEMA: u32 = 1;

/// Flags of `duraft wal stats`.
#[derive(Args)]
pub(super) struct StatsArgs {
    /// Folder of the node's store.
    dir: PathBuf,

    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// What the log costs. All bytes are of the segments that the log has now; what was compacted before is
/// not known any more.
#[derive(Serialize, Default)]
struct Stats {
    schema: u32,
    node: u64,
    slot_bytes: u64,
    slots: Slots,
    segments: usize,
    /// Entries and batches of the log of all groups.
    live: Amount,
    /// Entries and batches that stand in the segments, superseded ones too.
    stored: Amount,
    commits: u64,
    receipts: u64,
    fences: u64,
    bytes: Bytes,
    bytes_per_entry: f64,
    write_amplification: f64,
    space_amplification: f64,
    entries_per_batch: Histogram,
    bytes_per_batch: Histogram,
    batches_per_commit: Histogram,
    bytes_per_commit: Histogram,
    /// Segments whose slots were used anew while this was counted: not in the figures.
    reused: u64,
    /// Durable commits that cannot be read: not in the figures.
    holes: usize,
}

#[derive(Serialize, Default)]
struct Slots {
    free: u64,
    live: u64,
    spent: u64,
    unknown: u64,
}

#[derive(Serialize, Default)]
struct Amount {
    batches: u64,
    entries: u64,
    bytes: u64,
}

/// Where the bytes of the commits go.
#[derive(Serialize, Default)]
struct Bytes {
    written: u64,
    commands: u64,
    other_payload: u64,
    descriptors: u64,
    headers: u64,
    padding: u64,
}

#[derive(Serialize, Default)]
struct Histogram {
    count: u64,
    mean: f64,
    max: u64,
    buckets: Vec<Bucket>,
}

impl From<&Powers> for Histogram {
    fn from(powers: &Powers) -> Histogram {
        Histogram {
            count: powers.total,
            mean: ratio(powers.sum, powers.total),
            max: powers.max,
            buckets: powers.buckets(),
        }
    }
}

#[derive(Default)]
struct Counting {
    entries: Powers,
    batch_bytes: Powers,
    batches: Powers,
    commit_bytes: Powers,
    /// Batches of the present commit, and whether it holds anything of a user.
    in_commit: u64,
}

pub(super) fn run(args: &StatsArgs) -> Result<ExitCode, Problem> {
    let (mut view, settled) = look(&args.dir)?;
    let stats = count(&mut view).map_err(|source| Problem::Store {
        path: args.dir.clone(),
        source,
    })?;
    publish(&stats, args.json)?;
    Ok(ExitCode::from(match settled {
        Settled::Sound => 0,
        Settled::Confirmed => 1,
        Settled::Restless => 2,
    }))
}

fn count(view: &mut View) -> Result<Stats, duraft_storage::OpenError> {
    let mut stats = Stats {
        schema: SCHEMA,
        node: view.store.node.0,
        slot_bytes: view.store.slot_bytes,
        segments: view.segments.len(),
        holes: view.holes.len(),
        ..Stats::default()
    };
    for slot in &view.slots {
        let count = match slot.state {
            SlotUse::Free => &mut stats.slots.free,
            SlotUse::Live(_) => &mut stats.slots.live,
            SlotUse::Spent(_) => &mut stats.slots.spent,
            SlotUse::Unknown => &mut stats.slots.unknown,
        };
        *count += 1;
    }
    for batch in view.groups.values().flat_map(|group| &group.batches) {
        stats.live.add(batch.header.count, batch.header.body_len);
    }
    let mut counting = Counting::default();
    view.walk(|sight| counting.see(sight, &mut stats))?;
    counting.end_commit();
    let slots = view.slots.len() as u64;
    stats.bytes_per_entry = ratio(stats.bytes.written, stats.stored.entries);
    stats.write_amplification = ratio(stats.bytes.written, stats.bytes.commands);
    stats.space_amplification = ratio(slots * stats.slot_bytes, stats.live.bytes);
    stats.entries_per_batch = (&counting.entries).into();
    stats.bytes_per_batch = (&counting.batch_bytes).into();
    stats.batches_per_commit = (&counting.batches).into();
    stats.bytes_per_commit = (&counting.commit_bytes).into();
    Ok(stats)
}

impl Amount {
    fn add(&mut self, entries: u32, bytes: u32) {
        self.batches += 1;
        self.entries += u64::from(entries);
        self.bytes += u64::from(bytes);
    }
}

impl Counting {
    fn see(&mut self, sight: Sight<'_>, stats: &mut Stats) {
        match sight {
            Sight::Segment(_) => {}
            Sight::Reused(_) => stats.reused += 1,
            Sight::Hole(..) => {}
            Sight::Block(block) => {
                self.end_commit();
                stats.commits += 1;
                stats.receipts += u64::from(block.receipt);
                stats.fences += u64::from(block.fence);
                let descriptors = u64::from(block.records) * 64;
                let used = 64 + descriptors + u64::from(block.payload_bytes);
                stats.bytes.written += block.bytes;
                stats.bytes.headers += 64;
                stats.bytes.descriptors += descriptors;
                stats.bytes.other_payload += u64::from(block.payload_bytes);
                stats.bytes.padding += block.bytes - used;
                if !block.receipt {
                    self.commit_bytes.add(block.bytes);
                }
            }
            Sight::Record(_, LogRecord::Batch { header, .. }, _) => {
                let bytes = u64::from(header.body_len);
                stats.stored.add(header.count, header.body_len);
                stats.bytes.commands += bytes;
                // Payloads were counted whole with their block, each padded to eight bytes.
                stats.bytes.other_payload -= bytes;
                self.entries.add(header.count.into());
                self.batch_bytes.add(bytes);
                self.in_commit += 1;
            }
            Sight::Record(..) => {}
        }
    }

    fn end_commit(&mut self) {
        let batches = std::mem::take(&mut self.in_commit);
        if batches > 0 {
            self.batches.add(batches);
        }
    }
}

fn bars(f: &mut fmt::Formatter<'_>, name: &str, histogram: &Histogram, size: bool) -> fmt::Result {
    let number = |value: u64| {
        if size {
            bytes(value)
        } else {
            value.to_string()
        }
    };
    writeln!(
        f,
        "{name}: {} in all, mean {:.1}, largest {}",
        histogram.count,
        histogram.mean,
        number(histogram.max)
    )?;
    let most = histogram
        .buckets
        .iter()
        .map(|bucket| bucket.count)
        .max()
        .unwrap_or(1);
    for bucket in &histogram.buckets {
        let width = usize::try_from(bucket.count * 40 / most).unwrap_or(40);
        let bar = "#".repeat(width.max(usize::from(bucket.count > 0)));
        let range = if bucket.from == bucket.to || bucket.to == 1 {
            number(bucket.to)
        } else if size {
            format!("from {}", bytes(bucket.from))
        } else {
            format!("{} to {}", bucket.from, bucket.to)
        };
        writeln!(f, "  {range:>16} {:>9}  {bar}", bucket.count)?;
    }
    Ok(())
}

impl Stats {
    /// Where the bytes go.
    fn costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.bytes;
        let share =
            |part: u64| format!("{} ({:.1} %)", bytes(part), 100.0 * ratio(part, b.written));
        writeln!(f, "written           {}", bytes(b.written))?;
        writeln!(f, "  commands        {}", share(b.commands))?;
        writeln!(f, "  other payload   {}", share(b.other_payload))?;
        writeln!(f, "  descriptors     {}", share(b.descriptors))?;
        writeln!(f, "  headers         {}", share(b.headers))?;
        writeln!(f, "  padding         {}", share(b.padding))?;
        writeln!(
            f,
            "per entry         {:.1} bytes written",
            self.bytes_per_entry
        )?;
        writeln!(
            f,
            "write amplification {:.2}: bytes written for each byte of batches",
            self.write_amplification
        )?;
        writeln!(
            f,
            "space amplification {:.2}: bytes of all slots for each byte of the log",
            self.space_amplification
        )
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Slots {
            free,
            live,
            spent,
            unknown,
        } = &self.slots;
        let all = free + live + spent + unknown;
        writeln!(f, "node {}", self.node)?;
        writeln!(
            f,
            "slots             {all} of {}: {live} hold the log, {spent} can be used again, {free} were never \
             used, {unknown} have no header",
            bytes(self.slot_bytes)
        )?;
        writeln!(f, "segments          {}", self.segments)?;
        writeln!(
            f,
            "log               {} entries in {} batches, {}",
            self.live.entries,
            self.live.batches,
            bytes(self.live.bytes)
        )?;
        writeln!(
            f,
            "in the segments   {} entries in {} batches, {}; the rest was cut off or compacted",
            self.stored.entries,
            self.stored.batches,
            bytes(self.stored.bytes)
        )?;
        writeln!(
            f,
            "commits           {}, of them {} receipts and {} after an open",
            self.commits, self.receipts, self.fences
        )?;
        self.costs(f)?;
        bars(f, "entries per batch", &self.entries_per_batch, false)?;
        bars(f, "bytes per batch", &self.bytes_per_batch, true)?;
        bars(f, "batches per commit", &self.batches_per_commit, false)?;
        bars(f, "bytes per commit", &self.bytes_per_commit, true)?;
        if self.reused > 0 {
            writeln!(
                f,
                "{} segments were used anew while this was counted and are left out",
                self.reused
            )?;
        }
        if self.holes > 0 {
            writeln!(
                f,
                "DAMAGED: {} ranges of commits cannot be read and are left out. See duraft wal verify",
                self.holes
            )?;
        }
        Ok(())
    }
}
