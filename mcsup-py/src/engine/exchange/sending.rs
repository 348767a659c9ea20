//! How an answer leaves while the application runs: at once, later with other bytes, or when the client takes more.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::{Delimit, Exchange, Rest, SMALL, Stage};
use crate::app::{Gone, Reply};
use crate::engine::turn::MOST_SENT;
use crate::net::buffer::{FilePart, Outgoing, Tail};
use crate::net::stream::Progress;
use crate::net::timers::after;

/// A longer part of a file is not sent from here, nor is one that is not in memory: to read it may wait for a disk.
const SHORT_FILE: u64 = 64 * 1024;

/// A streaming application waits for its client when more bytes than this are unsent.
const HIGH_WATER: usize = 256 * 1024;
/// It continues when no more bytes than this are unsent.
const LOW_WATER: usize = 64 * 1024;

/// The interval at which a wait for a client is interrupted for signals that arrived just before it.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(50);

/// A piece that follows the one before it within this time may wait for the next.
const QUICK_SUCCESSION: Duration = Duration::from_micros(300);

impl Exchange<'_> {
    /// Whether what is there may leave later: with other answers, or with the pieces that follow in quick succession.
    fn may_hold(&self) -> bool {
        if self.outgoing.tail().is_some() || self.outgoing.len() > SMALL {
            return false;
        }
        match self.stage {
            Stage::Body(Delimit::Owed(0)) => self.asked.coalesce,
            Stage::Body(Delimit::Dropped) | Stage::Before | Stage::Taken | Stage::Gone => false,
            Stage::Body(_) => self.flushed.is_some_and(|at| at.elapsed() < QUICK_SUCCESSION),
        }
    }

    /// Sends what the socket takes. The rest of something large leaves when its connection has a turn: others wait for this
    /// permit.
    pub(super) fn send_now(&mut self) -> Progress {
        let most = match self.outgoing.tail() {
            Some(Tail::File(part)) if part.length > SHORT_FILE || !part.is_at_hand() => self.outgoing.len(),
            _ => MOST_SENT,
        };
        self.stream.send_at_most(self.outgoing, most)
    }

    /// Sends, and waits while too much is on its way.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        self.flushed = Some(Instant::now());
        match self.stream.send(self.outgoing) {
            Progress::Ended => return self.gone(),
            Progress::Blocked(0) => {}
            Progress::Blocked(_) | Progress::More(_) => self.give_up_at = None,
        }
        if self.outgoing.len() > HIGH_WATER { self.flush_to_low_water() } else { Ok(()) }
    }

    pub(super) fn flush_to_low_water(&mut self) -> Result<(), Gone> {
        self.flush_while(|outgoing| outgoing.len() > LOW_WATER)
    }

    /// Waits until everything has left.
    pub(super) fn flush_all(&mut self) -> Result<(), Gone> {
        let mut progress = self.stream.send(self.outgoing);
        while !self.outgoing.is_empty() {
            if progress == Progress::Ended {
                return self.gone();
            }
            // Handlers of signals run when the application goes on.
            progress = self.send_when_writable().unwrap_or(Progress::Blocked(0));
        }
        Ok(())
    }

    /// Waits until a file or a block has left, since nothing can be put behind one.
    fn flush_tail(&mut self) -> Result<(), Gone> {
        self.flush_while(|outgoing| outgoing.tail().is_some())
    }

    /// Waits while there is too much, or until it is interrupted.
    fn flush_while(&mut self, is_too_much: impl Fn(&Outgoing) -> bool) -> Result<(), Gone> {
        while is_too_much(self.outgoing) {
            match self.send_when_writable() {
                None => {
                    self.is_interrupted = true;
                    break;
                }
                Some(Progress::Ended) => return self.gone(),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// `None`: a signal may have come before the client took anything.
    fn send_when_writable(&mut self) -> Option<Progress> {
        let limit = self.asked.write_timeout;
        // Signals that come again and again do not move it.
        let give_up_at = *self.give_up_at.get_or_insert_with(|| after(Instant::now(), limit));
        loop {
            let left = give_up_at.saturating_duration_since(Instant::now());
            let most = if self.asked.handles_signals { left.min(LOOK_FOR_SIGNALS) } else { left };
            match self.stream.wait_writable(most) {
                Ok(true) => {
                    self.give_up_at = None;
                    return Some(self.stream.send(self.outgoing));
                }
                Ok(false) if Instant::now() >= give_up_at => return Some(Progress::Ended),
                Ok(false) | Err(rustix::io::Errno::INTR) if self.asked.handles_signals => return None,
                Ok(false) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Some(Progress::Ended),
            }
        }
    }

    /// A piece of the body, behind all that was sent before.
    pub(super) fn send_piece(&mut self, piece: &[u8]) -> Result<(), Gone> {
        self.flush_tail()?;
        if self.is_interrupted {
            self.rest = Some(Rest::Piece(piece.to_vec()));
            return Ok(());
        }
        self.put(piece);
        if self.may_hold() {
            self.asked.holding.put(self.stream, self.outgoing);
            return Ok(());
        }
        self.flush()
    }

    /// A file in the middle of a response that is framed in another way.
    pub(super) fn copy_file(&mut self, mut part: FilePart) -> Result<(), Gone> {
        self.flush_tail()?;
        let mut piece = vec![0; LOW_WATER];
        while !self.is_interrupted && part.length > 0 && !self.is_full() {
            let most = usize::try_from(part.length).unwrap_or(LOW_WATER).min(LOW_WATER);
            match part.file.read_at(&mut piece[..most], part.offset) {
                Ok(count @ 1..) => {
                    self.asked.holding.take_back(self.outgoing);
                    self.send_piece(&piece[..count])?;
                    part.offset += count as u64;
                    part.length -= count as u64;
                }
                // Shorter than it was, or unreadable: what has left must not pass for the whole.
                Ok(0) | Err(_) => return self.gone(),
            }
        }
        if self.is_interrupted && part.length > 0 {
            self.rest = Some(Rest::File(part));
        }
        Ok(())
    }
}
