#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = cloudy_fuzz::lane(data);
});
