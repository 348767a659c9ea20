//! The `mcsup` command: settings wired to the library.
//!
//! | step | where |
//! |---|---|
//! | the table of settings | `table/` |
//! | parse the command line into text values | `args` |
//! | merge command line, environment, settings file and defaults into typed values | `settings/` |
//! | run the subcommand | `commands/` |
//! | write the error log | `logging` |
//! | turn the result into an exit code | `exit`, `failure` |
//!
//! The binary (`main.rs`) and the wheel's extension module (`module.rs`) both call [`run`]. The libraries do all of the
//! work; an embedder can do without this crate.

mod args;
mod commands;
mod doctor;
mod exit;
mod failure;
mod logging;
mod migrate;
mod module;
mod service;
mod settings;
mod table;
mod typos;
mod values;

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use args::Invocation;
use commands::application::{Executed, Wsgi};
use commands::beats::Beats;
use commands::reading::Reading;
pub use exit::Exit;
use failure::Failure;
use mcsup_core::host::outlet::Outlet;
use mcsup_core::host::patience::Patience;
use mcsup_core::host::service_manager::ServiceManager;
use mcsup_core::upgrade::{Image, Resumption};
use settings::program::ProgramSettings;

/// Longest wait for room in standard error when a server ends with an error.
const LAST_MESSAGE: Duration = Duration::from_secs(1);

/// How this process was started, determined before anything else.
#[derive(Debug)]
pub struct Start {
    /// The image that an upgrade executes; `None`: unknown, and upgrades are refused.
    pub(crate) image: Option<Image>,
    /// The supervisor that this process replaces, if an upgrade has started it.
    pub(crate) resumption: mcsup_core::Result<Option<Resumption>>,
    /// The service manager that has started this process.
    pub(crate) service_manager: mcsup_core::Result<ServiceManager>,
}

impl Start {
    /// The start of an executable. Call it first of all, while the process has one thread.
    pub fn of_this_process() -> Self {
        Self {
            image: Image::of_this_process().ok(),
            resumption: Resumption::from_environment(),
            service_manager: ServiceManager::from_environment(),
        }
    }
}

/// Runs the command line `argv`, the program's own name first; returns the exit code of the process.
pub fn run(argv: &[OsString], start: Start) -> Exit {
    let Start { image, resumption, service_manager } = start;
    let done = resumption.map_err(Failure::from).and_then(|mut resumption| {
        let done = dispatch(argv, (image, service_manager), &mut resumption);
        if let (Err(failure), Some(resumption)) = (&done, resumption) {
            resumption.give_up(&failure.to_string());
        }
        done
    });
    log::logger().flush();
    match done {
        Ok((exit, text)) => match print(&text) {
            Ok(()) => exit,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "mcsup: write to standard output: {error}");
                if exit == Exit::Done { Exit::Refused } else { exit }
            }
        },
        Err(failure) => {
            print_failure(argv, &failure);
            failure.exit
        }
    }
}

/// Prints the result of a command on standard output.
fn print(text: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        // A closed standard output is the reader's choice, not an error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Prints the error on standard error. A server that ends does not wait for a reader for long.
fn print_failure(argv: &[OsString], failure: &Failure) {
    let line = format!("mcsup: {failure}\n");
    if args::parse(argv.iter().cloned()).is_ok_and(|invocation| invocation.is_for_a_supervisor()) {
        let _ =
            Outlet::of_stream(rustix::stdio::stderr()).write(line.as_bytes(), &Patience::once(LAST_MESSAGE));
    } else {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn dispatch(
    argv: &[OsString],
    (image, service_manager): (Option<Image>, mcsup_core::Result<ServiceManager>),
    resumption: &mut Option<Resumption>,
) -> Result<(Exit, String), Failure> {
    let is_check = resumption.as_ref().is_some_and(Resumption::is_check);
    let beats = |manager: &ServiceManager| {
        // The supervisor of a dry run sends its own.
        Beats::new(if is_check { ServiceManager::default() } else { manager.clone() })
    };
    let with_newline = |(exit, text): (Exit, String)| (exit, text + "\n");
    match args::parse(argv.iter().cloned())? {
        Invocation::Show(text) => Ok((Exit::Done, text)),
        Invocation::Stop(args) => commands::stop::run(&args).map(with_newline),
        Invocation::Status(args) => commands::status::run(&args).map(with_newline),
        Invocation::Control(command, args) => commands::operator::run(command, &args).map(with_newline),
        Invocation::Doctor(args) => commands::doctor::run(&args).map(with_newline),
        Invocation::Migrate(args) => commands::migrate::run(&args, argv),
        Invocation::Service(args) => commands::service::run(&args, argv, image.as_ref()),
        Invocation::Run(given) => {
            let (application, reading) = (Wsgi(argv.to_vec()), Reading::new(given, argv));
            let start = (image, service_manager?);
            let note = resumption.as_ref().and_then(Resumption::note);
            let settings = reading.read_alive(&mut beats(&start.1), note.as_deref())?;
            commands::mistaken::refuse(argv, &settings)?;
            print(settings.listing.as_deref().unwrap_or_default())
                .map_err(|error| Failure::refused(format!("write to standard output: {error}")))?;
            commands::serve::run(application, &settings, reading, start, resumption)
        }
        Invocation::Exec(args) => {
            let application = Executed(ProgramSettings::resolve(&args)?);
            let (reading, start) = (Reading::new(args.given, argv), (image, service_manager?));
            let settings = reading.read_alive(&mut beats(&start.1), None)?;
            if let Some(listing) = settings.listing {
                return Ok((Exit::Done, listing));
            }
            commands::serve::run(application, &settings, reading, start, resumption)
        }
    }
}
