//! `duraft bench stuck`, briefly: one part of three processes sticks, and is released.

use crate::common::{json_file, program, run, said, scratch};

#[test]
fn a_stuck_part_leaves_memory_within_its_bound_and_the_cluster_goes_on() {
    // (the part, whose, does a majority go on meanwhile)
    for (part, whose, goes_on) in [
        ("follower", "leader", true),
        ("disk", "leader", true),
        ("state-machine", "leader", false),
    ] {
        let folder = scratch();
        let (dir, json) = (folder.path().join("bench"), folder.path().join("result"));
        let mut stuck = program();
        stuck.args(["bench", "stuck", "--part", part, "--on", whose]);
        stuck.args(["--seconds", "3", "--value-bytes", "1024"]);
        let output = run(stuck.arg("--dir").arg(&dir).arg("--json").arg(&json));
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        let result = json_file(&json);
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
