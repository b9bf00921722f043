#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    watershed_fuzz::memory::bounded(|| watershed_fuzz::targets::matcher::try_input(input));
});
