//! The threads: followers, each with a permit to call the application, and a spare one without.
//!
//! One thread *leads*: in rounds it waits for events, receives and parses. It also answers a complete request, and does
//! not lead meanwhile: no hand-off, no wake-up. After the application it leads again. So one thread does everything while
//! the application is quick, with any number of permits.
//!
//! The other threads replace a leader that stays in the application. If the application is known to be slow, the leader
//! wakes a parked follower for each further request and one to lead. Otherwise the spare detects it, after about a
//! millisecond if there are several permits and after five if there is one, and wakes one. When every permit is in the
//! application, the spare leads itself: uploads, downloads and deadlines go on, and nothing is accepted that a sibling
//! process could serve. It sleeps without a timer while nothing happens.

mod answering;
mod leading;
mod parking;
mod spare;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mcsup_core::with_companion;

use super::answer_race::AnswerRace;
use super::coalescing::{Held, Watch};
use super::connections::{HOST_WAKE, WAKER};
use super::date::Date;
use super::gauges::Gauges;
use super::overdue::Running;
use super::table::Table;
use super::waker::Waker;
use super::{EngineConfig, Host, Threads};
use crate::app::App;
use crate::http::response::ResponseHead;
use crate::net::poller::{Batch, Interest, Poller};
use parking::{LOOK_AFTER, Parked, Parking};
use spare::Spare;

/// Applications recurse.
const FOLLOWER_STACK: usize = 8 << 20;
/// Handshakes of TLS need more than the rest of its work.
const SPARE_STACK: usize = 512 << 10;

/// Everything that the threads share.
pub(super) struct Shared<'a> {
    config: EngineConfig,
    host: &'a dyn Host,
    poller: &'a Poller,
    permits: Vec<Permit>,
    watch: Watch,
    /// Whether there is an access log.
    logs: bool,
    /// This engine retires, and no sibling takes its connections.
    gave_up: Arc<AtomicBool>,
    state: Mutex<Locked<'a>>,
    parking: Parking,
    spare: Spare,
    /// Wakes the spare alone, while it leads.
    spare_waker: Waker,
    /// Wakes the thread that waits at the poller.
    waker: Waker,
    start: Instant,
    over: AtomicBool,
}

/// The part of a permit that other threads use without the lock.
#[derive(Default)]
struct Permit {
    race: AnswerRace,
    held: Held,
}

/// Everything that the lock protects.
struct Locked<'a> {
    table: Table<'a>,
    leader: Leader,
    parked: Parked,
    /// How many requests may be answered, and how long turns may last, before the next poll.
    budget: usize,
    queue_time: Duration,
    /// The usual time in the application.
    service: Duration,
    /// Remaining rounds with short waits after a delayed write.
    alert: u32,
    /// The request of each permit.
    running: Vec<Running>,
    gauges: Gauges,
    /// The spare does turns that may wait for a disk, and does not replace a leader meanwhile.
    spare_works: bool,
    failed: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leader {
    None,
    Permit,
    Spare,
}

type Guard<'g, 'a> = MutexGuard<'g, Locked<'a>>;

/// Runs all threads until the engine ends: the calling thread is the first follower.
pub(super) fn run(table: Table<'_>, poller: &Poller, threads: Threads<'_>) -> io::Result<()> {
    let Threads { apps, life } = threads;
    table.host.accepting(apps.len());
    let shared = Shared::new(table, poller, apps.len())?;
    let mut apps = apps.into_iter();
    let (stand_by, ask) = (|| shared.stand_by(), |suspend| shared.suspend_spare(suspend));
    with_companion("spare", SPARE_STACK, &stand_by, &ask, || {
        thread::scope(|scope| {
            let (shared, mut first) = (&shared, apps.next());
            for (permit, mut app) in (1..).zip(apps) {
                let builder = thread::Builder::new().name("follower".to_owned()).stack_size(FOLLOWER_STACK);
                let follow = move || life(&mut || shared.follow(permit, &mut *app));
                if let Err(error) = builder.spawn_scoped(scope, follow) {
                    // The others would serve, and this thread wait for them.
                    shared.give_up();
                    return Err(error);
                }
            }
            if let Some(app) = &mut first {
                shared.follow(0, &mut **app);
            }
            Ok::<(), io::Error>(())
        })
    })??;
    let mut state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.table.refusals.flush();
    if let Some(access) = &mut state.table.access {
        access.end();
    }
    state.failed.map_or(Ok(()), Err)
}

impl<'a> Shared<'a> {
    fn new(table: Table<'a>, poller: &'a Poller, permits: usize) -> io::Result<Self> {
        let (waker, start) = (Waker::new()?, Instant::now());
        poller.add(table.host.wake_fd(), HOST_WAKE, Interest::Level)?;
        poller.add(waker.as_fd(), WAKER, Interest::Level)?;
        Ok(Self {
            config: table.config.clone(),
            host: table.host,
            poller,
            permits: (0..permits).map(|_| Permit::default()).collect(),
            watch: Watch::default(),
            logs: table.access.is_some(),
            gave_up: Arc::clone(&table.leaving.gave_up),
            state: Mutex::new(Locked {
                table,
                leader: Leader::None,
                parked: Parked::default(),
                budget: 0,
                queue_time: Duration::ZERO,
                service: Duration::ZERO,
                alert: 0,
                running: (0..permits).map(|_| Running::nothing(start)).collect(),
                gauges: Gauges::new(start),
                spare_works: false,
                failed: None,
            }),
            parking: Parking::new()?,
            spare: Spare::default(),
            spare_waker: Waker::new()?,
            waker,
            start,
            over: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> Guard<'_, 'a> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of a follower.
    fn follow(&self, permit: usize, app: &mut dyn App) {
        let _ends_others = EndsOnUnwind(self);
        let (batch, date, sent) = (Batch::default(), Date::new(&self.config.server), ResponseHead::default());
        let (now, looked_for_signals) = (None, None);
        let mut follower =
            Follower { app, permit, batch, now, worked: false, looked_for_signals, date, sent };
        let mut state = self.lock();
        while !self.is_over() {
            state = self.serve(state, &mut follower);
        }
        drop(state);
        self.wake_all();
    }

    /// Answers a waiting request, otherwise gives a turn, otherwise leads, otherwise parks.
    fn serve<'g>(&'g self, mut state: Guard<'g, 'a>, follower: &mut Follower<'_>) -> Guard<'g, 'a> {
        self.relieve_spare(&mut state);
        self.wake_spare_for_files(&state);
        if let Some(again) = (follower.permit == 0).then(|| self.signals_are_due()).flatten() {
            (follower.worked, follower.now) = (again, None);
            state = self.run_signal_handlers(state);
            follower.looked_for_signals = Some(Instant::now());
            return state;
        }
        let is_led = state.leader == Leader::Permit;
        let may_answer = is_led || state.budget > 0;
        if let Some(job) = may_answer.then(|| state.table.take_job()).flatten() {
            return self.answer(state, job, follower);
        }
        if follower.app.has_garbage() {
            // As long as a request, perhaps.
            state.table.send_coalesced(Instant::now());
            self.leave_queue(&mut state, is_led);
            if !is_led {
                self.leave_lead(Instant::now());
            }
            drop(state);
            follower.app.free();
            follower.now = None;
            return self.lock();
        }
        if let Some(next) = self.next_in_queue(&mut state) {
            let began = follower.take_now();
            if is_led {
                // The leader may sleep, and does not know of an answer that waits here.
                state.table.send_coalesced(began);
            }
            let (state, ended) = self.give_turn(state, next, began, is_led);
            follower.now = Some(ended);
            self.note_work(follower, ended);
            return state;
        }
        if is_led { self.park_if_idle(state, follower) } else { self.lead(state, follower) }
    }

    /// Parks, unless there is more to do.
    fn park_if_idle<'g>(&'g self, mut state: Guard<'g, 'a>, follower: &mut Follower<'_>) -> Guard<'g, 'a> {
        state.table.send_coalesced(Instant::now());
        if !state.table.ready.is_empty() || state.table.turns.has_for_permits() {
            // The next request was there already, behind an answer that has left.
            return state;
        }
        if state.table.has_work() {
            // A body waits for its place, and the leader does not know how long.
            self.waker.wake();
        }
        self.wake_spare_for_files(&state);
        follower.now = None;
        self.park(state, follower)
    }

    /// Leads for one round.
    fn lead<'g>(&'g self, mut state: Guard<'g, 'a>, follower: &mut Follower<'_>) -> Guard<'g, 'a> {
        state.leader = Leader::Permit;
        let most = if follower.permit == 0 && follower.worked { LOOK_AFTER } else { Duration::MAX };
        let (mut state, now) = self.round(state, Leader::Permit, &mut follower.batch, most);
        follower.now = Some(now);
        state.leader = Leader::None;
        if follower.batch.events().next().is_some() {
            self.note_work(follower, now);
        }
        state
    }

    /// Ends the engine, because a thread is missing.
    fn give_up(&self) {
        let state = self.lock();
        self.over.store(true, Ordering::Release);
        drop(state);
        self.wake_all();
    }

    /// Wakes all threads, at the end.
    fn wake_all(&self) {
        self.wake_all_parked();
        self.waker.wake();
        self.spare.unpark();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Ends the engine if a follower unwinds: its connection would never come back, nor perhaps the lead.
struct EndsOnUnwind<'c, 'a>(&'c Shared<'a>);

impl Drop for EndsOnUnwind<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.give_up();
        }
    }
}

/// The data of one follower.
struct Follower<'x> {
    app: &'x mut dyn App,
    /// Which permit it has.
    permit: usize,
    batch: Batch,
    /// The time, if this thread has just read it: a read costs as much as a short turn may.
    now: Option<Instant>,
    /// Whether it has worked since it last looked for signals,
    worked: bool,
    /// and when that was; `None`: it has not looked yet.
    looked_for_signals: Option<Instant>,
    date: Date,
    /// The head of its last answer.
    sent: ResponseHead,
}

impl Follower<'_> {
    fn take_now(&mut self) -> Instant {
        self.now.take().unwrap_or_else(Instant::now)
    }
}
