//! The sockets of launchd, the service manager of macOS (launch_activate_socket(3)).

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;

/// Takes the sockets of the entry `name` in the `Sockets` dictionary of launchd.plist(5), once in a process.
///
/// They are inherited descriptors without an owner, as after an exec.
///
/// # Errors
/// There is no such entry (`ENOENT`), launchd does not manage this process (`ESRCH`), or they are taken (`EALREADY`).
pub(crate) fn activate(name: &str) -> io::Result<Vec<RawFd>> {
    unsafe extern "C" {
        fn launch_activate_socket(
            name: *const libc::c_char,
            fds: *mut *mut libc::c_int,
            count: *mut libc::size_t,
        ) -> libc::c_int;
    }

    let name = CString::new(name)?;
    let (mut fds, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: the name is a C string, and both results have room; the call fills them in only if it returns 0.
    let error = unsafe { launch_activate_socket(name.as_ptr(), &raw mut fds, &raw mut count) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    if fds.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: the call has returned an array of `count` numbers.
    let taken = unsafe { std::slice::from_raw_parts(fds, count) }.to_vec();
    // SAFETY: the array is from malloc, and the caller frees it once; nothing refers to it any more.
    unsafe { libc::free(fds.cast()) };
    super::descriptor::survive_exec(&taken, true);
    Ok(taken)
}
