use super::*;
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

const LONG: Duration = Duration::from_secs(1000);

/// A companion's thread function and the number of its runs.
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
    with_companion("companion", 128 * 1024, &live, &ask, || {
        for forks in 1..20 {
            stop_companions();
            assert!(!is_running("companion"));
            // Beside another fork.
            stop_companions();
            restart_companions();
            assert!(!is_running("companion"));
            restart_companions();
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

#[test]
#[cfg(target_os = "linux")]
fn a_companion_ends_with_its_body_though_a_fork_is_over_meanwhile() {
    let (ends, has_ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (post, is_last) = (Post::default(), AtomicBool::new(false));
        let ask = |away| {
            post.ask(away);
            if is_last.swap(false, Ordering::SeqCst) {
                // Another thread of the process.
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        stop_companions();
                        restart_companions();
                    });
                });
            }
        };
        with_companion("called back", 128 * 1024, &|| post.live(), &ask, || {
            is_last.store(true, Ordering::SeqCst);
        })
        .unwrap();
        ends.send(()).unwrap();
    });
    has_ended.recv_timeout(Duration::from_secs(5)).expect("the companion ends");
}

#[test]
#[cfg(target_os = "linux")]
fn forks_that_overlap_without_a_pause_do_not_keep_a_companion_away() {
    let post = Post::default();
    let (live, ask) = (|| post.live(), |away| post.ask(away));
    with_companion("overlapped", 128 * 1024, &live, &ask, || {
        stop_companions();
        for _ in 0..3 {
            stop_companions();
            restart_companions();
        }
        assert!(!mend_within(LONG, LONG, LONG));
        assert!(!is_running("overlapped"));
        assert!(!mend_within(LONG, LONG, Duration::ZERO));
        while !is_running("overlapped") {
            std::thread::yield_now();
        }
        // The further ones happen beside it.
        stop_companions();
        assert!(is_running("overlapped"));
        restart_companions();
        restart_companions();
        assert!(is_running("overlapped"));
    })
    .unwrap();
    assert!(!is_running("overlapped"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_fork_goes_on_beside_a_companion_that_does_not_end_and_which_stays() {
    let (post, stalled) = (Post::default(), Mutex::new(()));
    let live = || {
        drop(stalled.lock().unwrap());
        post.live();
    };
    let disk = stalled.lock().unwrap();
    with_companion("stalled", 128 * 1024, &live, &|away| post.ask(away), || {
        // A thread takes its name itself.
        while !is_running("stalled") {
            std::thread::yield_now();
        }
        stop_companions();
        assert!(is_running("stalled"));
        restart_companions();
        // It was stopped again before it could notice, and has to run again afterwards.
        stop_companions();
        drop(disk);
        restart_companions();
        // The one that was stopped may end first.
        while post.lives.load(Ordering::SeqCst) == 0 || !is_running("stalled") {
            std::thread::yield_now();
        }
        stop_companions();
        assert!(!is_running("stalled"));
        restart_companions();
        while post.lives.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
    })
    .unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn a_companion_that_the_system_had_no_thread_for_comes_back_later() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    // The C library keeps smaller stacks of threads that have ended.
    const STACK: usize = 512 * 1024 * 1024;
    let post = Post::default();
    let (live, ask) = (|| post.live(), |away| post.ask(away));
    with_companion("companion", STACK, &live, &ask, || {
        let limit = getrlimit(Resource::As);
        stop_companions();
        let pages: u64 =
            std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
        let tight = pages * rustix::param::page_size() as u64 + STACK as u64 / 2;
        setrlimit(Resource::As, rustix::process::Rlimit { current: Some(tight), ..limit }).unwrap();
        restart_companions();
        assert!(!is_running("companion"));
        assert!(!mend_within(Duration::ZERO, LONG, LONG));
        assert!(!is_running("companion"));
        assert!(mend_within(Duration::ZERO, Duration::ZERO, LONG));
        assert!(!mend_within(Duration::ZERO, Duration::ZERO, LONG), "once");
        setrlimit(Resource::As, limit).unwrap();
        while !is_running("companion") {
            assert!(!mend());
            std::thread::yield_now();
        }
        assert!(!MAY_BE_AWAY.load(Ordering::SeqCst));
    })
    .unwrap();
    assert_eq!(post.lives.load(Ordering::SeqCst), 2);
}

#[test]
fn a_process_forked_beside_a_thread_in_a_fork_hook_can_have_companions() {
    use super::super::fork::{OtherThreads, Side, exit_now, fork_beside};
    use std::sync::mpsc;
    let (holds, is_held) = mpsc::channel();
    let hook = std::thread::spawn(move || {
        let all = all();
        holds.send(()).unwrap();
        // At least the wait of the fork.
        std::thread::sleep(Duration::from_millis(50));
        drop(all);
    });
    is_held.recv().unwrap();
    let Side::Parent(child) = fork_beside(OtherThreads::LeaveBehind).unwrap() else {
        // SAFETY: ends this process where it hangs.
        unsafe { libc::alarm(5) };
        let companion = Companion::start("child's", 128 * 1024, || {}, |_| {});
        exit_now(if companion.is_ok() { 7 } else { 1 });
    };
    hook.join().unwrap();
    let options = rustix::process::WaitOptions::empty();
    let (_, status) = rustix::process::waitpid(Some(child), options).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(7));
}
