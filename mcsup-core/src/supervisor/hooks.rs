//! Calls of the embedder's [`Supervisor`]: a panic in one does not end the pool.

use std::io;
use std::time::Duration;

use super::config::Config;
use super::{ForkSide, PoolEvent, Preparation, Supervisor};
use crate::error::{Error, ErrorKind, Result, one_line};
use crate::listener::Local;
use crate::spawn::guard::{Panic, caught};

/// The embedder's supervisor, in the supervisor process.
#[derive(Debug)]
pub(crate) struct SupervisorHooks<S>(
    /// For the processes that it has forked, whose calls are guarded there.
    pub(super) S,
);

impl<S: Supervisor> SupervisorHooks<S> {
    pub(super) fn starting(&mut self) {
        go_on(caught("Supervisor::starting", || self.0.starting()));
    }

    pub(super) fn listening(&mut self, locals: &[&Local]) {
        go_on(caught("Supervisor::listening", || self.0.listening(locals)));
    }

    pub(super) fn taken_over(&mut self, locals: &[&Local]) {
        go_on(caught("Supervisor::taken_over", || self.0.taken_over(locals)));
    }

    pub(super) fn opened(&mut self, generation: u64, locals: &[&Local]) {
        go_on(caught("Supervisor::opened", || self.0.opened(generation, locals)));
    }

    pub(super) fn ready(&mut self, ready: usize, target: usize) {
        go_on(caught("Supervisor::ready", || self.0.ready(ready, target)));
    }

    pub(super) fn observe(&mut self, event: &PoolEvent) {
        go_on(caught("Supervisor::observe", || self.0.observe(event)));
    }

    /// A panic fails the reload, as an error does.
    pub(super) fn prepare_reload(&mut self, generation: u64) -> Result<Option<Preparation>> {
        caught("Supervisor::prepare_reload", || self.0.prepare_reload(generation))
            .unwrap_or_else(|panic| Err(Error::new(ErrorKind::Setting, text(&panic))))
    }

    /// A panic fails the reload, as an error does.
    pub(super) fn reload(&mut self, generation: u64) -> Result<Option<Config>> {
        caught("Supervisor::reload", || self.0.reload(generation))
            .unwrap_or_else(|panic| Err(Error::new(ErrorKind::Setting, text(&panic))))
    }

    pub(super) fn forget(&mut self, generation: u64) {
        go_on(caught("Supervisor::forget", || self.0.forget(generation)));
    }

    pub(super) fn note(&self) -> Option<String> {
        let note = caught("Supervisor::note", || self.0.note());
        note.unwrap_or_else(|panic| {
            go_on(Err(panic));
            None
        })
    }

    pub(super) fn reopen_logs(&mut self) {
        go_on(caught("Supervisor::reopen_logs", || self.0.reopen_logs()));
    }

    pub(super) fn before_wait(&mut self) -> Option<Duration> {
        let called = caught("Supervisor::before_wait", || self.0.before_wait());
        called.unwrap_or_else(|panic| {
            go_on(Err(panic));
            None
        })
    }

    /// A panic refuses the fork: the state in which the host would fork is unknown.
    pub(super) fn before_fork(&mut self) -> io::Result<()> {
        caught("Supervisor::before_fork", || self.0.before_fork())
            .map_err(|panic| io::Error::other(text(&panic)))
    }

    /// In the process that has forked: the new one exists already.
    pub(super) fn after_fork(&mut self) {
        go_on(caught("Supervisor::after_fork", || self.0.after_fork(ForkSide::Supervisor)));
    }
}

/// Logs a panic after which the pool goes on.
fn go_on(called: std::result::Result<(), Panic>) {
    if let Err(panic) = called {
        log::error!("The supervisor's own code {}; the pool goes on", text(&panic));
    }
}

fn text(panic: &Panic) -> String {
    one_line(&format!("panicked {panic}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::prefork::tests::Idle;

    struct Panicking;

    impl Supervisor for Panicking {
        type Worker = Idle;

        fn worker(&mut self, _: u64) -> Idle {
            Idle
        }

        fn reload(&mut self, _: u64) -> Result<Option<Config>> {
            assert_eq!(1, 2, "\u{1b}[2J");
            Ok(None)
        }

        fn before_fork(&mut self) {
            panic!("{}", "x\n".repeat(1 << 20));
        }
    }

    #[test]
    fn a_panic_of_the_supervisors_own_code_is_one_line_of_bounded_length() {
        let mut hooks = SupervisorHooks(Panicking);
        let texts = [hooks.reload(2).unwrap_err().to_string(), hooks.before_fork().unwrap_err().to_string()];
        for text in texts {
            assert!(text.starts_with("panicked in Supervisor::") && text.len() < 8192, "{text}");
            assert!(!text.contains(char::is_control), "{text}");
        }
    }
}
