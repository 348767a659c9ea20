//! The supervisor's side of a pool: the worker settings of each generation, and the shared logs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use mcsup_core::host::daemon::Answer;
use mcsup_core::host::service_manager::ServiceManager;
use mcsup_core::{Config, Error, ErrorKind, ForkSide, Local, PoolEvent, Preparation, Supervisor};

use super::application::{self, Application};
use super::hooks::Hooks;
use super::output::Output;
use super::reading::{Executing, Reading};
use super::remote::WorkerCount;
use super::socket_access;
use super::wiring::{self, UserLookup};
use crate::failure::Failure;
use crate::settings::Settings;

/// The interval at which the supervisor sends records of its log that wait for a target on the network.
const SEND_AGAIN: Duration = Duration::from_secs(1);

/// The supervisor's side of a pool.
pub(super) struct Pool<A: Application> {
    application: A,
    /// Worker settings of the first generation.
    first: A::Made,
    /// Worker settings of the later generations, each with its note of the configuration in Python.
    workers: BTreeMap<u64, (A::Made, String)>,
    settings: Settings,
    users: UserLookup,
    service_manager: ServiceManager,
    reading: Reading,
    /// Readings for reloads, by generation, whose configuration in Python is being executed.
    executing: BTreeMap<u64, Executing>,
    hooks: Rc<RefCell<Hooks>>,
    output: Output,
    /// How many workers there are.
    count: WorkerCount,
    answer: Rc<Cell<Option<Answer>>>,
}

impl<A: Application> Pool<A> {
    /// Makes the pool with its first generation.
    pub(super) fn new(
        (application, first): (A, A::Made),
        settings: &Settings,
        (reading, users): (Reading, UserLookup),
        service_manager: ServiceManager,
        output: Output,
        (hooks, answer): (Rc<RefCell<Hooks>>, Rc<Cell<Option<Answer>>>),
    ) -> Self {
        Self {
            application,
            first,
            workers: BTreeMap::new(),
            settings: settings.clone(),
            users,
            service_manager,
            reading,
            executing: BTreeMap::new(),
            hooks,
            output,
            count: WorkerCount::default(),
            answer,
        }
    }

    fn warn_of_settings(&self, new: &Settings) {
        for name in changed_fixed_settings(&self.settings, new) {
            log::warn!("{name} has changed: that takes effect at the next start, not at a reload");
        }
        for warning in new.warnings.iter().filter(|warning| !self.settings.warnings.contains(warning)) {
            log::warn!("{warning}");
        }
    }
}

impl<A: Application> Drop for Pool<A> {
    /// Calls `on_exit`. The supervisor drops the pool before its handlers of signals: none ends it meanwhile.
    fn drop(&mut self) {
        if let Ok(mut hooks) = self.hooks.try_borrow_mut() {
            hooks.finish();
        }
    }
}

/// The error of a reload.
fn refused(failure: &Failure) -> Error {
    Error::new(ErrorKind::Setting, failure.to_string())
}

/// Names of changed settings that a reload does not apply.
fn changed_fixed_settings(old: &Settings, new: &Settings) -> Vec<&'static str> {
    // An address that is kept keeps its sockets.
    let is_kept = new.binds.value.iter().any(|bind| old.binds.value.contains(bind));
    let same = [
        ("chdir", old.process.chdir == new.process.chdir),
        ("pid", old.process.pid == new.process.pid),
        ("enable_stdio_inheritance", old.process.keeps_streams.value == new.process.keeps_streams.value),
        ("daemon", old.process.daemon.value == new.process.daemon.value),
        ("reuse_port", old.reuse_port.value == new.reuse_port.value || !is_kept),
        // Loaded modules stay loaded.
        ("no_share_stdlib", old.no_share_stdlib.value || !new.no_share_stdlib.value),
        ("control_socket", old.control == new.control),
        ("error_logfile", old.logging.errors == new.logging.errors),
        ("log_level", old.logging.level == new.logging.level),
        ("log_format", old.logging.form == new.logging.form),
        ("capture_output", old.logging.capture_output.value == new.logging.capture_output.value),
        ("syslog", old.logging.syslog == new.logging.syslog),
        ("statsd_host", old.logging.statsd == new.logging.statsd),
    ];
    same.into_iter().filter(|(_, is_same)| !is_same).map(|(name, _)| name).collect()
}

impl<A: Application> Supervisor for Pool<A> {
    type Worker = A::Worker;

    fn worker(&mut self, generation: u64) -> A::Worker {
        // The supervisor answers, not a worker.
        drop(self.answer.take());
        A::worker(self.workers.get(&generation).map_or(&self.first, |(made, _)| made))
    }

    fn prepare_reload(&mut self, generation: u64) -> mcsup_core::Result<Option<Preparation>> {
        let Some(executing) = self.reading.begin().map_err(|failure| refused(&failure))? else {
            return Ok(None);
        };
        let preparation = executing.preparation()?;
        self.executing.insert(generation, executing);
        Ok(Some(preparation))
    }

    fn reload(&mut self, generation: u64) -> mcsup_core::Result<Option<Config>> {
        let settings = self.reading.finish(self.executing.remove(&generation))?;
        self.application.check(&settings).map_err(|failure| refused(&failure))?;
        let mut config = wiring::pool(&settings, Some(&self.users)).map_err(|failure| refused(&failure))?;
        config.addresses = wiring::addresses(&settings, &self.service_manager);
        config.title = Some(wiring::title(&self.application.service_name(&settings)));
        let worker =
            self.application.make(&settings, &config, &self.output).map_err(|failure| refused(&failure))?;
        self.users = UserLookup::of(&settings, &config);
        self.application.configure(&mut config);
        self.output.give_away(&settings, &config, true).map_err(|failure| refused(&failure))?;
        self.warn_of_settings(&settings);
        A::prepare(&settings, &worker);
        self.hooks.borrow_mut().reload(generation, &settings);
        self.workers.insert(generation, (worker, settings.note_of_conf().to_owned()));
        Ok(Some(config))
    }

    fn forget(&mut self, generation: u64) {
        self.executing.remove(&generation);
        self.workers.remove(&generation);
    }

    fn starting(&mut self) {
        self.hooks.borrow_mut().start();
    }

    fn note(&self) -> Option<String> {
        // No reload runs during an upgrade: the newest generation is the one that serves.
        let newest = self.workers.values().next_back().map(|(_, note)| note.clone());
        Some(newest.unwrap_or_else(|| self.settings.note_of_conf().to_owned()))
    }

    fn taken_over(&mut self, locals: &[&Local]) {
        A::prepare(&self.settings, &self.first);
        let addresses = locals.iter().map(|local| named::<A>(local, &self.first)).collect();
        self.hooks.borrow_mut().taken_over(addresses);
    }

    fn opened(&mut self, generation: u64, locals: &[&Local]) {
        let Some((made, _)) = self.workers.get(&generation) else { return };
        let addresses = locals.iter().map(|local| named::<A>(local, made)).collect();
        self.hooks.borrow_mut().opened(generation, addresses);
    }

    fn listening(&mut self, locals: &[&Local]) {
        A::prepare(&self.settings, &self.first);
        let mut addresses = Vec::new();
        for local in locals {
            let name = named::<A>(local, &self.first);
            log::info!("Listening at: {name} ({})", std::process::id());
            addresses.push(name);
            if let Some(line) = socket_access::describe(local) {
                log::info!("{line}");
            }
        }
        self.hooks.borrow_mut().listening(addresses);
    }

    fn ready(&mut self, ready: usize, target: usize) {
        if let Some(answer) = self.answer.take() {
            answer.ready(&missing(ready, target));
        }
    }

    fn observe(&mut self, event: &PoolEvent) {
        self.hooks.borrow_mut().observe(event);
        let (count, statsd) = (self.count.note(event), &self.output.remote.statsd);
        let report =
            count.zip(statsd.as_ref()).and_then(|(count, statsd)| statsd.gauge("gunicorn.workers", count));
        if let Some(report) = report {
            report.log();
        }
    }

    fn reopen_logs(&mut self) {
        self.output.reopen();
        self.hooks.borrow_mut().reopen_logs();
    }

    fn before_wait(&mut self) -> Option<Duration> {
        self.hooks.borrow_mut().look();
        self.output.log.send_waiting().then_some(SEND_AGAIN)
    }

    fn before_fork(&mut self) {
        A::around_fork(None);
    }

    fn after_fork(&mut self, side: ForkSide) {
        A::around_fork(application::side(side));
        if side == ForkSide::Worker {
            self.executing.clear();
            self.hooks.borrow_mut().leave();
            self.output.log.use_in_worker();
        }
    }
}

/// The name of a listener, for the log and for hooks.
fn named<A: Application>(local: &Local, made: &A::Made) -> String {
    let scheme = if matches!(local, Local::Tcp(_)) { A::scheme(made) } else { "" };
    format!("{scheme}{local}")
}

/// States the number of missing workers; empty if the pool is complete.
fn missing(ready: usize, target: usize) -> String {
    match target.saturating_sub(ready) {
        0 => String::new(),
        missing => format!("serving with {ready} of {target} workers, {missing} still to be ready"),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::{Invocation, parse};

    fn settings(words: &str) -> Settings {
        let words = ["mcsup", "app"].into_iter().chain(words.split_whitespace());
        let Ok(Invocation::Run(args)) = parse(words.map(OsString::from)) else { panic!("not to be run") };
        Settings::resolve(args, &|_| None, &|_| unreachable!("no file is named")).unwrap()
    }

    #[test]
    fn a_changed_setting_that_only_a_start_applies_is_named() {
        let start = "-b :1 -b :2";
        for (now, expected) in [
            ("-b :1 -b :2 --workers 3 --preload", vec![]),
            ("-b :1 -b :2 --daemon --log-level debug", vec!["daemon", "log_level"]),
            ("-b :2 -b :3 --reuse-port", vec!["reuse_port"]),
            ("-b :3 --reuse-port", vec![]),
            ("-b :1 --chdir / --pid a --error-logfile b", vec!["chdir", "pid", "error_logfile"]),
            ("-b :1 --no-control-socket", vec!["control_socket"]),
            ("-b :1 --no-share-stdlib", vec!["no_share_stdlib"]),
            ("-b :1 --log-syslog --dogstatsd-tags a:b", vec!["syslog", "statsd_host"]),
        ] {
            assert_eq!(changed_fixed_settings(&settings(start), &settings(now)), expected, "{now}");
        }
    }
}
