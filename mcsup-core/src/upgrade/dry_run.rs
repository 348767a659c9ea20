//! A dry run of the new image: a child executes it with the real state and descriptors, and reports whether
//! it could take over.
//!
//! The supervisor polls it without waiting, and kills it when it is no longer needed. A process that SIGKILL
//! does not end (frozen, or in an uninterruptible wait) is logged and left alone.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};

use super::state::UpgradeState;
use super::{Image, READY};
use crate::clock;
use crate::error::{Error, Result};
use crate::policy::{ExitStatus, Moment};
use crate::spawn::reap;
use crate::sys::fork::{self, Side};
use crate::sys::signal::AllBlocked;
use crate::sys::{descriptor, exec, signal};

/// The number of bytes kept of its output: the last ones.
const LAST_WORDS: usize = 16 * 1024;

/// The time that the kernel may take to end it after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// The interval between attempts to reap it. One SIGCHLD may stand for several children.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The longest wait of a drop for its end.
const AT_DROP: Duration = Duration::from_millis(500);

/// A running dry run. Killed when dropped.
#[derive(Debug)]
pub(crate) struct DryRun {
    pid: Pid,
    /// The pipe with its answer, open until it ends.
    answer: File,
    said: Vec<u8>,
    /// The pipe with its output; `None`: closed by the child, and thus always readable.
    output: Option<File>,
    printed: Vec<u8>,
    owner: Pid,
    /// Its exit status, if other code in this process has reaped it.
    ended: Option<ExitStatus>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    /// SIGKILL was sent at this time.
    Killed(Moment),
    /// SIGKILL did not end it, and the log says so.
    Named,
    /// It was reaped, or it is not this process's child.
    Gone,
}

impl DryRun {
    /// Starts `image` with `state`; it must end within `limit`.
    pub(crate) fn start(image: &Image, upgrade_state: &UpgradeState, limit: Duration) -> Result<Self> {
        let failed = |error: std::io::Error| Error::system("start the new image", error);
        let (answer, to_answer) = descriptor::pipe(true).map_err(failed)?;
        let (output, to_print) = descriptor::pipe(true).map_err(failed)?;
        let owner = getpid();
        // No handler of this process may run in the child.
        let blocked = AllBlocked::new();
        let pid = match fork::fork().map_err(failed)? {
            Side::Parent(pid) => pid,
            Side::Child => {
                let descriptors: Vec<RawFd> =
                    upgrade_state.descriptors().iter().copied().chain([to_answer.as_raw_fd()]).collect();
                become_image(image, upgrade_state, &descriptors, File::from(to_print), (owner, limit))
            }
        };
        drop(blocked);
        Ok(Self {
            pid,
            answer: File::from(answer),
            said: Vec::new(),
            output: Some(File::from(output)),
            printed: Vec::new(),
            owner,
            state: State::Runs,
            ended: None,
        })
    }

    /// The descriptors to poll until it has answered.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let runs = self.state == State::Runs;
        let output = self.output.as_ref().map(AsFd::as_fd);
        std::iter::once(self.answer.as_fd()).chain(output).filter(move |_| runs)
    }

    /// The time of the next attempt to reap it.
    pub(crate) fn deadline(&self, now: Moment) -> Option<Moment> {
        matches!(self.state, State::Killed(_)).then(|| now + LOOK_EVERY)
    }

    /// Whether the image can take over, or why not; `None`: it has not answered yet.
    pub(crate) fn poll(&mut self, now: Moment) -> Option<std::result::Result<(), String>> {
        // A process started by it may hold the answer open, so its own end counts too. The end is checked
        // before the answer is read, so that no part of the answer is missed.
        let has_ended = self.has_ended();
        self.read_output();
        if self.state == State::Runs && !read(&mut self.answer, &mut self.said) && !has_ended {
            return None;
        }
        // It has ended, or has closed its answer too early; it must end in both cases. A status that it has
        // already stays.
        let status = self.end(now);
        if self.state == State::Named {
            return Some(Err("the new image has closed its answer, and cannot be ended".to_owned()));
        }
        let status = status?;
        self.read_output();
        if self.said == READY && status == ExitStatus::Code(0) {
            return Some(Ok(()));
        }
        let how = match status {
            // Other code in this process has reaped it.
            ExitStatus::Code(-1) => "the new image ended".to_owned(),
            ExitStatus::Code(code) => format!("the new image exited with code {code}"),
            ExitStatus::Signal(number) => format!("the new image was ended by signal {number}"),
        };
        let words = last_lines(&self.printed);
        Some(Err(if words.is_empty() { how } else { format!("{how}: {words}") }))
    }

    fn read_output(&mut self) {
        self.output.take_if(|output| read(output, &mut self.printed));
    }

    /// Whether it has ended; reaps it then.
    fn has_ended(&mut self) -> bool {
        if self.state == State::Runs && self.ended.is_none() {
            // The status -1 means that it is no child of this process, so that another process reaps it.
            self.ended = reap::try_reap(self.pid).filter(|status| *status != ExitStatus::Code(-1));
        }
        self.ended.is_some()
    }

    /// Takes its exit status from children that other code in this process has reaped.
    pub(crate) fn note_reaped(&mut self, reaped: &[(Pid, ExitStatus)]) {
        if let Some((_, status)) =
            reaped.iter().find(|(pid, _)| *pid == self.pid && self.state != State::Gone)
        {
            self.ended = Some(*status);
        }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Forgets it in a forked child, as it is no child of that process.
    pub(crate) fn forget_in_child(&mut self) {
        self.state = State::Gone;
    }

    /// Kills it once and tries to reap it, without waiting; `None`: it still exists.
    ///
    /// Called between the reaping of other children and the next fork, so that its pid belongs to no other
    /// child.
    pub(crate) fn end(&mut self, now: Moment) -> Option<ExitStatus> {
        if self.state == State::Runs && self.ended.is_none() {
            // If other code in this process has reaped it, its pid may belong to any process by now.
            if reap::is_child(self.pid) {
                let _ = kill_process(self.pid, Signal::KILL);
            }
            self.state = State::Killed(now);
        }
        if self.state == State::Gone {
            return Some(ExitStatus::Code(-1));
        }
        if let Some(status) = self.ended {
            self.state = State::Gone;
            return Some(status);
        }
        let status = reap::try_reap(self.pid);
        match (status, self.state) {
            (Some(_), _) => self.state = State::Gone,
            (None, State::Killed(since)) if now.saturating_sub(since) >= AFTER_KILL => self.name(AFTER_KILL),
            (None, _) => {}
        }
        // As the first process of a container, the supervisor may have reaped it by a wait for any child.
        let has_affirmed = status == Some(ExitStatus::Code(-1)) && self.said == READY;
        if has_affirmed { Some(ExitStatus::Code(0)) } else { status }
    }

    fn name(&mut self, patience: Duration) {
        self.state = State::Named;
        log::error!(
            "Process {}, which tried the new image, was sent SIGKILL {patience:?} ago and is still there: it is left",
            self.pid
        );
    }
}

impl Drop for DryRun {
    /// Waits for a short time at most.
    fn drop(&mut self) {
        if self.owner != getpid() {
            return;
        }
        let begin = Instant::now();
        while self.state != State::Gone && self.end(clock::now()).is_none() {
            if self.state == State::Named {
                return;
            }
            if begin.elapsed() >= AT_DROP {
                return self.name(AT_DROP);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Executes the image, in the child.
fn become_image(
    image: &Image,
    upgrade_state: &UpgradeState,
    descriptors: &[RawFd],
    mut output: File,
    (owner, limit): (Pid, Duration),
) -> ! {
    let answer = descriptors.last().copied().unwrap_or(-1);
    let error = match exec::end_with(owner, limit) {
        Ok(()) => {
            // Its output comes to this process, unless a listener has that number.
            if !descriptors.contains(&1) {
                let _ = rustix::stdio::dup2_stdout(&output);
            }
            if !descriptors.contains(&2) {
                let _ = rustix::stdio::dup2_stderr(&output);
            }
            let _ = rustix::io::ioctl_fionbio(&output, false);
            descriptor::survive_exec(descriptors, true);
            signal::unblock_all();
            image.execute(&format!("check:{}:{answer}", upgrade_state.fd()))
        }
        Err(error) => error,
    };
    let _ = writeln!(
        output,
        "cannot execute {} in {}: {error}",
        image.program.display(),
        image.directory.display()
    );
    fork::exit_now(127)
}

/// Reads the available bytes; returns whether the end was reached.
fn read(from: &mut File, into: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    let mut ended = false;
    for _ in 0..64 {
        match from.read(&mut piece) {
            Ok(0) => {
                ended = true;
                break;
            }
            Ok(count) => into.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    into.drain(..into.len().saturating_sub(LAST_WORDS));
    ended
}

/// The last lines, joined.
fn last_lines(printed: &[u8]) -> String {
    let text = String::from_utf8_lossy(printed);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// A dry run with another process. The other ends of its pipes are closed.
    fn dry_run_of(pid: u32) -> DryRun {
        let (answer, output) = (descriptor::pipe(true).unwrap().0, descriptor::pipe(true).unwrap().0);
        DryRun {
            pid: Pid::from_raw(pid.try_into().unwrap()).unwrap(),
            answer: File::from(answer),
            said: Vec::new(),
            output: Some(File::from(output)),
            printed: Vec::new(),
            owner: getpid(),
            state: State::Runs,
            ended: None,
        }
    }

    #[test]
    fn a_process_that_is_not_our_child_is_not_killed() {
        let mut shell = Command::new("sh")
            .args(["-c", "exec 3<&0; cat <&3 & echo $!"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut to_cat, from_cat) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let mut from_cat = BufReader::new(from_cat);
        let mut said = String::new();
        from_cat.read_line(&mut said).unwrap();
        shell.wait().unwrap();
        let mut dry_run = dry_run_of(said.trim().parse().unwrap());
        assert_eq!(dry_run.poll(clock::now()), Some(Err("the new image ended".to_owned())));
        to_cat.write_all(b"alive").unwrap();
        drop(to_cat);
        said.clear();
        from_cat.read_to_string(&mut said).unwrap();
        assert_eq!(said, "alive");
    }

    #[test]
    fn one_that_has_closed_its_answer_is_killed_and_reaped_without_waiting() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut dry_run, begin) = (dry_run_of(child.id()), clock::now());
        let answer = loop {
            // Each call tries again to reap it, and it has no other event.
            match dry_run.poll(begin) {
                Some(answer) => break answer,
                None => assert!(dry_run.deadline(begin).is_some() && dry_run.descriptors().count() == 0),
            }
            std::thread::yield_now();
        };
        assert_eq!(answer, Err("the new image was ended by signal 9".to_owned()));
        assert!(dry_run.state == State::Gone && dry_run.deadline(begin).is_none());
        // It was reaped.
        assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }

    #[test]
    fn one_that_has_closed_its_output_is_waited_for_by_its_answer_alone() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (answer, held) = descriptor::pipe(true).unwrap();
        let mut dry_run = dry_run_of(child.id());
        dry_run.answer = File::from(answer);
        assert_eq!((dry_run.poll(clock::now()), dry_run.descriptors().count()), (None, 1));
        drop(held);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_answer_of_an_ended_one_is_read_although_its_child_holds_the_pipe() {
        for (is_reaped, code) in [(false, 7), (true, 7), (false, 0)] {
            let mut child = Command::new("sh").args(["-c", &format!("exit {code}")]).spawn().unwrap();
            let (answer, mut held) =
                descriptor::pipe(true).map(|(answer, held)| (answer, File::from(held))).unwrap();
            let mut dry_run = dry_run_of(child.id());
            dry_run.answer = File::from(answer);
            if code == 0 {
                held.write_all(READY).unwrap();
            }
            if is_reaped {
                let status = loop {
                    match reap::try_reap(dry_run.pid) {
                        Some(status) => break status,
                        None => std::thread::yield_now(),
                    }
                };
                dry_run.note_reaped(&[(dry_run.pid, status)]);
            }
            let answer = loop {
                match dry_run.poll(clock::now()) {
                    Some(answer) => break answer,
                    None => std::thread::yield_now(),
                }
            };
            let expected =
                if code == 0 { Ok(()) } else { Err("the new image exited with code 7".to_owned()) };
            assert_eq!(answer, expected);
            assert!(dry_run.state == State::Gone);
            // It was reaped.
            assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
        }
    }

    #[test]
    fn one_that_cannot_be_killed_is_left_in_the_end() {
        // State as after a SIGKILL that had no effect.
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut dry_run, begin) = (dry_run_of(child.id()), clock::now());
        dry_run.state = State::Killed(begin);
        assert_eq!(dry_run.poll(begin), None);
        assert_eq!(dry_run.poll(begin + AFTER_KILL / 2), None);
        let left = dry_run.poll(begin + AFTER_KILL).unwrap().unwrap_err();
        assert!(left.ends_with("cannot be ended"), "{left}");
        assert_eq!(dry_run.deadline(begin + AFTER_KILL), None);
        drop(dry_run);
        // A drop does not wait without end either.
        let mut dry_run = dry_run_of(child.id());
        dry_run.state = State::Killed(begin);
        drop(dry_run);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
