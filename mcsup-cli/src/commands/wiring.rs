//! Translates settings to the configuration of the supervisor, the workers and their engines.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use mcsup_core::control::path_beside;
use mcsup_core::host::privileges::{self, RunAs};
use mcsup_core::host::service_manager::ServiceManager;
use mcsup_core::policy::{Limit, Plan, Policy, Recycling};
use mcsup_core::{Address, Children, Config, Program};
use mcsup_py::access::{AccessSettings, Format};
use mcsup_py::engine::{EngineConfig, Limits, StaticFiles, Timeouts};
use mcsup_py::python::logging::WriteRecord;
use mcsup_py::tls::{TlsError, TlsServer, TlsSettings};
use mcsup_py::{Application, Paste, RedirectErrors, ReloadSettings, WorkerSettings, WsgiSettings};

use super::named_files;
use super::output::Output;
use super::remote::Remote;
use crate::failure::Failure;
use crate::logging::{Destination, ErrorLog};
use crate::settings::program::ProgramSettings;
use crate::settings::{ControlSocket, Origin, Settings, Sourced};
use crate::values::SocketOwner;

const NAME_AND_VERSION: &str = concat!("mcsup/", env!("CARGO_PKG_VERSION"));

/// The result of a look-up of user and group names.
///
/// A directory service may be slow: a supervisor whose workers run looks up only changed names.
#[derive(Debug, Clone)]
pub(super) struct UserLookup {
    names: (Option<String>, Option<String>),
    run_as: Option<RunAs>,
    socket_owner: Option<SocketOwner>,
    unix_owner: (Option<u32>, Option<u32>),
}

impl UserLookup {
    /// The look-up with which `config` was made from `settings`.
    pub(super) fn of(settings: &Settings, config: &Config) -> Self {
        Self {
            names: names(settings),
            run_as: config.run_as.clone(),
            socket_owner: socket_owner(settings),
            unix_owner: config.listener.unix_owner,
        }
    }
}

fn socket_owner(settings: &Settings) -> Option<SocketOwner> {
    settings.process.socket_owner.as_ref().map(|owner| owner.value.clone())
}

/// The owner of Unix sockets: by its own setting, otherwise that of the workers.
fn unix_owner(
    settings: &Settings,
    run_as: Option<&RunAs>,
    previous: Option<&UserLookup>,
) -> Result<(Option<u32>, Option<u32>), Failure> {
    let of_workers = (run_as.map(RunAs::uid), run_as.map(RunAs::gid));
    let wanted = socket_owner(settings);
    let Some(owner) = &wanted else { return Ok(of_workers) };
    if let Some(previous) =
        previous.filter(|previous| previous.socket_owner == wanted && previous.names == names(settings))
    {
        return Ok(previous.unix_owner);
    }
    let (user, group) = privileges::look_up_owner(owner.user.as_deref(), owner.group.as_deref())?;
    Ok((user.or(of_workers.0), group.or(of_workers.1)))
}

fn names(settings: &Settings) -> (Option<String>, Option<String>) {
    let text = |setting: &Option<Sourced<String>>| setting.as_ref().map(|name| name.value.clone());
    (text(&settings.process.user), text(&settings.process.group))
}

/// The configuration of the supervisor.
pub(super) fn pool(settings: &Settings, previous: Option<&UserLookup>) -> Result<Config, Failure> {
    let process = &settings.process;
    let (user, group) = names(settings);
    let run_as = match previous.filter(|previous| previous.names == (user.clone(), group.clone())) {
        Some(previous) => previous.run_as.clone(),
        None => RunAs::look_up(user.as_deref(), group.as_deref())?,
    };
    let mut config = Config {
        addresses: settings.binds.value.clone(),
        pid_file: process.pid.as_ref().map(|path| path.value.clone()),
        name: process.name.as_ref().map(|name| name.value.clone()),
        ..Config::default()
    };
    config.listener.backlog = settings.backlog.value;
    config.listener.unix_mode = unix_mode(settings);
    config.listener.unix_owner = unix_owner(settings, run_as.as_ref(), previous)?;
    config.run_as = run_as;
    config.listener.reuse_port = settings.reuse_port.value;
    config.control_socket = match &settings.control.socket.value {
        ControlSocket::Beside => config.pid_file.as_deref().map(path_beside),
        ControlSocket::At(path) => Some(path.clone()),
        ControlSocket::Off => None,
    };
    config.mold_threads = settings.mold.threads.value;
    config.children = if *process.end_children { Children::End } else { Children::Name };
    config.policy = policy(settings);
    Ok(config)
}

/// The command line of each process in process listings, as setproctitle shows that of gunicorn.
pub(super) fn title(name: &str) -> String {
    format!("mcsup: {{}} [{name}]")
}

/// The permission bits of a Unix socket.
pub(super) fn unix_mode(settings: &Settings) -> u32 {
    match (&settings.process.socket_mode, &settings.process.umask) {
        (Some(mode), _) => mode.value,
        (None, Some(umask)) => 0o777 & !umask.value,
        (None, None) => Config::default().listener.unix_mode,
    }
}

/// The addresses to listen on. All sockets that the service manager has passed are served, as with gunicorn.
///
/// Without a `--bind` they are the only ones. A `--bind fd://...` selects the sockets itself.
pub(super) fn addresses(settings: &Settings, manager: &ServiceManager) -> Vec<Address> {
    let binds = &settings.binds;
    let selects = |address: &Address| matches!(address, Address::Inherited(_) | Address::Passed(_));
    if manager.sockets().is_empty() || binds.value.iter().any(selects) {
        return binds.value.clone();
    }
    let is_default = matches!(binds.origin, Origin::Default | Origin::Variable("PORT"));
    let named = if is_default { &[][..] } else { &binds.value };
    named.iter().cloned().chain([Address::Passed("*".to_owned())]).collect()
}

/// The policy of the supervisor.
fn policy(settings: &Settings) -> Policy {
    let (rollout, recycling) = (&settings.rollout, &settings.recycling);
    Policy {
        workers: settings.workers.value,
        timeout: settings.pool.timeout.value,
        graceful_timeout: settings.pool.graceful.value,
        boot_timeout: settings.pool.boot.value,
        drain_delay: settings.draining.delay.value,
        plan: Plan { surge: rollout.surge.value, soak: soak(settings), retries: rollout.retries.value },
        recycling: Recycling {
            requests: limit(&recycling.requests, &recycling.requests_jitter),
            lifetime: limit(&recycling.lifetime, &recycling.lifetime_jitter),
            rss: limit(&recycling.rss, &recycling.rss_jitter),
        },
        preload: settings.mold.preload.value,
        development: settings.development.reload.value,
        seed: u64::from(std::process::id()),
        ..Policy::default()
    }
}

/// A limit of a worker; `None`: there is none, whatever its jitter.
fn limit<T: Copy>(base: &Sourced<Option<T>>, jitter: &Sourced<T>) -> Option<Limit<T>> {
    base.value.map(|base| Limit { base, jitter: jitter.value })
}

/// The application to load.
pub(super) fn target(settings: &Settings) -> Result<Application, Failure> {
    let target = settings.target()?;
    if settings.paste.is_some() {
        let here = std::env::current_dir().unwrap_or_default();
        return Ok(Application::Paste(Paste::of(target, &here, settings.paste_globals.value.clone())));
    }
    target.parse().map_err(Failure::usage)
}

/// The settings of each worker.
pub(super) fn worker_settings(
    settings: &Settings,
    argv: &[OsString],
    (log, remote): (&ErrorLog, &Remote),
) -> Result<WorkerSettings, Failure> {
    named_files::check(settings)?;
    let environment = settings.process.env.value.clone();
    let wsgi = WsgiSettings {
        multithread: settings.threads.value > 1,
        // Also with one worker: two generations serve during a reload.
        multiprocess: true,
        server_software: NAME_AND_VERSION.to_owned(),
        script_name: script_name(settings),
        errors: log.raw_writer(),
        sendfile: !*settings.no_sendfile,
    };
    Ok(WorkerSettings {
        target: target(settings)?,
        python_path: python_path(settings),
        venv: std::env::var_os("VIRTUAL_ENV").map(Into::into),
        arguments: argv.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        threads: settings.threads.value,
        engine: engine(settings)?,
        conf: settings.conf.as_ref().map(|conf| conf.script.clone()),
        needs_conf: settings.conf.as_ref().is_some_and(|conf| conf.is_needed_by_workers),
        cfg: super::cfg::values(settings).into(),
        access: access_log(settings, remote)?,
        log_config: settings.logging.python.clone(),
        write_record: write_record(log),
        redirect_errors: redirect_errors(log),
        wsgi,
        reload: development(settings),
        environment,
        error_log: log.fd(),
        reopen_error_log: Arc::new(|| {}),
        send_error_log: send_errors(log),
    })
}

/// The mount point of the application: a variable of its environment.
fn script_name(settings: &Settings) -> String {
    let given = settings.process.env.value.iter().rev().find(|(name, _)| name == "SCRIPT_NAME");
    let given = given.map(|(_, value)| value.clone());
    given.or_else(|| std::env::var("SCRIPT_NAME").ok()).unwrap_or_default()
}

/// The directories of `pythonpath`, the first searched first: gunicorn puts each in front of those before it.
fn python_path(settings: &Settings) -> Vec<String> {
    settings.python_path.iter().flat_map(|path| path.value.iter().rev().cloned()).collect()
}

/// The program of each worker.
pub(super) fn program(
    program: &ProgramSettings,
    settings: &Settings,
    config: &Config,
    output: &Output,
) -> Result<Program, Failure> {
    let reopened = output.clone();
    let mut made = Program::new(&program.program)
        .args(program.arguments.iter().cloned())
        .ready(program.ready.clone())
        .stop_signal(program.stop_signal)
        .stdin(program.stdin)
        .output(program.output)
        .blocking_listeners(program.blocking)
        .cpus(program.cpus.clone())
        .no_new_privileges(program.no_new_privs)
        .on_reopen(move || reopened.reopen());
    for (name, value) in &settings.process.env.value {
        made = made.env(name, value);
    }
    for limit in &program.limits {
        made = made.limit(*limit);
    }
    if let Some(signal) = program.reopen_signal {
        made = made.reopen_signal(signal);
    }
    if let Some(interval) = program.watchdog(settings.pool.timeout.value)? {
        made = made.watchdog(interval);
    }
    if let Some(addition) = program.nice {
        made = made.nice(addition);
    }
    if let Some(umask) = &settings.process.umask {
        made = made.umask(umask.value);
    }
    if let Some(run_as) = &config.run_as {
        made = made.run_as(run_as.clone());
    }
    Ok(made)
}

/// The soak of a reload; none by default with `--reload`, where a developer waits for the result.
fn soak(settings: &Settings) -> Duration {
    match settings.rollout.soak.origin {
        Origin::Default if settings.development.reload.value => Duration::ZERO,
        _ => settings.rollout.soak.value,
    }
}

/// The settings of `--reload`, if it is on.
fn development(settings: &Settings) -> Option<ReloadSettings> {
    let development = &settings.development;
    let extra = development.extra_files.value.iter().map(|path| path.to_string_lossy().into_owned());
    let paste = settings.paste.iter().filter_map(|paste| paste.value.split('#').next().map(str::to_owned));
    let extra = extra.chain(paste);
    development
        .reload
        .value
        .then(|| ReloadSettings { engine: development.engine.value, extra: extra.collect() })
}

fn engine(settings: &Settings) -> Result<EngineConfig, Failure> {
    let (http, limits) = (&settings.http, &settings.limits);
    let request = match &http.request {
        Some(given) => given.value,
        // With one thread a request that hangs is a worker that hangs.
        None if settings.threads.value == 1 => settings.pool.timeout.value,
        None => None,
    };
    Ok(EngineConfig {
        timeouts: Timeouts {
            head: http.header.value,
            body: http.body.value,
            keep_alive: http.keep_alive.value,
            write: http.write.value,
            request,
        },
        limits: Limits {
            line: limits.line.value,
            fields: limits.fields.value,
            field_size: limits.field_size.value,
            body: limits.body.value,
        },
        connections: limits.connections.value,
        static_files: static_files(settings)?,
        trust: settings.proxies.trust.clone(),
        server: settings.server_field.clone(),
        tls: tls(settings)?,
        health_path: settings.draining.health_path.as_ref().map(|path| path.value.as_str().into()),
        ..EngineConfig::default()
    })
}

/// Certificates and keys, which this process may read.
fn tls(settings: &Settings) -> Result<Option<TlsServer>, Failure> {
    let load = |tls: &TlsSettings| tls.load();
    settings.tls.as_ref().map(load).transpose().map_err(|error| match error {
        TlsError::Setting(text) => Failure::usage(text),
        TlsError::File(text) => Failure::refused(text),
    })
}

/// The folders of `--static`. Relative ones are below the directory of `--chdir`.
fn static_files(settings: &Settings) -> Result<StaticFiles, Failure> {
    let mut files = StaticFiles::default().mounted_at(&script_name(settings));
    let routes = &settings.static_routes;
    for (route, folder) in &routes.value {
        files.add(route, folder).map_err(|reason| {
            Failure::usage(format!(
                "static = {route}={} (from {}): {reason}",
                folder.display(),
                routes.origin
            ))
        })?;
    }
    Ok(files)
}

pub(super) fn write_record(log: &ErrorLog) -> WriteRecord {
    let log = log.clone();
    Arc::new(move |record| log.write_record(&record))
}

fn redirect_errors(log: &ErrorLog) -> RedirectErrors {
    let log = log.clone();
    Arc::new(move |queue| log.redirect(queue))
}

fn send_errors(log: &ErrorLog) -> Option<Arc<dyn Fn() + Send + Sync>> {
    let log = log.clone();
    log.may_keep_records()
        .then(|| -> Arc<dyn Fn() + Send + Sync> { Arc::new(move || _ = log.send_waiting()) })
}

/// The access log of each worker.
pub(super) fn access_log(settings: &Settings, remote: &Remote) -> Result<AccessSettings, Failure> {
    let format = Format::parse(&settings.logging.access_format.value).map_err(Failure::usage)?;
    let place = settings.logging.access.as_ref().map(|place| match &place.value {
        Destination::Standard => "-".to_owned(),
        Destination::File(path) => path.to_string_lossy().into_owned(),
    });
    let Remote { access: syslog, statsd, backlog, .. } = remote.clone();
    Ok(AccessSettings { format, place, syslog, statsd, backlog })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Given;

    #[test]
    fn the_command_has_the_defaults_of_the_library() {
        let settings = Settings::resolve(Given::default(), &|_| None, &|_| unreachable!("no file is named"));
        let ours = policy(&settings.unwrap());
        // A worker of the library may run for longer than 30 s without a beat; the engine beats.
        let expected =
            Policy { timeout: Some(Duration::from_secs(30)), seed: ours.seed, ..Policy::default() };
        assert_eq!(ours, expected);
    }
}
