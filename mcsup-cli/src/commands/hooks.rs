//! The hooks of gunicorn's master, as the supervisor sees them: which ones apply, and the events that call them.
//!
//! Their process exists only if the configuration in Python defines such a hook. It lives over reloads: a reload has it
//! execute the new configuration. The supervisor waits for it twice: at the start for `on_starting`, and at its end for
//! `on_exit`, both with a limit. A full socket loses events, with a warning.

use std::collections::BTreeMap;

use mcsup_core::PoolEvent;
use mcsup_core::host::service_manager::ServiceManager;
use mcsup_py::access::AccessSettings;
use mcsup_py::conf::{MASTER_HOOKS, MasterEvent, MasterFacts, MasterHooks, Script};
use mcsup_py::python::logging::LogConfig;

use super::beats::Beats;
use super::cfg;
use super::hooks_process::{LIMIT, Process, Sent};
use super::output::Output;
use super::wiring;
use crate::settings::Settings;

/// Hooks after which something may live in their process.
const STARTING: [&str; 2] = ["on_starting", "when_ready"];

/// The hooks of gunicorn's master in a configuration.
#[derive(Debug, Clone)]
struct Defined {
    script: Script,
    names: Vec<&'static str>,
    cfg: String,
    app: String,
    environment: Vec<(String, String)>,
    log_config: LogConfig,
    python_path: Vec<String>,
    access: AccessSettings,
}

/// The hooks of the generation that a reload boots.
struct Next {
    generation: u64,
    defined: Option<Defined>,
    /// The listeners of this generation until it begins, from then on those of the serving one.
    other_listeners: Vec<String>,
    /// Whether its first process was forked: its settings are valid, and its addresses open.
    has_begun: bool,
}

/// The hooks of a pool, and the process that calls them.
pub(super) struct Hooks {
    /// Those of the serving generation; `None`: its configuration defines none.
    serving: Option<Defined>,
    next: Option<Next>,
    facts: MasterFacts,
    /// The numbers of the living workers, by pid.
    living: BTreeMap<i32, u64>,
    output: Output,
    arguments: Vec<String>,
    beats: Beats,
    process: Option<Process>,
    has_listened: bool,
}

impl Hooks {
    /// The hooks of a new pool, whose process is not started yet.
    pub(super) fn new(
        settings: &Settings,
        arguments: Vec<String>,
        output: Output,
        service_manager: ServiceManager,
    ) -> Self {
        let facts = MasterFacts {
            pid: std::process::id().try_into().unwrap_or_default(),
            workers: settings.workers.value,
            ..MasterFacts::default()
        };
        Self {
            serving: defined(settings, &output),
            next: None,
            facts,
            living: BTreeMap::new(),
            output,
            arguments,
            beats: Beats::new(service_manager),
            process: None,
            has_listened: false,
        }
    }

    /// Starts the process of a new pool, and waits until `on_starting` has returned.
    pub(super) fn start(&mut self) {
        self.begin();
        if let Some(process) = &mut self.process {
            process.wait_until_idle(&mut self.beats);
        }
    }

    /// Starts the process, which calls `on_starting`.
    fn begin(&mut self) {
        self.start_process(&[]);
        self.send(&MasterEvent::Workers { new: self.facts.workers, old: None });
        self.send(&MasterEvent::OnStarting {});
    }

    /// The listeners are open.
    pub(super) fn listening(&mut self, addresses: Vec<String>) {
        self.has_listened = true;
        self.facts.listeners.clone_from(&addresses);
        self.send(&MasterEvent::Listening { addresses });
        self.send(&MasterEvent::WhenReady {});
    }

    /// This image has taken over a pool, whose listeners are open and whose workers run: no hook delays it.
    pub(super) fn taken_over(&mut self, addresses: Vec<String>) {
        self.begin();
        self.listening(addresses);
    }

    /// New settings were read. Their generation may still be refused.
    pub(super) fn reload(&mut self, generation: u64, settings: &Settings) {
        self.restore();
        let defined = defined(settings, &self.output);
        self.next = Some(Next { generation, defined, other_listeners: Vec::new(), has_begun: false });
    }

    /// The listeners of the generation that a reload is about to boot are open.
    pub(super) fn opened(&mut self, generation: u64, addresses: Vec<String>) {
        if let Some(next) = self.next.as_mut().filter(|next| next.generation == generation) {
            next.other_listeners = addresses;
        }
    }

    /// The generation boots: its hooks apply.
    fn begin_reload(&mut self, generation: u64) {
        let is_begun = |next: &&mut Next| next.generation == generation && !next.has_begun;
        let Some(next) = self.next.as_mut().filter(is_begun) else { return };
        next.has_begun = true;
        std::mem::swap(&mut self.facts.listeners, &mut next.other_listeners);
        // Without hooks there those of the serving generation are called until it has gone.
        let Some(Defined { script, cfg, app, environment, .. }) = next.defined.clone() else { return };
        let sent = self
            .process
            .as_mut()
            .map(|process| process.send(&MasterEvent::Reload { script, cfg, app, environment }));
        match sent {
            Some(Sent::Yes) => {}
            Some(Sent::Lost) => {
                log::error!("The process of the hooks is too busy for a reload: another one replaces it");
                self.replace(&[]);
            }
            Some(Sent::Ended(end)) => {
                log::error!("The process of the hooks has ended: {end}; it is started again");
                self.replace(&[]);
            }
            None => self.start_process(&[]),
        }
        self.send(&MasterEvent::Listening { addresses: self.facts.listeners.clone() });
        let workers = self.facts.workers;
        self.send(&MasterEvent::Workers { new: workers, old: Some(workers) });
        self.send(&MasterEvent::OnReload {});
    }

    /// Passes an event of the pool on.
    pub(super) fn observe(&mut self, event: &PoolEvent) {
        match event {
            PoolEvent::Born { process } | PoolEvent::Adopted { process } => {
                self.begin_reload(process.generation);
                let (Some(pid), Some(_)) = (process.pid, process.slot) else { return };
                let age = process.number.unwrap_or(self.facts.age + 1);
                self.facts.age = age;
                self.living.insert(pid, age);
                let born = MasterEvent::Born { pid, age };
                let is_new = matches!(event, PoolEvent::Born { .. });
                self.send(&if is_new { born } else { MasterEvent::Adopted { pid, age } });
            }
            PoolEvent::Retired { process } | PoolEvent::Died { process, .. } => {
                let Some(pid) = process.pid else { return };
                let Some(age) = self.living.remove(&pid) else { return };
                self.send(&MasterEvent::Ended { pid, age });
            }
            PoolEvent::ScaleBegan { from, to } => self.scale(*from, *to),
            PoolEvent::ScaleFailed { from, to, .. } => self.scale(*to, *from),
            PoolEvent::UpgradeBegan => self.send(&MasterEvent::PreExec {}),
            PoolEvent::ReloadDone { generation, .. } => {
                self.begin_reload(*generation);
                let Some(next) = self.next.take_if(|next| next.generation == *generation) else { return };
                self.serving = next.defined;
                if self.serving.is_none() {
                    self.process = None;
                }
            }
            PoolEvent::ReloadFailed { generation, .. } | PoolEvent::ReloadSuperseded { generation }
                if self.next.as_ref().is_some_and(|next| next.generation == *generation) =>
            {
                self.restore();
            }
            _ => {}
        }
    }

    /// Goes back to the hooks of the serving generation.
    fn restore(&mut self) {
        let Some(next) = self.next.take().filter(|next| next.has_begun) else { return };
        self.facts.listeners.clone_from(&next.other_listeners);
        if self.serving.is_none() {
            self.process = None;
        } else if next.defined.is_some() {
            self.send(&MasterEvent::Restore {});
            self.send(&MasterEvent::Listening { addresses: next.other_listeners });
        }
    }

    fn scale(&mut self, old: usize, new: usize) {
        self.facts.workers = new;
        self.send(&MasterEvent::Workers { new, old: Some(old) });
    }

    /// The process opens its log files again.
    pub(super) fn reopen_logs(&mut self) {
        self.send(&MasterEvent::ReopenLogs {});
    }

    /// Leaves the process to the supervisor, in a process that it has forked.
    pub(super) fn leave(&mut self) {
        (self.process, self.serving, self.next) = (None, None, None);
    }

    /// Ends the process, after `on_exit` if the pool has listened.
    pub(super) fn finish(&mut self) {
        if let Some(process) = self.process.take() {
            process.finish(self.has_listened, &mut self.beats);
        }
    }

    /// The hooks that apply.
    fn current(&self) -> Option<&Defined> {
        let next = self.next.as_ref().filter(|next| next.has_begun);
        next.map_or(&self.serving, |next| &next.defined).as_ref()
    }

    /// Starts the process of the hooks that apply, if there are any. It gets the workers that lived before the events
    /// `missed`, and then these.
    fn start_process(&mut self, missed: &[MasterEvent]) {
        let Some(defined) = self.current() else { return };
        let mut living = self.living.clone();
        for event in missed.iter().rev() {
            match event {
                MasterEvent::Born { pid, .. } | MasterEvent::Adopted { pid, .. } => living.remove(pid),
                MasterEvent::Ended { pid, age } => living.insert(*pid, *age),
                _ => None,
            };
        }
        let (app, living) = (defined.app.clone(), living.into_iter().collect());
        let facts = MasterFacts { app, living, ..self.facts.clone() };
        let started = Process::start(self.output.log.fd(), || {
            self.output.log.use_in_worker();
            let reopened = self.output.clone();
            MasterHooks {
                script: defined.script.clone(),
                cfg: defined.cfg.clone(),
                facts,
                venv: std::env::var_os("VIRTUAL_ENV").map(Into::into),
                arguments: self.arguments.clone(),
                environment: defined.environment.clone(),
                log_config: defined.log_config.clone(),
                python_path: defined.python_path.clone(),
                write_record: wiring::write_record(&self.output.log),
                access: defined.access.clone(),
                limit: LIMIT,
                reopen_error_log: Box::new(move || reopened.reopen()),
            }
        });
        match started {
            Ok(mut process) => {
                log::debug!("The hooks of {} run in process {}", defined.script.source, process.pid());
                // A process that ends at once is found at the next event.
                for event in missed {
                    let _ = process.send(event);
                }
                self.process = Some(process);
            }
            Err(error) => log::error!("The hooks of {} are not called: {error}", defined.script.source),
        }
    }

    /// Starts another process. It gets the events that the one which has ended has not begun, and `last`.
    fn replace(&mut self, last: &[MasterEvent]) {
        let missed = self.process.take().map(|mut process| process.missed()).unwrap_or_default();
        let missed: Vec<MasterEvent> =
            missed.iter().chain(last).filter(|event| is_kept(event)).cloned().collect();
        if self.current().is_some_and(|defined| STARTING.iter().any(|name| defined.names.contains(name))) {
            log::warn!(
                "Threads and objects that on_starting and when_ready have made are gone until the next start"
            );
        }
        self.start_process(&missed);
    }

    /// Writes an event to the socket; starts the process again if it has ended.
    fn send(&mut self, event: &MasterEvent) {
        let Some(process) = &mut self.process else { return };
        let Sent::Ended(end) = process.send(event) else { return };
        self.start_again(&end, std::slice::from_ref(event));
    }

    /// Starts the process again if it has ended. The events that it has not begun need not wait for another one.
    pub(super) fn look(&mut self) {
        if let Some(end) = self.process.as_mut().and_then(Process::end) {
            self.start_again(&end, &[]);
        }
    }

    /// Starts the process again after its `end`, for the event `last` too.
    fn start_again(&mut self, end: &str, last: &[MasterEvent]) {
        let Some(process) = &mut self.process else { return };
        if process.is_new() || last == [MasterEvent::OnExit {}] {
            log::error!("The process of the hooks has ended: {end}; no hook is called until the next reload");
            process.warn_of_missed();
            self.process = None;
            return;
        }
        log::error!("The process of the hooks has ended: {end}; it is started again");
        self.replace(last);
    }
}

/// Whether an event is for the next process too. Events of a start are not, and a new process executes the configuration.
fn is_kept(event: &MasterEvent) -> bool {
    use MasterEvent::{OnStarting, Reload, ReopenLogs, Restore};
    !matches!(event, OnStarting {} | Reload { .. } | Restore {} | ReopenLogs {})
}

/// The hooks of gunicorn's master in the configuration of these settings.
fn defined(settings: &Settings, output: &Output) -> Option<Defined> {
    let conf = settings.conf.as_ref()?;
    // Settings with a wrong format were refused before.
    let access = wiring::access_log(settings, &output.remote).ok()?;
    let names: Vec<_> = conf.hooks.iter().copied().filter(|hook| MASTER_HOOKS.contains(hook)).collect();
    (!names.is_empty()).then(|| Defined {
        script: conf.script.clone(),
        names,
        cfg: cfg::values(settings),
        app: settings.app.as_ref().map(|app| app.value.clone()).unwrap_or_default(),
        environment: settings.process.env.value.clone(),
        log_config: settings.logging.python.clone(),
        python_path: settings.python_path.as_ref().map(|path| path.value.clone()).unwrap_or_default(),
        access,
    })
}
