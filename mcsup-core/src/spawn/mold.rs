//! A mold: a process that has loaded the code of a generation and forks its workers on orders of the
//! supervisor.
//!
//! It has one thread, holds no listener, and only waits. Where the kernel can move orphans (`sys/ancestry`),
//! workers are children of the supervisor, and the mold's end affects no worker. Elsewhere they stay children
//! of the mold, and the mold reports how they end.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;

use super::child::{
    die_with_supervisor, drop_privileges, install_handlers, lead_group, report_error, report_failure,
    report_panic, show,
};
use super::guard::guarded;
use super::spec::{Listeners, MoldSpec, MoldThreads, Origin, WorkerSpec};
use super::{Hooks, code, drop_worker, reap};
use crate::error::{Error, ErrorKind, Result};
use crate::link::channel::WorkerEnd;
use crate::link::fork_order::ReceiveError;
use crate::link::message::{Order, Report};
use crate::sys::ancestry::ADOPTS;
use crate::sys::caught::{Act, Caught};
use crate::sys::descriptor;
use crate::sys::fork::{self, OrphanSide, OtherThreads};
use crate::sys::signal::{self, AllBlocked};
use crate::sys::unshared::Marks;
use crate::worker::Worker;

/// The result of a mold: its exit code, or in a forked process the worker to become.
pub(super) type Next = ControlFlow<i32, Box<WorkerSpec>>;

/// Runs a mold: loads, reports ready, forks on orders. Returns in each forked process as well.
pub(super) fn run<E: Hooks>(spec: MoldSpec, loaded: &mut Option<E::Worker>, hooks: &mut E) -> Next {
    spec.board.is_not_for_children();
    let own = spec.common.handover.ends().into_iter().chain([spec.end.as_fd(), spec.forks.as_fd()]);
    let _marks = Marks::on(own);
    let forked = load_step("Supervisor::after_fork", || hooks.after_fork(true));
    if let Err(error) = get_ready(&spec, forked, loaded, hooks) {
        let code = report_failure(&spec.end, &error);
        // A panic in the destructor changes nothing: the failure is reported.
        let _ = drop_worker(loaded);
        return ControlFlow::Break(code);
    }
    let Some(worker) = loaded.as_mut() else { return ControlFlow::Break(code::FAILED) };
    if spec.end.send(Report::Ready).is_err() {
        return ControlFlow::Break(code::FAILED);
    }
    let end = spec.end.clone();
    match (Mold { spec, children: Children::default() }).serve(worker, hooks) {
        Ok(ControlFlow::Break(code)) => {
            let dropped = drop_worker(loaded).map_or_else(|panic| report_panic(&end, &panic), |()| 0);
            ControlFlow::Break(code.max(dropped))
        }
        Ok(next) => next,
        Err(error) => {
            let error = Error::system("wait for orders", error);
            ControlFlow::Break(report_error(&end, "the mold failed", &error))
        }
    }
}

/// Runs a step of the load.
fn load_step<T>(call: &'static str, code: impl FnOnce() -> T) -> Result<T> {
    guarded(call, code)
        .map_err(|panic| Error::new(ErrorKind::Boot, format!("the mold panicked while it loaded, {panic}")))
}

fn get_ready<E: Hooks>(
    spec: &MoldSpec,
    forked: Result<()>,
    loaded: &mut Option<E::Worker>,
    hooks: &mut E,
) -> Result<()> {
    let common = &spec.common;
    for listener in &common.own_listeners {
        descriptor::redirect_to_null(listener.as_fd())
            .map_err(|error| Error::system("release a listener", error).of_kind(ErrorKind::Boot))?;
    }
    // A mold has no request to finish at TERM.
    install_handlers([(libc::SIGTERM, Act::End), (libc::SIGUSR1, Act::Nothing)])
        .map_err(|error| Error::system("install signal handlers", error).of_kind(ErrorKind::Boot))?;
    common.descriptors.restore();
    drop_privileges(common.run_as.as_ref())?;
    die_with_supervisor(common.supervisor);
    lead_group(common);
    show(common, "mold");
    signal::unblock_all();
    forked?;
    let worker = loaded.insert(load_step("Supervisor::worker", || hooks.make(common.generation))?);
    let done = load_step("Worker::load", || worker.load(None))?;
    done.map_err(|error| Error::of_worker(error, ErrorKind::Boot))?;
    judge_threads(worker, common.threads)?;
    load_step("Worker::prepare_to_fork", || worker.prepare_to_fork())
}

/// The longest wait for ending threads: join returns before the kernel has removed the thread.
const ENDING: Duration = Duration::from_millis(100);

fn judge_threads(worker: &impl Worker, threads: MoldThreads) -> Result<()> {
    let begin = Instant::now();
    let look = || {
        fork::other_threads().map_err(|error| {
            Error::system("list the threads of this process", error).of_kind(ErrorKind::Boot)
        })
    };
    let mut others = look()?;
    while !others.is_empty() && begin.elapsed() < ENDING {
        std::thread::sleep(Duration::from_millis(1));
        others = look()?;
    }
    if others.is_empty() {
        return Ok(());
    }
    let known = load_step("Worker::thread_names", || worker.thread_names())?;
    let name = |(number, name): (i32, String)| {
        known.iter().find(|(other, _)| *other == number).map_or(name, |(_, known)| known.clone())
    };
    let names: Vec<String> = others.into_iter().map(name).collect();
    let names = names.join(", ");
    match threads {
        MoldThreads::Refuse => {
            let why = format!(
                "threads run in the mold ({names}): they do not exist in workers that a mold \
                 forks; start them in the worker, or --preload-threads warn"
            );
            Err(Error::new(ErrorKind::Application, why))
        }
        MoldThreads::Warn => {
            log::warn!("threads run in the mold ({names}): they do not exist in workers");
            Ok(())
        }
    }
}

/// A running mold.
struct Mold {
    spec: MoldSpec,
    children: Children,
}

impl Mold {
    /// Carries out orders until the mold is to end. Returns in each forked process as well.
    fn serve<E: Hooks>(mut self, worker: &mut E::Worker, hooks: &mut E) -> io::Result<Next> {
        self.children = Children::new()?;
        loop {
            let [link, forks] = self.wait()?;
            self.children.reap(&self.spec.end);
            // The link comes first, so that log files are reopened before another worker shares them.
            if link {
                match self.spec.end.receive() {
                    Some(Order::ReopenLogs) => {
                        if let Err(panic) = guarded("Worker::reopen_logs", || worker.reopen_logs()) {
                            log::error!("The mold panicked {panic}");
                        }
                    }
                    Some(Order::Quit | Order::Drain(_)) => return Ok(ControlFlow::Break(0)),
                    Some(Order::Begin | Order::LameDuck | Order::Broken(_)) => {}
                    None => return Ok(ControlFlow::Break(code::FAILED)),
                }
            } else if forks {
                match self.take(hooks) {
                    Taken::Done => {}
                    Taken::Child(spec) => return Ok(ControlFlow::Continue(spec)),
                    Taken::Gone => return Ok(ControlFlow::Break(code::FAILED)),
                }
            }
        }
    }

    /// Waits until the link or the orders are readable.
    fn wait(&self) -> io::Result<[bool; 2]> {
        let mut sources = vec![
            PollFd::from_borrowed_fd(self.spec.end.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.spec.forks.as_fd(), PollFlags::IN),
        ];
        sources.extend(self.children.wake.iter().map(|wake| PollFd::new(wake, PollFlags::IN)));
        match poll(&mut sources, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok([0, 1].map(|index: usize| !sources[index].revents().is_empty()))
    }

    /// Carries out one order.
    fn take(&mut self, hooks: &mut impl Hooks) -> Taken {
        let (order, descriptors) = match self.spec.forks.take() {
            Ok(Some(taken)) => taken,
            Ok(None) => return Taken::Done,
            Err(ReceiveError::Gone) => return Taken::Gone,
            Err(ReceiveError::Incomplete { worker }) => {
                return self.failed(worker, "the mold has no descriptors left");
            }
        };
        let Some(row) = self.spec.board.row(order.row) else {
            return self.failed(order.worker, "there is no such line on the scoreboard");
        };
        match self.fork(hooks) {
            Ok(OrphanSide::Parent { child }) => self.children.list.extend(child),
            Ok(OrphanSide::Child) => {
                let (end, listeners) = descriptors.into_parts();
                return Taken::Child(Box::new(WorkerSpec {
                    slot: order.slot,
                    number: order.worker,
                    max_requests: order.max_requests,
                    listeners: Listeners::Received(order.listeners, listeners),
                    end,
                    row,
                    common: Arc::clone(&self.spec.common),
                    origin: Origin::Mold,
                }));
            }
            Err(error) => return self.failed(order.worker, &error.to_string()),
        }
        Taken::Done
    }

    /// Forks with every signal blocked. In the new process they stay blocked, and the mold's children are
    /// forgotten.
    fn fork(&mut self, hooks: &mut impl Hooks) -> io::Result<OrphanSide> {
        let others = match self.spec.common.threads {
            MoldThreads::Refuse => OtherThreads::Refuse,
            MoldThreads::Warn => OtherThreads::LeaveBehind,
        };
        let blocked = AllBlocked::new();
        guarded("Supervisor::before_fork", || hooks.before_fork())
            .map_err(|panic| io::Error::other(format!("panicked {panic}")))?;
        let forked = fork::fork_orphan(others);
        if matches!(forked, Ok(OrphanSide::Child)) {
            std::mem::forget(blocked);
            self.children = Children::default();
        } else if let Err(panic) = guarded("Supervisor::after_fork", || hooks.after_fork(false)) {
            log::error!("The mold panicked {panic}");
        }
        forked
    }

    fn failed(&self, worker: u64, reason: &str) -> Taken {
        // Without a supervisor no process waits for it.
        let _ = self.spec.end.send(Report::ForkFailed { worker, reason: reason.to_owned() });
        Taken::Done
    }
}

/// The result of an order.
enum Taken {
    /// It was carried out, or the supervisor has the reason why not.
    Done,
    /// This process is the worker.
    Child(Box<WorkerSpec>),
    /// The supervisor is gone.
    Gone,
}

/// The mold's own children: workers on systems without adoption of orphans.
#[derive(Debug, Default)]
struct Children {
    list: Vec<Pid>,
    /// Counts SIGCHLD.
    wake: Option<Caught>,
}

impl Children {
    fn new() -> io::Result<Self> {
        let wake = if ADOPTS { None } else { Some(Caught::new([libc::SIGCHLD])?) };
        Ok(Self { list: Vec::new(), wake })
    }

    /// Reports to the supervisor the exit statuses of ended workers.
    fn reap(&mut self, end: &WorkerEnd) {
        let Some(wake) = &self.wake else { return };
        wake.acknowledge();
        self.list.retain(|child| {
            let Some(status) = reap::try_reap(*child) else { return true };
            let pid = child.as_raw_nonzero().get();
            let _ = end.send(Report::ChildExited { pid, status });
            false
        });
    }
}
