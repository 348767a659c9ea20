//! The handles of the living workers: process, link, scoreboard line. Facts about them are in `policy/table`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock;
use crate::host::usage::{self, Usage};
use crate::link::channel::SupervisorEnd;
use crate::link::message::Order;
use crate::link::message::Report;
use crate::link::scoreboard::{Gauges, Scoreboard, Seat};
use crate::policy::{Event, Evidence, Exit, ExitStatus, Load, Moment, WorkerId};
use crate::spawn::reap;

/// One worker's handles.
#[derive(Debug)]
struct Hand {
    pid: Pid,
    link: SupervisorEnd,
    seat: Seat,
    born: Moment,
    out_of_memory_kills: u64,
}

/// A worker as it is now.
#[derive(Debug)]
pub(crate) struct Look {
    /// Since it was forked.
    pub(crate) age: Duration,
    pub(crate) gauges: Gauges,
    pub(crate) usage: Usage,
}

/// All workers that were forked and not yet reaped, and the memory that they share with us.
#[derive(Debug)]
pub(crate) struct Crew {
    hands: BTreeMap<WorkerId, Hand>,
    scoreboard: Scoreboard,
}

impl Crew {
    /// Room for `most` workers at once.
    pub(crate) fn new(most: usize) -> io::Result<Self> {
        Ok(Self { hands: BTreeMap::new(), scoreboard: Scoreboard::new(most)? })
    }

    /// A scoreboard line for a worker that is about to be forked.
    pub(crate) fn take_seat(&mut self) -> Option<Seat> {
        self.scoreboard.take()
    }

    /// The fork failed: the line comes back.
    pub(crate) fn give_back(&mut self, seat: &Seat) {
        self.scoreboard.give_back(seat);
    }

    /// A forked worker.
    pub(crate) fn join(&mut self, worker: WorkerId, pid: Pid, link: SupervisorEnd, seat: Seat) {
        let out_of_memory_kills = reap::out_of_memory_kills();
        let born = clock::now();
        self.hands.insert(worker, Hand { pid, link, seat, born, out_of_memory_kills });
    }

    /// What to wait on: each worker's link.
    pub(crate) fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.hands.values().map(|hand| hand.link.as_fd())
    }

    /// Says something to a worker.
    pub(crate) fn say(&mut self, worker: WorkerId, order: Order) {
        if let Some(hand) = self.hands.get_mut(&worker) {
            if let Err(error) = hand.link.say(order) {
                log::debug!("worker {} does not listen: {error}", hand.pid);
            }
        }
    }

    /// Sends a signal. A worker that is in the crew was not reaped, so its pid is still its own.
    pub(crate) fn signal(&self, worker: WorkerId, signal: Signal) {
        if let Some(hand) = self.hands.get(&worker) {
            let _ = kill_process(hand.pid, signal);
        }
    }

    /// What the workers have said since the last call.
    pub(crate) fn reports(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for (&worker, hand) in &mut self.hands {
            for report in hand.link.hear() {
                events.push(match report {
                    Report::Ready => Event::Ready { worker },
                    Report::Failed(failure) => Event::BootFailed { worker, failure },
                    Report::Leaving(reason) => Event::Leaving { worker, reason },
                    Report::ReloadWanted(reason) => Event::Changed { reason },
                    Report::Enough { requests } => Event::Enough { worker, requests },
                });
            }
        }
        events
    }

    /// When each worker last moved.
    pub(crate) fn beats(&self) -> Event {
        Event::Beats(self.hands.iter().map(|(&worker, hand)| (worker, hand.seat.last_beat())).collect())
    }

    /// How much memory each worker uses, in bytes.
    pub(crate) fn memory(&self) -> Vec<(WorkerId, u64)> {
        let used = |hand: &Hand| usage::resident(hand.pid.as_raw_nonzero().get());
        self.hands.iter().filter_map(|(&worker, hand)| Some((worker, used(hand)?))).collect()
    }

    /// How one of them is.
    pub(crate) fn look(&self, worker: WorkerId, now: Moment) -> Option<Look> {
        let hand = self.hands.get(&worker)?;
        Some(Look {
            age: now.saturating_sub(hand.born),
            gauges: hand.seat.gauges(),
            usage: usage::usage(hand.pid.as_raw_nonzero().get()),
        })
    }

    /// How busy all of them are.
    pub(crate) fn load(&self, queued: usize) -> Load {
        let mut load = Load { queued, ..Load::default() };
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        for gauges in self.hands.values().map(|hand| hand.seat.gauges()) {
            load.waiting += count(gauges.waiting);
            load.running += count(gauges.running);
            load.permits += count(gauges.permits);
        }
        load
    }

    /// Reaps whoever has ended, hearing their last words first.
    pub(crate) fn reap(&mut self) -> Vec<Event> {
        let ended: Vec<(WorkerId, ExitStatus)> = self
            .hands
            .iter()
            .filter_map(|(&worker, hand)| Some((worker, reap::try_reap(hand.pid)?)))
            .collect();
        let mut events = self.reports();
        for (worker, status) in ended {
            if let Some(hand) = self.hands.remove(&worker) {
                events.push(Event::Exited { worker, exit: Exit { status, evidence: hand.evidence() } });
                self.scoreboard.give_back(&hand.seat);
            }
        }
        reap::reap_adopted(|pid| self.hands.values().any(|hand| hand.pid == pid));
        events
    }

    /// In a forked child: these handles are the supervisor's. Closing a copy of a link's end keeps every lifeline
    /// the supervisor's alone.
    pub(crate) fn let_go(&mut self) {
        self.hands.clear();
    }
}

impl Hand {
    fn evidence(&self) -> Evidence {
        Evidence {
            out_of_memory: reap::out_of_memory_kills() > self.out_of_memory_kills,
            sender: self.seat.last_sender(),
            request_age: self.seat.request_age(),
        }
    }
}
