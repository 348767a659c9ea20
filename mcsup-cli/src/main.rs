//! The `mcsup` binary: calls the library.

use std::process::ExitCode;

use mcsup_cli::Start;

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    mcsup_cli::run(&argv, Start::of_this_process()).into()
}
