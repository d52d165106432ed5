#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duraft_fuzz::core_inputs::run(data));
