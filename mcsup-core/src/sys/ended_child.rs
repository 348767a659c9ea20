//! A child that has ended and is not reaped yet (waitid(2) with `WNOWAIT`). rustix does not return its pid.

use std::mem::MaybeUninit;

use rustix::process::Pid;

/// Some child that has ended. It keeps its pid, and its place in /proc, until it is reaped.
pub(crate) fn find() -> Option<Pid> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: a `siginfo_t` is integers and pointers, for which zero is valid.
        let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: `info` has room for one, and `P_ALL` ignores the id.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } == 0 {
            // SAFETY: waitid(2) fills in `si_pid`; without an ended child it stays zero.
            return Pid::from_raw(unsafe { info.si_pid() });
        }
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_has_ended_is_found_until_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        while find() != pid {
            // Children of other tests in this process come and go.
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_ne!(find(), pid);
    }
}
