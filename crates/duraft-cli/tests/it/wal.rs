//! `duraft wal` as a user runs it: on a sound store, on damaged ones, and on one that is being written.

use crate::common::{flip, image, json, program, run, said, scratch};
use duraft_core::{GroupId, Membership, NodeId, Position, Term, Write, WriteSeq};
use duraft_disk::{Disk, RealDisk};
use duraft_storage::inspect::View;
use duraft_storage::{
    ClusterId, Entropy, StoreIdentity, Submission, Wal, WalOptions, bootstrap, commands_body, open,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const GROUP: GroupId = GroupId(1);

fn identity() -> StoreIdentity {
    StoreIdentity {
        cluster: ClusterId(*b"a cluster of one"),
        node: NodeId(1),
        max_batch_bytes: 4096,
    }
}

fn options() -> WalOptions {
    WalOptions {
        slot_bytes: 64 << 10,
        slots_ready_min: 1,
        slots_max: 64,
        mark_every_commits: 4,
        commit_bytes_max: 8 << 10,
        queue_bytes_max: 16 << 10,
        cache_bytes_max: 4096,
        ..WalOptions::default()
    }
}

/// A log that goes on, two commands in a batch, one batch in a commit.
struct Life {
    wal: Wal,
    seq: WriteSeq,
    end: Position,
}

impl Life {
    fn begin(dir: &Path, voters: u64) -> Life {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::create(dir).expect("a folder"));
        let entropy = |seed| Entropy {
            seed,
            wallclock_ns: 5,
        };
        let membership = Membership::new((1..=voters).map(NodeId), []).expect("voters");
        let groups = [(GROUP, membership)];
        bootstrap(&disk, &identity(), &options(), entropy(1), &groups).expect("a fresh store");
        let opened = open(disk, &identity(), options(), entropy(2));
        let (wal, _) = opened.expect("it opens");
        Life {
            wal,
            seq: WriteSeq(0),
            end: Position::START,
        }
    }

    fn write(&mut self) -> Write {
        self.seq = self.seq.next();
        Write {
            seq: self.seq,
            hard_state: (self.seq == WriteSeq(1)).then_some(duraft_core::HardState {
                term: Term(3),
                vote: Some(NodeId(1)),
            }),
            snapshot: None,
            truncate: None,
            append: Vec::new(),
            compact: None,
            healed: None,
        }
    }

    fn commit(&mut self) {
        let first = self.end.index().0 + 1;
        let commands: Vec<String> = (first..first + 2).map(text_of).collect();
        let body = commands_body(commands.iter().map(String::as_bytes), 0).expect("a body");
        let batch = body.seal(GROUP, &self.end, Term(3)).expect("a place");
        self.end = batch.header.position();
        let write = Write {
            append: vec![batch],
            ..self.write()
        };
        self.submit(write);
    }

    /// Everything up to here is in a snapshot, whose file these tests do not have.
    fn compact(&mut self) {
        let snapshot = duraft_core::Snapshot {
            position: self.end,
            membership: Membership::new([NodeId(1)], []).expect("one voter"),
            file: duraft_core::SnapshotFile {
                nonce: 7,
                bytes: 5000,
                digest: 1,
            },
        };
        let write = Write {
            snapshot: Some(duraft_core::SnapshotWrite {
                snapshot,
                reset: false,
            }),
            compact: Some(self.end),
            ..self.write()
        };
        self.submit(write);
    }

    fn submit(&mut self, write: Write) {
        let submission = Submission {
            group: GROUP,
            write,
        };
        self.wal.commit(&[submission]).expect("committed");
        self.wal.preparer().turn().expect("a slot");
    }
}

fn text_of(index: u64) -> String {
    format!("command number {index:05}")
}

/// A store with so many commits, closed in order.
fn store(dir: &Path, commits: u64, voters: u64) {
    let mut life = Life::begin(dir, voters);
    (0..commits).for_each(|_| life.commit());
    life.wal.close().expect("closed");
}

fn wal(dir: &Path, what: &str, more: &[&str]) -> Output {
    run(program().args(["wal", what]).arg(dir).args(more))
}

/// Flips a bit of this command.
fn flip_command(dir: &Path, index: u64) -> PathBuf {
    flip(&dir.join("wal"), text_of(index).as_bytes())
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let parse = |line: &str| serde_json::from_str(line).expect("each line is JSON");
    text.lines().map(parse).collect()
}

#[test]
fn a_sound_store_is_shown_checked_and_counted_and_no_byte_changes() {
    let dir = scratch();
    store(dir.path(), 30, 1);
    let before = image(dir.path());

    let dump = wal(dir.path(), "dump", &["--json"]);
    assert_eq!(dump.status.code(), Some(0), "{}", said(&dump));
    let values = lines(&dump);
    let batches: Vec<&Value> = values.iter().filter(|v| v["type"] == "batch").collect();
    assert_eq!(batches.len(), 30);
    assert_eq!(batches[29]["last"], 60);
    let hex = batches[0]["commands"][1]["hex"]
        .as_str()
        .expect("hex digits");
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits"))
        .collect();
    assert_eq!(bytes, text_of(2).as_bytes());
    assert_eq!(values[0]["node"], 1);
    assert_eq!(values[1]["term"], 3);

    let some = wal(
        dir.path(),
        "dump",
        &["--from", "10", "--to", "11", "--entries"],
    );
    let text = said(&some);
    for part in [&text_of(10), &text_of(11), "9..10", "11..12"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in [&text_of(9), &text_of(12), "13..14", "7..8"] {
        assert!(!text.contains(part), "{part}: {text}");
    }

    let raw = said(&wal(dir.path(), "dump", &["--raw"]));
    for part in [
        "segment",
        "fence",
        "GROUP_STATE",
        "CHECKPOINT_END",
        "HARD_STATE",
        "BATCH",
        "receipt",
    ] {
        assert!(raw.contains(part), "{part}: {raw}");
    }
    let raw = lines(&wal(dir.path(), "dump", &["--raw", "--json"]));
    assert!(raw.iter().filter(|v| v["type"] == "commit").count() > 30);

    let verify = wal(dir.path(), "verify", &[]);
    assert_eq!(verify.status.code(), Some(0), "{}", said(&verify));
    assert!(said(&verify).ends_with("CLEAN\n"), "{}", said(&verify));
    let report = json(&wal(dir.path(), "verify", &["--json"]));
    assert_eq!(
        (&report["verdict"], &report["exit"]),
        (&"clean".into(), &0.into())
    );
    assert_eq!(report["checked"]["commands"], 60, "{report}");

    let stats = json(&wal(dir.path(), "stats", &["--json"]));
    assert_eq!(stats["live"]["entries"], 60);
    assert_eq!(stats["entries_per_batch"]["mean"], 2.0);
    let bytes = &stats["bytes"];
    let part = |name: &str| bytes[name].as_u64().expect("a number");
    let parts = [
        "commands",
        "other_payload",
        "descriptors",
        "headers",
        "padding",
    ];
    assert_eq!(
        part("written"),
        parts.iter().map(|name| part(name)).sum::<u64>()
    );
    let text = said(&wal(dir.path(), "stats", &[]));
    assert!(
        text.contains("write amplification") && text.contains('#'),
        "{text}"
    );

    let repair = wal(dir.path(), "repair", &[]);
    assert_eq!(repair.status.code(), Some(0), "{}", said(&repair));
    assert!(
        said(&repair).contains("NOTHING TO REPAIR"),
        "{}",
        said(&repair)
    );
    assert!(image(dir.path()) == before, "something was changed");
}

#[test]
fn a_store_that_may_not_be_written_can_be_looked_at() {
    use std::os::unix::fs::PermissionsExt;
    let dir = scratch();
    store(dir.path(), 3, 1);
    for path in image(dir.path()).into_keys() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444)).expect("changed");
    }
    for what in ["dump", "verify", "stats"] {
        let output = wal(dir.path(), what, &[]);
        assert_eq!(output.status.code(), Some(0), "{what}: {}", said(&output));
    }
}

#[test]
fn a_flipped_bit_is_damage_with_place_meaning_and_advice() {
    for (voters, advice) in [(1, "accept-loss"), (3, "RepairFromPeers")] {
        let dir = scratch();
        store(dir.path(), 30, voters);
        let file = flip_command(dir.path(), 21);
        let verify = wal(dir.path(), "verify", &[]);
        assert_eq!(verify.status.code(), Some(1), "{}", said(&verify));
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        for part in [
            name.as_str(),
            "what",
            "means",
            "do ",
            advice,
            "DAMAGED",
            "21 to 22",
        ] {
            assert!(said(&verify).contains(part), "{part}: {}", said(&verify));
        }
        let dump = wal(dir.path(), "dump", &[]);
        assert_eq!(dump.status.code(), Some(1));
        let text = said(&dump);
        assert!(text.contains("21..22  MISSING"), "{text}");
        assert!(text.contains("23..24") && text.contains("19..20"), "{text}");
        let stats = wal(dir.path(), "stats", &[]);
        assert_eq!(stats.status.code(), Some(1));
        assert!(said(&stats).contains("DAMAGED"), "{}", said(&stats));
    }
}

#[test]
fn a_torn_tail_is_no_damage() {
    let dir = scratch();
    let mut life = Life::begin(dir.path(), 1);
    (0..7).for_each(|_| life.commit());
    drop(life);
    let disk = RealDisk::open(dir.path()).expect("the folder");
    let view = View::take(&disk).expect("a look");
    let last = *view.groups[&GROUP].batches.last().expect("a batch");
    flip_command(dir.path(), last.header.first.0);
    let verify = wal(dir.path(), "verify", &[]);
    assert_eq!(verify.status.code(), Some(0), "{}", said(&verify));
    assert!(said(&verify).contains("torn tail"), "{}", said(&verify));
    let dump = wal(dir.path(), "dump", &["--json"]);
    assert_eq!(dump.status.code(), Some(0));
    let batches = lines(&dump).iter().filter(|v| v["type"] == "batch").count();
    assert_eq!(batches, 6);
}

#[test]
fn a_snapshot_that_the_log_counts_on_and_that_is_not_there_is_damage() {
    let dir = scratch();
    let mut life = Life::begin(dir.path(), 1);
    (0..7).for_each(|_| life.commit());
    life.compact();
    life.wal.close().expect("closed");
    let verify = wal(dir.path(), "verify", &["--json"]);
    assert_eq!(verify.status.code(), Some(1), "{}", said(&verify));
    let report = json(&verify);
    let found = &report["findings"][0];
    assert_eq!(found["level"], "damage");
    assert!(
        found["where"]
            .as_str()
            .is_some_and(|place| place.starts_with("snap/")),
        "{found}"
    );
}

#[test]
fn a_copy_is_repaired_and_says_what_it_costs() {
    let dir = scratch();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    store(&source, 30, 1);
    flip_command(&source, 21);
    let before = image(&source);

    for flags in [&[][..], &["--to", &copy.display().to_string(), "--dry-run"]] {
        let dry = wal(&source, "repair", flags);
        assert_eq!(dry.status.code(), Some(1), "{}", said(&dry));
        for part in [
            "NOTHING WAS WRITTEN",
            "GUARANTEE LOST",
            "would be dropped: entries 21 to 60",
        ] {
            assert!(said(&dry).contains(part), "{part}: {}", said(&dry));
        }
        assert!(!copy.exists(), "only a report");
    }
    let to = copy.display().to_string();
    let done = wal(&source, "repair", &["--to", &to, "--json"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let group = &json(&done)["groups"][0];
    assert_eq!((&group["first"], &group["last"]), (&21.into(), &60.into()));
    assert_eq!(group["intact_dropped"], 38);
    assert!(image(&source) == before, "the store itself is as it was");
    let verify = wal(&copy, "verify", &[]);
    assert_eq!(verify.status.code(), Some(0), "{}", said(&verify));
    assert!(
        said(&verify).contains("people decided: loss of indices 21 to 60"),
        "{}",
        said(&verify)
    );
    let dump = lines(&wal(&copy, "dump", &["--json"]));
    let batches: Vec<&Value> = dump.iter().filter(|v| v["type"] == "batch").collect();
    assert_eq!(batches.last().expect("a batch")["last"], 20);

    let again = wal(&source, "repair", &["--to", &to]);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(
        said(&again).contains("is there already"),
        "{}",
        said(&again)
    );
}

#[test]
fn a_store_in_use_can_be_looked_at_and_not_copied() {
    let dir = scratch();
    let mut life = Life::begin(dir.path(), 1);
    (0..7).for_each(|_| life.commit());
    for what in ["dump", "verify", "stats"] {
        let output = wal(dir.path(), what, &[]);
        assert_eq!(output.status.code(), Some(0), "{what}: {}", said(&output));
    }
    let repair = wal(dir.path(), "repair", &[]);
    assert_eq!(repair.status.code(), Some(2), "{}", said(&repair));
    assert!(
        said(&repair).contains("stop the node first"),
        "{}",
        said(&repair)
    );
    // The tools leave no lock behind.
    life.commit();
}

#[test]
fn a_store_that_is_written_meanwhile_is_never_called_damaged() {
    // Segments of thirteen blocks, used anew all the time, next to commands that read them.
    let dir = scratch();
    let mut life = Life::begin(dir.path(), 1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut commits = 0u64;
            while !stop.load(Ordering::Relaxed) {
                life.commit();
                commits += 1;
                if commits.is_multiple_of(20) {
                    life.compact();
                }
            }
            commits
        });
        let mut problems = Vec::new();
        for what in ["verify", "dump", "stats", "verify", "dump"] {
            let output = wal(dir.path(), what, &["--json"]);
            // 2: the store changes too fast to tell. The snapshots that this log names have no files,
            // which verify finds, and nothing else.
            let found = json_findings(what, &output);
            if output.status.code() == Some(1) && what != "verify" || !found.is_empty() {
                problems.push(format!("{what}: {}", said(&output)));
            }
        }
        stop.store(true, Ordering::Relaxed);
        let commits = writer.join().expect("the writer goes on");
        assert!(commits > 0);
        assert!(problems.is_empty(), "{problems:?}");
    });
}

/// Damage that `verify` found, but for snapshot files.
fn json_findings(what: &str, output: &Output) -> Vec<String> {
    if what != "verify" {
        return Vec::new();
    }
    let report = json(output);
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let damage = |finding: &&Value| {
        let place = finding["where"].as_str().unwrap_or_default();
        finding["level"] == "damage" && !place.starts_with("snap/")
    };
    findings
        .iter()
        .filter(damage)
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_decoder_says_what_commands_mean_and_its_failures_are_reported() {
    let dir = scratch();
    store(dir.path(), 3, 1);
    let decode = |decoder: &str| {
        wal(
            dir.path(),
            "dump",
            &["--decoder", decoder, "--decoder-seconds", "1"],
        )
    };
    let good = decode("while read -r hex; do echo \"means ${#hex}\"; done");
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert_eq!(
        said(&good).matches("means 40").count(),
        6,
        "{}",
        said(&good)
    );
    let as_json = wal(
        dir.path(),
        "dump",
        &["--json", "--decoder", "sed -u s/^/x/"],
    );
    let values = lines(&as_json);
    let first = values
        .iter()
        .find(|v| v["type"] == "batch")
        .expect("a batch");
    let text = first["decoded"][0]["text"].as_str().expect("its answer");
    assert!(text.starts_with("x636f6d6d616e64"), "{text}");

    for (decoder, expected) in [
        ("exit 3", "ended (exit status: 3)"),
        ("read -r one; echo one; exit 0", "entry 2"),
        ("cat > /dev/null", "did not answer within 1s"),
        ("head -c 70000 /dev/zero", "more than 65536 bytes"),
        ("no-such-program-here", "ended (exit status: 127)"),
    ] {
        let output = decode(decoder);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{decoder}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains(expected),
            "{decoder}: {}",
            said(&output)
        );
    }
}

#[test]
fn what_cannot_be_told_is_exit_code_2_with_a_reason() {
    let dir = scratch();
    let nowhere = dir.path().join("nowhere");
    for what in ["dump", "verify", "stats", "repair"] {
        let output = wal(&nowhere, what, &[]);
        assert_eq!(output.status.code(), Some(2), "{what}");
        assert!(said(&output).contains("nowhere"), "{}", said(&output));
        let output = wal(dir.path(), what, &[]);
        assert_eq!(output.status.code(), Some(2), "{what}");
        assert!(said(&output).contains("STORE"), "{what}: {}", said(&output));
        let output = wal(dir.path(), what, &["--no-such-flag"]);
        assert_eq!(output.status.code(), Some(2), "{what}");
        let help = said(&wal(dir.path(), what, &["--help"]));
        assert!(
            help.contains("Examples:\n") && help.contains("Exit codes"),
            "{help}"
        );
    }
    store(&nowhere, 3, 1);
    let output = wal(&nowhere, "dump", &["--group", "9"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("no group 9; it has 1"),
        "{}",
        said(&output)
    );
    // A store of a newer version: the version fields of both copies, with their checksums.
    let mut bytes = std::fs::read(nowhere.join("STORE")).expect("readable");
    for copy in 0..2 {
        let block = &mut bytes[copy * 4096..][..4096];
        block[4] = 9;
        let sum = duraft_storage::body_checksum(&block[..4092]);
        block[4092..].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(nowhere.join("STORE"), &bytes).expect("written");
    let output = wal(&nowhere, "verify", &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("newer"), "{}", said(&output));
    // Both copies of the file gone: damaged.
    bytes.fill(1);
    std::fs::write(nowhere.join("STORE"), &bytes).expect("written");
    let output = wal(&nowhere, "verify", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = scratch();
    store(dir.path(), 30, 1);
    let line = format!(
        "'{}' wal dump '{}' --raw | head -1; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_duraft"),
        dir.path().display()
    );
    let output = run(Command::new("bash").args(["-c", &line]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}
