//! The plan of a service: the settings in the words of a command line, and facts of this process.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use mcsup_core::Address;
use mcsup_core::control::path_beside;
use mcsup_core::host::processes;
use mcsup_core::policy::Surge;
use mcsup_core::upgrade::Image;
use mcsup_py::tls::ClientCertificates;

use super::{Planned, environment, program};
use crate::args::service::PoolArgs;
use crate::args::{self, Invocation};
use crate::commands::application::{Application, Executed, Wsgi};
use crate::commands::hooks_process;
use crate::commands::reading::{self, Reading};
use crate::commands::wiring;
use crate::failure::Failure;
use crate::logging::Destination;
use crate::service::{Bind, Control, Kind, Plan, Times, Tls, name_of};
use crate::settings::program::ProgramSettings;
use crate::settings::{ControlSocket, Origin, Settings};

/// Sockets that a reload may add to those that a supervisor stores.
const MORE_SOCKETS: usize = 8;

/// Plans the service of a server.
pub(super) fn plan(args: &PoolArgs, argv: &[OsString], image: Option<&Image>) -> Result<Planned, Failure> {
    let words = ["mcsup".into()].into_iter().chain(args.words.iter().map(OsString::from));
    let (run, program) =
        match args::parse(words).map_err(|error| args::late_option("service", &args.words, error))? {
            Invocation::Show(text) => return Ok(Planned::Help(text)),
            Invocation::Run(run) if !run.has("check_config") => (run, None),
            Invocation::Exec(exec) => {
                let program = ProgramSettings::resolve(&exec)?;
                (exec.given, Some(program))
            }
            _ => return Err(Failure::usage("a service runs a server: name an application and its options")),
        };
    let start = std::env::current_dir()
        .map_err(|error| Failure::refused(format!("the current directory is not known: {error}")))?;
    let settings = Reading::new(run, argv).without_variables().read()?;
    let mut variables = environment::search_path(program.as_ref(), &settings);
    let title = title(program, &settings)?;
    if settings.process.daemon.value {
        return Err(Failure::usage("a service stays in the foreground: leave --daemon out"));
    }
    let directory = utf8(start.as_os_str(), "the current directory")?;
    let program = program::of(argv, image)?;
    variables.extend(environment::of_packages(&program));
    let plan = Plan {
        name: name(args.service_name.as_deref(), &settings, &title)?,
        is_program: title.is_program,
        has_listener: title.has_listener,
        title: title.text,
        environment: variables,
        program,
        words: args.words.clone(),
        directory,
        ignored_variables: environment::ignored(),
        own_user: own_user(),
        ..of_settings(&settings)
    };
    Ok(Planned::Service(Box::new(plan)))
}

/// The application or program, for people.
struct Title {
    text: String,
    is_program: bool,
    has_listener: bool,
}

/// Checks the settings of the application or program, and names it.
fn title(program: Option<ProgramSettings>, settings: &Settings) -> Result<Title, Failure> {
    let Some(program) = program else {
        Wsgi(Vec::new()).check(settings)?;
        return Ok(Title { text: settings.target()?.to_owned(), is_program: false, has_listener: true });
    };
    let path = utf8(&program.program, "the program")?;
    let has_listener = !program.no_listener;
    Executed(program).check(settings)?;
    let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
    Ok(Title { text: name, is_program: true, has_listener })
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
        backlog: settings.backlog.value,
        socket_mode: wiring::unix_mode(settings),
        socket_owner: settings
            .process
            .socket_owner
            .as_ref()
            .map_or((None, None), |owner| (owner.user.clone(), owner.group.clone())),
        files: files(settings),
        control: control(settings),
        is_program: false,
        has_listener: true,
        tls: match settings.tls.as_ref().map(|tls| tls.clients) {
            None => Tls::None,
            Some(ClientCertificates::Required) => Tls::WithClientCertificates,
            Some(_) => Tls::Any,
        },
        health_path: settings.draining.health_path.as_ref().map(|path| path.value.clone()),
        has_workers: is_given(&settings.workers.origin),
        sockets: binds.value.len() + MORE_SOCKETS,
        times: times(settings),
        user: settings.process.user.as_ref().map(|user| user.value.clone()),
        group: settings.process.group.as_ref().map(|group| group.value.clone()),
    }
}

fn bind(address: &Address) -> Bind {
    match address {
        Address::Tcp { host, port } => Bind::Tcp { host: host.clone(), port: *port },
        Address::Udp { host, port } => Bind::Udp { host: host.clone(), port: *port },
        Address::Unix(path) => Bind::Unix(Kind::Stream, unix(path)),
        Address::UnixDatagram(path) => Bind::Unix(Kind::Datagram, unix(path)),
        Address::UnixSeqpacket(path) => Bind::Unix(Kind::Seqpacket, unix(path)),
        // systemd has the same form.
        Address::Vsock { .. } => Bind::Vsock(address.to_string()),
        _ => Bind::Passed,
    }
}

/// A path, or an abstract name behind `@`: it begins with a NUL byte.
fn unix(path: &Path) -> String {
    let text = path.to_string_lossy().into_owned();
    match text.strip_prefix('\0') {
        Some(name) => format!("@{name}"),
        None if text.starts_with('@') => format!("./{text}"),
        None => text,
    }
}

/// The paths that a server writes.
fn files(settings: &Settings) -> Vec<String> {
    let logging = &settings.logging;
    let log = |place: &Destination| match place {
        Destination::File(path) => Some(path.to_string_lossy().into_owned()),
        Destination::Standard => None,
    };
    let control = match control(settings) {
        Control::At(path) => Some(path),
        Control::Free | Control::Off => None,
    };
    let socket = |address: &Address| match bind(address) {
        Bind::Unix(_, path) if !path.starts_with('@') => Some(path),
        _ => None,
    };
    let pid_file = settings.process.pid.iter().map(|path| path.value.to_string_lossy().into_owned());
    let logs = logging.access.iter().map(|place| &place.value).chain([&logging.errors.value]).filter_map(log);
    pid_file.chain(control).chain(logs).chain(settings.binds.value.iter().filter_map(socket)).collect()
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
    let conf = settings.conf.as_ref();
    let of_hook = |name: &str| {
        let is_defined = conf.is_some_and(|conf| conf.hooks.contains(&name));
        if is_defined { hooks_process::LIMIT + hooks_process::GRACE } else { Duration::ZERO }
    };
    let execution = if conf.is_some() { reading::LIMIT } else { Duration::ZERO };
    Times {
        before_boot: execution + of_hook("on_starting"),
        boot,
        reload: boot.saturating_mul(rounds).saturating_add(settings.rollout.soak.value),
        drain_delay: Some(delay.value).filter(|delay| *delay > Duration::ZERO),
        graceful: settings.pool.graceful.value,
        on_exit: of_hook("on_exit"),
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
