//! Request targets, and the authorities in them and in Host fields.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcsup_py::laws;

fuzz_target!(|input: &[u8]| {
    laws::target(input);
    laws::authority(input);
});
