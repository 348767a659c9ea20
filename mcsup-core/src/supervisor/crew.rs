//! The handles of the living workers and molds: process, link, scoreboard line. Facts about them are in `policy/table`
//! and `policy/mold`.
//!
//! A worker that a mold forks is awaited first: it has a link, and a process only once it says so there. Whatever goes
//! wrong before that (the mold has died, or cannot fork) closes its end of the link, and so is heard of.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::{Error, Result};
use crate::host::usage::{self, Usage};
use crate::link::channel::{EndRecord, Hear, SupervisorEnd, WorkerEnd};
use crate::link::fork_order::{Descriptors, ForkOrder, ForkingEnd, OrderingEnd};
use crate::link::message::{Order, Report};
use crate::link::scoreboard::{Board, BoardRecord, Gauges, Scoreboard, Seat};
use crate::listener::open::OpenSet;
use crate::policy::{Event, Evidence, Exit, ExitStatus, Load, Moment, WorkerId};
use crate::spawn::reap;
use crate::sys::ancestry::{self, ADOPTS};

/// What joins us to a worker or a mold.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) link: SupervisorEnd,
    /// `None`: a mold has none.
    pub(crate) seat: Option<Seat>,
    /// Our end for orders to fork, where it is a mold or may become one.
    pub(crate) forks: Option<OrderingEnd>,
}

/// What a mold is to be told, and what goes with it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) order: ForkOrder,
    pub(crate) end: WorkerEnd,
    pub(crate) forks: Option<ForkingEnd>,
    pub(crate) listeners: OpenSet,
}

/// Which process it is.
#[derive(Debug)]
enum Process {
    /// None yet: a mold is to fork it.
    Awaited {
        mold: WorkerId,
        since: Moment,
        /// It is to be killed as soon as that is possible.
        is_doomed: bool,
        /// Why it was not forked, where that is known.
        failure: Option<String>,
    },
    /// Our child: waitpid(2) says how it ends.
    Child(Pid),
    /// The child of a mold, which says how it ends.
    Grandchild {
        pid: Pid,
        mold: WorkerId,
        /// What it has said itself, should the mold be gone by then.
        last_word: Option<ExitStatus>,
    },
}

impl Process {
    fn pid(&self) -> Option<Pid> {
        match self {
            Process::Awaited { .. } => None,
            Process::Child(pid) | Process::Grandchild { pid, .. } => Some(*pid),
        }
    }
}

impl Process {
    fn describe(&self) -> ProcessRecord {
        let number = |pid: &Pid| pid.as_raw_nonzero().get();
        match self {
            Process::Awaited { mold, since, is_doomed, failure } => ProcessRecord::Awaited {
                mold: *mold,
                since: *since,
                is_doomed: *is_doomed,
                failure: failure.clone(),
            },
            Process::Child(pid) => ProcessRecord::Child(number(pid)),
            Process::Grandchild { pid, mold, .. } => {
                ProcessRecord::Grandchild { pid: number(pid), mold: *mold }
            }
        }
    }
}

impl ProcessRecord {
    /// `None`: there is no such process.
    fn adopt(self) -> Option<Process> {
        Some(match self {
            ProcessRecord::Awaited { mold, since, is_doomed, failure } => {
                Process::Awaited { mold, since, is_doomed, failure }
            }
            ProcessRecord::Child(pid) => Process::Child(Pid::from_raw(pid)?),
            ProcessRecord::Grandchild { pid, mold } => {
                Process::Grandchild { pid: Pid::from_raw(pid)?, mold, last_word: None }
            }
        })
    }
}

/// One process's handles.
#[derive(Debug)]
struct Hand {
    process: Process,
    links: Links,
    /// Told to become a mold.
    is_promoted: bool,
    /// What it is still to be told to fork.
    wanted: VecDeque<(WorkerId, Wanted)>,
    born: Moment,
    out_of_memory_kills: u64,
}

/// How many orders a mold is given before it has answered the first of them: more would only wait in its socket, which
/// has little room.
const UNANSWERED: usize = 4;

/// A fork takes less, also on a machine that is busy: a mold that has not done it by the time that its worker is given up
/// never will.
const FORK_PATIENCE: Duration = Duration::from_millis(100);

/// A worker whose mold is gone is born by then, or never.
const ORPHANS_PATIENCE: Duration = Duration::from_secs(1);

/// A worker as it is now.
#[derive(Debug)]
pub(crate) struct Look {
    /// Since it was forked.
    pub(crate) age: Duration,
    pub(crate) gauges: Gauges,
    pub(crate) usage: Usage,
}

/// All workers and molds that were forked, or asked for, and not yet reaped, and the memory that they share with us.
#[derive(Debug)]
pub(crate) struct Crew {
    hands: BTreeMap<WorkerId, Hand>,
    scoreboard: Scoreboard,
    /// Whether processes become our children that we have not forked.
    adopts: bool,
}

/// A crew that outlives its supervisor's image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CrewRecord {
    board: BoardRecord,
    hands: Vec<HandRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct HandRecord {
    worker: WorkerId,
    process: ProcessRecord,
    link: EndRecord,
    seat: Option<usize>,
    forks: Option<RawFd>,
    is_promoted: bool,
    born: Moment,
    out_of_memory_kills: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum ProcessRecord {
    Awaited { mold: WorkerId, since: Moment, is_doomed: bool, failure: Option<String> },
    Child(i32),
    Grandchild { pid: i32, mold: WorkerId },
}

impl CrewRecord {
    /// All descriptors in it.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let hands = self.hands.iter().flat_map(|hand| [hand.link.fd].into_iter().chain(hand.forks));
        hands.chain([self.board.fd])
    }
}

impl Crew {
    /// What the next image needs. Orders that a mold was not given yet are not in it: those workers will never be born,
    /// as the end of their links says.
    pub(crate) fn describe(&self) -> io::Result<CrewRecord> {
        let hands = self.hands.iter().map(|(worker, hand)| HandRecord {
            worker: *worker,
            process: hand.process.describe(),
            link: hand.links.link.describe(),
            seat: hand.links.seat.as_ref().map(Seat::index),
            forks: hand.links.forks.as_ref().map(|forks| forks.as_fd().as_raw_fd()),
            is_promoted: hand.is_promoted,
            born: hand.born,
            out_of_memory_kills: hand.out_of_memory_kills,
        });
        let board = self.scoreboard.describe().ok_or(io::ErrorKind::Unsupported)?;
        Ok(CrewRecord { board, hands: hands.collect() })
    }

    /// The crew that was described, in the process that has inherited its descriptors and its children.
    pub(crate) fn adopt(record: CrewRecord) -> io::Result<Self> {
        let scoreboard = Scoreboard::adopt(&record.board)?;
        let mut crew = Self { hands: BTreeMap::new(), scoreboard, adopts: ancestry::adopts() };
        for hand in record.hands {
            let worker = hand.worker;
            match crew.adopt_hand(hand) {
                Ok(hand) => crew.hands.insert(worker, hand),
                Err(error) => {
                    // What has been taken over so far stays open, so that there is a way back.
                    std::mem::forget(crew);
                    return Err(error);
                }
            };
        }
        Ok(crew)
    }

    fn adopt_hand(&mut self, record: HandRecord) -> io::Result<Hand> {
        let wrong = || io::Error::other("the record contradicts itself");
        let process = record.process.adopt().ok_or_else(wrong)?;
        let seat = match record.seat {
            Some(index) => Some(self.scoreboard.take_again(index).ok_or_else(wrong)?),
            None => None,
        };
        let forks = record.forks.map(OrderingEnd::adopt).transpose()?;
        Ok(Hand {
            process,
            links: Links { link: SupervisorEnd::adopt(record.link)?, seat, forks },
            is_promoted: record.is_promoted,
            wanted: VecDeque::new(),
            born: record.born,
            out_of_memory_kills: record.out_of_memory_kills,
        })
    }

    /// Room for `most` workers at once.
    pub(crate) fn new(most: usize) -> io::Result<Self> {
        Ok(Self { hands: BTreeMap::new(), scoreboard: Scoreboard::new(most)?, adopts: ancestry::adopts() })
    }

    /// From now on all children are reaped, whoever has forked them.
    pub(crate) fn adopts(&mut self) {
        self.adopts = ancestry::adopts();
    }

    /// The lines of all workers, for a mold.
    pub(crate) fn board(&self) -> Board {
        self.scoreboard.board()
    }

    /// A scoreboard line for a worker that is about to be forked.
    pub(crate) fn take_seat(&mut self) -> Option<Seat> {
        self.scoreboard.take()
    }

    /// The fork failed: the line comes back.
    pub(crate) fn give_back(&mut self, seat: &Seat) {
        self.scoreboard.give_back(seat);
    }

    /// A forked worker or mold.
    pub(crate) fn join(&mut self, worker: WorkerId, pid: Pid, links: Links) {
        self.hands.insert(worker, Hand::new(Process::Child(pid), links));
    }

    /// Has a mold fork a worker, as soon as it has forked those before it.
    pub(crate) fn order(
        &mut self,
        (worker, mold): (WorkerId, WorkerId),
        links: Links,
        wanted: Wanted,
    ) -> Result<()> {
        let gone = || Error::system("have a mold fork", io::Error::other("there is no such mold"));
        self.hands.get_mut(&mold).ok_or_else(gone)?.wanted.push_back((worker, wanted));
        let process = Process::Awaited { mold, since: clock::now(), is_doomed: false, failure: None };
        self.hands.insert(worker, Hand::new(process, links));
        self.send_orders(mold);
        Ok(())
    }

    /// Tells a mold what it is to fork, no more than a few at once.
    fn send_orders(&mut self, mold: WorkerId) {
        let Some(Hand { links: Links { forks: Some(_), .. }, wanted, .. }) = self.hands.get(&mold) else {
            return;
        };
        let is_told = |worker: &WorkerId| !wanted.iter().any(|(other, _)| other == worker);
        let mut told = self.awaited(mold).filter(|worker| is_told(worker)).count();
        while told < UNANSWERED {
            let Some(hand) = self.hands.get_mut(&mold) else { return };
            let (Some(forks), Some((worker, wanted))) = (&hand.links.forks, hand.wanted.pop_front()) else {
                return;
            };
            let sent = forks.send(&wanted.order, &wanted.descriptors());
            told += 1;
            // The end of its link, which is closed here, says that there is no such worker; this says why.
            if let (Err(error), Some(hand)) = (sent, self.hands.get_mut(&worker)) {
                hand.failed(format!("the mold cannot be told: {error}"));
            }
        }
    }

    /// Who is still to be forked by a mold.
    fn awaited(&self, mold: WorkerId) -> impl Iterator<Item = WorkerId> {
        self.hands.iter().filter_map(move |(worker, hand)| match hand.process {
            Process::Awaited { mold: by, .. } if by == mold => Some(*worker),
            _ => None,
        })
    }

    /// What to wait on: the link of each worker that can still say something. One that has ended would never let us wait.
    pub(crate) fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let links = self.hands.values().map(|hand| &hand.links.link);
        links.filter(|link| !link.has_ended()).map(AsFd::as_fd)
    }

    /// Says something to a worker.
    pub(crate) fn say(&mut self, worker: WorkerId, order: Order) {
        if let Some(hand) = self.hands.get_mut(&worker) {
            if let Err(error) = hand.links.link.say(order) {
                log::debug!("worker {} does not listen: {error}", worker.0);
            }
        }
    }

    /// Says something to all molds, and to whoever is becoming one.
    pub(crate) fn say_to_molds(&mut self, order: &Order) {
        let molds = self.hands.iter().filter(|(_, hand)| hand.links.seat.is_none() || hand.is_promoted);
        for mold in molds.map(|(mold, _)| *mold).collect::<Vec<_>>() {
            self.say(mold, order.clone());
        }
    }

    /// Has a worker become a mold.
    pub(crate) fn promote(&mut self, worker: WorkerId) {
        if let Some(hand) = self.hands.get_mut(&worker) {
            hand.is_promoted = true;
        }
        self.say(worker, Order::Promote);
    }

    /// Sends a signal. A worker that is in the crew was not reaped, so its pid is still its own. One that has no process
    /// yet will be killed when it has, where that was asked for.
    pub(crate) fn signal(&mut self, worker: WorkerId, signal: Signal) {
        let Some(hand) = self.hands.get_mut(&worker) else { return };
        match &mut hand.process {
            Process::Child(pid) | Process::Grandchild { pid, .. } => {
                let _ = kill_process(*pid, signal);
            }
            Process::Awaited { mold, since, is_doomed, .. } if signal == Signal::KILL => {
                *is_doomed = true;
                let (mold, is_stuck) = (*mold, clock::now().saturating_sub(*since) >= FORK_PATIENCE);
                let Some(mold) = self.hands.get_mut(&mold) else {
                    return self.hands.get(&worker).into_iter().for_each(|hand| hand.links.link.end());
                };
                let before = mold.wanted.len();
                mold.wanted.retain(|(other, _)| *other != worker);
                if let (Process::Child(pid), true, true) =
                    (&mold.process, is_stuck, mold.wanted.len() == before)
                {
                    log::error!("mold {pid} does not fork what it is told to: it is killed");
                    let _ = kill_process(*pid, Signal::KILL);
                }
            }
            Process::Awaited { .. } => {}
        }
    }

    /// What the workers and molds have said since the last call.
    pub(crate) fn reports(&mut self) -> Vec<Event> {
        self.reports_of(&[])
    }

    /// The same, when these have just been reaped: whoever may be one of them is heard out.
    fn reports_of(&mut self, reaped: &[Pid]) -> Vec<Event> {
        let mut heard: Vec<(WorkerId, Vec<Report>)> = Vec::new();
        for (&worker, hand) in &mut self.hands {
            let how_much = if hand.may_be_in(reaped) { Hear::All } else { Hear::Some };
            heard.push((worker, hand.links.link.hear(how_much)));
        }
        self.hear_out_grandchildren(&mut heard);
        let mut events = Vec::new();
        for (worker, reports) in heard {
            for report in reports {
                events.extend(self.on_report(worker, report, reaped));
            }
        }
        events.extend(self.those_without_end());
        let molds: Vec<WorkerId> =
            self.hands.iter().filter(|(_, hand)| !hand.wanted.is_empty()).map(|(mold, _)| *mold).collect();
        molds.into_iter().for_each(|mold| self.send_orders(mold));
        events
    }

    /// Of whom a mold says that it has ended, the rest is heard before.
    fn hear_out_grandchildren(&mut self, heard: &mut [(WorkerId, Vec<Report>)]) {
        let exited = |report: &Report| match report {
            Report::ChildExited { pid, .. } => Pid::from_raw(*pid),
            _ => None,
        };
        let ended: Vec<Pid> =
            heard.iter().flat_map(|(_, reports)| reports.iter().filter_map(exited)).collect();
        for (worker, reports) in heard {
            let Some(Hand { process: Process::Grandchild { pid, .. }, links, .. }) =
                self.hands.get_mut(worker)
            else {
                continue;
            };
            if ended.contains(pid) {
                reports.append(&mut links.link.hear(Hear::All));
            }
        }
    }

    fn on_report(&mut self, worker: WorkerId, report: Report, reaped: &[Pid]) -> Option<Event> {
        Some(match report {
            Report::Ready => {
                self.on_ready(worker);
                Event::Ready { worker }
            }
            Report::Failed(failure) => Event::BootFailed { worker, failure },
            Report::Leaving(reason) => Event::Leaving { worker, reason },
            Report::ReloadWanted(reason) => Event::Changed { reason },
            Report::Enough { requests } => Event::Enough { worker, requests },
            Report::Born { pid } => return self.on_born(worker, Pid::from_raw(pid)?, reaped),
            Report::ForkFailed { worker, reason } => {
                self.hands.get_mut(&WorkerId(worker))?.failed(reason);
                return None;
            }
            Report::ChildExited { pid, status } => {
                return self.on_child_exited(worker, Pid::from_raw(pid)?, status);
            }
        })
    }

    /// A mold says how its child has ended, or that one how it is about to.
    fn on_child_exited(&mut self, teller: WorkerId, ended: Pid, status: ExitStatus) -> Option<Event> {
        for (&worker, hand) in &mut self.hands {
            match &mut hand.process {
                Process::Grandchild { pid, mold, .. } if *pid == ended && *mold == teller => {
                    return self.end(worker, status);
                }
                Process::Grandchild { pid, last_word, .. } if *pid == ended && worker == teller => {
                    *last_word = Some(status);
                }
                _ => {}
            }
        }
        None
    }

    /// A worker that has become a mold does nothing more that its siblings should know.
    fn on_ready(&mut self, worker: WorkerId) {
        let Some(hand) = self.hands.get_mut(&worker).filter(|hand| hand.is_promoted) else { return };
        if let Some(seat) = hand.links.seat.take() {
            self.scoreboard.give_back(&seat);
        }
    }

    /// A worker has a process; or had one, that has just been reaped.
    fn on_born(&mut self, worker: WorkerId, pid: Pid, reaped: &[Pid]) -> Option<Event> {
        let is_taken = self.hands.values().any(|hand| hand.process.pid() == Some(pid));
        let hand = self.hands.get_mut(&worker)?;
        let Process::Awaited { mold, is_doomed, .. } = hand.process else { return None };
        let is_reaped = reaped.contains(&pid);
        if is_taken || ADOPTS && !is_reaped && !reap::is_child(pid) {
            log::error!("worker {} says that it is process {pid}, which is none of ours", worker.0);
            return None;
        }
        hand.process = match ADOPTS {
            true => Process::Child(pid),
            false => Process::Grandchild { pid, mold, last_word: None },
        };
        // One that was reaped has no number any more: it may be somebody else's.
        if is_doomed && !is_reaped {
            let _ = kill_process(pid, Signal::KILL);
        }
        Some(Event::Spawned { worker, pid: pid.as_raw_nonzero().get() })
    }

    /// The end of those that nobody will tell us of: who was never born, and whose mold is gone. Processes that the
    /// application has forked may keep the link of one open that is not born; it has a moment, for it may be on its way.
    fn those_without_end(&mut self) -> Vec<Event> {
        let now = clock::now();
        let is_over = |hand: &Hand| {
            let (is_silent, has) = (hand.links.link.has_ended(), |mold| self.hands.contains_key(mold));
            match &hand.process {
                Process::Awaited { mold, since, .. } => {
                    is_silent || !has(mold) && now.saturating_sub(*since) >= ORPHANS_PATIENCE
                }
                Process::Grandchild { mold, .. } => is_silent && !has(mold),
                Process::Child(_) => false,
            }
        };
        let over = self.hands.iter().filter(|(_, hand)| is_over(hand)).map(|(worker, _)| *worker);
        let over: Vec<WorkerId> = over.collect();
        over.into_iter().filter_map(|worker| self.end_unseen(worker)).collect()
    }

    fn end_unseen(&mut self, worker: WorkerId) -> Option<Event> {
        let reason = match &self.hands.get(&worker)?.process {
            Process::Awaited { is_doomed: true, .. } => {
                return self.end(worker, ExitStatus::Signal(Signal::KILL.as_raw()));
            }
            Process::Awaited { failure, .. } => failure.clone(),
            Process::Grandchild { last_word: Some(status), .. } => return self.end(worker, *status),
            // Nobody knows how.
            _ => return self.end(worker, ExitStatus::Code(-1)),
        };
        self.end(worker, ExitStatus::Code(-1));
        let reason =
            reason.unwrap_or_else(|| "the mold, or what it had forked, died before it was born".to_owned());
        Some(Event::SpawnFailed { worker, reason })
    }

    /// Takes a process out of the crew.
    fn end(&mut self, worker: WorkerId, status: ExitStatus) -> Option<Event> {
        let hand = self.hands.remove(&worker)?;
        let evidence = hand.evidence();
        if let Some(seat) = &hand.links.seat {
            self.scoreboard.give_back(seat);
        }
        Some(Event::Exited { worker, exit: Exit { status, evidence } })
    }

    /// When each worker last moved.
    pub(crate) fn beats(&self) -> Event {
        let beats = self
            .hands
            .iter()
            .filter_map(|(&worker, hand)| Some((worker, hand.links.seat.as_ref()?.last_beat())));
        Event::Beats(beats.collect())
    }

    /// How much memory each worker uses, in bytes.
    pub(crate) fn memory(&self) -> Vec<(WorkerId, u64)> {
        let used = |hand: &Hand| usage::resident(hand.process.pid()?.as_raw_nonzero().get());
        self.hands.iter().filter_map(|(&worker, hand)| Some((worker, used(hand)?))).collect()
    }

    /// How one of them is.
    pub(crate) fn look(&self, worker: WorkerId, now: Moment) -> Option<Look> {
        let hand = self.hands.get(&worker)?;
        Some(Look {
            age: now.saturating_sub(hand.born),
            gauges: hand.links.seat.as_ref().map(Seat::gauges).unwrap_or_default(),
            usage: hand.process.pid().map(|pid| usage::usage(pid.as_raw_nonzero().get())).unwrap_or_default(),
        })
    }

    /// How busy all of them are.
    pub(crate) fn load(&self, queued: usize) -> Load {
        let mut load = Load { queued, ..Load::default() };
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        for gauges in self.hands.values().filter_map(|hand| Some(hand.links.seat.as_ref()?.gauges())) {
            load.waiting += count(gauges.waiting);
            load.running += count(gauges.running);
            load.permits += count(gauges.permits);
        }
        load
    }

    /// Reaps whoever has ended, hearing their last words first: one that nobody knows may have said that it was born.
    pub(crate) fn reap(&mut self) -> Vec<Event> {
        let ended: Vec<(Pid, ExitStatus)> = match self.adopts {
            true => std::iter::from_fn(reap::reap_any).collect(),
            false => {
                let children = self.hands.values().filter_map(|hand| match hand.process {
                    Process::Child(pid) => Some(pid),
                    _ => None,
                });
                children.filter_map(|pid| Some((pid, reap::try_reap(pid)?))).collect()
            }
        };
        let reaped: Vec<Pid> = ended.iter().map(|(pid, _)| *pid).collect();
        let mut events = self.reports_of(&reaped);
        for (pid, status) in ended {
            let is_it = |process: &Process| matches!(process, Process::Child(other) if *other == pid);
            // Anybody else is an orphan of some worker.
            let worker = self.hands.iter().find(|(_, hand)| is_it(&hand.process)).map(|(worker, _)| *worker);
            events.extend(worker.and_then(|worker| self.end(worker, status)));
        }
        events.extend(self.those_without_end());
        events
    }

    /// In a forked child: these handles are the supervisor's. Closing a copy of a link's end keeps every lifeline
    /// the supervisor's alone.
    pub(crate) fn let_go(&mut self) {
        self.hands.clear();
        self.scoreboard.let_go();
    }
}

impl Wanted {
    fn descriptors(&self) -> Descriptors<BorrowedFd<'_>> {
        Descriptors {
            end: self.end.as_fd(),
            forks: self.forks.as_ref().map(AsFd::as_fd),
            listeners: self.listeners.iter().map(|listener| listener.as_fd()).collect(),
        }
    }
}

impl Hand {
    fn new(process: Process, links: Links) -> Self {
        Self {
            process,
            links,
            is_promoted: false,
            wanted: VecDeque::new(),
            born: clock::now(),
            out_of_memory_kills: reap::out_of_memory_kills(),
        }
    }

    /// Whether its process is one of these, or not known yet.
    fn may_be_in(&self, reaped: &[Pid]) -> bool {
        match &self.process {
            Process::Awaited { .. } => !reaped.is_empty(),
            Process::Child(pid) | Process::Grandchild { pid, .. } => reaped.contains(pid),
        }
    }

    fn failed(&mut self, reason: String) {
        if let Process::Awaited { failure, .. } = &mut self.process {
            failure.get_or_insert(reason);
        }
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            out_of_memory: reap::out_of_memory_kills() > self.out_of_memory_kills,
            sender: self.links.seat.as_ref().and_then(Seat::last_sender),
            request_age: self.links.seat.as_ref().and_then(Seat::request_age),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{channel, fork_order};
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::process::{Child, Command};

    /// A crew with a mold whose part the test plays.
    struct Pool {
        crew: Crew,
        orders: ForkingEnd,
        mold: WorkerEnd,
        process: Child,
    }

    const MOLD: WorkerId = WorkerId(1);

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    fn pool() -> Pool {
        let process = sleeper();
        let mut crew = Crew::new(8).unwrap();
        let ((link, mold), (forks, orders)) = (channel::pair().unwrap(), fork_order::pair().unwrap());
        let links = Links { link, seat: None, forks: Some(forks) };
        crew.join(MOLD, Pid::from_child(&process), links);
        Pool { crew, orders, mold, process }
    }

    impl Pool {
        fn order(&mut self, worker: u64) {
            let (link, end) = channel::pair().unwrap();
            let seat = self.crew.take_seat().unwrap();
            let order = ForkOrder {
                worker,
                slot: 0,
                seat: seat.index(),
                max_requests: 0,
                may_become_mold: false,
                listeners: Vec::new(),
            };
            let wanted = Wanted { order, end, forks: None, listeners: OpenSet::default() };
            let links = Links { link, seat: Some(seat), forks: None };
            self.crew.order((WorkerId(worker), MOLD), links, wanted).unwrap();
        }

        /// What the mold is told next: for whom, and that one's end of its link.
        fn told(&self) -> Option<(u64, WorkerEnd)> {
            self.orders.take().unwrap().map(|(order, descriptors)| (order.worker, descriptors.into_parts().0))
        }
    }

    impl Drop for Pool {
        fn drop(&mut self) {
            // The test may have reaped it.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    fn failed(event: &Event) -> Option<(u64, &str)> {
        match event {
            Event::SpawnFailed { worker, reason } => Some((worker.0, reason)),
            _ => None,
        }
    }

    #[test]
    fn a_mold_is_told_a_few_things_at_once_and_more_when_it_has_answered() {
        let mut pool = pool();
        (10..16).for_each(|worker| pool.order(worker));
        let mut told: Vec<_> = std::iter::from_fn(|| pool.told()).collect();
        assert_eq!(told.iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), [10, 11, 12, 13]);
        assert!(pool.crew.reports().is_empty());
        let reason = "no memory".to_owned();
        pool.mold.say(Report::ForkFailed { worker: 10, reason }).unwrap();
        drop(told.remove(0));
        let events = pool.crew.reports();
        assert_eq!(events.iter().map(failed).collect::<Vec<_>>(), [Some((10, "no memory"))]);
        assert_eq!(pool.told().map(|(worker, _)| worker), Some(14));
        assert!(pool.told().is_none());
    }

    #[test]
    fn whoever_is_not_born_when_the_mold_is_gone_was_not_forked() {
        let mut pool = pool();
        (10..16).for_each(|worker| pool.order(worker));
        let first = pool.told();
        let (_, orders) = fork_order::pair().unwrap();
        pool.orders = orders;
        assert!(pool.crew.reports().iter().filter_map(failed).map(|(worker, _)| worker).eq([11, 12, 13]));
        drop(first);
        pool.process.kill().unwrap();
        let mut events = Vec::new();
        while events.len() < 4 {
            events.extend(pool.crew.reap());
        }
        assert!(matches!(
            events.iter().find(|event| failed(event).is_none()),
            Some(Event::Exited { worker: MOLD, .. })
        ));
        let mut failed: Vec<u64> = events.iter().filter_map(failed).map(|(worker, _)| worker).collect();
        failed.sort_unstable();
        assert_eq!(failed, [10, 14, 15]);
        // All lines have come back.
        assert!((0..8).all(|_| pool.crew.take_seat().is_some()));
    }

    #[test]
    fn a_worker_that_was_to_be_killed_before_it_was_born_is_killed_then() {
        let mut pool = pool();
        pool.order(10);
        let (_, end) = pool.told().unwrap();
        pool.crew.signal(WorkerId(10), Signal::KILL);
        let mut worker = sleeper();
        let pid = i32::try_from(worker.id()).unwrap();
        end.say(Report::Born { pid }).unwrap();
        assert_eq!(pool.crew.reports(), [Event::Spawned { worker: WorkerId(10), pid }]);
        let status = worker.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::KILL.as_raw()));
    }

    #[test]
    fn a_worker_that_was_to_be_killed_and_is_never_born_has_ended_so() {
        let mut pool = pool();
        (10..15).for_each(|worker| pool.order(worker));
        pool.crew.signal(WorkerId(14), Signal::KILL);
        let events = pool.crew.reports();
        assert!(matches!(&events[..], [Event::Exited { worker: WorkerId(14), .. }]), "{events:?}");
    }

    #[test]
    fn a_link_that_somebody_else_holds_does_not_keep_a_worker_that_is_never_born() {
        let mut pool = pool();
        pool.order(10);
        let held = pool.told();
        pool.process.kill().unwrap();
        while pool.crew.reap().is_empty() {}
        pool.crew.signal(WorkerId(10), Signal::KILL);
        let events = pool.crew.reports();
        assert!(matches!(&events[..], [Event::Exited { worker: WorkerId(10), .. }]), "{events:?}");
        drop(held);
    }

    #[test]
    fn a_link_that_has_ended_is_not_waited_on_while_its_process_lives() {
        let mut pool = pool();
        assert_eq!(pool.crew.links().count(), 1);
        pool.mold = channel::pair().unwrap().1;
        assert!(pool.crew.reports().is_empty());
        assert_eq!(pool.crew.links().count(), 0);
        pool.process.kill().unwrap();
        let mut events = Vec::new();
        while events.is_empty() {
            events = pool.crew.reap();
        }
        assert!(matches!(&events[..], [Event::Exited { worker: MOLD, .. }]), "{events:?}");
    }

    #[test]
    fn whoever_is_reaped_is_heard_out_first() {
        let mut pool = pool();
        let failure = crate::policy::BootFailure {
            kind: crate::error::ErrorKind::Boot,
            summary: "no module".to_owned(),
            detail: Some("x".repeat(64 * 1024)),
        };
        pool.mold.say(Report::Failed(failure.clone())).unwrap();
        pool.process.kill().unwrap();
        let child = WaitId::Pid(Pid::from_child(&pool.process));
        waitid(child, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let events = pool.crew.reap();
        assert_eq!(events[0], Event::BootFailed { worker: MOLD, failure });
        assert!(matches!(events[1], Event::Exited { worker: MOLD, .. }));
    }

    #[test]
    fn a_worker_that_is_reaped_before_it_is_heard_was_born_and_has_ended() {
        if !ADOPTS {
            // Its mold says how it ends.
            return;
        }
        let mut pool = pool();
        pool.crew.adopts = true;
        pool.order(10);
        let (_, end) = pool.told().unwrap();
        let mut worker = sleeper();
        let process = Pid::from_child(&worker);
        let pid = process.as_raw_nonzero().get();
        end.say(Report::Born { pid }).unwrap();
        drop(end);
        worker.kill().unwrap();
        waitid(WaitId::Pid(process), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let events = pool.crew.reap();
        assert_eq!(events[0], Event::Spawned { worker: WorkerId(10), pid });
        let [_, Event::Exited { worker: WorkerId(10), exit }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(exit.status, ExitStatus::Signal(Signal::KILL.as_raw()));
        assert!(worker.wait().is_err(), "it was reaped");
    }

    #[test]
    fn a_process_that_is_somebody_elses_is_not_this_workers_too() {
        let mut pool = pool();
        pool.order(10);
        let (_, end) = pool.told().unwrap();
        let pid = Pid::from_child(&pool.process).as_raw_nonzero().get();
        end.say(Report::Born { pid }).unwrap();
        assert!(pool.crew.reports().is_empty());
    }

    #[test]
    fn a_process_that_is_none_of_ours_is_nobodys_worker() {
        let mut pool = pool();
        pool.order(10);
        let (_, end) = pool.told().unwrap();
        end.say(Report::Born { pid: 1 }).unwrap();
        let events = pool.crew.reports();
        assert_eq!(events.is_empty(), ADOPTS, "{events:?}");
    }
}
