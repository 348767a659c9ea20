//! Programs of any language as workers: a [`Program`] describes one, and is a [`Worker`].
//!
//! The process that the supervisor forks stays, as a small parent of the program. It gives the program its
//! listeners, waits until it is ready, logs its output, passes on the order to stop, and ends all of its
//! descendants. To the supervisor it is a worker as any other.
//!
//! - `settings`: the description of a program.
//! - `contracts`: variables and placeholders for the listeners.
//! - `starting`: from the description to a process.
//! - `running`: the events of a running program; `stopping`: the decisions about its end.
//! - `main_process`: the process that counts as the program.
//! - `notices`: reports at `NOTIFY_SOCKET`; `probe`: readiness by a connection.
//! - `output`: the lines of its output; `family`: its descendants.

mod contracts;
mod family;
mod main_process;
mod notices;
mod output;
mod probe;
mod running;
mod settings;
mod starting;
mod stopping;

use std::time::{Duration, Instant};

use log::Level;
pub use settings::{Limit, LimitedResource, Output, Program, Ready, Stdin};

use crate::error::{Error, ErrorKind, Result};
use crate::link::lifeline::Phase;
use crate::sys::ancestry::ADOPTS;
use crate::worker::{Worker, WorkerContext, WorkerResult};
use running::Running;
use settings::Plan;
use stopping::{Act, Stopping};

/// The longest wait for an event of the program, and between two beats.
const TURN: Duration = Duration::from_millis(500);

/// The time without a report after which the log names the ways to report.
const HINT_AFTER: Duration = Duration::from_secs(5);

impl Worker for Program {
    fn adopts_descendants() -> bool {
        ADOPTS
    }

    /// The program accepts as soon as it listens, before it reports that it is ready.
    fn serves_while_booting() -> bool {
        true
    }

    fn boot(&mut self, context: &WorkerContext) -> WorkerResult {
        let mut running = starting::start(&self.plan, context)?;
        match await_readiness(&self.plan, &mut running, context) {
            Ok(()) => {
                running.set_ready();
                self.running = Some(running);
                Ok(())
            }
            Err(error) => {
                running.end_all(Duration::ZERO, || {});
                running.finish_log();
                let recent = running.recent_output();
                Err(match recent {
                    Some(recent) => error.with_detail(recent),
                    None => error,
                }
                .into())
            }
        }
    }

    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        let Some(mut running) = self.running.take() else {
            return Err(Error::new(ErrorKind::Worker, "the program was not started").into());
        };
        Ok(attend(&self.plan, &mut running, context)?)
    }
}

/// Waits until the program is ready, or is to end: it may have clients then, and `attend` ends it.
fn await_readiness(plan: &Plan, running: &mut Running, context: &WorkerContext) -> Result<()> {
    let begin = Instant::now();
    let timer = match plan.ready {
        // A time that the clock cannot hold never comes.
        Ready::After(time) => begin.checked_add(time),
        _ => None,
    };
    let mut is_hint_due = true;
    loop {
        if running.is_reported_ready() || !context.phase().accepts() {
            return Ok(());
        }
        if let Some(end) = running.end() {
            return Err(Error::new(ErrorKind::Boot, format!("the program {end} before it was ready")));
        }
        let now = Instant::now();
        if timer.is_some_and(|timer| timer <= now) {
            let waited = now - begin;
            let text = "by a timer: it has not reported that it is";
            running.log(Level::Warn, format!("The program counts as ready after {waited:.1?}, {text}"));
            return Ok(());
        }
        if is_hint_due && now - begin >= HINT_AFTER {
            is_hint_due = false;
            if let Some(hint) = hint(plan, running) {
                running.log(Level::Warn, hint);
            }
        }
        let limit = timer.map_or(TURN, |timer| (timer - now).min(TURN));
        running.turn(context, limit)?;
    }
}

/// The reason why a program is not ready for long, as far as known.
fn hint(plan: &Plan, running: &Running) -> Option<String> {
    match plan.ready {
        Ready::Reported => Some(
            "The program has not reported that it is ready: expected is a line at the descriptor in \
             MCSUP_READY_FD or READY=1 at NOTIFY_SOCKET. For a program without such a report there are \
             probes and a timer (mcsup exec --ready, Program::ready)"
                .to_owned(),
        ),
        Ready::Accepts | Ready::Answers { .. } => {
            Some(format!("The program is not ready: the last probe of {}", running.failed_probe()?))
        }
        Ready::After(_) => None,
    }
}

/// Attends to the program until it has ended.
fn attend(plan: &Plan, running: &mut Running, context: &WorkerContext) -> Result<()> {
    let mut log_epoch = context.log_epoch();
    let mut stopping = Stopping::new(context.graceful_timeout());
    loop {
        if plan.watchdog.is_none() || running.take_sign_of_life() {
            context.beat();
        }
        if context.log_epoch() != log_epoch {
            log_epoch = context.log_epoch();
            plan.on_reopen.run();
            if let Some(signal) = plan.reopen_signal {
                running.signal(signal)?;
            }
        }
        if running.end().is_some() {
            return end_of(running, &stopping, context);
        }
        match stopping.act(context.phase(), Instant::now()) {
            Act::None => {}
            Act::Stop => running.signal(plan.stop_signal)?,
            Act::Kill => {
                let text = "The program did not end within its time: it is killed with all of its processes";
                running.log(Level::Error, text.to_owned());
                running.end_all(Duration::ZERO, || {});
                running.finish_log();
                await_kill(context, &stopping);
                return Err(Error::new(ErrorKind::Worker, "the program had to be killed"));
            }
        }
        starting::set_mode(plan, context);
        running.turn(context, stopping.wait(Instant::now()).map_or(TURN, |wait| wait.min(TURN)))?;
    }
}

/// Lets the supervisor kill this process at the graceful timeout, so that the end counts as forced.
fn await_kill(context: &WorkerContext, stopping: &Stopping) {
    let end = Instant::now() + stopping.margin() * 3;
    while context.phase() < Phase::Quitting && Instant::now() < end {
        std::thread::sleep(stopping.margin() / 4);
    }
}

/// Ends the descendants of a program that has ended, and judges its end.
fn end_of(running: &mut Running, stopping: &Stopping, context: &WorkerContext) -> Result<()> {
    context.close_listeners();
    // Its descendants may take longer than the liveness timeout.
    running.end_all(stopping.patience(Instant::now()), || context.beat());
    let end = running.end().unwrap_or_default();
    let is_wanted = stopping.has_begun() || running.is_stopping();
    match (is_wanted, end.is_success()) {
        (true, true) => {}
        (true, false) => running.log(Level::Info, format!("The program {end} when it was to stop")),
        (false, true) => running.log(Level::Info, format!("The program {end} on its own")),
        (false, false) => {
            running.finish_log();
            return Err(Error::new(ErrorKind::Worker, format!("the program {end}")));
        }
    }
    running.finish_log();
    Ok(())
}
