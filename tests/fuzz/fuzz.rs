//! One program for all targets: `LARDER_FUZZ_TARGET` says which.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<larder::fuzzing::Target> = LazyLock::new(|| {
    let name = std::env::var("LARDER_FUZZ_TARGET").unwrap_or_default();
    let target = larder::fuzzing::TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("LARDER_FUZZ_TARGET={name} is no target")).1
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET(input));
