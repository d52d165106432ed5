//! The format page against the code: a reader that was written from `docs/wal-format.md` alone
//! (`duraft_tests::from_text`) reads what the log leaves, after histories of several lives and after
//! power losses, and must find the same records and the same state as the shipped recovery.

use super::drive::{self, Plan};
use super::engine;
use super::model::GroupState;
use super::plan;
use duraft_core::{BatchKind, Membership, NodeId, Position, Snapshot};
use duraft_disk::{Disk, FaultDisk, Subsets, for_each_crash_state};
use duraft_storage::RepairKind;
use duraft_storage::inspect::{LogRecord, Sight, View};
use duraft_tests::from_text::wal::empty;
use duraft_tests::from_text::{Group, Page, Place, SnapshotContent, Store, Tables, Trouble};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

fn page(name: &str) -> Page {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let text = std::fs::read_to_string(root.join(name)).expect("a page of the book");
    Page::parse(&text)
}

/// All of a file.
fn content(disk: &FaultDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(name).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    let read = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

fn read(tables: &Tables, disk: &FaultDisk) -> Result<Store, Trouble> {
    let slots: Vec<(String, Vec<u8>)> = disk
        .list("wal")
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| Some((name.clone(), content(disk, &format!("wal/{name}"))?)))
        .collect();
    Store::read(tables, content(disk, "STORE").as_deref(), &slots)
}

fn place(position: &Position) -> Place {
    Place {
        index: position.index().0,
        term: position.term().0,
        digest: position.digest.0,
    }
}

fn show_place(position: &Position) -> String {
    let at = place(position);
    format!("{} {} {:016x}", at.index, at.term, at.digest)
}

fn show_membership(membership: &Membership) -> String {
    format!("membership {:02x?}", membership.encode())
}

fn show_vote(vote: Option<NodeId>) -> String {
    format!("{:?}", vote.map(|node| node.0))
}

fn show_snapshot(snapshot: Option<&Snapshot>) -> String {
    snapshot.map_or_else(
        || "without snapshot".into(),
        |s| {
            format!(
                "snapshot {} file {:016x} {} {:016x} {}",
                show_place(&s.position),
                s.file.nonce,
                s.file.bytes,
                s.file.digest,
                show_membership(&s.membership)
            )
        },
    )
}

fn kind(kind: BatchKind) -> u8 {
    match kind {
        BatchKind::Commands => 1,
        BatchKind::Membership => 2,
        BatchKind::Noop => 3,
    }
}

/// A record as the shipped inspection shows it, in the words of the reader.
fn show_record(record: &LogRecord) -> String {
    match record {
        LogRecord::Batch { header, .. } => format!(
            "BATCH group {} kind {} codec {} first {} count {} term {} digest {:016x} body {}",
            header.group.0,
            kind(header.kind),
            header.codec,
            header.first.0,
            header.count,
            header.term.0,
            header.digest.0,
            header.body_len
        ),
        LogRecord::HardState { group, state, echo } => format!(
            "{} group {} term {} vote {}",
            if *echo { "ECHO" } else { "HARD_STATE" },
            group.0,
            state.term.0,
            show_vote(state.vote)
        ),
        LogRecord::Truncate { group, keep } => {
            format!("TRUNCATE group {} at {}", group.0, show_place(keep))
        }
        LogRecord::Compact {
            group,
            upto,
            membership,
        } => {
            let membership = show_membership(membership);
            format!(
                "COMPACT group {} at {} {membership}",
                group.0,
                show_place(upto)
            )
        }
        LogRecord::Snapshot {
            group,
            snapshot,
            reset,
        } => {
            let shown = show_snapshot(Some(snapshot));
            format!("SNAPSHOT group {} {shown} reset {reset}", group.0)
        }
        LogRecord::Checkpoint {
            group,
            state,
            start,
            end,
            membership,
            snapshot,
        } => format!(
            "GROUP_STATE group {} term {} vote {} from {} to {} {} {}",
            group.0,
            state.term.0,
            show_vote(state.vote),
            show_place(start),
            show_place(end),
            show_membership(membership),
            show_snapshot(snapshot.as_ref())
        ),
        LogRecord::CheckpointEnd { count } => format!("CHECKPOINT_END {count}"),
        LogRecord::Damage { group, .. } => format!("DAMAGE group {}", group.0),
        LogRecord::Healed { group, all: true } => format!("HEALED group {}", group.0),
        LogRecord::Healed { group, all: false } => format!("VOTE CERTAIN group {}", group.0),
        LogRecord::Repair { group, note } => format!(
            "REPAIR group {} kind {} {} to {} in {} at {}",
            group.0,
            match note.kind {
                RepairKind::LossAccepted => 3,
                RepairKind::ConfigurationForced => 4,
            },
            note.first.0,
            note.last.0,
            note.generation,
            note.wallclock_ns
        ),
        LogRecord::Table {
            since,
            partial,
            groups,
        } => {
            let mut line = format!("TABLE since {since} partial {partial}");
            for (group, end, state) in groups {
                line += &format!(
                    ", group {} {} term {} vote {}",
                    group.0,
                    show_place(end),
                    state.term.0,
                    show_vote(state.vote)
                );
            }
            line
        }
    }
}

/// Everything in the log, as the shipped inspection shows it.
fn shown_by_inspection(disk: &FaultDisk) -> Vec<String> {
    let mut view = View::take(disk).expect("a sound store");
    assert!(view.is_sound(), "{:?}", view.damage);
    let mut lines = Vec::new();
    let walked = view.walk(|sight| match sight {
        Sight::Segment(facts) => {
            lines.push(format!(
                "segment {} in slot {} of open {} at {} needs {} begins with {}",
                facts.segment,
                facts.slot,
                facts.generation,
                facts.wallclock_ns,
                facts.first_live,
                facts.base_commit
            ));
        }
        Sight::Block(facts) => lines.push(format!(
            "commit {} at {} watermark {} of open {} receipt {} fence {}",
            facts.commit, facts.at, facts.watermark, facts.generation, facts.receipt, facts.fence
        )),
        Sight::Record(_, record, _) => lines.push(show_record(record)),
        other @ (Sight::Hole(..) | Sight::Reused(_)) => panic!("a sound store shows {other:?}"),
    });
    walked.expect("a sound store");
    lines
}

/// What the shipped recovery found of a group, in the words of the reader.
fn in_words(state: &GroupState) -> Group {
    Group {
        term: state.hard.term.0,
        vote: state.hard.vote.map(|node| node.0),
        start: place(&state.start),
        end: place(&state.end()),
        membership: state.membership.to_vec(),
        batches: state
            .batches
            .iter()
            .map(|batch| duraft_tests::from_text::Batch {
                group: batch.header.group.0,
                kind: kind(batch.header.kind),
                codec: batch.header.codec,
                count: batch.header.count,
                first: batch.header.first.0,
                term: batch.header.term.0,
                digest: batch.header.digest.0,
                body_sum: batch.header.body_checksum,
                body: batch.body.to_vec(),
            })
            .collect(),
        snapshot: state
            .snapshot
            .as_ref()
            .map(|snapshot| duraft_tests::from_text::Snapshot {
                place: place(&snapshot.position),
                nonce: snapshot.file.nonce,
                length: snapshot.file.bytes,
                digest: snapshot.file.digest,
                membership: snapshot.membership.encode(),
            }),
        damaged: false,
    }
}

/// Counts of what was compared.
#[derive(Default, Debug)]
struct Compared {
    states: u64,
    records: usize,
    batches: usize,
    files: usize,
    words: BTreeSet<String>,
}

/// Reads the disk both ways and compares.
fn compare(
    tables: &Tables,
    files: &Page,
    disk: &FaultDisk,
    plan: &Plan,
    seed: u64,
    compared: &mut Compared,
) {
    let told = read(tables, disk);
    let told = told.unwrap_or_else(|trouble| panic!("{trouble:?} of a sound store, {plan:?}"));
    assert_eq!(told.lines, shown_by_inspection(disk), "{plan:?}");
    let (_, found) = engine::open(&disk.fork(), &plan.setup, seed)
        .unwrap_or_else(|refusal| panic!("{refusal:?}, {plan:?}"));
    let named: Vec<u64> = found.0.keys().map(|group| group.0).collect();
    assert_eq!(told.groups.keys().copied().collect::<Vec<_>>(), named);
    for (group, state) in &found.0 {
        let read = &told.groups[&group.0];
        assert_eq!(read, &in_words(state), "{plan:?}");
        compared.batches += read.batches.len();
        let Some(snapshot) = &read.snapshot else {
            continue;
        };
        let name = format!(
            "snap/{:016x}/{:016x}-{:016x}-{:016x}.snap",
            group.0, snapshot.place.index, snapshot.place.term, snapshot.nonce
        );
        let file = content(disk, &name).expect("the file that the log names");
        assert_eq!(file.len() as u64, snapshot.length);
        let content = SnapshotContent::read(files, &file).expect("a whole file");
        assert_eq!(content.cluster, told.cluster);
        assert_eq!(content.place, snapshot.place);
        assert_eq!(content.digest, snapshot.digest);
        assert_eq!(content.membership, snapshot.membership);
        assert_eq!(content.data, engine::content_of(snapshot.nonce));
        compared.files += 1;
    }
    compared.states += 1;
    compared.records += told.lines.len();
    let words = told.lines.iter().filter_map(|line| line.split(' ').next());
    compared.words.extend(words.map(str::to_owned));
}

/// Lives and power losses of these plans; every so many crash states are read both ways.
fn search(plans: &[Plan], every: u64) -> Compared {
    let tables = Tables::of(&page("wal-format.md"));
    let files = page("snapshot-format.md");
    let mut compared = Compared::default();
    let mut met = 0;
    for plan in plans {
        let base = drive::base(plan).map_err(|story| story.0).expect("healthy");
        compare(&tables, &files, &base.disk, plan, 1, &mut compared);
        for mutation in 1.. {
            let disk = base.disk.fork();
            disk.crash_at(mutation);
            let lived = drive::live(&disk, plan, plan.seed, 12, &base.expected, &mut |_, _| {});
            let lived = lived.map_err(|story| story.0).expect("healthy");
            let subsets = Subsets {
                drawn: 6,
                exhaustive_max: 3,
                seed: mutation,
                ..Subsets::default()
            };
            let _ = for_each_crash_state(&disk, &subsets, |state| {
                met += 1;
                if met % every == 0 {
                    compare(&tables, &files, &state.disk, plan, met, &mut compared);
                }
                ControlFlow::<()>::Continue(())
            });
            if lived.end == drive::End::Finished {
                break;
            }
        }
    }
    compared
}

#[test]
fn what_the_format_pages_say_is_what_is_on_the_disk() {
    // A text that leaves a rule out, or names a wrong place, is noticed by nobody who has the code.
    let mut plans = Vec::new();
    for (seed, sector, slot) in [
        (1, 4096, 16),
        (2, 512, 32),
        (3, 1024, 24),
        (4, 2048, 20),
        (5, 4096, 32),
    ] {
        plans.push(plan(seed, sector, slot));
    }
    let compared = search(&plans, 3);
    println!("read from the text alone: {compared:?}");
    let enough = compared.states > 800 && compared.records > 40_000;
    assert!(enough && compared.batches > 6_000 && compared.files > 1_500);
    for word in [
        "BATCH",
        "HARD_STATE",
        "TRUNCATE",
        "COMPACT",
        "SNAPSHOT",
        "GROUP_STATE",
        "CHECKPOINT_END",
        "ECHO",
        "TABLE",
    ] {
        assert!(compared.words.contains(word), "no {word} was met");
    }
}

/// The page's text with one number of the first column of a byte table raised; `None` behind the last.
fn moved(text: &str, nth: usize) -> Option<(String, String)> {
    let mut in_table = false;
    let mut met = 0;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in &mut lines {
        in_table = line.starts_with("| at | size |") || in_table && line.starts_with('|');
        let cells: Vec<&str> = line.split('|').collect();
        let at = cells
            .get(1)
            .and_then(|cell| cell.trim().parse::<u32>().ok());
        let Some(at) = at.filter(|_| in_table) else {
            continue;
        };
        met += 1;
        if met == nth {
            let field = line.clone();
            // Half a field on, where it has several bytes.
            *line = format!("| {} |{}", at + 1, cells[2..].join("|"));
            return Some((field, lines.join("\n")));
        }
    }
    None
}

#[test]
fn no_field_that_means_something_can_be_moved_in_the_tables_unseen() {
    // A wrong offset in the page must make the reader fail or read something else.
    let name = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/wal-format.md");
    let text = std::fs::read_to_string(name).expect("a page of the book");
    let plan = plan(3, 1024, 24);
    let base = drive::base(&plan)
        .map_err(|story| story.0)
        .expect("healthy");
    let truth = read(&Tables::of(&Page::parse(&text)), &base.disk).expect("sound");
    let mut unseen = Vec::new();
    let mut fields = 0;
    for nth in 1.. {
        let Some((field, text)) = moved(&text, nth) else {
            break;
        };
        fields += 1;
        // Without the field, or with one that reaches past its bytes, the reader panics.
        let told = duraft_tests::quietly(|| read(&Tables::of(&Page::parse(&text)), &base.disk));
        let same = |told: &Store| {
            let known = |store: &Store| (store.cluster.clone(), store.node, store.slot_bytes);
            let more = |store: &Store| (store.identity.clone(), store.max_batch_bytes);
            told.lines == truth.lines
                && told.groups == truth.groups
                && known(told) == known(&truth)
                && more(told) == more(&truth)
        };
        if told.is_ok_and(|told| told.is_ok_and(|told| same(&told))) {
            unseen.push(field);
        }
    }
    assert!(fields > 60, "{fields} fields");
    // What is zero in this version or in these tests, magic numbers, which stand first, what begins a
    // part whose place the text tells by words, and an index that matters only where something is lost.
    let dull = [
        "magic",
        "zero",
        "wall clock",
        "incompatible",
        "flags, 0",
        "codec | 0",
        "directory",
        "the membership",
        "last membership batch",
    ];
    let dull = |field: &String| dull.iter().any(|word| field.contains(word));
    unseen.retain(|field| !dull(field));
    assert!(unseen.is_empty(), "moved unseen:\n{}", unseen.join("\n"));
}

#[test]
fn byte_tables_of_the_pages_have_no_seams_and_end_where_the_structures_end() {
    // A field that is left out, or counted twice, moves all that follow.
    let ends = [
        ("wal-format.md", "STORE", 4096),
        ("wal-format.md", "Segment header", 4096),
        ("wal-format.md", "Commit block", 64),
        ("wal-format.md", "Descriptor", 64),
        ("wal-format.md", "Group checkpoint", 80),
        ("snapshot-format.md", "Header", 4096),
        ("snapshot-format.md", "Chunk", 12),
        ("snapshot-format.md", "Footer", 40),
        ("snapshot-format.md", "Content", 12),
    ];
    for (name, title, end) in ends {
        let table = page(name).table(title);
        assert_eq!(table.seam(), None, "{name}");
        assert_eq!(table.end(), end, "{name}: {title}");
    }
    assert_eq!(page("wal-format.md").tables().count(), 5);
    assert_eq!(page("snapshot-format.md").tables().count(), 4);
}

#[test]
fn a_store_that_nobody_has_written_to_is_read_from_the_text() {
    let tables = Tables::of(&page("wal-format.md"));
    let plan = plan(7, 4096, 32);
    let disk = drive::blank(&plan);
    assert_eq!(read(&tables, &disk).err(), Some(Trouble::NoStore));
    engine::bootstrap(&disk, &plan.setup, 7).expect("a fresh disk");
    let told = read(&tables, &disk).expect("a sound store");
    assert_eq!(told.node, 1);
    assert_eq!(told.cluster, [7; 16]);
    assert_eq!(told.slot_bytes, plan.setup.slot_bytes);
    assert_eq!(told.max_batch_bytes, 512);
    assert_eq!(told.groups.len() as u64, plan.setup.groups);
    for group in told.groups.values() {
        assert_eq!((group.start, group.end), (empty(), empty()));
    }
}
