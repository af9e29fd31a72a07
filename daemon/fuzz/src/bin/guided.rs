//! What libFuzzer drives. `DROVER_FUZZ_TARGET` names the target; `daemon/fuzz/run` sets it, and builds this as it must be built.
#![no_main]
#![allow(unsafe_code, reason = "libFuzzer calls a function by its name")]

use drover_fuzz::Target;
use std::sync::OnceLock;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("DROVER_FUZZ_TARGET").unwrap_or_default();
        let target = drover_fuzz::target(&name);
        let known: Vec<&str> = drover_fuzz::TARGETS.iter().map(|target| target.name).collect();
        let target = target.unwrap_or_else(|| panic!("DROVER_FUZZ_TARGET is {name:?}; it must be one of {known:?}"));
        TARGET.get_or_init(|| target);
    },
    |bytes: &[u8]| (TARGET.get().expect("libFuzzer begins before it goes on").run)(bytes)
);
