//! From the description of a program to its process.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::process::{Resource, Rlimit, Signal};

use super::contracts::{self, Listening, Place};
use super::family::Family;
use super::notices::NoticeSocket;
use super::output::{Lines, Stream};
use super::probe::{Probe, Question};
use super::running::{Channels, Running};
use super::settings::{Limit, LimitedResource, Output, Plan, Ready, Stdin};
use crate::error::{Error, ErrorKind, Result};
use crate::listener::Local;
use crate::sys::descriptor;
use crate::sys::launch::{Attributes, Failure, Launch, Step, launch};
use crate::worker::WorkerContext;

/// The directories of a program without a path where `PATH` is not set.
const USUAL: &str = "/usr/local/bin:/usr/bin:/bin";

/// Starts the program of a worker.
pub(super) fn start(plan: &Plan, context: &WorkerContext) -> Result<Running> {
    let failed = |step: &str| {
        let step = format!("start {}: {step}", plan.name());
        move |error: io::Error| Error::system(step, error).of_kind(ErrorKind::Boot)
    };
    check(plan, context)?;
    let leads_group = Family::prepare().map_err(failed("prepare for its descendants"))?;
    let place = place(context);
    let (ready, ready_end) = descriptor::pipe(true).map_err(failed("make a pipe"))?;
    // The program expects a blocking descriptor.
    rustix::io::ioctl_fionbio(&ready_end, false).map_err(|error| failed("set up a pipe")(error.into()))?;
    let notices = NoticeSocket::open().map_err(failed("open a socket for its reports"))?;
    let (streams, ends) = streams(plan.output).map_err(failed("make its output"))?;
    let lines = Lines::start().map_err(failed("start a thread for its output"))?;
    set_mode(plan, context);
    let environment = environment(plan, &place, notices.as_ref());
    let null = File::open("/dev/null").map_err(failed("open /dev/null"))?;
    let attributes = attributes(plan, place.slot, leads_group)?;
    let program = Launch {
        paths: paths(plan, &environment)?,
        arguments: arguments(plan, &place)?,
        environment: environment.iter().map(|(name, value)| entry(name, value)).collect::<Result<_>>()?,
        pid_variables: pid_variables(plan),
        descriptors: descriptors(plan, context, &null, ends.as_ref(), &ready_end),
        attributes: &attributes,
    };
    // Nothing may fail after the launch: the processes of the program would be left.
    let probe = probe(plan, context, &ready_end).map_err(failed("start a thread that probes it"))?;
    let pid = launch(&program).map_err(|failure| refused(plan, &attributes, failure))?;
    let uid = plan.run_as.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), |to| to.uid());
    Ok(Running::new(pid, uid, Channels { ready, notices, streams, lines, probe }))
}

/// Refuses settings that this system or this pool does not have.
fn check(plan: &Plan, context: &WorkerContext) -> Result<()> {
    let refuse = |text: &str| Err(Error::new(ErrorKind::Setting, text));
    if [Some(plan.stop_signal), plan.reopen_signal]
        .into_iter()
        .flatten()
        .any(|it| Signal::from_named_raw(it).is_none())
    {
        return refuse("the number of a program's signal has no name on this system");
    }
    let is_linux = cfg!(target_os = "linux");
    if !is_linux && (!plan.cpus.is_empty() || plan.no_new_privileges || plan.watchdog.is_some()) {
        return refuse("processors, no_new_privs and the watchdog of a program need Linux");
    }
    if matches!(plan.ready, Ready::Accepts | Ready::Answers { .. }) {
        if !is_linux {
            return refuse("a probe of a program needs Linux: /proc shows the process that answers");
        }
        if tcp(context).is_none() {
            return refuse("a probe of a program needs a TCP address");
        }
    }
    if plan.stdin == Stdin::Listener && context.listeners().is_empty() {
        return refuse("the pool has no listener for the program's input");
    }
    Ok(())
}

/// The first TCP listener.
fn tcp(context: &WorkerContext) -> Option<SocketAddr> {
    context.listeners().iter().find_map(|listener| match listener.local() {
        Local::Tcp(address) => Some(*address),
        _ => None,
    })
}

fn place(context: &WorkerContext) -> Place {
    let listening = |local: &Local| Listening {
        address: local.to_string(),
        port: match local {
            Local::Tcp(address) | Local::Udp(address) => Some(address.port()),
            _ => None,
        },
    };
    let listeners = context.listeners().iter().map(|listener| listening(listener.local())).collect();
    Place { slot: context.slot(), listeners }
}

/// The pipes of the output, and the program's ends of them.
fn streams(output: Output) -> io::Result<(Vec<Stream>, Option<[OwnedFd; 2]>)> {
    if output == Output::Inherit {
        return Ok((Vec::new(), None));
    }
    let (stdout, stdout_end) = Stream::open("stdout")?;
    let (stderr, stderr_end) = Stream::open("stderr")?;
    Ok((vec![stdout, stderr], Some([stdout_end, stderr_end])))
}

/// The descriptors by number: the three standard ones, the listeners, the report of readiness.
fn descriptors<'a>(
    plan: &Plan,
    context: &'a WorkerContext,
    null: &'a File,
    output: Option<&'a [OwnedFd; 2]>,
    ready: &'a OwnedFd,
) -> Vec<BorrowedFd<'a>> {
    let listeners = || context.listeners().iter().map(|listener| listener.as_fd());
    let input = match plan.stdin {
        Stdin::Listener => listeners().next(),
        Stdin::Null => None,
    };
    let [stdout, stderr] = match output {
        Some([stdout, stderr]) => [stdout.as_fd(), stderr.as_fd()],
        None => [rustix::stdio::stdout(), rustix::stdio::stderr()],
    };
    let standard = [input.unwrap_or(null.as_fd()), stdout, stderr];
    standard.into_iter().chain(listeners()).chain([ready.as_fd()]).collect()
}

/// Sets the mode of the listeners, which other workers may have changed. Costs two system calls for each.
pub(super) fn set_mode(plan: &Plan, context: &WorkerContext) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    if !plan.is_blocking {
        return;
    }
    for listener in context.listeners() {
        if let Ok(flags) = fcntl_getfl(listener.as_fd()) {
            if flags.contains(OFlags::NONBLOCK) {
                let _ = fcntl_setfl(listener.as_fd(), flags - OFlags::NONBLOCK);
            }
        }
    }
}

/// The variables whose value is the pid of the program.
fn pid_variables(plan: &Plan) -> &'static [&'static str] {
    if plan.watchdog.is_some() { &["LISTEN_PID", "WATCHDOG_PID"] } else { &["LISTEN_PID"] }
}

type Environment = BTreeMap<OsString, OsString>;

fn environment(plan: &Plan, place: &Place, notices: Option<&NoticeSocket>) -> Environment {
    let inherited = std::env::vars_os().filter(|(name, _)| !contracts::is_ours(name));
    let mut environment: Environment = inherited.chain(plan.environment.iter().cloned()).collect();
    for name in pid_variables(plan) {
        // The new process adds it, and getenv(3) finds the first entry of a name.
        environment.remove(OsStr::new(name));
    }
    let mut set = |name: &str, value: String| environment.insert(name.into(), value.into());
    for (name, value) in place.variables() {
        set(&name, value);
    }
    set("MCSUP_READY_FD", place.ready_fd().to_string());
    if let Some(notices) = notices {
        set("NOTIFY_SOCKET", notices.name().to_owned());
    }
    if let Some(interval) = plan.watchdog {
        set("WATCHDOG_USEC", interval.as_micros().to_string());
    }
    environment
}

/// The paths to try, as execvp(3). But no shell runs a file without `#!`.
fn paths(plan: &Plan, environment: &Environment) -> Result<Vec<CString>> {
    if plan.program.as_bytes().contains(&b'/') {
        return Ok(vec![text(&plan.program)?]);
    }
    let directories = environment.get(OsStr::new("PATH")).map_or(OsStr::new(USUAL), OsString::as_os_str);
    std::env::split_paths(directories)
        .map(|directory| {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
            text(directory.join(&plan.program).as_os_str())
        })
        .collect()
}

fn arguments(plan: &Plan, place: &Place) -> Result<Vec<CString>> {
    let filled = plan.arguments.iter().map(|argument| place.fill(argument));
    std::iter::once(plan.program.clone()).chain(filled).map(|argument| text(&argument)).collect()
}

fn entry(name: &OsStr, value: &OsStr) -> Result<CString> {
    text(&[name, value].join(OsStr::new("=")))
}

fn text(text: &OsStr) -> Result<CString> {
    CString::new(OsString::from(text).into_vec())
        .map_err(|_| Error::new(ErrorKind::Setting, format!("a program's text {text:?} contains a NUL")))
}

fn attributes(plan: &Plan, slot: usize, leads_group: bool) -> Result<Attributes> {
    let directory = plan.directory.as_ref().map(|directory| text(directory.as_os_str())).transpose()?;
    let cpus = slot.checked_rem(plan.cpus.len()).and_then(|set| plan.cpus.get(set));
    Ok(Attributes {
        leads_group,
        limits: plan.limits.iter().map(limit).collect(),
        nice: plan.nice,
        cpus: cpus.cloned().unwrap_or_default(),
        umask: plan.umask,
        credentials: plan.run_as.as_ref().map(|run_as| run_as.0.clone()),
        directory,
        no_new_privileges: plan.no_new_privileges,
    })
}

fn limit(limit: &Limit) -> (Resource, Rlimit) {
    let resource = match limit.resource {
        LimitedResource::AddressSpace => Resource::As,
        LimitedResource::Core => Resource::Core,
        LimitedResource::Cpu => Resource::Cpu,
        LimitedResource::Data => Resource::Data,
        LimitedResource::FileSize => Resource::Fsize,
        LimitedResource::LockedMemory => Resource::Memlock,
        LimitedResource::Descriptors => Resource::Nofile,
        LimitedResource::Processes => Resource::Nproc,
        LimitedResource::Stack => Resource::Stack,
    };
    (resource, Rlimit { current: limit.soft, maximum: limit.hard })
}

fn probe(plan: &Plan, context: &WorkerContext, ready: &OwnedFd) -> io::Result<Option<Probe>> {
    let question = match &plan.ready {
        Ready::Accepts => None,
        Ready::Answers { request, answers } => {
            Some(Question { request: request.clone(), answers: answers.clone() })
        }
        Ready::Reported | Ready::After(_) => return Ok(None),
    };
    let Some(address) = tcp(context) else { return Ok(None) };
    Probe::start(address, question, ready.try_clone()?).map(Some)
}

/// The error of a step in the new process.
fn refused(plan: &Plan, attributes: &Attributes, Failure { step, error }: Failure) -> Error {
    let processors = format!("set its processors, {:?}", attributes.cpus);
    let (step, kind) = match step {
        Step::Fork => ("fork", ErrorKind::Boot),
        Step::Group => ("make a process group", ErrorKind::Boot),
        Step::Descriptors => ("pass its descriptors", ErrorKind::Boot),
        Step::Limits => ("set its limits", ErrorKind::Boot),
        Step::Nice => ("set its nice value", ErrorKind::Boot),
        Step::Processors => (processors.as_str(), ErrorKind::Boot),
        Step::Privileges => ("drop privileges", ErrorKind::Privileges),
        Step::Directory => ("change to its directory", ErrorKind::Boot),
        Step::NoNewPrivileges => ("set no_new_privs", ErrorKind::Boot),
        Step::Parent => ("set its parent-death signal", ErrorKind::Boot),
        Step::Execute => ("execute it", ErrorKind::Application),
    };
    Error::system(format!("start {}: {step}", plan.name()), error).of_kind(kind)
}
