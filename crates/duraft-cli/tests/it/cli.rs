//! The program as a user runs it: bad flags, folders, results, exit codes.

use crate::common::{duraft, json_file, memory, path, scratch, text};

#[test]
fn bad_flags_are_refused_with_their_name_and_exit_code_2() {
    let cases: &[(&[&str], &str)] = &[
        (&["bench", "--clients", "0"], "--clients"),
        (&["bench", "--clients", "many"], "--clients"),
        (&["bench", "--seconds", "0"], "--seconds"),
        (&["bench", "--value-bytes", "3"], "--value-bytes"),
        (&["bench", "--rounds", "0"], "--rounds"),
        (&["bench", "wal", "--batch", "0"], "--batch"),
        (&["bench", "cluster", "--kill"], "--processes"),
        (&["bench", "--no-such-flag"], "--no-such-flag"),
        (&["bench", "nonsense"], "nonsense"),
        (&["nonsense"], "nonsense"),
    ];
    for (args, named) in cases {
        let output = duraft(*args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(named),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn help_names_every_subcommand() {
    let help = text(&duraft(&["bench", "--help"]).stdout);
    for named in [
        "cluster",
        "wal",
        "disk",
        "soak",
        "snapshot",
        "--clients",
        "--json",
        "--seed",
        "--dir",
    ] {
        assert!(help.contains(named), "{named} is missing in:\n{help}");
    }
    assert!(
        !help.contains("bench-node"),
        "internal commands stay hidden"
    );
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let folder = scratch();
    let file = folder.path().join("precious");
    std::fs::write(&file, b"keep me").expect("written");
    for what in ["disk", "wal", "cluster"] {
        let dir = folder.path().display().to_string();
        let output = duraft(&["bench", what, "--seconds", "1", "--dir", &dir]);
        assert_eq!(output.status.code(), Some(2), "{what}");
        assert!(
            text(&output.stderr).contains("is not empty"),
            "{}",
            text(&output.stderr)
        );
    }
    assert_eq!(std::fs::read(&file).expect("still there"), b"keep me");
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").collect();
    assert_eq!(names.len(), 1, "nothing was added");
}

#[test]
fn a_folder_that_cannot_be_made_is_a_clear_error() {
    let output = duraft(&["bench", "disk", "--seconds", "1", "--dir", "/proc/duraft"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("/proc/duraft") && said.contains("--dir"),
        "{said}"
    );
}

#[test]
fn a_folder_in_memory_is_called_not_durable() {
    let Some(folder) = memory() else {
        return;
    };
    let dir = path(folder.path(), "bench");
    let output = duraft(&[
        "bench",
        "disk",
        "--seconds",
        "1",
        "--rounds",
        "1",
        "--dir",
        &dir,
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).starts_with("NOT DURABLE"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn the_cluster_result_is_complete_in_text_and_json() {
    let folder = scratch();
    let (dir, json) = (
        path(folder.path(), "bench"),
        path(folder.path(), "result.json"),
    );
    let args = [
        "bench",
        "--seconds",
        "1",
        "--rounds",
        "1",
        "--clients",
        "8",
        "--dir",
        &dir,
    ];
    let output = duraft(&[&args[..], &["--json", &json]].concat());
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    for part in [
        "commands/s",
        "p99.9",
        "commands/fsync",
        "raw disk",
        "lost 0",
        "wrong 0",
    ] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    let result = json_file(&json);
    assert_eq!(result["schema"], 2);
    assert!(
        result["verification"]["acknowledged"]
            .as_u64()
            .expect("a count")
            > 0
    );
    assert_eq!(result["verification"]["nodes_checked"], 3);
    assert_eq!(result["verification"]["leaders_killed"], 1);
    assert!(
        result["rounds"][0]["raw"]["latency"]["p50_us"]
            .as_f64()
            .expect("a figure")
            > 0.0
    );
}

#[test]
fn killed_processes_lose_nothing_that_was_acknowledged() {
    let folder = scratch();
    let dir = path(folder.path(), "bench");
    let args = [
        "bench",
        "cluster",
        "--processes",
        "--kill",
        "--seconds",
        "3",
        "--rounds",
        "1",
    ];
    let output = duraft(&[&args[..], &["--dir", &dir]].concat());
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("lost 0   wrong 0"), "{said}");
    assert!(said.contains("1 leaders killed under load"), "{said}");
}

#[test]
fn a_soak_stays_within_its_bound_and_holds_every_command() {
    for nodes in ["1", "3"] {
        let folder = scratch();
        let (dir, json) = (
            path(folder.path(), "bench"),
            path(folder.path(), "result.json"),
        );
        let args = ["bench", "soak", "--commands", "20000", "--lines", "4"];
        let more = ["--nodes", nodes, "--snapshot-log-bytes", "524288"];
        let output = duraft(&[&args[..], &more, &["--dir", &dir, "--json", &json]].concat());
        let said = text(&output.stdout);
        assert!(output.status.success(), "{said}{}", text(&output.stderr));
        assert!(said.contains("within the bound"), "{said}");
        let result = json_file(&json);
        let samples = result["samples"].as_array().expect("a list");
        assert_eq!(samples.len(), 5, "four, and one after the restart");
        assert_eq!(samples[4]["commands"], 20_000);
        let behind = samples[3]["behind_snapshot"].as_u64().expect("a count");
        assert!(behind < 20_000, "snapshots were taken: {said}");
        assert!(samples[3]["snapshot_bytes"].as_u64().expect("bytes") > 0);
    }
}

#[test]
fn a_snapshot_moves_to_another_process() {
    let folder = scratch();
    let (dir, json) = (
        path(folder.path(), "bench"),
        path(folder.path(), "result.json"),
    );
    let args = ["bench", "snapshot", "--bytes", "20000001"];
    let output = duraft(&[&args[..], &["--dir", &dir, "--json", &json]].concat());
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let result = json_file(&json);
    let figure = |name: &str| result[name].as_u64().expect("a figure");
    assert!(figure("file_bytes") >= 20_000_001, "{said}");
    assert!(figure("sent_bytes") >= figure("file_bytes"), "{said}");
    for side in ["sender", "receiver"] {
        let extra = result[side]["extra_bytes"].as_u64().expect("a figure");
        assert!((1..=16 << 20).contains(&extra), "{said}");
    }
}
