//! `duraft wal dump`.

use super::decoder::Decoder;
use super::text::{Members, hex, shown};
use super::{Problem, look, slot_file};
use crate::output::Out;
use bytes::Bytes;
use clap::Args;
use duraft_core::{
    BatchHeader, BatchKind, Commands, GroupId, Index, Membership, Position, Snapshot,
};
use duraft_storage::inspect::{
    BlockFacts, BodyError, GroupFacts, LogRecord, SegmentFacts, Settled, Sight, StoredBatch, View,
};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub(super) const EXAMPLES: &str = "\
Examples:
  duraft wal dump /var/lib/app/node-1
  duraft wal dump /var/lib/app/node-1 --from 1000 --to 1010 --entries
  duraft wal dump /var/lib/app/node-1 --json | jq 'select(.type == \"batch\")'
  duraft wal dump /var/lib/app/node-1 --decoder 'while read -r hex; do echo \"$hex\" | xxd -r -p; echo; done'
  duraft wal dump /var/lib/app/node-1 --raw";

/// Bytes of a command that a line of text shows.
const SHOWN_BYTES: usize = 120;

/// Flags of `duraft wal dump`.
#[derive(Args)]
pub(super) struct DumpArgs {
    /// Folder of the node's store.
    dir: PathBuf,

    /// Only this group.
    #[arg(long)]
    group: Option<u64>,

    /// Only batches that reach this index.
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,

    /// Only batches that begin at or before this index.
    #[arg(long, value_name = "INDEX")]
    to: Option<u64>,

    /// A line for each command, too.
    #[arg(long)]
    entries: bool,

    /// Everything as it stands on disk, in the order it was written: segments, commits, checkpoints,
    /// receipts, and batches that were cut off or compacted later.
    #[arg(long)]
    raw: bool,

    /// A program that says what a command means: it gets each command's bytes on a line of hexadecimal
    /// digits and answers with one line. Run by `sh -c`, once. Implies --entries.
    #[arg(long, value_name = "CMD", conflicts_with = "raw")]
    decoder: Option<String>,

    /// Longest time for one answer of the decoder.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "decoder",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    decoder_seconds: u64,

    /// A JSON object per line. Commands are hexadecimal digits.
    #[arg(long)]
    json: bool,
}

struct Dump<'a> {
    args: &'a DumpArgs,
    out: Out,
    decoder: Option<Decoder>,
    /// Something of what was asked for could not be shown.
    missing: bool,
}

pub(super) fn run(args: &DumpArgs) -> Result<ExitCode, Problem> {
    let (mut view, settled) = look(&args.dir)?;
    if let Some(group) = args.group
        && !view.groups.contains_key(&GroupId(group))
    {
        let known = view.groups.keys().map(|id| id.0).collect();
        return Err(Problem::NoGroup { group, known });
    }
    let patience = Duration::from_secs(args.decoder_seconds);
    let decoder = args.decoder.as_deref();
    let decoder = decoder.map(|command| Decoder::start(command, patience));
    let mut dump = Dump {
        args,
        out: Out::new(),
        decoder: decoder.transpose()?,
        missing: false,
    };
    dump.store(&view)?;
    if args.raw {
        dump.raw(&mut view)?;
    } else {
        for (id, group) in &view.groups {
            if args.group.is_none_or(|wanted| wanted == id.0) {
                dump.group(&view, *id, group)?;
            }
        }
    }
    let code = dump.verdict(&view, settled)?;
    dump.out.done()?;
    Ok(code)
}

impl Dump<'_> {
    /// One fact, as text or as JSON.
    fn say(&mut self, text: &str, value: Value) -> Result<(), Problem> {
        let written = if self.args.json {
            self.out.json(&value)
        } else {
            self.out.line(text)
        };
        Ok(written?)
    }

    fn store(&mut self, view: &View) -> Result<(), Problem> {
        let store = &view.store;
        let text = format!(
            "store {} of node {}, cluster {}: {} segments in {} slots of {}",
            hex(&store.store),
            store.node,
            store.cluster,
            view.segments.len(),
            view.slots.len(),
            super::text::bytes(store.slot_bytes),
        );
        let value = json!({
            "type": "store", "store": hex(&store.store), "node": store.node.0,
            "cluster": store.cluster.to_string(), "slot_bytes": store.slot_bytes,
            "segments": view.segments.len(), "slots": view.slots.len(),
        });
        self.say(&text, value)
    }

    fn group(&mut self, view: &View, id: GroupId, group: &GroupFacts) -> Result<(), Problem> {
        let members = Members::of(&group.membership);
        let vote = group.hard_state.vote;
        let text = format!(
            "group {id}: entries {} to {}; term {}, vote {}; at its beginning {members}; snapshot {}",
            group.start.index().next(),
            group.end.index(),
            group.hard_state.term,
            vote.map_or(String::from("none"), |vote| vote.to_string()),
            group
                .snapshot
                .as_ref()
                .map_or(String::from("none"), snapshot_text),
        );
        let value = json!({
            "type": "group", "group": id.0, "start": position(&group.start),
            "end": position(&group.end), "term": group.hard_state.term.0,
            "vote": vote.map(|vote| vote.0), "membership": members,
            "snapshot": group.snapshot.as_ref().map(snapshot),
        });
        self.say(&text, value)?;
        let mut gaps = group.missing().into_iter().peekable();
        for batch in &group.batches {
            while let Some((first, last)) = gaps.next_if(|(first, _)| *first < batch.header.first) {
                self.gap(id, first, last)?;
            }
            if self.is_wanted(batch.header.first, batch.header.last()) {
                self.batch(view, batch)?;
            }
        }
        for (first, last) in gaps {
            self.gap(id, first, last)?;
        }
        Ok(())
    }

    fn is_wanted(&self, first: Index, last: Index) -> bool {
        let from = self.args.from.unwrap_or(0);
        let to = self.args.to.unwrap_or(u64::MAX);
        last.0 >= from && first.0 <= to
    }

    fn gap(&mut self, group: GroupId, first: Index, last: Index) -> Result<(), Problem> {
        if !self.is_wanted(first, last) {
            return Ok(());
        }
        self.missing = true;
        let text = format!("  {first}..{last}  MISSING: durable, and cannot be read");
        let value = json!({"type": "missing", "group": group.0, "first": first.0, "last": last.0});
        self.say(&text, value)
    }

    fn batch(&mut self, view: &View, batch: &StoredBatch) -> Result<(), Problem> {
        let body = match view.body(batch) {
            Ok(body) => body,
            Err(problem) => return self.bodiless(batch, &problem),
        };
        let body = Bytes::from(body);
        let mut value = batch_value(&batch.header);
        value.insert("segment".into(), batch.segment.into());
        value.insert("slot".into(), batch.slot.into());
        value.insert("commit".into(), batch.commit.into());
        value.insert("at".into(), batch.body_at.into());
        let mut text = format!(
            "  {}  at {}:{}, commit {}",
            batch_text(&batch.header),
            slot_file(batch.slot),
            batch.body_at,
            batch.commit
        );
        text.push_str(&contents(&batch.header, &body, &mut value));
        let commands = match batch.header.kind {
            BatchKind::Commands => Commands::parse(body, batch.header.count),
            BatchKind::Membership | BatchKind::Noop => return self.say(&text, value.into()),
        };
        let commands = match commands {
            Ok(commands) => commands,
            Err(problem) => {
                self.missing = true;
                value.insert("problem".into(), problem.to_string().into());
                return self.say(&format!("{text}  PROBLEM: {problem}"), value.into());
            }
        };
        let mut lines = Vec::new();
        let mut decoded = Vec::new();
        let mut bytes = Vec::new();
        for (index, command) in (batch.header.first.0..).zip(commands.iter()) {
            if !self.is_wanted(Index(index), Index(index)) {
                continue;
            }
            let (session, command) = untagged(batch.header.codec, &command);
            let answer = match &mut self.decoder {
                Some(decoder) => Some(decoder.decode(index, command)?),
                None => None,
            };
            let shown = answer
                .clone()
                .unwrap_or_else(|| shown(command, SHOWN_BYTES));
            lines.push(format!("    {index}  {session}{shown}"));
            bytes.push(json!({"index": index, "hex": hex(command), "session": session.trim_end()}));
            decoded.extend(answer.map(|text| json!({"index": index, "text": text})));
        }
        value.insert("commands".into(), bytes.into());
        if self.decoder.is_some() {
            value.insert("decoded".into(), decoded.into());
        }
        self.say(&text, value.into())?;
        if (self.args.entries || self.decoder.is_some()) && !self.args.json {
            for line in lines {
                self.out.line(line)?;
            }
        }
        Ok(())
    }

    fn bodiless(&mut self, batch: &StoredBatch, problem: &BodyError) -> Result<(), Problem> {
        let reused = matches!(problem, BodyError::Reused { .. });
        self.missing |= !reused;
        let word = if reused { "GONE" } else { "UNREADABLE" };
        let text = format!("  {}  {word}: {problem}", batch_text(&batch.header));
        let mut value = batch_value(&batch.header);
        value.insert(word.to_lowercase(), problem.to_string().into());
        self.say(&text, value.into())
    }

    /// Everything as it stands.
    fn raw(&mut self, view: &mut View) -> Result<(), Problem> {
        let mut said = Ok(());
        let walked = view.walk(|sight| {
            if said.is_ok() {
                said = self.sight(sight);
            }
        });
        said?;
        walked.map_err(|source| Problem::Store {
            path: self.args.dir.clone(),
            source,
        })
    }

    fn sight(&mut self, sight: Sight<'_>) -> Result<(), Problem> {
        match sight {
            Sight::Segment(segment) => self.segment(segment),
            Sight::Block(block) => self.block(block),
            Sight::Record(_, record, body) => self.record(record, body),
            Sight::Hole(hole, place) => {
                self.missing = true;
                let text = format!("  HOLE: {hole}");
                let value = json!({
                    "type": "hole", "segment": hole.segment, "slot": hole.slot,
                    "first_commit": hole.first, "last_commit": hole.last,
                    "from": place.map(|(from, _)| from), "to": place.map(|(_, to)| to),
                });
                self.say(&text, value)
            }
            Sight::Reused(segment) => {
                let text = format!(
                    "segment {} GONE: the node uses slot {} anew since this command began",
                    segment.segment, segment.slot
                );
                let value =
                    json!({"type": "gone", "segment": segment.segment, "slot": segment.slot});
                self.say(&text, value)
            }
        }
    }

    fn segment(&mut self, segment: &SegmentFacts) -> Result<(), Problem> {
        let end = segment.sealed_at;
        let text = format!(
            "segment {} in {}, open {}, from commit {}{}",
            segment.segment,
            slot_file(segment.slot),
            segment.generation,
            segment.base_commit,
            end.map_or(String::from(", the tail"), |(commit, _)| format!(
                " to commit {commit}"
            )),
        );
        let value = json!({
            "type": "segment", "segment": segment.segment, "slot": segment.slot,
            "generation": segment.generation, "first_live": segment.first_live,
            "base_commit": segment.base_commit, "previous": segment.previous,
            "wallclock_ns": segment.wallclock_ns, "last_commit": end.map(|(commit, _)| commit),
        });
        self.say(&text, value)
    }

    fn block(&mut self, block: &BlockFacts) -> Result<(), Problem> {
        let words = [
            (block.fence, "fence"),
            (block.receipt, "receipt"),
            (block.close, "orderly close"),
            (!block.proven, "not proven yet"),
        ];
        let words: Vec<&str> = words
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, word)| *word)
            .collect();
        let text = format!(
            "  commit {} at {}+{}, {} records, {} was durable{}{}",
            block.commit,
            block.at,
            block.bytes,
            block.records,
            block.watermark,
            if words.is_empty() { "" } else { "; " },
            words.join(", ")
        );
        let value = json!({
            "type": "commit", "commit": block.commit, "segment": block.segment,
            "slot": block.slot, "at": block.at, "bytes": block.bytes, "records": block.records,
            "payload_bytes": block.payload_bytes, "watermark": block.watermark,
            "generation": block.generation, "fence": block.fence, "receipt": block.receipt,
            "close": block.close, "proven": block.proven,
        });
        self.say(&text, value)
    }

    fn record(&mut self, record: &LogRecord, body: &[u8]) -> Result<(), Problem> {
        let of_group = |wanted: u64| record.group().is_none_or(|group| group.0 == wanted);
        if !self.args.group.is_none_or(of_group) {
            return Ok(());
        }
        if let LogRecord::Batch { header, .. } = record {
            if !self.is_wanted(header.first, header.last()) {
                return Ok(());
            }
            let mut value = batch_value(header);
            value.insert("hex".into(), hex(body).into());
            let text = format!("    BATCH group {}  {}", header.group, batch_text(header));
            let text = text + &contents(header, body, &mut value);
            return self.say(&text, value.into());
        }
        let (name, value) = record_value(record);
        let text = format!("    {name} {}", flat(&value));
        let mut value = value;
        value.insert("type".into(), name.to_lowercase().into());
        self.say(&text, value.into())
    }

    fn verdict(&mut self, view: &View, settled: Settled) -> Result<ExitCode, Problem> {
        let (word, code) = match settled {
            Settled::Sound if !self.missing => return Ok(ExitCode::SUCCESS),
            Settled::Sound | Settled::Confirmed => ("damaged", 1),
            Settled::Restless => ("restless", 2),
        };
        let what = match (&view.damage, settled) {
            (_, Settled::Restless) => String::from(
                "THE STORE CHANGES FASTER THAN IT CAN BE READ: what seems to be missing may not be. \
                 Try again, or stop the node",
            ),
            (Some(damage), _) => format!("DAMAGED: {damage}"),
            (None, _) => {
                String::from("DAMAGED: durable commits cannot be read; nothing is lost by it")
            }
        };
        let text = format!("{what}. See duraft wal verify");
        self.say(
            &text,
            json!({"type": "verdict", "verdict": word, "what": what}),
        )?;
        Ok(ExitCode::from(code))
    }
}

fn batch_text(header: &BatchHeader) -> String {
    let kind = match header.kind {
        BatchKind::Commands => "commands",
        BatchKind::Membership => "membership",
        BatchKind::Noop => "no-op",
    };
    format!(
        "{}..{}  term {}  {kind}  {} bytes",
        header.first,
        header.last(),
        header.term,
        header.body_len
    )
}

fn batch_value(header: &BatchHeader) -> Map<String, Value> {
    let value = json!({
        "type": "batch", "group": header.group.0, "first": header.first.0,
        "last": header.last().0, "term": header.term.0, "count": header.count,
        "kind": match header.kind {
            BatchKind::Commands => "commands",
            BatchKind::Membership => "membership",
            BatchKind::Noop => "noop",
        },
        "codec": header.codec, "bytes": header.body_len,
        "digest": format!("{:016x}", header.digest.0),
    });
    object(&value)
}

/// What a membership batch says.
fn contents(header: &BatchHeader, body: &[u8], value: &mut Map<String, Value>) -> String {
    if header.kind != BatchKind::Membership {
        return String::new();
    }
    match Membership::decode(body) {
        Ok(membership) => {
            let members = Members::of(&membership);
            let text = format!(": {members}");
            value.insert("membership".into(), json!(members));
            text
        }
        Err(problem) => format!(": {problem}"),
    }
}

/// What a command of a tagged batch is to the sessions, and the command itself. See the module
/// `sessions` of the crate `duraft`.
fn untagged(codec: u16, command: &[u8]) -> (String, &[u8]) {
    if codec & duraft::TAGGED_CODEC == 0 {
        return (String::new(), command);
    }
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    match command.split_first() {
        Some((0, command)) => (String::new(), command),
        Some((1, rest)) => match rest.as_chunks::<8>() {
            ([session, number, _, ..], _) => (
                format!("session {} number {} ", word(session), word(number)),
                &rest[24..],
            ),
            _ => (String::from("session? "), rest),
        },
        Some((2, _)) => (String::from("opens a session "), &[]),
        Some((3, rest)) => match rest.as_chunks::<8>() {
            ([session, ..], _) => (format!("closes session {} ", word(session)), &[]),
            _ => (String::from("closes a session "), &[]),
        },
        Some(_) | None => (String::from("of an unknown kind "), command),
    }
}

/// The fields of a value that is an object.
fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn position(at: &Position) -> Value {
    json!({"index": at.index().0, "term": at.term().0, "digest": format!("{:016x}", at.digest.0)})
}

fn snapshot(snapshot: &Snapshot) -> Value {
    json!({
        "position": position(&snapshot.position), "bytes": snapshot.file.bytes,
        "file": duraft_storage::SnapshotName::of(snapshot).to_string(),
    })
}

fn snapshot_text(snapshot: &Snapshot) -> String {
    format!(
        "{} ({})",
        snapshot.position.id,
        duraft_storage::SnapshotName::of(snapshot)
    )
}

/// A record other than a batch: its name in the format, and its fields.
fn record_value(record: &LogRecord) -> (&'static str, Map<String, Value>) {
    let state = |state: &duraft_core::HardState| json!({"term": state.term.0, "vote": state.vote.map(|vote| vote.0)});
    let (name, value) = match record {
        LogRecord::Batch { header, .. } => ("BATCH", Value::Object(batch_value(header))),
        LogRecord::HardState {
            group,
            state: hard,
            echo,
        } => (
            if *echo { "ECHO" } else { "HARD_STATE" },
            json!({"group": group.0, "term": hard.term.0, "vote": hard.vote.map(|vote| vote.0)}),
        ),
        LogRecord::Truncate { group, keep } => (
            "TRUNCATE",
            json!({"group": group.0, "keep": position(keep)}),
        ),
        LogRecord::Compact {
            group,
            upto,
            membership,
        } => (
            "COMPACT",
            json!({"group": group.0, "upto": position(upto), "membership": Members::of(membership)}),
        ),
        LogRecord::Snapshot {
            group,
            snapshot: taken,
            reset,
        } => (
            "SNAPSHOT",
            json!({"group": group.0, "snapshot": snapshot(taken), "reset": reset}),
        ),
        LogRecord::Checkpoint {
            group,
            state: hard,
            start,
            end,
            membership,
            snapshot: taken,
        } => (
            "GROUP_STATE",
            json!({
                "group": group.0, "state": state(hard), "start": position(start),
                "end": position(end), "membership": Members::of(membership),
                "snapshot": taken.as_ref().map(snapshot),
            }),
        ),
        LogRecord::CheckpointEnd { count } => ("CHECKPOINT_END", json!({"count": count})),
        LogRecord::Damage {
            group,
            lost_suffix,
            vote_uncertain,
            floor,
            missing,
        } => (
            "DAMAGE",
            json!({
                "group": group.0, "lost_suffix": lost_suffix, "vote_uncertain": vote_uncertain,
                "floor": floor.to_string(),
                "missing": missing.iter().map(|(first, last)| [first.0, last.0]).collect::<Vec<_>>(),
            }),
        ),
        LogRecord::Healed { group, all } => (
            "REPAIR",
            json!({"group": group.0, "healed": if *all { "all" } else { "vote" }}),
        ),
        LogRecord::Repair { group, note } => (
            "REPAIR",
            json!({"group": group.0, "decision": note.to_string()}),
        ),
        LogRecord::Table {
            since,
            partial,
            groups,
        } => (
            "TABLE",
            json!({
                "since": since, "partial": partial,
                "groups": groups.iter().map(|(group, end, hard)| json!({
                    "group": group.0, "end": position(end), "state": state(hard),
                })).collect::<Vec<_>>(),
            }),
        ),
    };
    (name, object(&value))
}

/// A JSON object as one line of words.
fn flat(value: &Map<String, Value>) -> String {
    let word = |value: &Value| {
        let text = value.as_str().map(str::to_owned);
        text.unwrap_or_else(|| value.to_string())
    };
    let place =
        |map: &Map<String, Value>| Some(format!("{}@{}", map.get("index")?, map.get("term")?));
    let pairs = value.iter().map(|(name, value)| {
        let text = value
            .as_object()
            .and_then(place)
            .unwrap_or_else(|| word(value));
        format!("{name} {text}")
    });
    pairs.collect::<Vec<_>>().join(", ")
}
