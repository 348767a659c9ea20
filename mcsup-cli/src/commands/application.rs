//! The kinds of applications that a pool runs: WSGI, or a program of any language.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use mcsup_core::host::processors;
use mcsup_core::program::Ready;
use mcsup_core::{Address, Children, Config, ForkSide, Program, Worker};
use mcsup_py::python::{fork, standard};
use mcsup_py::{WorkerSettings, WsgiWorker};

use super::check;
use super::output::Output;
use super::remote::Remote;
use super::wiring;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::settings::program::ProgramSettings;
use crate::settings::{Origin, Settings};

/// The part of a pool that depends on its application.
pub(crate) trait Application {
    /// The code of each worker.
    type Worker: Worker;
    /// The settings of the workers of one generation.
    type Made;

    /// The name of the application, for messages.
    fn name(&self, settings: &Settings) -> String;

    /// The name of the service: that of `--name`, otherwise that of the application.
    fn service_name(&self, settings: &Settings) -> String {
        let given = settings.process.name.as_ref().map(|name| name.value.clone());
        given.unwrap_or_else(|| self.name(settings))
    }

    /// Refuses settings that are wrong, before anything changes.
    fn check(&self, settings: &Settings) -> Result<(), Failure>;

    /// Loads the application once, and describes it.
    fn try_out(&self, settings: &Settings, config: &Config) -> Result<(Exit, String), Failure>;

    /// Changes the configuration of the supervisor as the application needs it.
    fn configure(&self, config: &mut Config);

    /// Makes the settings of the workers of a generation.
    fn make(&self, settings: &Settings, config: &Config, output: &Output) -> Result<Self::Made, Failure>;

    /// Makes a worker, in its process.
    fn worker(made: &Self::Made) -> Self::Worker;

    /// Prepares the supervisor for the workers of a generation.
    fn prepare(settings: &Settings, made: &Self::Made);

    /// The part of a URL before a TCP address.
    fn scheme(made: &Self::Made) -> &'static str;

    /// Runs before a fork (`None`) and after it in both processes, with whether this is the new one.
    fn around_fork(after_in_child: Option<bool>);
}

/// A WSGI application, with the command line of this process.
#[derive(Debug)]
pub(crate) struct Wsgi(pub(crate) Vec<OsString>);

impl Application for Wsgi {
    type Worker = WsgiWorker;
    type Made = WorkerSettings;

    fn name(&self, settings: &Settings) -> String {
        settings.target().map(str::to_owned).unwrap_or_default()
    }

    fn check(&self, settings: &Settings) -> Result<(), Failure> {
        if let Some(other) = settings.binds.value.iter().find(|address| !address.may_be_stream()) {
            let why = format!("cannot listen on {other}: Python workers serve TCP and Unix stream sockets");
            return Err(Failure::usage(why));
        }
        wiring::target(settings)?;
        wiring::access_log(settings, &Remote::default()).map(drop)
    }

    fn try_out(&self, settings: &Settings, config: &Config) -> Result<(Exit, String), Failure> {
        check::run(settings, config, &self.0)
    }

    fn configure(&self, config: &mut Config) {
        config.listener.streams_only = true;
    }

    fn make(&self, settings: &Settings, _: &Config, output: &Output) -> Result<WorkerSettings, Failure> {
        let mut worker = wiring::worker_settings(settings, &self.0, (&output.log, &output.remote))?;
        let reopened = output.clone();
        worker.reopen_error_log = Arc::new(move || reopened.reopen());
        Ok(worker)
    }

    fn scheme(made: &WorkerSettings) -> &'static str {
        made.engine.scheme()
    }

    fn worker(made: &WorkerSettings) -> WsgiWorker {
        WsgiWorker::new(made.clone())
    }

    /// Imports the standard library modules of the application, before the first fork.
    ///
    /// Not with a mold, which shares all memory with its workers: the supervisor would hold a further copy.
    fn prepare(settings: &Settings, made: &WorkerSettings) {
        if !*settings.mold.preload && !*settings.no_share_stdlib {
            // The configuration of PasteDeploy alone has the modules of its applications.
            if let mcsup_py::Application::Named(target) = &made.target {
                standard::share(&target.module, &made.python_path);
            }
        }
    }

    fn around_fork(after_in_child: Option<bool>) {
        match after_in_child {
            None => fork::before(),
            Some(true) => fork::after_in_child(),
            Some(false) => fork::after_in_parent(),
        }
    }
}

/// A program of any language.
#[derive(Debug)]
pub(crate) struct Executed(pub(crate) ProgramSettings);

impl Application for Executed {
    type Worker = Program;
    type Made = Program;

    fn name(&self, _: &Settings) -> String {
        Path::new(&self.0.program).file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn check(&self, settings: &Settings) -> Result<(), Failure> {
        self.0.watchdog(settings.pool.timeout.value)?;
        let binds = &settings.binds.origin;
        if self.0.no_listener && !matches!(binds, Origin::Default | Origin::Variable("PORT")) {
            return Err(Failure::usage(format!("--no-listener, and an address from {binds}")));
        }
        if self.0.no_listener {
            self.0.check_without_listener()?;
        }
        check_processors(&self.0, processors::allowed().as_deref())?;
        if self.0.blocking && settings.reuse_port.value {
            return Err(Failure::usage(
                "--blocking and --reuse-port: the supervisor accepts from the sockets of a slot that ends",
            ));
        }
        Ok(())
    }

    /// Only the program itself can tell whether it works.
    fn try_out(&self, _: &Settings, _: &Config) -> Result<(Exit, String), Failure> {
        Err(Failure::usage("a program cannot be checked without a start"))
    }

    /// The program runs as the user of the workers. Its worker does not: it sets limits that need privileges.
    fn configure(&self, config: &mut Config) {
        config.run_as = None;
        config.children = Children::End;
        if self.0.no_listener {
            config.addresses.clear();
            config.without_listeners = true;
        }
    }

    fn make(&self, settings: &Settings, config: &Config, output: &Output) -> Result<Program, Failure> {
        if !self.0.no_listener {
            check_addresses(&self.0.ready, &config.addresses)?;
        }
        wiring::program(&self.0, settings, config, output)
    }

    fn scheme(_: &Program) -> &'static str {
        ""
    }

    fn worker(made: &Program) -> Program {
        made.clone()
    }

    fn prepare(_: &Settings, _: &Program) {}

    /// No Python runs in the workers.
    fn around_fork(_: Option<bool>) {}
}

/// Refuses a set of processors of which this process may use none.
fn check_processors(program: &ProgramSettings, allowed: Option<&[usize]>) -> Result<(), Failure> {
    let Some(allowed) = allowed else { return Ok(()) };
    let is_useless = |set: &&Vec<usize>| !set.iter().any(|number| allowed.contains(number));
    match program.cpus.iter().find(is_useless) {
        None => Ok(()),
        Some(set) => {
            let (set, allowed) = (ranges(set), ranges(allowed));
            Err(Failure::usage(format!("--cpus {set}: this process may use the processors {allowed} only")))
        }
    }
}

/// Ascending numbers in the notation of `--cpus`.
fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let part = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    parts.into_iter().map(part).collect::<Vec<_>>().join(",")
}

/// Refuses a probe where no address can be a TCP address. A passed socket may be one.
fn check_addresses(ready: &Ready, addresses: &[Address]) -> Result<(), Failure> {
    let way = match ready {
        Ready::Accepts => "tcp",
        Ready::Answers { .. } => "http",
        _ => return Ok(()),
    };
    let may_be_tcp =
        |it: &Address| matches!(it, Address::Tcp { .. } | Address::Inherited(_) | Address::Passed(_));
    if addresses.iter().any(may_be_tcp) {
        return Ok(());
    }
    let addresses = addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(" and ");
    Err(Failure::usage(format!("--ready {way} needs a TCP address, and the program listens at {addresses}")))
}

/// The value for [`Application::around_fork`].
pub(super) fn side(side: ForkSide) -> Option<bool> {
    Some(side == ForkSide::Worker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Invocation, parse};

    fn program(words: &[&str]) -> ProgramSettings {
        let argv = ["mcsup", "exec"].iter().chain(words).chain(&["x"]).map(OsString::from);
        let Ok(Invocation::Exec(args)) = parse(argv) else { panic!("not to be executed") };
        ProgramSettings::resolve(&args).unwrap()
    }

    #[test]
    fn a_processor_that_this_process_may_not_use_is_named() {
        for (cpus, allowed, expected) in [
            ("99", &[0, 1, 2, 5][..], "--cpus 99: this process may use the processors 0-2,5 only"),
            ("0,7-9", &[0], "--cpus 7-9: this process may use the processors 0 only"),
            ("0,1-9", &[0, 1], ""),
        ] {
            let checked = check_processors(&program(&["--cpus", cpus]), Some(allowed));
            assert_eq!(checked.err().map_or_else(String::new, |refused| refused.to_string()), expected);
        }
        assert_eq!(check_processors(&program(&["--cpus", "99"]), None), Ok(()));
    }

    #[test]
    fn a_probe_needs_an_address_that_may_be_one_of_tcp() {
        let check = |ready: &str, addresses: &[&str]| {
            let addresses: Vec<Address> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            check_addresses(&program(&["--ready", ready]).ready, &addresses)
        };
        for ready in ["tcp", "http:/"] {
            assert!(check(ready, &["unix:a.sock", ":80"]).is_ok());
            assert!(check(ready, &["fd://3"]).is_ok());
            let refused = check(ready, &["unix:a.sock", "unix:@b"]).unwrap_err();
            assert_eq!(refused.exit, Exit::Usage);
            assert!(
                refused
                    .to_string()
                    .ends_with("needs a TCP address, and the program listens at unix:a.sock and unix:@b")
            );
        }
        assert!(check("report", &["unix:a.sock"]).is_ok());
    }
}
