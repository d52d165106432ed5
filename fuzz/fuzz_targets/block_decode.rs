#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duraft_fuzz::block_decode::run(data));
