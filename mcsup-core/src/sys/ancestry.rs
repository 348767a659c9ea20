//! Adoption of orphans: the parent of a process whose own parent has ended.

use std::io;

/// Whether this system has processes that adopt orphaned descendants.
pub(crate) const ADOPTS: bool = cfg!(all(target_os = "linux", not(mcsup_force_fallback)));

/// Makes this process adopt orphans (PR_SET_CHILD_SUBREAPER, prctl(2)). Does nothing where no process can.
///
/// Forked processes do not inherit the property; the next image keeps it.
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

/// Whether this process adopts orphans by that property.
pub(crate) fn is_subreaper() -> bool {
    #[cfg(target_os = "linux")]
    let adopts = rustix::process::child_subreaper().is_ok_and(|of| of.is_some());
    #[cfg(not(target_os = "linux"))]
    let adopts = false;
    adopts
}

/// Whether unknown processes can become children of this one.
pub(crate) fn adopts() -> bool {
    let is_first = rustix::process::getpid() == rustix::process::Pid::INIT;
    is_first || is_subreaper()
}
