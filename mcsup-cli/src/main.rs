//! The `mcsup` binary. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mcsup_cli::run(std::env::args_os().collect()).into()
}
