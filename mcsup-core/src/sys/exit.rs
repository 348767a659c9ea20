//! Exit without exit handlers.

/// Ends the process at once: no exit handlers, no destructors.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}
