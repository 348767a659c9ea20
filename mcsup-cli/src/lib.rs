//! The `mcsup` command: settings wired to the library.
//!
//! | step | where |
//! |---|---|
//! | words of the command line become text values | [`args`] |
//! | command line, environment, settings file and defaults become typed values | [`settings`] |
//! | a subcommand does its work | `commands/` |
//! | lines go to the error log | [`logging`] |
//! | how it went becomes an exit code | [`exit`], [`failure`] |
//!
//! [`run`] is behind the binary (`main.rs`) and behind the wheel's extension module (`module.rs`) alike. An embedder
//! misses nothing that is here.

pub mod args;
#[cfg(feature = "python")]
mod commands;
pub mod exit;
pub mod failure;
pub mod logging;
#[cfg(feature = "python")]
mod module;
pub mod settings;

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use args::Invocation;
use exit::Exit;
use failure::Failure;
use mcsup_core::host::outlet::Outlet;
use mcsup_core::host::patience::Patience;
use mcsup_core::upgrade::{Image, Resumption};
use settings::Settings;

/// How long the last words of a server wait for room in standard error.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How this process began, settled before anything else.
#[derive(Debug)]
pub struct Start {
    /// What an upgrade executes; `None`: it cannot be known, and upgrades are refused.
    pub image: Option<Image>,
    /// Whose place it is to take.
    pub resumption: mcsup_core::Result<Option<Resumption>>,
}

impl Start {
    /// As an executable. To be called first of all, while there is one thread.
    pub fn of_this_process() -> Self {
        Self { image: Image::of_this_process().ok(), resumption: Resumption::from_environment() }
    }
}

/// Does what `argv` asks for, the program's own name first; returns the exit code of the process.
pub fn run(argv: &[OsString], start: Start) -> Exit {
    let Start { image, resumption } = start;
    let done = resumption.map_err(Failure::from).and_then(|mut resumption| {
        let done = dispatch(argv, image, &mut resumption);
        if let (Err(failure), Some(resumption)) = (&done, resumption) {
            resumption.give_up(&failure.to_string());
        }
        done
    });
    match done {
        Ok((exit, text)) => {
            // A closed standard output is no error of ours.
            let _ = std::io::stdout().write_all(text.as_bytes());
            exit
        }
        Err(failure) => {
            complain(argv, &failure);
            failure.exit
        }
    }
}

/// Says on standard error what is wrong. The end of a server waits for no reader.
fn complain(argv: &[OsString], failure: &Failure) {
    let line = format!("mcsup: {failure}\n");
    if matches!(args::parse(argv.iter().cloned()), Ok(Invocation::Run(_))) {
        let _ =
            Outlet::of_stream(rustix::stdio::stderr()).write(line.as_bytes(), &Patience::once(LAST_WORDS));
    } else {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn dispatch(
    argv: &[OsString],
    image: Option<Image>,
    resumption: &mut Option<Resumption>,
) -> Result<(Exit, String), Failure> {
    let line = |(exit, text): (Exit, String)| (exit, text + "\n");
    match args::parse(argv.iter().cloned())? {
        Invocation::Show(text) => Ok((Exit::Done, text)),
        Invocation::Stop(args) => commands::stop::run(&args).map(line),
        Invocation::Status(args) => commands::status::run(&args).map(line),
        Invocation::Order(command, args) => commands::operator::run(command, &args).map(line),
        Invocation::Run(args) => {
            let read_file = settings::reader(std::env::current_dir().unwrap_or_default());
            let read = move || {
                let args = (*args).clone();
                Ok(Settings::resolve(args, &|name| std::env::var_os(name), &read_file)?)
            };
            let settings = read()?;
            commands::serve::run(&settings, Box::new(read), argv, (image, resumption))
        }
    }
}
