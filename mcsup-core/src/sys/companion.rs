//! Threads of a worker's own that can be away while its code forks.
//!
//! A process with one thread is safe to fork: no other thread holds a lock that the child would wait for. Such a companion
//! ends at a safe point when it is asked to, holding nothing, and is started again after the fork.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{Builder, JoinHandle};

use super::forked::is_forked_off;
use super::signal::SignalsBlocked;

type Life = Box<dyn Fn() + Send + Sync>;
type Ask = Box<dyn Fn(bool) + Send + Sync>;

/// All companions of this process.
struct All {
    /// How many forks are under way.
    forks: usize,
    list: Vec<Arc<Shared>>,
}

static ALL: Mutex<All> = Mutex::new(All { forks: 0, list: Vec::new() });

fn all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Shared {
    name: &'static str,
    stack: usize,
    life: Life,
    ask: Ask,
    thread: Mutex<Option<JoinHandle<i32>>>,
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
        let shared =
            Shared { name, stack, life: Box::new(life), ask: Box::new(ask), thread: Mutex::default() };
        let shared = Arc::new(shared);
        let mut all = all();
        if all.forks == 0 {
            shared.begin()?;
        }
        all.list.push(Arc::clone(&shared));
        Ok(Self(shared))
    }

    /// Waits for its end, which something else has brought about.
    pub(crate) fn end(self) {
        all().list.retain(|other| !Arc::ptr_eq(other, &self.0));
        self.0.join();
    }
}

impl Shared {
    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<i32>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> io::Result<()> {
        let own = Arc::clone(self);
        let _blocked = SignalsBlocked::for_new_threads();
        let builder = Builder::new().name(self.name.to_owned()).stack_size(self.stack);
        let begun = builder.spawn(move || {
            (own.life)();
            number()
        })?;
        *self.thread() = Some(begun);
        Ok(())
    }

    fn join(&self) {
        let joined = self.thread().take().map(JoinHandle::join);
        if let Some(Ok(number)) = joined {
            await_end(number);
        }
    }
}

/// Before this process's own code forks: returns when no companion is left. To be called by a thread that holds no lock.
pub fn send_companions_away() {
    if is_forked_off() {
        return;
    }
    let mut all = all();
    all.forks += 1;
    if all.forks == 1 {
        all.list.iter().for_each(|companion| (companion.ask)(true));
        all.list.iter().for_each(|companion| companion.join());
    }
}

/// After the fork, in the process that forked; nothing happens in the other one.
pub fn call_companions_back() {
    if is_forked_off() {
        return;
    }
    let mut all = all();
    all.forks = all.forks.saturating_sub(1);
    if all.forks > 0 {
        return;
    }
    for companion in &all.list {
        (companion.ask)(false);
        if companion.thread().is_none() {
            if let Err(error) = companion.begin() {
                log::error!("cannot start the thread {} again after a fork: {error}", companion.name);
            }
        }
    }
}

/// In a new worker or mold, which has one thread: companions are its parent's, and so is the fork.
pub(super) fn forget() {
    let mut all = match ALL.try_lock() {
        Ok(all) => all,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        // Held by a thread of a mold that has several, where that is wanted.
        Err(TryLockError::WouldBlock) => return,
    };
    all.forks = 0;
    all.list.clear();
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
mod tests {
    use super::*;
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// What a companion does, and how often it has lived.
    #[derive(Default)]
    struct Post {
        is_away: Mutex<bool>,
        changed: Condvar,
        lives: AtomicUsize,
    }

    impl Post {
        fn live(&self) {
            self.lives.fetch_add(1, Ordering::SeqCst);
            let mut is_away = self.is_away.lock().unwrap();
            while !*is_away {
                is_away = self.changed.wait(is_away).unwrap();
            }
        }

        fn ask(&self, away: bool) {
            *self.is_away.lock().unwrap() = away;
            self.changed.notify_all();
        }
    }

    fn is_running(name: &str) -> bool {
        super::super::fork::other_threads().unwrap().iter().any(|(_, other)| other == name)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_companion_is_away_during_forks_and_back_afterwards() {
        let post = Post::default();
        let (live, ask) = (|| post.live(), |away| post.ask(away));
        beside("companion", 128 * 1024, &live, &ask, || {
            for forks in 1..20 {
                send_companions_away();
                assert!(!is_running("companion"));
                // Beside another fork.
                send_companions_away();
                call_companions_back();
                assert!(!is_running("companion"));
                call_companions_back();
                while post.lives.load(Ordering::SeqCst) == forks {
                    std::thread::yield_now();
                }
                assert!(is_running("companion"));
            }
        })
        .unwrap();
        assert!(!is_running("companion"));
        assert_eq!(post.lives.load(Ordering::SeqCst), 20);
    }
}
