//! The process that calls the hooks of gunicorn's master, as the supervisor sees it.
//!
//! It exists only if the configuration in Python defines such a hook. The supervisor writes events to a socket, and waits
//! twice: at the start for `on_starting`, and at its end for `on_exit`, both with a limit. A full socket loses events, with
//! a warning.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mcsup_core::host::helper::{AtSignals, Helper};
use mcsup_core::{Error, PoolEvent};
use mcsup_py::conf::{MASTER_HOOKS, MasterEvent, MasterFacts, MasterHooks, Source};
use mcsup_py::python::fork;

use super::cfg;
use super::pool::Output;
use crate::settings::Settings;

/// The longest time of a hook.
const LIMIT: Duration = Duration::from_secs(30);
/// The time beyond that limit in which the process itself ends.
const GRACE: Duration = Duration::from_secs(1);
/// A process that ends sooner is not started again until the next reload.
const TOO_SOON: Duration = Duration::from_secs(5);
/// A longer line might be written in parts.
const LONGEST_LINE: usize = 4096;

/// The hooks of gunicorn's master in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Defined {
    source: Source,
    cfg: String,
    app: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// The hooks of a pool, and the process that calls them.
pub(super) struct Hooks {
    /// Those of the serving generation; `None`: its configuration defines none.
    serving: Option<Defined>,
    /// Those of the generation that a reload boots.
    next: Option<(u64, Option<Defined>)>,
    facts: MasterFacts,
    /// The numbers of the living workers, by pid.
    living: BTreeMap<i32, u64>,
    output: Output,
    arguments: Vec<String>,
    process: Option<Process>,
    /// The process of the serving generation during a reload, with the workers that it knows.
    parked: Option<(Process, BTreeMap<i32, u64>)>,
    has_listened: bool,
}

/// The process, and the socket to it.
struct Process {
    helper: Helper,
    events: UnixStream,
    begun: Instant,
    /// Events that found the socket full.
    lost: usize,
}

impl Hooks {
    /// The hooks of a new pool, whose process is not started yet.
    pub(super) fn new(settings: &Settings, arguments: Vec<String>, output: Output) -> Self {
        let facts = MasterFacts {
            pid: std::process::id().try_into().unwrap_or_default(),
            app: settings.app.as_ref().map(|app| app.value.clone()).unwrap_or_default(),
            workers: settings.workers.value,
            listeners: settings.binds.value.iter().map(ToString::to_string).collect(),
            ..MasterFacts::default()
        };
        Self {
            serving: defined(settings, &arguments),
            next: None,
            facts,
            living: BTreeMap::new(),
            output,
            arguments,
            process: None,
            parked: None,
            has_listened: false,
        }
    }

    /// Starts the process of a new pool, and waits until `on_starting` has returned.
    pub(super) fn start(&mut self) {
        let Some(started) = self.start_process() else { return };
        let workers = self.facts.workers;
        self.send(&MasterEvent::Workers { new: workers, old: None });
        self.send(&MasterEvent::OnStarting {});
        // A hook that hangs ends the process, and that closes the socket.
        let _ = started.set_read_timeout(Some(LIMIT + GRACE)).and_then(|()| (&started).read(&mut [0]));
    }

    /// The listeners are open.
    pub(super) fn listening(&mut self, addresses: Vec<String>) {
        self.has_listened = true;
        self.facts.listeners.clone_from(&addresses);
        self.send(&MasterEvent::Listening { addresses });
        self.send(&MasterEvent::WhenReady {});
    }

    /// This image has taken over a pool, whose listeners are open.
    pub(super) fn taken_over(&mut self) {
        self.has_listened = true;
        self.send(&MasterEvent::WhenReady {});
    }

    /// New settings are valid, and their generation is about to boot.
    pub(super) fn reload(&mut self, generation: u64, settings: &Settings) {
        let next = defined(settings, &self.arguments);
        self.facts.app = next.as_ref().map(|next| next.app.clone()).unwrap_or_default();
        self.next = Some((generation, next));
        self.parked = self.process.take().map(|process| (process, self.living.clone()));
        self.start_process();
        let workers = self.facts.workers;
        self.send(&MasterEvent::Workers { new: workers, old: Some(workers) });
        self.send(&MasterEvent::OnReload {});
    }

    /// Passes an event of the pool on.
    pub(super) fn observe(&mut self, event: &PoolEvent) {
        match event {
            PoolEvent::Born { process } | PoolEvent::Adopted { process } => {
                let (Some(pid), Some(_)) = (process.pid, process.slot) else { return };
                let age = process.number.unwrap_or(self.facts.age + 1);
                self.facts.age = age;
                let born = MasterEvent::Born { pid, age };
                let is_new = matches!(event, PoolEvent::Born { .. });
                self.send(&if is_new { born } else { MasterEvent::Adopted { pid, age } });
                self.living.insert(pid, age);
            }
            PoolEvent::Retired { process } | PoolEvent::Died { process, .. } => {
                let Some(pid) = process.pid.filter(|pid| self.living.contains_key(pid)) else { return };
                self.send(&MasterEvent::Ended { pid });
                self.living.remove(&pid);
            }
            PoolEvent::ScaleBegan { from, to } => self.scale(*from, *to),
            PoolEvent::ScaleFailed { from, to, .. } => self.scale(*to, *from),
            PoolEvent::UpgradeBegan => self.send(&MasterEvent::PreExec {}),
            PoolEvent::ReloadDone { generation, .. } => {
                if let Some((_, next)) = self.next.take_if(|(next, _)| next == generation) {
                    (self.serving, self.parked) = (next, None);
                }
            }
            PoolEvent::ReloadFailed { generation, .. } | PoolEvent::ReloadSuperseded { generation }
                if self.next.take_if(|(next, _)| next == generation).is_some() =>
            {
                self.restore();
            }
            _ => {}
        }
    }

    /// Goes back to the process of the serving generation, which learns what has changed.
    fn restore(&mut self) {
        self.process = None;
        let Some((process, known)) = self.parked.take() else { return };
        let gone = known.keys().filter(|pid| !self.living.contains_key(pid));
        let gone = gone.map(|pid| MasterEvent::Gone { pid: *pid });
        let born = self.living.iter().filter(|(pid, _)| !known.contains_key(pid));
        let born = born.map(|(pid, age)| MasterEvent::Adopted { pid: *pid, age: *age });
        let missed: Vec<MasterEvent> = gone.chain(born).collect();
        self.process = Some(process);
        missed.iter().for_each(|event| self.send(event));
    }

    fn scale(&mut self, old: usize, new: usize) {
        self.send(&MasterEvent::Workers { new, old: Some(old) });
        self.facts.workers = new;
    }

    /// The process opens its log files again.
    pub(super) fn reopen_logs(&mut self) {
        self.send(&MasterEvent::ReopenLogs {});
    }

    /// Leaves the process to the supervisor, in a process that it has forked.
    pub(super) fn leave(&mut self) {
        (self.process, self.parked, self.serving, self.next) = (None, None, None, None);
    }

    /// Ends the process, after `on_exit` if the pool has listened.
    pub(super) fn finish(&mut self) {
        self.parked = None;
        if self.has_listened {
            self.send(&MasterEvent::OnExit {});
        }
        let Some(Process { mut helper, events, .. }) = self.process.take() else { return };
        drop(events);
        if !helper.wait(LIMIT + GRACE) {
            log::error!("The process of the hooks ({}) does not end: it is killed", helper.pid());
            helper.kill();
        }
    }

    /// Starts the process of the newest hooks, if there are any; returns the socket that reports the end of `on_starting`.
    fn start_process(&mut self) -> Option<UnixStream> {
        let newest = self.next.as_ref().map_or(&self.serving, |(_, next)| next);
        let defined = newest.as_ref()?;
        let living = self.living.iter().map(|(pid, age)| (*pid, *age)).collect();
        let facts = MasterFacts { living, ..self.facts.clone() };
        match Process::start(defined, facts, &self.output) {
            Ok((process, started)) => {
                log::debug!("The hooks of {} run in process {}", defined.source, process.helper.pid());
                self.process = Some(process);
                Some(started)
            }
            Err(error) => {
                log::error!("The hooks of {} are not called: {error}", defined.source);
                None
            }
        }
    }

    /// Writes an event to the socket; starts the process again if it has ended.
    fn send(&mut self, event: &MasterEvent) {
        let Some(process) = &mut self.process else { return };
        let Some(end) = process.send(event) else { return };
        let is_too_soon = process.begun.elapsed() < TOO_SOON;
        self.process = None;
        if is_too_soon || *event == (MasterEvent::OnExit {}) {
            log::error!("The process of the hooks has ended: {end}; no hook is called until the next reload");
            return;
        }
        log::error!("The process of the hooks has ended: {end}; it is started again");
        if self.start_process().is_some() {
            // A process that ends at once is found at the next event.
            if let Some(process) = &mut self.process {
                process.send(event);
            }
        }
    }
}

impl Process {
    /// Forks the process; returns also the socket that reports the end of
    /// `on_starting`.
    fn start(
        defined: &Defined,
        facts: MasterFacts,
        output: &Output,
    ) -> mcsup_core::Result<(Self, UnixStream)> {
        let failed = |error| Error::system("make a socket to the process of hooks", error);
        let (events, theirs) = UnixStream::pair().map_err(failed)?;
        events.set_nonblocking(true).map_err(failed)?;
        let (started, to_started) = UnixStream::pair().map_err(failed)?;
        let kept = [theirs.as_raw_fd(), to_started.as_raw_fd(), output.log.fd()];
        let helper = Helper::start(AtSignals::GoOn, &kept, around_fork, || {
            output.log.use_in_worker();
            let reopened = output.clone();
            let hooks = MasterHooks {
                source: defined.source.clone(),
                cfg: defined.cfg.clone(),
                facts,
                venv: std::env::var_os("VIRTUAL_ENV").map(Into::into),
                arguments: defined.arguments.clone(),
                environment: defined.environment.clone(),
                limit: LIMIT,
                reopen_error_log: Box::new(move || reopened.reopen()),
            };
            let (Ok(events), Ok(started)) = (theirs.try_clone(), to_started.try_clone()) else { return 1 };
            hooks.run(events.into(), started.into())
        })?;
        Ok((Self { helper, events, begun: Instant::now(), lost: 0 }, started))
    }

    /// Writes an event; how the process has ended, if it has.
    fn send(&mut self, event: &MasterEvent) -> Option<String> {
        let line = event.line();
        if let Some(end) = self.helper.end() {
            return Some(end);
        }
        if line.len() > LONGEST_LINE {
            log::warn!("An event is too long for the process of the hooks: {}", event.hook());
            return None;
        }
        match self.events.write_all(line.as_bytes()) {
            Ok(()) => {
                if self.lost > 0 {
                    log::warn!("Hooks were not called for {} events: their process was busy", self.lost);
                    self.lost = 0;
                }
                None
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if self.lost == 0 {
                    log::warn!("The process of the hooks is busy: events are lost ({})", event.hook());
                }
                self.lost += 1;
                None
            }
            Err(error) => {
                self.helper.wait(GRACE);
                Some(self.helper.end().unwrap_or_else(|| error.to_string()))
            }
        }
    }
}

/// The hooks of gunicorn's master in the configuration of these settings.
fn defined(settings: &Settings, arguments: &[String]) -> Option<Defined> {
    let conf = settings.conf.as_ref()?;
    conf.hooks.iter().any(|hook| MASTER_HOOKS.contains(hook)).then(|| Defined {
        source: conf.source.clone(),
        cfg: cfg::values(settings),
        app: settings.app.as_ref().map(|app| app.value.clone()).unwrap_or_default(),
        arguments: arguments.to_vec(),
        environment: settings.process.env.value.clone(),
    })
}

fn around_fork(after_in_child: Option<bool>) {
    match after_in_child {
        None => fork::before(),
        Some(true) => fork::after_in_child(),
        Some(false) => fork::after_in_parent(),
    }
}
