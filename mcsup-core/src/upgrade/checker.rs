//! A dry run of the new image: a child that executes it with the real letter and the real descriptors, and is to say
//! whether it could go on from there. It is heard without waiting, and is killed when it is not wanted any more. One that
//! SIGKILL does not end (frozen, or in an uninterruptible wait) is named and left.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};

use super::letter::Letter;
use super::{CAN, Image};
use crate::clock;
use crate::error::{Error, Result};
use crate::policy::{ExitStatus, Moment};
use crate::spawn::reap;
use crate::sys::fork::{self, Side};
use crate::sys::signal::AllBlocked;
use crate::sys::{descriptor, exec, signal};

/// So much of what it says is kept: its last words.
const LAST_WORDS: usize = 16 * 1024;

/// How long the kernel may take to end it after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// How often it is looked for until then. Its SIGCHLD may have been another's as well.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a drop may wait for its end.
const AT_DROP: Duration = Duration::from_millis(500);

/// A dry run that is under way. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Checker {
    pid: Pid,
    /// What it answers; open until it ends.
    answer: File,
    said: Vec<u8>,
    /// What it prints; `None`: it has closed that, and it would never let us wait.
    output: Option<File>,
    printed: Vec<u8>,
    owner: Pid,
    /// How it ended, where another part of this process has reaped it.
    ended: Option<ExitStatus>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    /// It was sent SIGKILL then.
    Killed(Moment),
    /// It is still there long after that, and was named.
    Named,
    /// It was reaped, or is not ours.
    Gone,
}

impl Checker {
    /// Starts `image` with `letter`; it has `limit` to end.
    pub(crate) fn start(image: &Image, letter: &Letter, limit: Duration) -> Result<Self> {
        let failed = |error: std::io::Error| Error::system("start the new image", error);
        let (answer, to_answer) = descriptor::pipe(true).map_err(failed)?;
        let (output, to_print) = descriptor::pipe(true).map_err(failed)?;
        let owner = getpid();
        // No handler of ours may run in the child.
        let blocked = AllBlocked::new();
        let pid = match fork::fork().map_err(failed)? {
            Side::Parent(pid) => pid,
            Side::Child => {
                let descriptors: Vec<RawFd> =
                    letter.descriptors().iter().copied().chain([to_answer.as_raw_fd()]).collect();
                become_image(image, letter, &descriptors, File::from(to_print), (owner, limit))
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

    /// What to wait on, until it has answered.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let runs = self.state == State::Runs;
        let output = self.output.as_ref().map(AsFd::as_fd);
        std::iter::once(self.answer.as_fd()).chain(output).filter(move |_| runs)
    }

    /// When to look whether it has ended.
    pub(crate) fn deadline(&self, now: Moment) -> Option<Moment> {
        matches!(self.state, State::Killed(_)).then(|| now + LOOK_EVERY)
    }

    /// Whether the image can take over, or why not; `None`: it has not said yet.
    pub(crate) fn hear(&mut self, now: Moment) -> Option<std::result::Result<(), String>> {
        // A process that it has started may hold its answer open: its own end counts too, and is seen before the answer
        // is read.
        let has_ended = self.has_ended();
        self.read_output();
        if self.state == State::Runs && !read(&mut self.answer, &mut self.said) && !has_ended {
            return None;
        }
        // It has ended, or has closed what it should not: either way it ends now. What it is ending with stays.
        let status = self.end(now);
        if self.state == State::Named {
            return Some(Err("the new image has closed its answer, and cannot be ended".to_owned()));
        }
        let status = status?;
        self.read_output();
        if self.said == CAN && status == ExitStatus::Code(0) {
            return Some(Ok(()));
        }
        let how = match status {
            // Another part of this process has reaped it.
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

    /// Whether its end is known; then it is reaped.
    fn has_ended(&mut self) -> bool {
        if self.state == State::Runs && self.ended.is_none() {
            // Not where it is no child of ours, so that its end has been another's to see.
            self.ended = reap::try_reap(self.pid).filter(|status| *status != ExitStatus::Code(-1));
        }
        self.ended.is_some()
    }

    /// These children have been reaped by another part of this process; perhaps it is among them.
    pub(crate) fn note_reaped(&mut self, reaped: &[(Pid, ExitStatus)]) {
        if let Some((_, status)) =
            reaped.iter().find(|(pid, _)| *pid == self.pid && self.state != State::Gone)
        {
            self.ended = Some(*status);
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// For a forked child: none of it is the child's.
    pub(crate) fn let_go(&mut self) {
        self.state = State::Gone;
    }

    /// Ends it without waiting: SIGKILL once, and a look whether it can be reaped. `None`: it is still there.
    ///
    /// To be called between the reaping of other children and the next fork: so its number is not another child's.
    pub(crate) fn end(&mut self, now: Moment) -> Option<ExitStatus> {
        if self.state == State::Runs && self.ended.is_none() {
            // Where another part of this process has reaped it, its number may be anybody's by now.
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
        // The first process of a container reaps all of its children.
        let has_affirmed = status == Some(ExitStatus::Code(-1)) && self.said == CAN;
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

impl Drop for Checker {
    /// Does not wait for one that cannot be ended.
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

/// In the child.
fn become_image(
    image: &Image,
    letter: &Letter,
    descriptors: &[RawFd],
    mut output: File,
    (owner, limit): (Pid, Duration),
) -> ! {
    let answer = descriptors.last().copied().unwrap_or(-1);
    let error = match exec::end_with(owner, limit) {
        Ok(()) => {
            // What it prints is for us, unless a listener has that number.
            if !descriptors.contains(&1) {
                let _ = rustix::stdio::dup2_stdout(&output);
            }
            if !descriptors.contains(&2) {
                let _ = rustix::stdio::dup2_stderr(&output);
            }
            let _ = rustix::io::ioctl_fionbio(&output, false);
            descriptor::survive_exec(descriptors, true);
            signal::unblock_all();
            image.execute(&format!("check:{}:{answer}", letter.fd()))
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

/// Reads what is there; whether that was all.
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

/// The last lines in one.
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

    /// One of a process that was started otherwise. The other ends of its pipes are closed.
    fn checker_of(pid: u32) -> Checker {
        let (answer, output) = (descriptor::pipe(true).unwrap().0, descriptor::pipe(true).unwrap().0);
        Checker {
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
        let mut checker = checker_of(said.trim().parse().unwrap());
        assert_eq!(checker.hear(clock::now()), Some(Err("the new image ended".to_owned())));
        to_cat.write_all(b"alive").unwrap();
        drop(to_cat);
        said.clear();
        from_cat.read_to_string(&mut said).unwrap();
        assert_eq!(said, "alive");
    }

    #[test]
    fn one_that_has_closed_its_answer_is_killed_and_reaped_without_waiting() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut checker, begin) = (checker_of(child.id()), clock::now());
        let heard = loop {
            // It is looked for again and again, and nothing else is waited on.
            match checker.hear(begin) {
                Some(heard) => break heard,
                None => assert!(checker.deadline(begin).is_some() && checker.descriptors().count() == 0),
            }
            std::thread::yield_now();
        };
        assert_eq!(heard, Err("the new image was ended by signal 9".to_owned()));
        assert!(checker.state == State::Gone && checker.deadline(begin).is_none());
        // It was reaped.
        assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }

    #[test]
    fn one_that_has_closed_its_output_is_waited_for_by_its_answer_alone() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (answer, held) = descriptor::pipe(true).unwrap();
        let mut checker = checker_of(child.id());
        checker.answer = File::from(answer);
        assert_eq!((checker.hear(clock::now()), checker.descriptors().count()), (None, 1));
        drop(held);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn one_that_has_ended_is_heard_although_its_child_holds_its_answer() {
        for (is_reaped, code) in [(false, 7), (true, 7), (false, 0)] {
            let mut child = Command::new("sh").args(["-c", &format!("exit {code}")]).spawn().unwrap();
            let (answer, mut held) =
                descriptor::pipe(true).map(|(answer, held)| (answer, File::from(held))).unwrap();
            let mut checker = checker_of(child.id());
            checker.answer = File::from(answer);
            if code == 0 {
                held.write_all(CAN).unwrap();
            }
            if is_reaped {
                let status = loop {
                    match reap::try_reap(checker.pid) {
                        Some(status) => break status,
                        None => std::thread::yield_now(),
                    }
                };
                checker.note_reaped(&[(checker.pid, status)]);
            }
            let heard = loop {
                match checker.hear(clock::now()) {
                    Some(heard) => break heard,
                    None => std::thread::yield_now(),
                }
            };
            let expected =
                if code == 0 { Ok(()) } else { Err("the new image exited with code 7".to_owned()) };
            assert_eq!(heard, expected);
            assert!(checker.state == State::Gone);
            // It was reaped.
            assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
        }
    }

    #[test]
    fn one_that_cannot_be_killed_is_left_in_the_end() {
        // It runs as if it had not heard the SIGKILL.
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut checker, begin) = (checker_of(child.id()), clock::now());
        checker.state = State::Killed(begin);
        assert_eq!(checker.hear(begin), None);
        assert_eq!(checker.hear(begin + AFTER_KILL / 2), None);
        let left = checker.hear(begin + AFTER_KILL).unwrap().unwrap_err();
        assert!(left.ends_with("cannot be ended"), "{left}");
        assert_eq!(checker.deadline(begin + AFTER_KILL), None);
        drop(checker);
        // Neither does a drop wait without end.
        let mut checker = checker_of(child.id());
        checker.state = State::Killed(begin);
        drop(checker);
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
