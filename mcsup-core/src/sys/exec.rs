//! Another program in the place of this one, and what must be settled in a child before.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;
use std::time::Duration;

/// Replaces this process's program; returns only where that failed, and why.
pub(crate) fn execute(
    program: &Path,
    arguments: &[OsString],
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> io::Error {
    let strings = || -> io::Result<(CString, Vec<CString>, Vec<CString>)> {
        let arguments = arguments.iter().map(|word| text(word)).collect::<io::Result<_>>()?;
        let variables = environment.map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(&name)
        });
        Ok((text(program.as_os_str())?, arguments, variables.collect::<io::Result<_>>()?))
    };
    let (program, arguments, variables) = match strings() {
        Ok(strings) => strings,
        Err(error) => return error,
    };
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments_, variables_) = (pointers(&arguments), pointers(&variables));
    // SAFETY: the path is a C string, both arrays hold C strings and end with a null pointer, and all of them live in
    // `arguments` and `variables` until the call returns, if it does.
    unsafe { libc::execve(program.as_ptr(), arguments_.as_ptr(), variables_.as_ptr()) };
    io::Error::last_os_error()
}

fn text(bytes: &OsStr) -> io::Result<CString> {
    CString::new(bytes.as_bytes().to_vec()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// This process ends with its parent, where the kernel offers that, and after `limit` in any case, also when it has
/// become another program. An error where the parent is gone already.
pub(crate) fn end_with(parent: rustix::process::Pid, limit: Duration) -> io::Result<()> {
    let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    // SAFETY: no preconditions; an alarm is kept over an exec (alarm(2)), and its signal's default is the end.
    unsafe { libc::alarm(seconds) };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Takes a variable out of this process's environment. Beside other threads, which may read it meanwhile, it stays
/// there.
pub(crate) fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    if super::fork::has_one_thread() {
        // SAFETY: nobody else reads or changes the environment at the same time: this is the only thread.
        unsafe { std::env::remove_var(name) };
    }
    Some(OsString::from_vec(value.into_vec()))
}
