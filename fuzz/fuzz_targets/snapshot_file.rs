#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duraft_fuzz::snapshot_file::run(data));
