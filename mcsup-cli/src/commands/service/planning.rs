//! The plan of a service: the settings in the words of a command line, and facts of this process.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use mcsup_core::Address;
use mcsup_core::control::path_beside;
use mcsup_core::host::processes;
use mcsup_core::policy::Surge;
use mcsup_core::upgrade::Image;

use super::{Planned, program};
use crate::args::service::PoolArgs;
use crate::args::{self, Invocation};
use crate::commands::application::{Application, Executed, Wsgi};
use crate::failure::Failure;
use crate::service::{Bind, Control, Plan, Times, name_of, systemd};
use crate::settings::program::ProgramSettings;
use crate::settings::{self, ControlSocket, Origin, Settings};

/// Variables that settings are read from. A service does not inherit them.
const VARIABLES: [&str; 4] = ["MCSUP_CMD_ARGS", "GUNICORN_CMD_ARGS", "PORT", "WEB_CONCURRENCY"];

/// Sockets that a reload may add to those that a supervisor stores.
const MORE_SOCKETS: usize = 8;

/// Plans the service of a server.
pub(super) fn plan(args: &PoolArgs, argv: &[OsString], image: Option<&Image>) -> Result<Planned, Failure> {
    let words = ["mcsup".into()].into_iter().chain(args.words.iter().map(OsString::from));
    let (run, program) = match args::parse(words)? {
        Invocation::Show(text) => return Ok(Planned::Help(text)),
        Invocation::Run(run) if !run.application.check_config => (*run, None),
        Invocation::Exec(exec) => (exec.pool(), Some(ProgramSettings::resolve(&exec)?)),
        _ => return Err(Failure::usage("a service runs a server: name an application and its options")),
    };
    let start = std::env::current_dir()
        .map_err(|error| Failure::refused(format!("the current directory is not known: {error}")))?;
    let read_file = settings::reader(start.clone());
    let settings = Settings::resolve(run, &|_| None, &read_file)?;
    let title = title(program, &settings)?;
    if settings.process.daemon.value {
        return Err(Failure::usage("a service stays in the foreground: leave --daemon out"));
    }
    let directory = utf8(start.as_os_str(), "the current directory")?;
    let program = program::of(argv, image)?;
    let plan = Plan {
        name: name(args.service_name.as_deref(), &settings, &title)?,
        is_program: title.is_program,
        title: title.text,
        environment: environment(&program),
        program,
        words: args.words.clone(),
        directory,
        ignored_variables: ignored(),
        own_user: own_user(),
        ..of_settings(&settings)
    };
    Ok(Planned::Service(Box::new(plan)))
}

/// The application or program, for people.
struct Title {
    text: String,
    is_program: bool,
}

/// Checks the settings of the application or program, and names it.
fn title(program: Option<ProgramSettings>, settings: &Settings) -> Result<Title, Failure> {
    let Some(program) = program else {
        Wsgi(Vec::new()).check(settings)?;
        return Ok(Title { text: settings.target()?.to_owned(), is_program: false });
    };
    let path = utf8(&program.program, "the program")?;
    Executed(program).check(settings)?;
    let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
    Ok(Title { text: name, is_program: true })
}

/// The parts of a plan that are in the settings.
fn of_settings(settings: &Settings) -> Plan {
    let is_given = |origin: &Origin| *origin != Origin::Default;
    let binds = &settings.binds;
    Plan {
        name: String::new(),
        title: String::new(),
        program: Vec::new(),
        words: Vec::new(),
        directory: String::new(),
        environment: Vec::new(),
        ignored_variables: Vec::new(),
        own_user: None,
        binds: if is_given(&binds.origin) { binds.value.iter().map(bind).collect() } else { Vec::new() },
        control: control(settings),
        is_program: false,
        health_path: settings.draining.health_path.as_ref().map(|path| path.value.clone()),
        has_workers: is_given(&settings.workers.origin),
        sockets: binds.value.len() + MORE_SOCKETS,
        times: times(settings),
        user: settings.process.user.as_ref().map(|user| user.value.clone()),
    }
}

fn bind(address: &Address) -> Bind {
    // An abstract name begins with a NUL byte.
    let text = |path: &Path| path.to_string_lossy().replace('\0', "@");
    let special = |key, address| Bind::Special { key, address };
    match address {
        Address::Tcp { host, port } => Bind::Tcp { host: host.clone(), port: *port },
        Address::Unix(path) => Bind::Unix(text(path)),
        Address::Udp { host, port } => special("ListenDatagram", systemd::address(host, *port)),
        Address::UnixDatagram(path) => special("ListenDatagram", text(path)),
        Address::UnixSeqpacket(path) => special("ListenSequentialPacket", text(path)),
        // systemd has the same form.
        Address::Vsock { .. } => special("ListenStream", address.to_string()),
        _ => Bind::Passed,
    }
}

fn control(settings: &Settings) -> Control {
    let text = |path: &Path| Control::At(path.to_string_lossy().into_owned());
    match (&settings.control.socket.value, &settings.process.pid) {
        (ControlSocket::At(path), _) => text(path),
        (ControlSocket::Off, _) => Control::Off,
        (ControlSocket::Beside, Some(pid_file)) => text(&path_beside(&pid_file.value)),
        (ControlSocket::Beside, None) => Control::Free,
    }
}

fn times(settings: &Settings) -> Times {
    let boot = settings.pool.boot.value;
    let at_once = match settings.rollout.surge.value {
        Surge::All => settings.workers.value,
        Surge::Extra(extra) => extra.max(1),
    };
    // Slot by slot, and each boot at its limit.
    let rounds = u32::try_from(settings.workers.value.div_ceil(at_once)).unwrap_or(u32::MAX);
    let delay = &settings.draining.delay;
    Times {
        boot,
        reload: boot.saturating_mul(rounds).saturating_add(settings.rollout.soak.value),
        drain_delay: Some(delay.value).filter(|delay| *delay > Duration::ZERO),
        graceful: settings.pool.graceful.value,
    }
}

fn name(given: Option<&str>, settings: &Settings, title: &Title) -> Result<String, Failure> {
    if let Some(given) = given {
        let name = name_of(given).filter(|name| name == given);
        return name.ok_or_else(|| {
            Failure::usage(format!(
                "{given:?} is no name of a service: use letters, digits, '-', '_' and '.'"
            ))
        });
    }
    let named = settings.process.name.as_ref().map(|name| name.value.as_str());
    let module = title.text.split(':').next().unwrap_or_default();
    let name = named.and_then(name_of).or_else(|| name_of(module));
    name.ok_or_else(|| Failure::usage("no name for the service: --service-name NAME gives it one"))
}

/// The binary finds its packages by `VIRTUAL_ENV`; a command in the environment needs no variable.
fn environment(program: &[String]) -> Vec<(String, String)> {
    let Some(environment) = std::env::var("VIRTUAL_ENV").ok().filter(|path| !path.is_empty()) else {
        return Vec::new();
    };
    let is_inside = program.iter().any(|word| Path::new(word).starts_with(&environment));
    if is_inside { Vec::new() } else { vec![("VIRTUAL_ENV".to_owned(), environment)] }
}

fn ignored() -> Vec<&'static str> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    VARIABLES.into_iter().filter(is_set).collect()
}

/// The user of this process; `None`: root.
fn own_user() -> Option<String> {
    let user = rustix::process::geteuid();
    (!user.is_root()).then(|| processes::user_of(user.as_raw()))
}

/// A text that goes into a unit.
pub(super) fn utf8(text: &std::ffi::OsStr, name: &str) -> Result<String, Failure> {
    let text = text.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format!("{name} is not UTF-8, which a unit or manifest has to be")))
}
