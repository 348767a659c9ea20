//! The standard streams of a process whose parent has closed them.

use std::os::fd::{AsRawFd, IntoRawFd};

use rustix::fs::{Mode, OFlags, open};

/// The number of standard error, the highest of the three.
const LAST: i32 = 2;

/// Opens /dev/null in the place of each standard stream that is closed, as Rust's own `main` does.
///
/// Otherwise the next files that this process opens get these numbers: the log would be written to the pid file, and
/// programs would inherit the server's files as their streams. Without /dev/null nothing is changed.
pub(super) fn fill_closed() {
    // open(2) returns the lowest free number. Programs inherit these.
    while let Ok(null) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
        if null.as_raw_fd() > LAST {
            return;
        }
        let _ = null.into_raw_fd();
    }
}
