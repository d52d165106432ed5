//! What fuzzing has found worth keeping, as plain tests: each file of `fuzz/seeds` goes through the
//! function of its target, which panics where a promise is broken.

#[path = "../../fuzz/src/lib.rs"]
#[allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "a crate of its own, whose modules are taken in here"
)]
mod targets;

use std::path::Path;

/// Fewer would be no corpus.
const FILES_MIN: usize = 20;
/// What a repository can carry.
const BYTES_MAX: usize = 200 << 10;

/// The seeds of a target, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let files = std::fs::read_dir(folder.join(target)).expect("every target has a folder");
    let paths = files.map(|file| file.expect("a listed file").path());
    let mut seeds: Vec<(String, Vec<u8>)> = paths
        .map(|path| {
            let bytes = std::fs::read(&path).expect("a seed can be read");
            (path.display().to_string(), bytes)
        })
        .collect();
    seeds.sort();
    seeds
}

fn run(target: &str, takes: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(seeds.len() >= FILES_MIN, "{target}: {} seeds", seeds.len());
    for (name, bytes) in seeds {
        let ended = duraft_tests::quietly(|| takes(&bytes));
        ended.unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

#[test]
fn fuzz_seeds_of_blocks() {
    run("block_decode", targets::block_decode::run);
}

#[test]
fn fuzz_seeds_of_options() {
    run("configuration", targets::configuration::run);
}

#[test]
fn fuzz_seeds_of_the_core() {
    run("core_inputs", targets::core_inputs::run);
}

#[test]
fn fuzz_seeds_of_recovery() {
    run("recovery", targets::recovery::run);
}

#[test]
fn fuzz_seeds_of_snapshot_files() {
    run("snapshot_file", targets::snapshot_file::run);
}

#[test]
fn fuzz_seeds_of_frames() {
    run("wire_frames", targets::wire_frames::run);
}

#[test]
fn fuzz_seeds_are_few_and_small() {
    let targets = ["block_decode", "configuration", "core_inputs"];
    let targets = [targets, ["recovery", "snapshot_file", "wire_frames"]].concat();
    let bytes: usize = (targets.iter())
        .flat_map(|target| seeds(target))
        .map(|(_, bytes)| bytes.len())
        .sum();
    assert!(bytes <= BYTES_MAX, "{bytes} bytes of seeds");
}
