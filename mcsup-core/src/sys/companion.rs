//! Threads that stop while the process's own code forks.
//!
//! A process with one thread is safe to fork: no other thread holds a lock that the child would wait for. A
//! companion stops at a safe point on request, without locks, and restarts after the fork.
//!
//! A companion that waits for a disk is not waited for: the fork then happens beside it. If the system has no
//! room for a thread after a fork, because the new process uses it, the companion is missing until [`mend`]
//! can start it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::forked::is_forked_off;
use super::signal::SignalsBlocked;

type Life = Box<dyn Fn() + Send + Sync>;
type Ask = Box<dyn Fn(bool) + Send + Sync>;

/// The longest wait of a fork for companions.
const MOST_WAIT: Duration = Duration::from_millis(100);
/// The longest absence of companions during overlapping forks. Such a process has several threads anyway.
const MOST_AWAY: Duration = Duration::from_millis(500);
/// The interval between attempts to start a missing thread.
const MEND_EVERY: Duration = Duration::from_millis(100);
/// The absence after which another worker should replace this one.
const MOST_MISSING: Duration = Duration::from_secs(10);

/// All companions of this process.
struct All {
    /// The number of forks in progress.
    forks: usize,
    list: Vec<Arc<Shared>>,
    /// The start of their absence; `None` as well if they were restarted during forks.
    away: Option<Instant>,
    shortage: Option<Shortage>,
}

/// A period in which the system has no thread for a companion.
struct Shortage {
    since: Instant,
    last: Instant,
    is_reported: bool,
}

static ALL: Mutex<All> = Mutex::new(All { forks: 0, list: Vec::new(), away: None, shortage: None });
/// Whether companions are stopped or missing.
static MAY_BE_AWAY: AtomicBool = AtomicBool::new(false);

fn all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Shared {
    name: &'static str,
    stack: usize,
    life: Life,
    ask: Ask,
    post: Mutex<Post>,
    ended: Condvar,
}

/// The state of a companion's thread.
#[derive(Default)]
struct Post {
    thread: Option<JoinHandle<i32>>,
    /// Whether the thread runs, and has not stopped for good.
    lives: bool,
    /// Whether to run again instead of stopping: a restart was requested before it had stopped.
    lives_on: bool,
}

/// A thread that stops during forks.
pub(crate) struct Companion(Arc<Shared>);

impl std::fmt::Debug for Companion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Companion({:?})", self.0.name)
    }
}

impl Companion {
    /// Starts it. `life` returns when its work is done, and soon after `ask(true)`. After `ask(false)`
    /// another thread runs it again.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(crate) fn start(
        name: &'static str,
        stack: usize,
        life: impl Fn() + Send + Sync + 'static,
        ask: impl Fn(bool) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (life, ask) = (Box::new(life), Box::new(ask));
        let (post, ended) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { name, stack, life, ask, post, ended });
        let mut all = all();
        if all.forks == 0 {
            shared.begin()?;
        }
        all.list.push(Arc::clone(&shared));
        Ok(Self(shared))
    }

    /// Excludes it from stops and restarts by forks.
    fn leave_forks(&self) {
        all().list.retain(|other| !Arc::ptr_eq(other, &self.0));
    }

    /// Waits for its end. The caller has caused it.
    pub(crate) fn end(self) {
        self.leave_forks();
        let thread = self.0.post().thread.take();
        join(thread);
    }
}

impl Shared {
    fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> io::Result<()> {
        let mut post = self.post();
        let own = Arc::clone(self);
        let _blocked = SignalsBlocked::for_new_threads();
        let builder = Builder::new().name(self.name.to_owned()).stack_size(self.stack);
        post.thread = Some(builder.spawn(move || own.live())?);
        post.lives = true;
        Ok(())
    }

    /// The thread's main function; returns its kernel thread ID.
    fn live(&self) -> i32 {
        loop {
            (self.life)();
            let mut post = self.post();
            if !std::mem::take(&mut post.lives_on) {
                post.lives = false;
                self.ended.notify_all();
                return number();
            }
        }
    }

    fn send_away(&self) {
        self.post().lives_on = false;
        (self.ask)(true);
    }

    /// Waits until the thread has stopped, or until `latest`.
    fn await_absence(&self, latest: Instant) {
        let mut post = self.post();
        while post.lives {
            let left = latest.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            post = self.ended.wait_timeout(post, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let thread = post.thread.take();
        drop(post);
        join(thread);
    }

    fn call_back(self: &Arc<Self>) -> io::Result<()> {
        // This comes first: a thread that stops after the next check must see the request to run.
        (self.ask)(false);
        let mut post = self.post();
        if post.lives && post.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            post.lives_on = true;
            return Ok(());
        }
        let thread = post.thread.take();
        drop(post);
        join(thread);
        self.begin()
    }
}

fn join(thread: Option<JoinHandle<i32>>) {
    if let Some(Ok(number)) = thread.map(JoinHandle::join) {
        await_end(number);
    }
}

impl All {
    /// Restarts all of them, as far as the system has threads.
    fn call_back(&mut self) {
        self.away = None;
        let failed: Vec<_> = self
            .list
            .iter()
            .filter_map(|companion| Some((companion.name, companion.call_back().err()?)))
            .collect();
        let now = Instant::now();
        if failed.is_empty() {
            if self.shortage.take().is_some() {
                log::info!("all threads of the server are there again");
            }
        } else if let Some(shortage) = &mut self.shortage {
            shortage.last = now;
        } else {
            for (name, error) in failed {
                log::error!("cannot start the thread {name} again after a fork, trying on: {error}");
            }
            self.shortage = Some(Shortage { since: now, last: now, is_reported: false });
        }
        MAY_BE_AWAY.store(self.shortage.is_some(), Ordering::Release);
    }

    /// Whether another worker should replace this one. `true` once in each shortage.
    fn gives_up(&mut self, most: Duration) -> bool {
        let late = self.shortage.as_mut().filter(|shortage| shortage.since.elapsed() >= most);
        late.is_some_and(|shortage| !std::mem::replace(&mut shortage.is_reported, true))
    }
}

/// Stops all companions before the process's own code forks. Waits for them, but at most a tenth of a second.
///
/// The calling thread must hold no lock.
pub fn stop_companions() {
    if is_forked_off() {
        return;
    }
    let mut all = all();
    all.forks += 1;
    if all.forks == 1 {
        all.away = Some(Instant::now());
        MAY_BE_AWAY.store(true, Ordering::Release);
        all.list.iter().for_each(|companion| companion.send_away());
        let latest = Instant::now() + MOST_WAIT;
        all.list.iter().for_each(|companion| companion.await_absence(latest));
    }
}

/// Restarts the companions after a fork, in the process that forked. Does nothing in the child.
pub fn restart_companions() {
    if is_forked_off() {
        return;
    }
    let mut all = all();
    all.forks = all.forks.saturating_sub(1);
    if all.forks == 0 {
        all.call_back();
    }
}

/// Restarts companions that are missing or stopped for too long. Costs one load if there are none.
///
/// Returns `true` once if a thread was unavailable for so long that another worker should replace this one.
pub(crate) fn mend() -> bool {
    MAY_BE_AWAY.load(Ordering::Acquire)
        && !is_forked_off()
        && mend_within(MEND_EVERY, MOST_MISSING, MOST_AWAY)
}

fn mend_within(every: Duration, most: Duration, most_away: Duration) -> bool {
    // A lock that is held belongs to a stop or restart in progress.
    let mut all = match ALL.try_lock() {
        Ok(all) => all,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return false,
    };
    if all.forks == 0 && all.shortage.as_ref().is_some_and(|shortage| shortage.last.elapsed() >= every) {
        all.call_back();
    }
    if all.away.is_some_and(|since| since.elapsed() >= most_away) {
        all.call_back();
    }
    all.gives_up(most)
}

/// A lock held across a fork of a worker or mold by the forking thread. No other thread, missing in the
/// child, can hold it then.
pub(super) struct Held(#[expect(dead_code, reason = "for its end")] MutexGuard<'static, All>);

pub(super) fn hold() -> Held {
    Held(all())
}

/// Clears the list in a new worker or mold: it has one thread, and the companions belong to its parent.
pub(super) fn forget() {
    let mut all = all();
    all.forks = 0;
    all.list.clear();
    all.shortage = None;
    all.away = None;
    MAY_BE_AWAY.store(false, Ordering::Release);
}

/// Runs `body` beside a thread that stops while this process's own code forks.
///
/// The thread runs `life`, which returns when its work is done, and soon after `ask(true)`. After
/// `ask(false)` another thread runs it again. When `body` has returned, `ask(true)` ends the thread, and this
/// function waits for that.
///
/// # Errors
/// The system has no thread for it; `body` did not run.
pub fn with_companion<T>(
    name: &'static str,
    stack: usize,
    life: &(dyn Fn() + Sync),
    ask: &(dyn Fn(bool) + Sync),
    body: impl FnOnce() -> T,
) -> io::Result<T> {
    /// Ends the companion, also if `body` panics.
    struct Ended(Option<Companion>);
    impl Drop for Ended {
        fn drop(&mut self) {
            // A forked process has no such thread.
            if let Some(companion) = self.0.take().filter(|_| !is_forked_off()) {
                // This comes first: a fork that ends now would restart the thread.
                companion.leave_forks();
                (companion.0.ask)(true);
                companion.end();
            }
        }
    }
    // SAFETY: only the lifetime changes. The references are used by the thread, which `Ended` joins before
    // this function returns or unwinds, and through the list, from which it takes the companion before.
    let (life, ask) = unsafe {
        (
            std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(life),
            std::mem::transmute::<&(dyn Fn(bool) + Sync), &'static (dyn Fn(bool) + Sync)>(ask),
        )
    };
    let _ended = Ended(Some(Companion::start(name, stack, life, ask)?));
    Ok(body())
}

/// The kernel thread ID of the calling thread.
#[cfg(target_os = "linux")]
fn number() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Waits until the kernel has removed a joined thread.
#[cfg(target_os = "linux")]
fn await_end(number: i32) {
    const MOST_LOOKS: u32 = 1000;
    for _ in 0..MOST_LOOKS {
        // SAFETY: signal 0 only asks whether there is such a thread.
        if unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), number, 0) } == -1 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_micros(20));
    }
}

#[cfg(not(target_os = "linux"))]
fn number() -> i32 {
    0
}

#[cfg(not(target_os = "linux"))]
fn await_end(_: i32) {}

#[cfg(test)]
#[path = "companion_tests.rs"]
mod tests;
