//! `duraft bench stuck`, briefly: one part of three processes sticks, and is released.

use std::process::Command;

#[test]
fn a_stuck_part_leaves_memory_within_its_bound_and_the_cluster_goes_on() {
    // (the part, whose, does a majority go on meanwhile)
    for (part, whose, goes_on) in [
        ("follower", "leader", true),
        ("disk", "leader", true),
        ("state-machine", "leader", false),
    ] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch folder");
        let (dir, json) = (folder.path().join("bench"), folder.path().join("result"));
        let output = Command::new(env!("CARGO_BIN_EXE_duraft"))
            .args(["bench", "stuck", "--part", part, "--on", whose])
            .args(["--seconds", "3", "--value-bytes", "1024"])
            .arg("--dir")
            .arg(&dir)
            .arg("--json")
            .arg(&json)
            .output()
            .expect("the program runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let result = std::fs::read_to_string(&json).expect("the JSON file is there");
        let result: serde_json::Value = serde_json::from_str(&result).expect("it is JSON");
        let bound = result["bound_bytes"].as_u64().expect("a bound");
        let nodes = result["nodes"].as_array().expect("nodes");
        let stuck = nodes.iter().filter(|node| node["stuck"] == true).count();
        assert_eq!((nodes.len(), stuck), (3, 1), "{said}");
        for node in nodes {
            let peak = node["peak_bytes"].as_u64().expect("a peak");
            assert!((1 << 20..=bound).contains(&peak), "{said}");
        }
        let outcome = &result["outcome"];
        assert_eq!(outcome["agreed"], true, "{said}");
        assert!(outcome["after"].as_u64().expect("a count") > 0, "{said}");
        assert!(outcome["refused"].as_u64().expect("a count") > 0, "{said}");
        if goes_on {
            assert!(outcome["during"].as_u64().expect("a count") > 0, "{said}");
        }
    }
}
