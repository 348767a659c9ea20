//! The threads: followers, each with a permit to call the application, and a spare one without.
//!
//! One thread *leads*: it waits for events, receives and parses. It also answers a complete request, and does not lead
//! meanwhile: no hand-off, no wake-up. After the application it leads again. So one thread does everything while the
//! application is quick, with any number of permits.
//!
//! The other threads replace a leader that stays away. If the application is known to be slow, the leader wakes a
//! parked follower for each further request and one to lead. Otherwise the spare detects it, after about a
//! millisecond where there are several permits and five where there is one, and wakes one; and when every permit is in the application, it leads itself: uploads, downloads and deadlines go on,
//! and nothing is accepted that a sibling process could serve. It sleeps without a timer while nothing happens.

mod away;
mod parking;
mod spare;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mcsup_core::with_companion;

use super::answer_race::AnswerRace;
use super::coalescing::{Held, Holding, Watch};
use super::connections::{HOST_WAKE, WAKER};
use super::date::Date;
use super::exchange::{Asked, Exchange};
use super::gauges::Gauges;
use super::overdue::{self, Running};
use super::table::{Job, Table};
use super::turn::Queued;
use super::turns::QUEUE_TIME;
use super::waker::Waker;
use super::{EngineConfig, Host, Threads};
use crate::access::Entry;
use crate::app::{App, Request};
use crate::engine::connection::Connection;
use crate::http::response::ResponseHead;
use crate::net::poller::{Batch, Interest, Poller};
use away::Spare;
use parking::{LOOK_AFTER, Parked};

/// An application that takes longer than this on average is not worth waiting for, with other permits free.
const SLOW: Duration = Duration::from_micros(200);
/// Poll iterations to stay in low-latency mode after a delayed write.
const ALERT: u32 = 10;
/// Applications recurse.
const FOLLOWER_STACK: usize = 8 << 20;
const SPARE_STACK: usize = 256 << 10;

/// Everything that the threads share.
pub(super) struct Shared<'a> {
    config: EngineConfig,
    host: &'a dyn Host,
    poller: &'a Poller,
    permits: usize,
    /// One for each.
    races: Vec<AnswerRace>,
    held: Vec<Held>,
    watch: Watch,
    /// Whether there is an access log.
    logs: bool,
    /// This engine retires, and no sibling takes its connections.
    gave_up: Arc<AtomicBool>,
    state: Mutex<State<'a>>,
    /// Followers without work park here, except the first.
    condition: Condvar,
    /// Wakes the first follower.
    first_waker: Waker,
    /// A signal handler has left work to the first follower's thread.
    interrupted: AtomicBool,
    /// A signal handler may have left work to the first follower's thread.
    must_look: AtomicBool,
    /// The time when the leader entered the application, in microseconds since `start`; 0: a thread leads.
    away_since: AtomicU64,
    requests: AtomicU64,
    over: AtomicBool,
    spare: Spare,
    spare_sleeps: AtomicBool,
    /// The spare has been called for those that may wait for a disk.
    files_wait: AtomicBool,
    /// Wakes the thread that waits at the poller.
    waker: Waker,
    /// Wakes the spare alone.
    spare_waker: Waker,
    start: Instant,
}

struct State<'a> {
    table: Table<'a>,
    leader: Leader,
    parked: Parked,
    /// How many requests may still be answered, and for how long connections may have their turns, before there must be a
    /// poll again.
    budget: usize,
    queue_time: Duration,
    /// The usual time in the application.
    service: Duration,
    /// Remaining iterations with short waits after a delayed write.
    alert: u32,
    /// The request of each permit.
    running: Vec<Running>,
    gauges: Gauges,
    /// The spare does what may wait for a disk: it does not watch over the absence of a leader.
    spare_works: bool,
    failed: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leader {
    None,
    Permit,
    Spare,
}

type Guard<'g, 'a> = MutexGuard<'g, State<'a>>;

/// Runs all threads until the engine ends: the calling thread is the first follower.
pub(super) fn run(table: Table<'_>, poller: &Poller, threads: Threads<'_>) -> io::Result<()> {
    table.host.accepting(threads.apps.len());
    let (config, host, logs) = (table.config.clone(), table.host, table.access.is_some());
    let gave_up = Arc::clone(&table.leaving.gave_up);
    let (waker, spare_waker, first_waker) = (Waker::new()?, Waker::new()?, Waker::new()?);
    poller.add(host.wake_fd(), HOST_WAKE, Interest::Level)?;
    poller.add(waker.as_fd(), WAKER, Interest::Level)?;
    let state = State {
        table,
        leader: Leader::None,
        parked: Parked::default(),
        budget: 0,
        queue_time: Duration::ZERO,
        service: Duration::ZERO,
        alert: 0,
        running: threads.apps.iter().map(|_| Running::nothing(Instant::now())).collect(),
        gauges: Gauges::new(Instant::now()),
        spare_works: false,
        failed: None,
    };
    let shared = Shared {
        config,
        host,
        poller,
        permits: threads.apps.len(),
        watch: Watch::default(),
        held: threads.apps.iter().map(|_| Held::default()).collect(),
        races: threads.apps.iter().map(|_| AnswerRace::default()).collect(),
        logs,
        gave_up,
        state: Mutex::new(state),
        condition: Condvar::new(),
        first_waker,
        interrupted: AtomicBool::new(false),
        must_look: AtomicBool::new(false),
        away_since: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        over: AtomicBool::new(false),
        spare: Spare::default(),
        spare_sleeps: AtomicBool::new(false),
        files_wait: AtomicBool::new(false),
        waker,
        spare_waker,
        start: Instant::now(),
    };
    let Threads { apps, life } = threads;
    let mut apps = apps.into_iter();
    let (stand_by, ask) = (|| shared.stand_by(), |away| shared.send_spare(away));
    with_companion("spare", SPARE_STACK, &stand_by, &ask, || {
        thread::scope(|scope| {
            let (shared, mut first) = (&shared, apps.next());
            for (permit, mut app) in (1..).zip(apps) {
                let builder = thread::Builder::new().name("follower".to_owned()).stack_size(FOLLOWER_STACK);
                let follow = move || life(&mut || shared.follow(permit, &mut *app, &shared.spare));
                if let Err(error) = builder.spawn_scoped(scope, follow) {
                    // The others would serve, and this thread wait for them.
                    shared.give_up();
                    return Err(error);
                }
            }
            if let Some(app) = &mut first {
                shared.follow(0, &mut **app, &shared.spare);
            }
            Ok::<(), io::Error>(())
        })
    })??;
    let mut state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.table.refusals.flush();
    if let Some(access) = &mut state.table.access {
        access.flush();
    }
    state.failed.map_or(Ok(()), Err)
}

impl<'a> Shared<'a> {
    fn lock(&self) -> Guard<'_, 'a> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of a follower: answers a waiting request, otherwise leads, otherwise parks.
    fn follow(&self, permit: usize, app: &mut dyn App, spare: &Spare) {
        let _ends_others = Fallen(self);
        let mut own = Own { permit, ..Own::default() };
        let mut state = self.lock();
        // The time, where this thread has just looked: a look costs as much as a short turn may.
        let mut looked = None;
        loop {
            if self.is_over() {
                return self.leave(state, spare);
            }
            self.relieve_spare(&mut state);
            self.call_for_files(&state, spare);
            if let Some(again) = (permit == 0).then(|| self.is_to_attend()).flatten() {
                (state, looked) = (self.attend(state, spare), None);
                (own.worked, own.looked_for_signals) = (again, Some(Instant::now()));
                continue;
            }
            let may_answer = state.budget > 0 || state.leader == Leader::Permit;
            if let Some(job) = may_answer.then(|| state.table.take_job()).flatten() {
                state.budget = state.budget.saturating_sub(1);
                let now = looked.take().unwrap_or_else(Instant::now);
                // The application does it too.
                (own.worked, own.looked_for_signals) = (true, Some(now));
                let watched = self.config.timeouts.request.is_some();
                if watched || self.permits > 1 {
                    state.running[permit].begin(&job, watched, now);
                }
                let led = state.leader == Leader::Permit;
                self.wake_helpers(&mut state, led);
                let together = state.service < SLOW && state.table.may_leave_together(now);
                drop(state);
                let (back, ended) = self.answer(app, job, (now, together), &mut own, (!led).then_some(spare));
                (state, looked) = (back, Some(ended));
            } else if app.has_garbage() {
                // As long as a request, perhaps.
                state.table.send_together(Instant::now());
                let led = state.leader == Leader::Permit;
                self.leave_queue(&mut state, led);
                if !led {
                    self.go_away(Instant::now(), spare);
                }
                drop(state);
                app.free();
                (state, looked) = (self.lock(), None);
            } else if let Some(next) = self.next_in_queue(&mut state) {
                let led = state.leader == Leader::Permit;
                let now = looked.take().unwrap_or_else(Instant::now);
                if led {
                    // The thread that leads may sleep, and does not know of an answer that waits here.
                    state.table.send_together(now);
                }
                let (back, ended) = self.give_turn(state, next, now, (!led).then_some(spare));
                (state, looked) = (back, Some(ended));
                self.note_work(&mut own, ended);
            } else if state.leader == Leader::Permit {
                state.table.send_together(Instant::now());
                if !(state.table.ready.is_empty() && state.table.queue.is_empty()) {
                    // Behind an answer that has left there was a request already.
                    continue;
                }
                if state.table.has_work() {
                    // A body waits for its place, and the leader does not know how long.
                    self.waker.wake();
                }
                self.call_for_files(&state, spare);
                state = self.park(state, permit == 0, own.worked);
                looked = None;
            } else {
                state.leader = Leader::Permit;
                let most = if permit == 0 && own.worked { LOOK_AFTER } else { Duration::MAX };
                let (back, now) = self.turn(state, Leader::Permit, &mut own.batch, most);
                (state, looked) = (back, Some(now));
                state.leader = Leader::None;
                if own.batch.news().next().is_some() {
                    self.note_work(&mut own, now);
                }
            }
        }
    }

    /// A permit is free: the spare has nothing to do any more. At once, and not only when nothing waits: under load that
    /// would be never, and all that time nothing would be accepted, and every request would cost a wake-up.
    fn relieve_spare(&self, state: &mut State<'a>) {
        if state.leader == Leader::Spare {
            state.leader = Leader::None;
            state.table.permit_is_free();
            self.spare_waker.wake();
        }
    }

    /// Ends the engine, where a thread is missing.
    fn give_up(&self) {
        let state = self.lock();
        self.over.store(true, Ordering::Release);
        self.leave(state, &self.spare);
    }

    /// Wakes the other threads at the end.
    fn leave(&self, state: Guard<'_, 'a>, spare: &Spare) {
        drop(state);
        self.wake_all_parked();
        self.waker.wake();
        spare.unpark();
    }

    /// Where the application is slow, what waits is not for this thread to answer alone, nor is the news.
    fn wake_helpers(&self, state: &mut State<'a>, led: bool) {
        let wanted = match state.service >= SLOW {
            true => state.table.ready.len() + usize::from(!led),
            // Otherwise the spare watches over the absence of this thread.
            false => usize::from(!led && state.spare_works),
        };
        self.wake_parked(state, wanted);
    }

    /// This thread has something else to do than the queue: another one sees to that.
    fn leave_queue(&self, state: &mut State<'a>, led: bool) {
        self.wake_helpers(state, led);
        if led && state.table.has_work() {
            self.waker.wake();
        }
    }

    /// One turn: wait for news, for `most` at most, receive what has come, see to deadlines.
    fn turn<'g>(
        &'g self,
        mut state: Guard<'g, 'a>,
        who: Leader,
        batch: &mut Batch,
        most: Duration,
    ) -> (Guard<'g, 'a>, Instant) {
        // With one permit and no request deadline a request that keeps the permit is a worker that hangs: then only the
        // permit's thread may beat.
        if who == Leader::Permit || self.permits > 1 || self.config.timeouts.request.is_some() {
            self.host.beat();
        }
        let now = Instant::now();
        state.table.send_together(now);
        if self.send_held() {
            state.alert = ALERT;
        }
        state.table.follow_host();
        state.table.body_memory.tidy(now);
        state.table.hand_on_idle(now);
        state.table.look_for_the_last(now);
        let State { table, running, gauges, .. } = &mut *state;
        gauges.tell(table.ready.len(), running, self.host, now);
        if let Some(access) = &mut state.table.access {
            access.flush();
        }
        if state.table.is_over(now) {
            self.over.store(true, Ordering::Release);
            return (state, now);
        }
        let mut timeout = state.table.timeout(who == Leader::Permit, now).min(most);
        if let Some(limit) = self.config.timeouts.request {
            let next = overdue::next_deadline(&state.running, limit);
            timeout = next.map_or(timeout, |at| timeout.min(at.saturating_duration_since(now)));
        }
        if self.is_to_call_for_files(&state) {
            timeout = Duration::ZERO;
        }
        timeout = self.watch.wait(timeout, state.alert > 0);
        let waits_for_signals = timeout == most;
        state.alert = state.alert.saturating_sub(1);
        drop(state);
        let waited = if who == Leader::Spare {
            self.poller.wait_aside(batch, timeout, self.spare_waker.as_fd())
        } else {
            self.away_since.store(0, Ordering::Relaxed);
            self.poller.wait(batch, timeout)
        };
        self.watch.woke();
        let now = Instant::now();
        let mut state = self.lock();
        match waited {
            Ok(true) => self.note_signal(&mut state),
            Ok(false) if waits_for_signals && batch.news().next().is_none() => {
                self.must_look.store(true, Ordering::Release);
            }
            Ok(false) => {}
            Err(error) => {
                state.failed.get_or_insert(error);
                self.over.store(true, Ordering::Release);
            }
        }
        state.table.weigh(now);
        for news in batch.news() {
            if news.token == WAKER {
                self.waker.acknowledge();
            }
            state.table.on_news(news, who == Leader::Permit, now);
        }
        state.table.expire(now);
        if let Some(limit) = self.config.timeouts.request {
            let State { running, table, .. } = &mut *state;
            overdue::see_to(running, &self.races, limit, table, self.host, now);
        }
        (state.budget, state.queue_time) = (state.table.ready.len(), QUEUE_TIME);
        (state, now)
    }

    /// Whose turn it is in the queue, if it is one's.
    fn next_in_queue(&self, state: &mut State<'a>) -> Option<Queued> {
        // Where another thread leads there is no hurry: it polls meanwhile.
        let has_time = state.leader == Leader::Permit || !state.queue_time.is_zero();
        if has_time { state.table.next_in_queue() } else { None }
    }

    /// Lets one have its turn, and counts it; returns when that was done. `spare`: who watches over the absence of a leader.
    fn give_turn<'g>(
        &'g self,
        state: Guard<'g, 'a>,
        next: Queued,
        began: Instant,
        spare: Option<&Spare>,
    ) -> (Guard<'g, 'a>, Instant) {
        let ready = state.table.ready.len();
        let mut state = self.have_turn(state, next, began, spare);
        // What has become whole need not wait for the next poll.
        state.budget += state.table.ready.len().saturating_sub(ready);
        let now = Instant::now();
        state.queue_time = state.queue_time.saturating_sub(now - began);
        (state, now)
    }

    /// One turn, without the lock during a large transfer.
    fn have_turn<'g>(
        &'g self,
        mut state: Guard<'g, 'a>,
        next: Queued,
        began: Instant,
        spare: Option<&Spare>,
    ) -> Guard<'g, 'a> {
        if let Some(mut work) = state.table.begin_turn(next, began) {
            drop(state);
            if let Some(spare) = spare {
                self.go_away(began, spare);
            }
            work.take_turn(&self.config, began);
            state = self.lock();
            state.table.end_turn(work, began);
        }
        state
    }

    /// Answers one request, without the lock; returns when that was done. `spare`: who watches over the absence of a
    /// leader.
    fn answer(
        &self,
        app: &mut dyn App,
        job: Job,
        (began, together): (Instant, bool),
        own: &mut Own,
        spare: Option<&Spare>,
    ) -> (Guard<'_, 'a>, Instant) {
        let Job { mut connection, head: head_bytes, body } = job;
        let race = &self.races[own.permit];
        race.start();
        if let Some(spare) = spare {
            self.go_away(began, spare);
        }
        let Connection { stream, outgoing, heads, incoming, peer, .. } = &mut *connection;
        let head = Connection::view(heads, incoming, &head_bytes);
        let asked = Asked {
            method: head.method(),
            version: head.version(),
            keep_alive: head.delimited().keep_alive && !self.config.timeouts.keep_alive.is_zero(),
            host: self.host,
            gave_up: &self.gave_up,
            date: own.date.at(began),
            write_timeout: self.config.timeouts.write,
            race,
            together,
            handles_signals: own.permit == 0 && app.handles_signals(),
            holding: Holding { held: &self.held[own.permit], watch: &self.watch, waker: &self.waker },
        };
        let mut exchange = Exchange::new(stream, outgoing, asked, self.logs.then_some(&mut own.sent));
        self.host.request_began();
        let verdict = app.call(Request { head, body, peer }, &mut exchange);
        let answered = exchange.finish(verdict);
        self.host.request_ended();
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(access) = &mut state.table.access {
            let (remote, response, bytes) = (peer.remote, &own.sent, answered.bytes);
            access.note(&Entry { head: Some(head), remote, response, bytes, took: now - began });
        }
        state.running[own.permit].end();
        state.service = (state.service * 7 + (now - began)) / 8;
        state.table.give_back(connection, &head_bytes, answered, together, now);
        if !together {
            state.table.send_together(now);
        }
        (state, now)
    }

    /// Gives up the lead for the time of a request.
    fn go_away(&self, now: Instant, spare: &Spare) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.away_since.store(self.micros(now).max(1), Ordering::SeqCst);
        if self.spare_sleeps.load(Ordering::SeqCst) && self.spare_sleeps.swap(false, Ordering::SeqCst) {
            spare.unpark();
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from((now - self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// Sends the delayed bytes of permits that are in the application; `false`: there are none.
    fn send_held(&self) -> bool {
        self.held.iter().filter(|held| held.send(&self.watch)).count() > 0
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Ends the engine where a follower unwinds: its connection would never come back, nor perhaps the lead.
struct Fallen<'c, 'a>(&'c Shared<'a>);

impl Drop for Fallen<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.give_up();
        }
    }
}

/// The data of one follower.
#[derive(Default)]
struct Own {
    batch: Batch,
    /// Which permit it has.
    permit: usize,
    /// Whether it has been at work since it last looked for signals,
    worked: bool,
    /// and when that was; `None`: it has not looked yet.
    looked_for_signals: Option<Instant>,
    date: Date,
    /// The head of its last answer.
    sent: ResponseHead,
}
