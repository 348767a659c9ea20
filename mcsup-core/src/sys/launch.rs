//! Starting a program: a fork, the preparations of the child, and an exec.
//!
//! The process that forks may have threads. So the child uses only system calls and memory that exists before
//! the fork (signal-safety(7)), until it executes the program. A step that fails is reported by a pipe that
//! the exec closes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::fs::Mode;
use rustix::process::{Pid, Resource, Rlimit};

use super::credentials::{self, Credentials};
use super::signal::{self, AllBlocked};
use super::{descriptor, exit, forked};

/// A program to start. Nothing of it is allocated in the child.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The paths of the program. The first one that can be executed is.
    pub(crate) paths: Vec<CString>,
    pub(crate) arguments: Vec<CString>,
    /// Entries `NAME=VALUE`.
    pub(crate) environment: Vec<CString>,
    /// The names of variables whose value is the program's pid.
    pub(crate) pid_variables: &'a [&'a str],
    /// The open descriptors of the program, from number 0 on. It has no others.
    pub(crate) descriptors: Vec<BorrowedFd<'a>>,
    pub(crate) attributes: &'a Attributes,
}

/// The attributes of a program's process. `None`: as in this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    /// Whether it leads a process group of its own.
    pub(crate) leads_group: bool,
    pub(crate) limits: Vec<(Resource, Rlimit)>,
    /// An addition to the nice value.
    pub(crate) nice: Option<i32>,
    /// The numbers of the processors that it may use. Linux only.
    pub(crate) cpus: Vec<usize>,
    pub(crate) umask: Option<u32>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) directory: Option<CString>,
    /// Whether an exec gives no privileges (PR_SET_NO_NEW_PRIVS). Linux only.
    pub(crate) no_new_privileges: bool,
}

/// A step that failed in the child.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

/// The steps to a running program, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Fork,
    Group,
    Descriptors,
    Limits,
    Nice,
    Processors,
    Privileges,
    Directory,
    NoNewPrivileges,
    Parent,
    Execute,
}

impl Step {
    const ALL: [Step; 11] = [
        Step::Fork,
        Step::Group,
        Step::Descriptors,
        Step::Limits,
        Step::Nice,
        Step::Processors,
        Step::Privileges,
        Step::Directory,
        Step::NoNewPrivileges,
        Step::Parent,
        Step::Execute,
    ];
}

/// Space for a pid in decimal and its NUL.
const PID_SPACE: usize = 12;

/// The memory that the child uses.
struct Memory<'a> {
    launch: &'a Launch<'a>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    /// The value of each pid variable, within its entry.
    pids: Vec<*mut u8>,
    /// Copies of the descriptors, above their final numbers.
    copies: Vec<RawFd>,
    report: RawFd,
    parent: Pid,
}

/// Starts a program; returns when it runs.
///
/// # Errors
/// The first step that failed. No process is left then.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<Pid, Failure> {
    let failed = |error: io::Error| Failure { step: Step::Fork, error };
    let (report, child_report) = descriptor::pipe(false).map_err(failed)?;
    let mut pid_entries: Vec<Vec<u8>> =
        launch.pid_variables.iter().map(|name| [name.as_bytes(), b"=", &[0; PID_SPACE]].concat()).collect();
    let pids = pid_entries.iter_mut().map(|entry| entry.as_mut_ptr_range().end.wrapping_sub(PID_SPACE));
    let pids = pids.collect();
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).collect()
    };
    let mut environment = pointers(&launch.environment);
    environment.extend(pid_entries.iter().map(|entry| entry.as_ptr().cast::<libc::c_char>()));
    environment.push(ptr::null());
    let mut arguments = pointers(&launch.arguments);
    arguments.push(ptr::null());
    let mut memory = Memory {
        launch,
        arguments,
        environment,
        pids,
        copies: vec![-1; launch.descriptors.len()],
        report: child_report.as_raw_fd(),
        parent: rustix::process::getpid(),
    };
    let blocked = AllBlocked::new();
    // SAFETY: the child of a process with threads may call async-signal-safe functions only. `in_child` makes
    // system calls and writes to memory of `memory`, which is its own copy; it neither allocates nor locks.
    let pid = match forked::as_our_own(|| unsafe { libc::fork() }) {
        -1 => return Err(failed(io::Error::last_os_error())),
        0 => in_child(&mut memory),
        pid => pid,
    };
    drop((blocked, child_report));
    // Lives until here, since the child's pointers lead into it.
    drop(pid_entries);
    let Some(pid) = Pid::from_raw(pid) else { return Err(failed(io::Error::other("fork returned no pid"))) };
    match reported(&report) {
        None => Ok(pid),
        Some(failure) => {
            while let Err(rustix::io::Errno::INTR) =
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
            {}
            Err(failure)
        }
    }
}

/// Reads the child's report; `None`: the exec has closed the pipe.
fn reported(report: &OwnedFd) -> Option<Failure> {
    let mut bytes = [0; 5];
    let mut length = 0;
    while length < bytes.len() {
        match rustix::io::read(report, &mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    let [step, errno @ ..] = bytes;
    let step = Step::ALL.get(usize::from(step)).copied();
    (length == bytes.len()).then(|| Failure {
        step: step.unwrap_or(Step::Execute),
        error: io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
    })
}

/// Prepares the new process and executes the program; reports a step that fails, and ends.
fn in_child(memory: &mut Memory<'_>) -> ! {
    // The first descriptors may be closed in this process, and the pipe may have such a number.
    let report = copy_above(memory.report, memory.launch.descriptors.len()).unwrap_or(memory.report);
    let (step, error) = become_program(memory);
    let mut bytes = [0; 5];
    bytes[0] = step as u8;
    bytes[1..].copy_from_slice(&error.raw_os_error().to_ne_bytes());
    // SAFETY: the descriptor is open in this process, which only ends after this.
    let report = unsafe { BorrowedFd::borrow_raw(report) };
    let _ = rustix::io::write(report, &bytes);
    exit::exit_now(127)
}

/// Copies a descriptor to a number from `lowest` on, close-on-exec.
fn copy_above(fd: RawFd, lowest: usize) -> rustix::io::Result<RawFd> {
    let lowest = RawFd::try_from(lowest).map_err(|_| rustix::io::Errno::MFILE)?;
    // SAFETY: fcntl(2) with a number; one that is not open is refused.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest) } {
        -1 => Err(last_error()),
        copy => Ok(copy),
    }
}

/// The last error of the C library, without an allocation.
fn last_error() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

fn become_program(memory: &mut Memory<'_>) -> (Step, rustix::io::Errno) {
    if let Err(failed) = prepare(memory) {
        return failed;
    }
    // Handlers must not run here: all signals are blocked until none has a handler.
    signal::reset_dispositions();
    signal::unblock_all();
    let mut first = None;
    for path in &memory.launch.paths {
        // SAFETY: the path is a C string, and both arrays hold C strings and end with a null pointer. All of
        // them live in the caller's frame, of which this process has a copy.
        unsafe {
            libc::execve(path.as_ptr(), memory.arguments.as_ptr(), memory.environment.as_ptr());
        }
        let error = last_error();
        // As execvp(3): a file that may not be executed says more than one that is not there.
        let is_missing = is_absent(error);
        if first.is_none_or(|first| is_absent(first) && !is_missing) {
            first = Some(error);
        }
        if !is_missing && error != rustix::io::Errno::ACCESS {
            break;
        }
    }
    (Step::Execute, first.unwrap_or(rustix::io::Errno::NOENT))
}

/// Whether an error of execve(2) says that there is no such file.
fn is_absent(error: rustix::io::Errno) -> bool {
    matches!(error, rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR)
}

/// Privileges go after the steps that may need them, and before the parent-death signal, which their change
/// clears.
fn prepare(memory: &mut Memory<'_>) -> Result<(), (Step, rustix::io::Errno)> {
    let attributes = memory.launch.attributes;
    let at = |step: Step| move |error: rustix::io::Errno| (step, error);
    write_pid(memory);
    if attributes.leads_group {
        rustix::process::setpgid(None, None).map_err(at(Step::Group))?;
    }
    place_descriptors(memory).map_err(at(Step::Descriptors))?;
    for (resource, limit) in &attributes.limits {
        rustix::process::setrlimit(*resource, *limit).map_err(at(Step::Limits))?;
    }
    if let Some(addition) = attributes.nice {
        rustix::process::nice(addition).map_err(at(Step::Nice))?;
    }
    use_processors(&attributes.cpus).map_err(at(Step::Processors))?;
    if let Some(mask) = attributes.umask {
        rustix::process::umask(Mode::from_raw_mode(mask as _));
    }
    if let Some(credentials) = &attributes.credentials {
        let dropped = credentials::drop_in_child(credentials)
            .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::PERM));
        dropped.map_err(at(Step::Privileges))?;
    }
    if let Some(directory) = &attributes.directory {
        rustix::process::chdir(directory.as_c_str()).map_err(at(Step::Directory))?;
    }
    #[cfg(not(target_os = "linux"))]
    if attributes.no_new_privileges {
        return Err((Step::NoNewPrivileges, rustix::io::Errno::NOSYS));
    }
    #[cfg(target_os = "linux")]
    {
        if attributes.no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(at(Step::NoNewPrivileges))?;
        }
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(at(Step::Parent))?;
    }
    if rustix::process::getppid() != Some(memory.parent) {
        return Err((Step::Parent, rustix::io::Errno::SRCH));
    }
    Ok(())
}

/// Writes this process's pid into its entries of the environment.
fn write_pid(memory: &Memory<'_>) {
    let mut digits = [0_u8; PID_SPACE];
    let mut rest = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    let mut length = 0;
    while rest > 0 && length < PID_SPACE - 1 {
        digits[length] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        (rest, length) = (rest / 10, length + 1);
    }
    digits[..length].reverse();
    for space in &memory.pids {
        // SAFETY: each pointer leads to PID_SPACE bytes at the end of an entry, which lives in the caller's
        // frame; this process has a copy of it, and one thread.
        unsafe { ptr::copy_nonoverlapping(digits.as_ptr(), *space, PID_SPACE) };
    }
}

/// Moves the descriptors to their numbers, and marks all others close-on-exec.
///
/// All are copied before the first is moved, since a number may be the source of one and the target of
/// another.
fn place_descriptors(memory: &mut Memory<'_>) -> rustix::io::Result<()> {
    let count = memory.launch.descriptors.len();
    for (copy, source) in memory.copies.iter_mut().zip(&memory.launch.descriptors) {
        *copy = copy_above(source.as_fd().as_raw_fd(), count)?;
    }
    for (number, copy) in (0..).zip(&memory.copies) {
        // SAFETY: dup2(2) with a copy from above; the number belongs to this process, in which no Rust code
        // uses it any more.
        if unsafe { libc::dup2(*copy, number) } == -1 {
            return Err(last_error());
        }
    }
    close_at_exec_from(count);
    Ok(())
}

#[cfg(target_os = "linux")]
fn close_at_exec_from(lowest: usize) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    let lowest = libc::c_uint::try_from(lowest).unwrap_or(libc::c_uint::MAX);
    // SAFETY: close_range(2) with this flag changes a flag of descriptors.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, lowest, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == -1 {
        mark_each_from(lowest as usize);
    }
}

#[cfg(not(target_os = "linux"))]
fn close_at_exec_from(lowest: usize) {
    mark_each_from(lowest);
}

/// Marks one by one. Numbers above the bound are close-on-exec if this program has opened them.
fn mark_each_from(lowest: usize) {
    const BOUND: RawFd = 4096;
    for fd in RawFd::try_from(lowest).unwrap_or(BOUND)..BOUND {
        descriptor::survive_exec(&[fd], false);
    }
}

#[cfg(target_os = "linux")]
fn use_processors(cpus: &[usize]) -> rustix::io::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in cpus {
        if *cpu >= CpuSet::MAX_CPU {
            return Err(rustix::io::Errno::INVAL);
        }
        set.set(*cpu);
    }
    sched_setaffinity(None, &set)
}

#[cfg(not(target_os = "linux"))]
fn use_processors(cpus: &[usize]) -> rustix::io::Result<()> {
    if cpus.is_empty() { Ok(()) } else { Err(rustix::io::Errno::OPNOTSUPP) }
}
