//! Going to the background. The process that was started waits: it ends when the pool serves, or fails with
//! the pool's reason and exit code.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result};
use crate::sys::descriptor;
use crate::sys::fork::{self, Side};

/// The process that this is after [`detach`].
#[derive(Debug)]
pub enum Detached {
    /// The process in the background: it supervises, and owes the other one an [`Answer`].
    Daemon(Answer),
    /// The process that was started; it has received the answer.
    Original(Verdict),
}

/// The outcome for the process that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The pool serves: exit with success.
    Ready {
        /// One line about a missing part; empty if nothing is missing.
        note: String,
    },
    /// Print `reason` and end with `code`.
    Failed {
        /// The exit code.
        code: u8,
        /// The reason, whole.
        reason: String,
    },
}

/// The daemon's end of the pipe that the other process reads. Dropped without an answer, it means failure.
#[derive(Debug)]
pub struct Answer(File);

impl Answer {
    /// Reports that the pool serves; `note` is one line about a missing part, or empty.
    pub fn ready(mut self, note: &str) {
        // The other process may have been killed, and needs no answer then.
        let _ = self.0.write_all(format!("\0{note}\n").as_bytes());
    }

    /// Reports that the pool cannot serve.
    pub fn failed(mut self, code: u8, reason: &str) {
        let _ = self.0.write_all(&[code.max(1)]);
        let _ = self.0.write_all(reason.as_bytes());
    }
}

/// Whether this process has a controlling terminal. If so, only its foreground process group may read from
/// it.
pub(crate) fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// The standard output and error of a daemon.
#[derive(Debug, Clone, Copy)]
pub enum Streams<'a> {
    /// /dev/null.
    Null,
    /// This file.
    File(&'a File),
    /// Those of this process; in place of a terminal /dev/null.
    Kept,
}

/// Detaches: a new session without a terminal, stdin from /dev/null, stdout and stderr as `streams` tells.
///
/// `hooks` runs around each fork, for a host language: `hooks(None)` before, `hooks(Some(true))` after it in
/// the child, `hooks(Some(false))` after it in the parent.
pub fn detach(streams: Streams<'_>, hooks: impl Fn(Option<bool>)) -> Result<Detached> {
    let failed = |error: rustix::io::Errno| Error::system("go to the background", error);
    let (ours, theirs) = descriptor::pipe(false)
        .map_err(|error| Error::system("make a pipe for the daemon's answer", error))?;
    if fork_with(&hooks)? == Part::Parent {
        drop(theirs);
        return Ok(Detached::Original(listen(ours)));
    }
    drop(ours);
    rustix::process::setsid().map_err(failed)?;
    // The second fork: not a session leader, so that a terminal opened later does not become the controlling
    // one.
    if fork_with(&hooks)? == Part::Parent {
        fork::exit_now(0);
    }
    redirect(streams)?;
    Ok(Detached::Daemon(Answer(theirs.into())))
}

#[derive(PartialEq, Eq)]
enum Part {
    Parent,
    Child,
}

fn fork_with(hooks: &impl Fn(Option<bool>)) -> Result<Part> {
    hooks(None);
    let side = fork::fork();
    hooks(Some(matches!(side, Ok(Side::Child))));
    match side.map_err(|error| Error::system("go to the background", error))? {
        Side::Child => Ok(Part::Child),
        Side::Parent(_) => Ok(Part::Parent),
    }
}

fn redirect(streams: Streams<'_>) -> Result<()> {
    let failed = |error: std::io::Error| Error::system("detach from the terminal", error);
    let null = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(|error| failed(error.into()))?;
    let output = match streams {
        Streams::File(file) => file.as_fd(),
        Streams::Null | Streams::Kept => null.as_fd(),
    };
    let is_kept = |stream: &dyn IsTerminal| matches!(streams, Streams::Kept) && !stream.is_terminal();
    if !is_kept(&std::io::stdout()) {
        rustix::stdio::dup2_stdout(output).map_err(|error| failed(error.into()))?;
    }
    if !is_kept(&std::io::stderr()) {
        rustix::stdio::dup2_stderr(output).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// Waits for the answer. The first byte decides, and a line follows success. The end of the pipe would come
/// late: workers hold copies of it.
fn listen(pipe: OwnedFd) -> Verdict {
    let mut pipe = BufReader::new(File::from(pipe));
    let mut code = [0];
    if pipe.read_exact(&mut code).is_err() {
        return Verdict::Failed { code: 1, reason: "the daemon ended before it was ready".to_owned() };
    }
    if code[0] == 0 {
        let mut note = String::new();
        let _ = pipe.read_line(&mut note);
        return Verdict::Ready { note: note.trim_end().to_owned() };
    }
    let mut reason = Vec::new();
    let _ = pipe.read_to_end(&mut reason);
    Verdict::Failed { code: code[0], reason: String::from_utf8_lossy(&reason).into_owned() }
}
