//! A dry run of the new image: a child that executes it with the real letter and the real descriptors, and is to say
//! whether it could go on from there. It is heard without waiting, and does not outlive whoever asked.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use super::letter::Letter;
use super::{CAN, Image};
use crate::error::{Error, Result};
use crate::policy::ExitStatus;
use crate::spawn::reap;
use crate::sys::fork::{self, Side};
use crate::sys::signal::AllBlocked;
use crate::sys::{descriptor, exec, signal};

/// So much of what it says is kept: its last words.
const LAST_WORDS: usize = 16 * 1024;

/// A dry run that is under way. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Checker {
    pid: Pid,
    /// What it answers; open until it ends.
    answer: File,
    said: Vec<u8>,
    /// What it prints.
    output: File,
    printed: Vec<u8>,
    owner: Pid,
    reaped: bool,
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
        let (answer, output) = (File::from(answer), File::from(output));
        Ok(Self { pid, answer, said: Vec::new(), output, printed: Vec::new(), owner, reaped: false })
    }

    /// What to wait on.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.answer.as_fd(), self.output.as_fd()]
    }

    /// Whether the image can take over, or why not; `None`: it has not said yet.
    pub(crate) fn hear(&mut self) -> Option<std::result::Result<(), String>> {
        read(&mut self.output, &mut self.printed);
        let ended = read(&mut self.answer, &mut self.said);
        if !ended {
            return None;
        }
        // It has ended, or has closed what it should not: either way it ends now. What it is ending with stays.
        let status = self.end();
        read(&mut self.output, &mut self.printed);
        if self.said == CAN && status == ExitStatus::Code(0) {
            return Some(Ok(()));
        }
        let how = match status {
            // Somebody else has reaped it.
            ExitStatus::Code(-1) => "the new image ended".to_owned(),
            ExitStatus::Code(code) => format!("the new image exited with code {code}"),
            ExitStatus::Signal(number) => format!("the new image was ended by signal {number}"),
        };
        let words = last_lines(&self.printed);
        Some(Err(if words.is_empty() { how } else { format!("{how}: {words}") }))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// For a forked child: none of it is the child's.
    pub(crate) fn let_go(&mut self) {
        self.reaped = true;
    }

    fn end(&mut self) -> ExitStatus {
        self.reaped = true;
        // Where somebody else has reaped it, its number may be anybody's by now.
        if reap::is_child(self.pid) {
            let _ = kill_process(self.pid, Signal::KILL);
        }
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(Some((_, status))) => return reap::read(status),
                // As the first process of a container we reap whoever is there.
                Ok(None) | Err(_) => return ExitStatus::Code(if self.said == CAN { 0 } else { -1 }),
            }
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        if !self.reaped && self.owner == getpid() {
            self.end();
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
        let pid = Pid::from_raw(said.trim().parse().unwrap()).unwrap();
        let (answer, output) = (descriptor::pipe(true).unwrap().0, descriptor::pipe(true).unwrap().0);
        let (answer, output, owner) = (File::from(answer), File::from(output), getpid());
        let mut checker =
            Checker { pid, answer, said: Vec::new(), output, printed: Vec::new(), owner, reaped: false };
        assert_eq!(checker.hear(), Some(Err("the new image ended".to_owned())));
        to_cat.write_all(b"alive").unwrap();
        drop(to_cat);
        said.clear();
        from_cat.read_to_string(&mut said).unwrap();
        assert_eq!(said, "alive");
    }
}
