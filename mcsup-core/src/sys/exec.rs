//! Executing another program, and the preparations for that in a child.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Replaces this process's program. Returns only on an error.
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
    // SAFETY: the path is a C string, both arrays hold C strings and end with a null pointer, and all of them
    // live in `arguments` and `variables` until the call returns, if it does.
    unsafe { libc::execve(program.as_ptr(), arguments_.as_ptr(), variables_.as_ptr()) };
    io::Error::last_os_error()
}

fn text(bytes: &OsStr) -> io::Result<CString> {
    CString::new(bytes.as_bytes().to_vec()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The environment at the start of this process, independent of later changes.
///
/// # Errors
/// The system does not report it.
pub(crate) fn original_environment() -> io::Result<Vec<(OsString, OsString)>> {
    Ok(variables(original_block()?.split(|byte| *byte == 0)))
}

#[cfg(not(target_vendor = "apple"))]
fn original_block() -> io::Result<Vec<u8>> {
    let block = std::fs::read("/proc/self/environ")?;
    if is_whole(&block) { Ok(block) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Whether the kernel's block of variables is intact. A program that changes its title overwrites it.
#[cfg(any(not(target_vendor = "apple"), test))]
fn is_whole(block: &[u8]) -> bool {
    let has_gap = block.starts_with(&[0]) || block.windows(2).any(|pair| pair == [0, 0]);
    block.is_empty() || (block.ends_with(&[0]) && !has_gap)
}

/// `KERN_PROCARGS2`: the number of arguments, the executable's path, zero bytes, the arguments, the
/// environment.
#[cfg(target_vendor = "apple")]
fn original_block() -> io::Result<Vec<u8>> {
    let pid = libc::c_int::try_from(std::process::id()).map_err(io::Error::other)?;
    let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
    let mut block = vec![0_u8; 1 << 20];
    let mut length = block.len();
    // SAFETY: the name has three numbers; `block` has room for `length` bytes, and the call sets that to what
    // it wrote.
    let done = unsafe {
        libc::sysctl(name.as_mut_ptr(), 3, block.as_mut_ptr().cast(), &raw mut length, ptr::null_mut(), 0)
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    block.truncate(length);
    environment_in(&block).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The environment in a `KERN_PROCARGS2` block.
#[cfg(any(target_vendor = "apple", test))]
fn environment_in(block: &[u8]) -> Option<&[u8]> {
    let (count, rest) = block.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_ne_bytes(*count)).ok()?;
    let path = rest.iter().position(|byte| *byte == 0)?;
    let mut rest = &rest[path..];
    rest = &rest[rest.iter().position(|byte| *byte != 0)?..];
    for _ in 0..count {
        rest = &rest[rest.iter().position(|byte| *byte == 0)? + 1..];
    }
    Some(rest)
}

/// Parses names and values, up to the first empty entry.
fn variables<'a>(entries: impl Iterator<Item = &'a [u8]>) -> Vec<(OsString, OsString)> {
    let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let pair = |entry: &'a [u8]| {
        // A name may begin with the sign, and an entry without one is no variable.
        let sign = entry.iter().skip(1).position(|byte| *byte == b'=')? + 1;
        Some((text(&entry[..sign]), text(&entry[sign + 1..])))
    };
    entries.take_while(|entry| !entry.is_empty()).filter_map(pair).collect()
}

/// Stops the timers of processor time. An exec keeps them, and their signals would end the next program.
///
/// The timer of real time stays: [`end_with`] has set it.
pub(crate) fn stop_profiling_timers() {
    // SAFETY: an `itimerval` is four integers, for which zero is valid; it means that the timer stops.
    let none: libc::itimerval = unsafe { std::mem::zeroed() };
    for timer in [libc::ITIMER_VIRTUAL, libc::ITIMER_PROF] {
        // SAFETY: the new value is valid, and a null pointer means that the old one is not asked for.
        unsafe { libc::setitimer(timer, &raw const none, ptr::null_mut()) };
    }
}

/// Makes this process end with its parent, and after `limit` in any case. Survives an exec. Not every kernel
/// reports the end of a parent.
///
/// # Errors
/// The parent is gone already.
pub(crate) fn end_with(parent: rustix::process::Pid, limit: Duration) -> io::Result<()> {
    let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    // SAFETY: no preconditions; an alarm is kept over an exec (alarm(2)), and its signal's default is the
    // end.
    unsafe { libc::alarm(seconds) };
    #[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Removes a variable from this process's environment and returns it. With other threads, which may read it,
/// the variable stays.
pub(crate) fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    if super::fork::has_one_thread() {
        // SAFETY: the environment is not read or changed at the same time: this is the only thread.
        unsafe { std::env::remove_var(name) };
    }
    Some(OsString::from_vec(value.into_vec()))
}

/// Variables that were taken from the environment, for the next image.
static KEPT: Mutex<Vec<(OsString, OsString)>> = Mutex::new(Vec::new());

/// Keeps a variable that was taken from the environment for the next image of this program.
pub(crate) fn keep_for_next_image(name: &str, value: &OsStr) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.retain(|(kept, _)| kept != name);
    kept.push((name.into(), value.to_owned()));
}

/// The variables that were kept.
pub(crate) fn kept_for_next_image() -> Vec<(OsString, OsString)> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_environment_is_that_of_the_exec() {
        let path = std::env::var_os("PATH").unwrap();
        let found = original_environment().unwrap();
        assert!(found.iter().any(|(name, value)| name == "PATH" && *value == path), "{found:?}");
    }

    #[test]
    fn a_title_that_was_written_over_the_environment_is_noticed() {
        for (block, expected) in [
            (&b"A=1\0B=2\0"[..], true),
            (b"", true),
            (b"title\0\0\0", false),
            (b"\0\0\0", false),
            (b"\0", false),
            (b"a long tit", false),
        ] {
            assert_eq!(is_whole(block), expected, "{block:?}");
        }
    }

    #[test]
    fn the_environment_is_found_behind_the_arguments() {
        let mut block = 2_i32.to_ne_bytes().to_vec();
        block.extend_from_slice(b"/bin/program\0\0\0\0program\0\0A=1\0=B=x=y\0none\0\0C=2\0");
        let environment = environment_in(&block).unwrap();
        let found = variables(environment.split(|byte| *byte == 0));
        let expected = [("A", "1"), ("=B", "x=y")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(found, expected);
    }
}
