//! The events of a running program: its end, its reports, its output.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitStatus};

use super::family::{Belongs, Family};
use super::main_process::MainProcess;
use super::notices::{Notice, NoticeSocket, Sender, doubt};
use super::output::{Lines, Stream};
use super::probe::Probe;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::host::processes;
use crate::worker::WorkerContext;

/// The interval between checks where no descriptor shows the end of a process.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The most reports that are read at once, so that other events are handled between. More than a queue holds
/// (net.unix.max_dgram_qlen is 10, or 512 by systemd): all that have arrived are read.
const MOST_REPORTS: usize = 1024;

/// The most reads of the descriptor for readiness at once.
const MOST_READS: usize = 64;

/// The most reports of other processes that are logged.
const MOST_DOUBTS: u32 = 5;

/// The end of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum End {
    Exited(i32),
    Killed(i32),
    /// Another process has reaped it.
    #[default]
    Unknown,
}

impl End {
    fn of(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => End::Exited(code),
            (None, Some(signal)) => End::Killed(signal),
            (None, None) => End::Unknown,
        }
    }

    pub(super) fn is_success(self) -> bool {
        self == End::Exited(0)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(code) => write!(f, "exited with code {code}"),
            End::Killed(number) => write!(f, "was ended by signal {number}"),
            End::Unknown => f.write_str("ended"),
        }
    }
}

/// A program that runs.
#[derive(Debug)]
pub(super) struct Running {
    main: MainProcess,
    family: Family,
    end: Option<End>,
    uid: u32,
    /// The program's reports; `None`: it has closed its end, or is ready.
    ready: Option<OwnedFd>,
    notices: Option<NoticeSocket>,
    streams: Vec<Stream>,
    lines: Lines,
    probe: Option<Probe>,
    is_ready: bool,
    is_alive: bool,
    is_stopping: bool,
    status: String,
    doubts: u32,
}

/// The ends of a program's channels.
pub(super) struct Channels {
    pub(super) ready: OwnedFd,
    pub(super) notices: Option<NoticeSocket>,
    pub(super) streams: Vec<Stream>,
    pub(super) lines: Lines,
    pub(super) probe: Option<Probe>,
}

impl Running {
    /// A program that was started as `main`, as the user `uid`.
    pub(super) fn new(main: Pid, uid: u32, channels: Channels) -> Self {
        let Channels { ready, notices, streams, lines, probe } = channels;
        Self {
            main: MainProcess::of(main),
            family: Family::of(main),
            end: None,
            uid,
            ready: Some(ready),
            notices,
            streams,
            lines,
            probe,
            is_ready: false,
            is_alive: true,
            is_stopping: false,
            status: String::new(),
            doubts: 0,
        }
    }

    pub(super) fn is_reported_ready(&self) -> bool {
        self.is_ready
    }

    /// Ends the wait for readiness. Later reports at the descriptor have no meaning.
    pub(super) fn set_ready(&mut self) {
        self.is_ready = true;
        self.probe = None;
    }

    pub(super) fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether it has announced its end.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Whether it has sent a sign of life since the last call.
    pub(super) fn take_sign_of_life(&mut self) -> bool {
        std::mem::take(&mut self.is_alive)
    }

    /// The reason why the last probe has failed; `None`: there is no probe, or none has ended yet.
    pub(super) fn failed_probe(&self) -> Option<String> {
        self.probe.as_ref()?.failure()
    }

    /// Logs a message, by the thread that logs the output: the log may block.
    pub(super) fn log(&self, level: Level, text: String) {
        self.lines.note(level, text);
    }

    /// Waits until all is logged, for a second at most. Nothing is logged after it.
    pub(super) fn finish_log(&self) {
        self.lines.finish();
    }

    pub(super) fn recent_output(&self) -> Option<String> {
        self.lines.recent()
    }

    /// Sends a signal to the program.
    pub(super) fn signal(&mut self, number: i32) -> Result<()> {
        let signal = Signal::from_named_raw(number);
        let signal = signal.ok_or_else(|| {
            Error::new(ErrorKind::Setting, format!("signal {number} has no name on this system"))
        })?;
        if self.end.is_none() {
            self.main.signal(signal);
        }
        Ok(())
    }

    /// Waits for events, for `limit` at most, and handles them.
    ///
    /// # Errors
    /// poll(2) fails.
    pub(super) fn turn(&mut self, context: &WorkerContext, limit: Duration) -> Result<()> {
        let limit = if self.main.fd().is_some() { limit } else { limit.min(LOOK_EVERY) };
        let channels = [
            Some(context.wake_fd()),
            self.main.fd(),
            self.ready.as_ref().map(AsFd::as_fd),
            self.notices.as_ref().map(AsFd::as_fd),
        ];
        let streams = self.streams.iter().map(|stream| Some(stream.as_fd()));
        let all: Vec<Option<BorrowedFd<'_>>> = channels.into_iter().chain(streams).collect();
        let mut sources: Vec<_> =
            all.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut sources, Some(&clock::wait_of(limit))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::system("wait for the program", error)),
        }
        context.acknowledge();
        self.handle_events();
        Ok(())
    }

    /// Handles all events, without a wait.
    fn handle_events(&mut self) {
        // Asked first: the reports of a process that has ended are all there.
        let ended = self.main.has_ended().then(|| self.main.pid());
        self.read_reports();
        self.read_output();
        while let Some(pid) = Family::ended() {
            // They may name another process as the program. Their sender is known until it is reaped.
            self.read_reports();
            let Some(status) = self.family.reap(pid) else { break };
            if pid == self.main.pid() {
                self.end = Some(End::of(status));
            }
        }
        if self.end.is_none() && ended == Some(self.main.pid()) {
            // Its parent is another process of the program.
            self.end = Some(End::Unknown);
        }
    }

    fn read_reports(&mut self) {
        self.read_notices();
        self.read_readiness();
    }

    fn read_output(&mut self) {
        let lines = &mut self.lines;
        self.streams.retain_mut(|stream| stream.read(lines));
    }

    fn read_readiness(&mut self) {
        let Some(ready) = &self.ready else { return };
        let mut buffer = [0; 4096];
        for _ in 0..MOST_READS {
            match rustix::io::read(ready, &mut buffer) {
                Ok(count @ 1..) => self.is_ready |= buffer[..count].contains(&b'\n'),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Ok(0) | Err(_) => {
                    // No process of the program can report any more.
                    self.ready = None;
                    return;
                }
            }
        }
    }

    fn read_notices(&mut self) {
        for _ in 0..MOST_REPORTS {
            let received = self.notices.as_ref().and_then(NoticeSocket::receive);
            let Some((notices, sender)) = received else { return };
            if self.doubts >= MOST_DOUBTS && sender.is_some_and(|sender| !sender.is_of(self.uid)) {
                // Every process of the network namespace can send: one that never ends costs no search in /proc.
                continue;
            }
            match doubt(sender, self.uid, |pid| self.family.has(pid)) {
                None => notices.into_iter().for_each(|notice| self.note(notice)),
                Some(reason) => self.log_doubt(&reason, sender),
            }
        }
    }

    fn log_doubt(&mut self, reason: &str, sender: Option<Sender>) {
        self.doubts += 1;
        if self.doubts <= MOST_DOUBTS {
            let sender = sender.map_or_else(|| "an unknown process".to_owned(), |it| processes::name(it.pid));
            self.log(Level::Warn, format!("A report from {sender} is not believed: {reason}"));
        }
    }

    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Ready => self.is_ready = true,
            Notice::Stopping => self.is_stopping = true,
            Notice::Alive => self.is_alive = true,
            Notice::Status(text) if text != self.status => {
                self.log(Level::Info, format!("The program reports: {}", text.escape_debug()));
                self.status = text;
            }
            Notice::Status(_) => {}
            Notice::Main(pid) => self.become_main(pid),
        }
    }

    fn become_main(&mut self, number: i32) {
        match Pid::from_raw(number) {
            Some(pid) if pid == self.main.pid() => {}
            Some(pid) if self.family.has(number) == Belongs::Yes => {
                self.log(Level::Info, format!("The program is process {number} from now on"));
                self.main = MainProcess::of(pid);
            }
            _ => {
                let text = "which belongs to another one";
                self.log(Level::Warn, format!("The program names process {number} as its own, {text}"));
            }
        }
    }

    /// Ends all of its processes: by SIGTERM, and by SIGKILL after `patience`. Reads the last of its output.
    /// Calls `each_turn` between.
    pub(super) fn end_all(&mut self, patience: Duration, mut each_turn: impl FnMut()) {
        let (streams, lines, main) = (&mut self.streams, &mut self.lines, self.main.pid());
        let end = &mut self.end;
        self.family.end(patience, |reaped| {
            for (pid, status) in reaped {
                if *pid == main {
                    end.get_or_insert(End::of(*status));
                }
            }
            streams.retain_mut(|stream| stream.read(lines));
            each_turn();
        });
        self.streams.iter_mut().for_each(|stream| stream.end(&mut self.lines));
        self.streams.clear();
    }
}

impl Drop for Running {
    /// No process of the program outlives its worker.
    fn drop(&mut self) {
        if !self.streams.is_empty() || self.end.is_none() {
            self.end_all(Duration::ZERO, || {});
            self.finish_log();
        }
    }
}
