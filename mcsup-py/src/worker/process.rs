//! The process of a worker as the engine sees it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use mcsup_core::{Phase, WorkerContext};
use pyo3::prelude::*;

use super::WorkerSettings;
use super::hooking::Hooking;
use crate::engine::{Host, Siblings};
use crate::python::{application_forks, logging, signals, traceback};
use crate::targets::Queue;

/// The engine's [`Host`].
pub(super) struct Process<'a> {
    pub(super) context: &'a WorkerContext,
    pub(super) settings: &'a WorkerSettings,
    pub(super) hooks: &'a Hooking,
    /// Leads to the thread that passes records to Python's `logging`.
    pub(super) loggers: Option<&'a Queue>,
}

impl Host for Process<'_> {
    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.context.wake_fd()
    }

    fn acknowledge(&self) {
        self.context.acknowledge();
    }

    fn phase(&self) -> Phase {
        self.context.phase()
    }

    fn log_epoch(&self) -> u32 {
        self.context.log_epoch()
    }

    fn reopen_logs(&self) {
        (self.settings.reopen_error_log)();
        match self.loggers {
            // A handler may stand still, and that thread waits for handlers anyway.
            Some(loggers) => loggers.reopen(),
            None => logging::request_reopen(),
        }
    }

    fn backlog(&self) -> Option<usize> {
        self.context.backlog()
    }

    fn beat(&self) {
        application_forks::restart_put_off();
        self.context.beat();
        if let Some(send) = &self.settings.send_error_log {
            send();
        }
    }

    fn request_began(&self) {
        self.context.request_began();
    }

    fn request_ended(&self) {
        self.context.request_ended();
    }

    fn connections(&self, open: usize) {
        self.context.connections(open);
    }

    fn waiting(&self, count: usize) {
        self.context.waiting(count);
    }

    fn oldest(&self, age: Option<Duration>) {
        self.context.oldest(age);
    }

    fn graceful_timeout(&self) -> Option<Duration> {
        Some(self.context.graceful_timeout())
    }

    fn close_listeners(&self) {
        self.context.close_listeners();
    }

    fn leave(&self, reason: &str) {
        if let Err(error) = self.context.leave(reason) {
            log::warn!("the supervisor does not hear that this worker should be replaced: {error}");
        }
    }

    fn interrupted(&self) {
        if let Some(reason) = Python::attach(signals::run_handlers) {
            log::warn!("A signal handler of the application has ended the worker: {reason}");
            self.context.finish();
        }
    }

    fn dump_stacks(&self) {
        match traceback::dump_stacks() {
            Ok(stacks) => log::error!("Stacks:\n{}", stacks.trim_end()),
            Err(error) => log::warn!("the stacks cannot be shown: {error}"),
        }
    }

    fn show_asked_stacks(&self) {
        match traceback::take_stacks() {
            Ok(None) => {}
            Ok(Some(stacks)) => log::error!("Stacks, which SIGURG asks for:\n{}", stacks.trim_end()),
            Err(error) => log::warn!("the stacks cannot be shown: {error}"),
        }
    }

    fn name_slow_hooks(&self) {
        self.hooks.name_slow();
    }

    fn accepting(&self, permits: usize) {
        self.context.accepting(permits);
    }

    fn siblings(&self) -> Siblings {
        let mut all = Siblings::default();
        for sibling in self.context.siblings() {
            all.count += 1;
            all.free += sibling.free;
            if sibling.is_able {
                all.fewest = all.fewest.min(sibling.connections);
            }
        }
        all
    }

    fn hand_over(&self, connection: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        self.context.hand_over(connection, bytes)
    }

    fn handed_over_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.context.handed_over_fd())
    }

    fn take_over(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        self.context.take_handed_over()
    }
}
