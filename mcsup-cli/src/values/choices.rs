//! Settings with a few possible values.

use std::path::PathBuf;

/// The number of extra workers that a reload may boot at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surge {
    /// A number, 1 to 512.
    Extra(usize),
    /// A whole second pool.
    All,
}

/// The reaction to threads that run in the mold when it forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreloadThreads {
    /// Fail the boot.
    Refuse,
    /// Log their names, and fork.
    Warn,
}

/// The method that detects changed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadEngine {
    /// The best one of the system.
    Auto,
    /// Poll the files.
    Poll,
    /// Use inotify(7) of Linux.
    Inotify,
}

/// The place of the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ControlSocket {
    /// Beside the pid file, if there is one.
    Beside,
    /// At this path.
    At(PathBuf),
    /// No control socket.
    Off,
}
