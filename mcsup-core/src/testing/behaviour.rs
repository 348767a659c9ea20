//! How a simulated process behaves.

use std::time::Duration;

use crate::policy::ExitStatus;

/// The result of a boot.
#[derive(Debug, Clone)]
pub(super) enum BootResult {
    Ready,
    Fails(String),
    Never,
}

/// The behaviour of a simulated process. The [default](Self::sound) has no fault.
///
/// ```
/// # use mcsup_core::testing::Behaviour;
/// # use std::time::Duration;
/// let slow = Behaviour::sound().boots_in(Duration::from_secs(20));
/// let leaky = Behaviour::sound().dies_after(Duration::from_secs(600), "no memory");
/// ```
#[derive(Debug, Clone)]
pub struct Behaviour {
    pub(super) boot: (Duration, BootResult),
    /// `None`: it does not end at an order.
    pub(super) drain: Option<Duration>,
    /// The time from ready to its end.
    pub(super) end: Option<(Duration, ExitStatus, Option<String>)>,
    /// The time from ready to its last beat.
    pub(super) last_beat: Option<Duration>,
    pub(super) memory: Option<u64>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::sound()
    }
}

impl Behaviour {
    /// It boots in 100 milliseconds, serves and beats, and drains in 10 milliseconds.
    pub fn sound() -> Self {
        Self {
            boot: (Duration::from_millis(100), BootResult::Ready),
            drain: Some(Duration::from_millis(10)),
            end: None,
            last_beat: None,
            memory: None,
        }
    }

    /// Its boot fails after 100 milliseconds, for this reason.
    pub fn fails_to_boot(reason: impl Into<String>) -> Self {
        let sound = Self::sound();
        Self { boot: (sound.boot.0, BootResult::Fails(reason.into())), ..sound }
    }

    /// Its boot never ends.
    pub fn hangs_in_boot() -> Self {
        Self { boot: (Duration::ZERO, BootResult::Never), ..Self::sound() }
    }

    /// The duration of its boot.
    #[must_use]
    pub fn boots_in(mut self, time: Duration) -> Self {
        self.boot.0 = time;
        self
    }

    /// Its [`run`](crate::Worker::run) fails with this error, that time after it was ready.
    #[must_use]
    pub fn dies_after(mut self, time: Duration, error: impl Into<String>) -> Self {
        self.end = Some((time, ExitStatus::Code(1), Some(error.into())));
        self
    }

    /// This signal ends it, that time after it was ready.
    #[must_use]
    pub fn is_killed_after(mut self, time: Duration, signal: i32) -> Self {
        self.end = Some((time, ExitStatus::Signal(signal), None));
        self
    }

    /// It shows no sign of life any more, that time after it was ready.
    #[must_use]
    pub fn hangs_after(mut self, time: Duration) -> Self {
        self.last_beat = Some(time);
        self
    }

    /// The duration of its drain.
    #[must_use]
    pub fn drains_in(mut self, time: Duration) -> Self {
        self.drain = Some(time);
        self
    }

    /// It does not finish: only SIGKILL ends it.
    #[must_use]
    pub fn never_drains(mut self) -> Self {
        self.drain = None;
        self
    }

    /// Its resident memory, in bytes.
    #[must_use]
    pub fn uses_memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }
}
