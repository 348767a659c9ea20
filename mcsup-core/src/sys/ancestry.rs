//! Whose child a process becomes when its parent ends, and what it hears of that.

use std::io;

/// Whether this system has processes that adopt the orphans among their descendants.
pub(crate) const ADOPTS: bool = cfg!(all(target_os = "linux", not(mcsup_force_fallback)));

/// Makes this process the one that adopts (PR_SET_CHILD_SUBREAPER, prctl(2)). Neither a fork nor an exec changes that:
/// forked processes are not what their parent is, and the next image is. Does nothing where no process can.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    #[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Undoes [`adopt_orphans`].
pub(crate) fn stop_adopting() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(None)?;
    Ok(())
}

/// Whether this process adopts orphans because it was made to.
pub(crate) fn is_subreaper() -> bool {
    #[cfg(target_os = "linux")]
    let adopts = rustix::process::child_subreaper().is_ok_and(|of| of.is_some());
    #[cfg(not(target_os = "linux"))]
    let adopts = false;
    adopts
}

/// Whether processes become our children that we have not forked.
pub(crate) fn adopts() -> bool {
    let is_first = rustix::process::getpid() == rustix::process::Pid::INIT;
    is_first || is_subreaper()
}
