//! A function that runs once in a [`Helper`] and returns a text, which this process can await without blocking.
//!
//! For code of an operator or an application that the supervisor itself must not run: it may hang, end its process, or
//! leave threads behind.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::helper::{AtSignals, Helper};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{descriptor, forked};

/// The interval between checks whether the helper has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The longest wait for the rest of an answer that has begun to come.
const REST: Duration = Duration::from_secs(1);

/// The first bytes of an answer. The function may write to descriptors that it does not own.
const BEGIN: [u8; 8] = *b"answer:\n";

/// The bytes of the longest answer.
const MOST_BYTES: usize = 16 << 20;

/// A function that runs in a helper. Its drop kills the helper.
#[derive(Debug)]
pub struct Inquiry {
    helper: Helper,
    pipe: File,
    bytes: Vec<u8>,
    /// Whether the pipe has ended: the helper has ended too, or is about to.
    is_at_end: bool,
    begin: Instant,
    limit: Duration,
}

/// The result of the function, as the helper sends it.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Value(String),
    Failure { message: String, detail: Option<String> },
}

impl Inquiry {
    /// Runs `function` in a new process, for at most `limit`. [`Helper::start`] describes `hooks` and that process.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(
        limit: Duration,
        hooks: impl Fn(Option<bool>),
        function: impl FnOnce() -> Result<String>,
    ) -> Result<Self> {
        let (ours, theirs) = descriptor::pipe(true).map_err(|error| Error::system("make a pipe", error))?;
        let kept = theirs.try_clone().map_err(|error| Error::system("make a pipe", error))?;
        let helper = Helper::start(AtSignals::End, &[kept.as_raw_fd()], hooks, || {
            let result = function();
            // A process that the function has forked has no result of its own.
            if !forked::is_forked_off() {
                send(&kept, &result);
            }
            0
        })?;
        drop((theirs, kept));
        Ok(Self {
            helper,
            pipe: File::from(ours),
            bytes: Vec::new(),
            is_at_end: false,
            begin: Instant::now(),
            limit,
        })
    }

    /// The time from the start until the helper is killed.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The process id of the helper.
    pub fn pid(&self) -> i32 {
        self.helper.pid()
    }

    /// A further descriptor that is readable once there is an answer or the helper has ended.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn readiness(&self) -> Result<OwnedFd> {
        self.pipe.as_fd().try_clone_to_owned().map_err(|error| Error::system("duplicate a pipe", error))
    }

    /// The result of the function, once its descriptor is readable or the limit is over; kills the helper in the
    /// latter case.
    ///
    /// It does not wait, except for the rest of an answer that is longer than a pipe, or for the exit status of a helper
    /// that has closed the pipe: a second at most.
    ///
    /// # Errors
    /// Those of the function; or the helper ended before it was done, was not done within the limit, or wrote anything
    /// else to the descriptor.
    pub fn finish(mut self) -> Result<String> {
        self.result()
    }

    fn result(&mut self) -> Result<String> {
        self.read();
        let is_about_to_end = !self.bytes.is_empty() || self.is_at_end;
        let until = Instant::now() + if is_about_to_end { REST } else { Duration::ZERO };
        loop {
            if let Some(answer) = self.answer() {
                return answer;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let late = if self.is_at_end {
                    "the process closed its pipe before it was done, and goes on".to_owned()
                } else {
                    format!("not done within {:?}", self.limit)
                };
                return Err(Error::new(ErrorKind::Setting, late));
            }
            self.wait_for(left.min(LOOK_EVERY));
        }
    }

    /// Waits for the result until the limit. `meanwhile` is called again and again.
    ///
    /// # Errors
    /// As those of [`finish`](Self::finish).
    pub fn wait(mut self, mut meanwhile: impl FnMut()) -> Result<String> {
        loop {
            meanwhile();
            self.read();
            let left = self.limit.saturating_sub(self.begin.elapsed());
            let is_decided = answer_in(&self.bytes).is_some() || is_foreign(&self.bytes);
            if left.is_zero() || is_decided || self.helper.has_ended() {
                let result = self.result();
                // Reaped here, since no pool may run yet that would reap it.
                if result.is_ok() {
                    self.helper.wait(REST);
                }
                return result;
            }
            self.wait_for(left.min(LOOK_EVERY));
        }
    }

    fn wait_for(&mut self, time: Duration) {
        if self.is_at_end {
            // The kernel closes the descriptors of a process before it has an exit status.
            self.helper.wait(time);
            return;
        }
        let _ = poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&clock::wait_of(time)));
    }

    /// Reads without a wait.
    fn read(&mut self) {
        let room = MOST_BYTES.saturating_sub(self.bytes.len());
        let is_at_end = (&self.pipe).take(room as u64).read_to_end(&mut self.bytes).is_ok();
        self.is_at_end |= is_at_end && self.bytes.len() < MOST_BYTES;
    }

    /// The answer; `None`: it has not come whole, and the helper runs.
    fn answer(&mut self) -> Option<Result<String>> {
        // Its end is noted before the pipe is read, so that no part of the answer is missed.
        let end = self.helper.end();
        self.read();
        match (answer_in(&self.bytes), end) {
            (Some(Answer::Value(text)), _) => Some(Ok(text)),
            (Some(Answer::Failure { message, detail }), _) => {
                let error = Error::new(ErrorKind::Setting, message);
                Some(Err(match detail {
                    Some(detail) => error.with_detail(detail),
                    None => error,
                }))
            }
            (None, _) if is_foreign(&self.bytes) => {
                let message = "the process wrote to a descriptor that it does not own: that of its answer";
                Some(Err(Error::new(ErrorKind::Setting, message)))
            }
            (None, Some(how)) => {
                let message = format!("the process ended before it was done: {how}");
                Some(Err(Error::new(ErrorKind::Setting, message)))
            }
            (None, None) => None,
        }
    }
}

impl AsFd for Inquiry {
    /// Readable once there is an answer, or the helper has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        // One that has answered ends itself.
        if answer_in(&self.bytes).is_none() && !self.helper.has_ended() {
            self.helper.kill();
        }
    }
}

/// Sends the length and the text of an answer, in the helper. A process that is gone needs none.
fn send(pipe: &OwnedFd, result: &Result<String>) {
    let answer = match result {
        Ok(text) => Answer::Value(text.clone()),
        Err(error) => {
            Answer::Failure { message: error.to_string(), detail: error.detail().map(str::to_owned) }
        }
    };
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    let _ = rustix::io::ioctl_fionbio(pipe, false);
    let Ok(pipe) = pipe.try_clone() else { return };
    let mut pipe = File::from(pipe);
    let _ = pipe.write_all(&[BEGIN, (text.len() as u64).to_le_bytes()].concat());
    let _ = pipe.write_all(&text);
}

/// The answer; `None`: none has come, or a part.
fn answer_in(bytes: &[u8]) -> Option<Answer> {
    let (length, text) = length_in(bytes)?;
    serde_json::from_slice(text.get(..usize::try_from(length).ok()?)?).ok()
}

/// The length of an answer, and as much of its text as has come.
fn length_in(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (length, text) = bytes.strip_prefix(&BEGIN)?.split_first_chunk()?;
    Some((u64::from_le_bytes(*length), text))
}

/// Whether these bytes cannot become an answer.
fn is_foreign(bytes: &[u8]) -> bool {
    let is_longer = |(length, _)| length > (MOST_BYTES - 2 * BEGIN.len()) as u64;
    !bytes.iter().zip(BEGIN).all(|(byte, expected)| *byte == expected)
        || length_in(bytes).is_some_and(is_longer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fork, unshared};

    const LONG: Duration = Duration::from_secs(60);

    fn ask(limit: Duration, function: impl FnOnce() -> Result<String>) -> Result<String> {
        Inquiry::start(limit, |_| (), function).unwrap().wait(|| ())
    }

    #[test]
    fn its_answer_of_any_length_its_error_and_its_end_arrive() {
        fork::in_a_process(|| {
            let long = "x".repeat(1 << 20);
            assert_eq!(ask(LONG, || Ok(long.clone())).unwrap(), long);
            let failed = || Err(Error::new(ErrorKind::Setting, "line 3").with_detail("Traceback"));
            let error = ask(LONG, failed).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.detail()), ("line 3", Some("Traceback")));
            let error = ask(LONG, || fork::exit_now(7)).unwrap_err();
            assert_eq!(error.to_string(), "the process ended before it was done: exit code 7");
        });
    }

    #[test]
    fn a_helper_that_has_closed_its_pipe_and_ends_soon_is_not_taken_for_a_late_one() {
        fork::in_a_process(|| {
            // As in a process that ends: its pipe is closed before it has an exit status.
            let ends = || {
                unshared::keep_only(&[]);
                std::thread::sleep(LOOK_EVERY * 5);
                fork::exit_now(3)
            };
            let inquiry = Inquiry::start(LONG, |_| (), ends).unwrap();
            let readiness = inquiry.readiness().unwrap();
            let _ = poll(&mut [PollFd::new(&readiness, PollFlags::IN)], Some(&clock::wait_of(LONG)));
            let error = inquiry.finish().unwrap_err();
            assert_eq!(error.to_string(), "the process ended before it was done: exit code 3");
        });
    }

    #[test]
    fn it_is_readable_with_its_answer_and_killed_at_its_limit() {
        fork::in_a_process(|| {
            let inquiry = Inquiry::start(LONG, |_| (), || Ok("done".to_owned())).unwrap();
            let readiness = inquiry.readiness().unwrap();
            let ready = poll(&mut [PollFd::new(&readiness, PollFlags::IN)], Some(&clock::wait_of(LONG)));
            assert_eq!((ready, inquiry.finish().unwrap().as_str()), (Ok(1), "done"));
            let endless = || -> Result<String> {
                loop {
                    std::thread::park();
                }
            };
            let begin = Instant::now();
            let late = ask(Duration::from_millis(100), endless).unwrap_err();
            assert_eq!(late.to_string(), "not done within 100ms");
            assert!(begin.elapsed() < LONG);
        });
    }

    #[test]
    fn other_bytes_than_an_answer_are_an_error_at_once_that_names_them() {
        fork::in_a_process(|| {
            // It writes to all descriptors from 3 on, as a daemon that closes them would close them.
            let writes = || -> Result<String> {
                let flood = [b'x'; 4096];
                loop {
                    for number in 3..64 {
                        let path = format!("/dev/fd/{number}");
                        let file = std::fs::OpenOptions::new().write(true).open(path);
                        let _ = file.map(|mut file| file.write(&flood));
                    }
                }
            };
            let inquiry = Inquiry::start(LONG, |_| (), writes).unwrap();
            let readiness = inquiry.readiness().unwrap();
            let _ = poll(&mut [PollFd::new(&readiness, PollFlags::IN)], Some(&clock::wait_of(LONG)));
            let begin = Instant::now();
            let error = inquiry.finish().unwrap_err().to_string();
            assert_eq!(error, "the process wrote to a descriptor that it does not own: that of its answer");
            assert!(begin.elapsed() < REST);
            let error = ask(LONG, writes).unwrap_err().to_string();
            assert!(error.contains("does not own"), "{error}");
        });
    }

    #[test]
    fn a_caller_that_waits_can_act_meanwhile() {
        fork::in_a_process(|| {
            let endless = || -> Result<String> {
                loop {
                    std::thread::park();
                }
            };
            let mut calls = 0;
            let inquiry = Inquiry::start(Duration::from_millis(200), |_| (), endless).unwrap();
            assert!(inquiry.wait(|| calls += 1).is_err());
            assert!(calls > 1);
        });
    }
}
