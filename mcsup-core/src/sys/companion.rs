//! Threads of a worker's own that can be away while its code forks.
//!
//! A process with one thread is safe to fork: no other thread holds a lock that the child would wait for. Such a companion
//! ends at a safe point when it is asked to, holding nothing, and is started again after the fork.
//!
//! One that waits for a disk is not waited for: then the fork happens beside it. Where the system has no thread for one
//! after a fork, since the new process has taken the place, it is missing until [`mend`] finds one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::forked::is_forked_off;
use super::signal::SignalsBlocked;

type Life = Box<dyn Fn() + Send + Sync>;
type Ask = Box<dyn Fn(bool) + Send + Sync>;

/// For so long a fork waits for companions that do not end.
const MOST_WAIT: Duration = Duration::from_millis(100);
/// Forks that overlap without a pause do not keep companions away for longer: such a process has several threads anyway.
const MOST_AWAY: Duration = Duration::from_millis(500);
/// As often a thread is looked for where one is missing.
const MEND_EVERY: Duration = Duration::from_millis(100);
/// After so long it is time that another worker takes the place of this one.
const MOST_MISSING: Duration = Duration::from_secs(10);

/// All companions of this process.
struct All {
    /// How many forks are under way.
    forks: usize,
    list: Vec<Arc<Shared>>,
    /// Since when they are away; `None` also where they were called back while forks are under way.
    away: Option<Instant>,
    shortage: Option<Shortage>,
}

/// The system has no thread for a companion.
struct Shortage {
    since: Instant,
    last: Instant,
    is_told: bool,
}

static ALL: Mutex<All> = Mutex::new(All { forks: 0, list: Vec::new(), away: None, shortage: None });
/// Whether companions are away, or missing.
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

/// What is known of a companion's thread.
#[derive(Default)]
struct Post {
    thread: Option<JoinHandle<i32>>,
    /// Whether the thread has not come back from its life for good.
    lives: bool,
    /// Whether it is to live again when it comes back: it was called back before it had ended.
    lives_on: bool,
}

/// A thread that is away during forks.
pub(crate) struct Companion(Arc<Shared>);

impl std::fmt::Debug for Companion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Companion({:?})", self.0.name)
    }
}

impl Companion {
    /// Starts it. `life` returns when there is nothing left to do, and soon after `ask(true)`; after `ask(false)` it is
    /// called again, by another thread.
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

    /// No fork asks it for anything from now on.
    fn leave_forks(&self) {
        all().list.retain(|other| !Arc::ptr_eq(other, &self.0));
    }

    /// Waits for its end, which something else has brought about.
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

    /// What the thread does; its number in the kernel.
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

    /// Waits for the end of the thread, until `latest`.
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
        // First: a thread that comes back from its life after the next look must find that it is not to be away.
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
    /// Has all of them back, but for those that the system has no thread for.
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
            self.shortage = Some(Shortage { since: now, last: now, is_told: false });
        }
        MAY_BE_AWAY.store(self.shortage.is_some(), Ordering::Release);
    }

    /// Whether it is time, for the first time in this shortage, that another worker takes the place of this one.
    fn gives_up(&mut self, most: Duration) -> bool {
        let late = self.shortage.as_mut().filter(|shortage| shortage.since.elapsed() >= most);
        late.is_some_and(|shortage| !std::mem::replace(&mut shortage.is_told, true))
    }
}

/// Before this process's own code forks: returns when no companion is left, or a tenth of a second later where one does not
/// end. To be called by a thread that holds no lock.
pub fn send_companions_away() {
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

/// After the fork, in the process that forked; nothing happens in the other one.
pub fn call_companions_back() {
    if is_forked_off() {
        return;
    }
    let mut all = all();
    all.forks = all.forks.saturating_sub(1);
    if all.forks == 0 {
        all.call_back();
    }
}

/// Looks for threads for companions that are missing since a fork, or away for too many of them. `true`, once: none was found for so long that another
/// worker should take the place of this one. Costs a load where none is missing.
pub(crate) fn mend() -> bool {
    MAY_BE_AWAY.load(Ordering::Acquire)
        && !is_forked_off()
        && mend_within(MEND_EVERY, MOST_MISSING, MOST_AWAY)
}

fn mend_within(every: Duration, most: Duration, most_away: Duration) -> bool {
    // Where it is held, companions are sent away or called back.
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

/// Held by the thread that forks a worker or a mold, across the fork: no other thread of a mold, which the child lacks,
/// holds it then.
pub(super) struct Held(#[expect(dead_code, reason = "for its end")] MutexGuard<'static, All>);

pub(super) fn hold() -> Held {
    Held(all())
}

/// In a new worker or mold, which has one thread: companions are its parent's, and so is the fork.
pub(super) fn forget() {
    let mut all = all();
    all.forks = 0;
    all.list.clear();
    all.shortage = None;
    all.away = None;
    MAY_BE_AWAY.store(false, Ordering::Release);
}

/// Runs `body` beside a thread of this name that is away while this process's own code forks.
///
/// The thread runs `life`, which returns when there is nothing left to do, and soon after `ask(true)`; after `ask(false)` another
/// thread runs it again. When `body` has returned, `ask(true)` ends it, and its end is awaited.
///
/// # Errors
/// The system has no thread for it; `body` was not run.
pub fn beside<T>(
    name: &'static str,
    stack: usize,
    life: &(dyn Fn() + Sync),
    ask: &(dyn Fn(bool) + Sync),
    body: impl FnOnce() -> T,
) -> io::Result<T> {
    /// Ends the companion, also where `body` panics.
    struct Ended(Option<Companion>);
    impl Drop for Ended {
        fn drop(&mut self) {
            // A forked process has no such thread.
            if let Some(companion) = self.0.take().filter(|_| !is_forked_off()) {
                // First: a fork that is over now would call it back.
                companion.leave_forks();
                (companion.0.ask)(true);
                companion.end();
            }
        }
    }
    // SAFETY: only the lifetime changes. The references are used by the thread, which `Ended` joins before this function
    // returns or unwinds, and through the list, from which it takes the companion before.
    let (life, ask) = unsafe {
        (
            std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(life),
            std::mem::transmute::<&(dyn Fn(bool) + Sync), &'static (dyn Fn(bool) + Sync)>(ask),
        )
    };
    let _ended = Ended(Some(Companion::start(name, stack, life, ask)?));
    Ok(body())
}

/// The calling thread's number in the kernel.
#[cfg(target_os = "linux")]
fn number() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// The kernel counts a thread for a moment after it was joined.
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
