//! Heads and framing. The first byte says in pieces of which size the rest comes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcsup_py::laws;

fuzz_target!(|input: &[u8]| {
    let Some((size, bytes)) = input.split_first() else { return };
    laws::head(bytes, usize::from(*size));
});
