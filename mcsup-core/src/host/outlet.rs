//! An output for log lines that never blocks on its reader: a full pipe, a stopped terminal, a slow socket.
//!
//! Standard streams and their flags are shared with the parent process: `O_NONBLOCK` set there would affect a
//! shell's own descriptor. So a pipe or a terminal is opened again, as a separate description. Where that is
//! not permitted (a pipe of another user) each write asks the kernel not to wait. Where the kernel cannot do
//! that, poll(2) must have reported room before each write.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, FdFlags};
use rustix::net::SendFlags;

use super::patience::Patience;
use crate::clock;
use crate::sys::signal::TerminalOutput;

/// The most repetitions of a write after a signal, or without room although poll(2) reports some.
const REPETITIONS: usize = 16;

/// An output for bytes with a bounded wait.
#[derive(Debug)]
pub struct Outlet {
    held: Held,
    way: Way,
    /// A terminal may stop a background process that writes, instead of taking the bytes.
    is_terminal: bool,
}

#[derive(Debug)]
enum Held {
    Ours(OwnedFd),
    Shared(BorrowedFd<'static>),
}

/// The method of a write that does not block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// write(2) to a file, or to a non-blocking description.
    Plain,
    /// The same for a non-blocking description of a pipe.
    Pipe,
    /// A pipe or device with a blocking description.
    Waiting,
    Socket,
}

/// An incomplete write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The error.
    pub error: Errno,
    /// The number of bytes written before it.
    pub written: usize,
}

impl Outlet {
    /// Wraps a file opened non-blocking ([`append`](super::own_file::append)), or a socket.
    pub fn of_file(file: impl Into<OwnedFd>) -> Self {
        let file = file.into();
        let way = match kind_of(file.as_fd()) {
            FileType::Socket => Way::Socket,
            FileType::Fifo => Way::Pipe,
            _ => Way::Plain,
        };
        let is_terminal = file.is_terminal();
        Self { held: Held::Ours(file), way, is_terminal }
    }

    /// Wraps a stream that is shared with other processes.
    pub fn of_stream(stream: BorrowedFd<'static>) -> Self {
        let kind = kind_of(stream);
        let waits = matches!(kind, FileType::Fifo | FileType::CharacterDevice);
        let way = match waits.then(|| open_again(stream)).flatten() {
            Some(ours) => return Self::of_file(ours),
            None if waits => Way::Waiting,
            None if kind == FileType::Socket => Way::Socket,
            None => Way::Plain,
        };
        Self { held: Held::Shared(stream), way, is_terminal: stream.is_terminal() }
    }

    /// Redirects the output to `file`. A descriptor of our own keeps its number.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn replace(&mut self, file: impl Into<OwnedFd>) -> io::Result<()> {
        let file = file.into();
        let Held::Ours(held) = &mut self.held else {
            *self = Self::of_file(file);
            return Ok(());
        };
        // dup3 is not available everywhere. A program started between the two calls inherits the file.
        rustix::io::dup2(&file, held)?;
        rustix::io::fcntl_setfd(&*held, FdFlags::CLOEXEC)?;
        Self { way: self.way, is_terminal: self.is_terminal, .. } = Self::of_file(file);
        Ok(())
    }

    /// The descriptor's number.
    pub fn number(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    /// Writes `bytes`, in one call if the system takes them; waits for room as long as `patience` lasts.
    ///
    /// # Errors
    /// The first one, and how much was written by then.
    pub fn write(&self, bytes: &[u8], patience: &Patience) -> Result<(), Cut> {
        self.write_in_pieces(bytes, patience, |rest| rest.len())
    }

    /// Writes lines that may be written separately. A pipe takes each line whole or not at all, up to the
    /// length for which it guarantees that.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn write_lines(&self, lines: &[u8], patience: &Patience) -> Result<(), Cut> {
        match self.way {
            Way::Plain | Way::Socket => self.write(lines, patience),
            Way::Pipe | Way::Waiting => self.write_in_pieces(lines, patience, whole_lines),
        }
    }

    fn write_in_pieces(
        &self,
        bytes: &[u8],
        patience: &Patience,
        piece: impl Fn(&[u8]) -> usize,
    ) -> Result<(), Cut> {
        let (mut written, mut interruptions, mut refusals) = (0, 0, 0);
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.step(rest.get(..piece(rest)).unwrap_or(rest)) {
                Ok(0) => return Err(Cut { error: Errno::IO, written }),
                Ok(count) => (written, refusals) = (written + count, 0),
                Err(Errno::INTR) if interruptions < REPETITIONS => interruptions += 1,
                Err(Errno::AGAIN) if refusals < REPETITIONS && self.has_room_within(patience) => {
                    refusals += 1;
                }
                Err(error) => return Err(Cut { error, written }),
            }
        }
        Ok(())
    }

    /// Writes as much as is possible at once.
    fn step(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let _allowed = self.is_terminal.then(TerminalOutput::allowed);
        match self.way {
            Way::Plain | Way::Pipe => rustix::io::write(self, bytes),
            Way::Socket => rustix::net::send(self, bytes, SendFlags::DONTWAIT | NO_SIGNAL),
            Way::Waiting => match write_at_once(self.as_fd(), bytes) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.write_fitting(bytes),
                outcome => outcome,
            },
        }
    }

    /// Writes to a pipe as much as poll(2) guarantees, unless another process fills it first.
    fn write_fitting(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self.has_room(Duration::ZERO) {
            true => rustix::io::write(self, bytes.get(..whole_lines(bytes)).unwrap_or(bytes)),
            false => Err(Errno::AGAIN),
        }
    }

    /// Waits for room and charges the wait to `patience`. When that is spent, it checks without a wait.
    fn has_room_within(&self, patience: &Patience) -> bool {
        let left = patience.left();
        if left.is_zero() {
            return self.has_room(left);
        }
        let begun = clock::now();
        let has_room = self.has_room(left);
        patience.spend(clock::now().saturating_sub(begun));
        has_room
    }

    /// Waits for room. Also `true` if the next write fails.
    fn has_room(&self, patience: Duration) -> bool {
        let timeout = clock::wait_of(patience);
        matches!(poll(&mut [PollFd::new(self, PollFlags::OUT)], Some(&timeout)), Ok(1..))
    }
}

impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.held {
            Held::Ours(fd) => fd.as_fd(),
            Held::Shared(fd) => *fd,
        }
    }
}

/// The type of a descriptor. An unknown one is treated as a file, whose write reports the error.
fn kind_of(fd: BorrowedFd<'_>) -> FileType {
    rustix::fs::fstat(fd).map_or(FileType::Unknown, |status| FileType::from_raw_mode(status.st_mode))
}

/// The length of the whole lines that a pipe takes atomically; of a longer line a part.
fn whole_lines(bytes: &[u8]) -> usize {
    let most = bytes.len().min(rustix::pipe::PIPE_BUF);
    let fits = bytes.get(..most).unwrap_or(bytes);
    fits.iter().rposition(|byte| *byte == b'\n').map_or(most, |end| end + 1)
}

#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: SendFlags = SendFlags::empty();

/// Opens the same pipe or device as a non-blocking description of our own.
#[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
fn open_again(stream: BorrowedFd<'_>) -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags, fstat, open};
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let again = open(format!("/proc/self/fd/{}", stream.as_raw_fd()), flags, Mode::empty()).ok()?;
    let (one, other) = (fstat(stream).ok()?, fstat(&again).ok()?);
    ((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)).then_some(again)
}

/// Opening a descriptor by name duplicates it here, with shared flags.
#[cfg(any(not(target_os = "linux"), mcsup_force_fallback))]
fn open_again(_: BorrowedFd<'_>) -> Option<OwnedFd> {
    None
}

/// Writes without blocking on any description.
#[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
fn write_at_once(to: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    use rustix::io::{ReadWriteFlags, pwritev2};
    // This offset means the current position.
    pwritev2(to, &[io::IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT)
}

#[cfg(any(not(target_os = "linux"), mcsup_force_fallback))]
fn write_at_once(_: BorrowedFd<'_>, _: &[u8]) -> Result<usize, Errno> {
    Err(Errno::OPNOTSUPP)
}

#[cfg(test)]
#[path = "outlet_tests.rs"]
mod tests;
