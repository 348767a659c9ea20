//! The only unsafe code of this crate: system calls that rustix does not wrap safely.
//!
//! Each file wraps one family of system calls in safe functions, with a proof at each unsafe block. Nothing
//! here makes decisions.
//!
//! - [`anonymous_file`]: files without a name, sealed if possible.
//! - [`exec`]: executing another program; [`launch`]: starting one as a child.
//! - [`fork`]: fork; [`exit`]: exit without handlers; [`ancestry`]: adoption of orphans.
//! - [`ended_child`]: a child that has ended and is not reaped.
//! - [`forked`]: processes forked by a worker's own code; [`unshared`]: descriptors that they do not share.
//! - [`companion`]: threads that stop while a worker's code forks.
//! - [`signal`]: masks and dispositions; [`caught`]: the one handler; [`registry`]: handlers of an
//!   application.
//! - [`credentials`]: users, groups, and dropping privileges.
//! - [`shared_memory`]: cache lines of atomics, shared over fork.
//! - `datagram_sender`: datagrams with the process that sent them.
//! - [`descriptor`]: taking inherited descriptors, and redirecting open ones.
//! - [`duplicates`]: duplicates of listeners, and their release; [`silence`]: the sockets in their place;
//!   [`registrations`] of listeners with pollers.
//! - [`held_file`]: one file, changed as the same although its name may be swapped.
//! - [`poller`]: one descriptor that is readable while any of many is.
//! - [`record_lock`]: a process's locks on a file, and their holders.
//! - [`accept_error`]: classification of accept(2)'s errors.
//! - [`kernel_text`]: kernel files with names that may not be UTF-8.
//! - [`launchd`]: the sockets of launchd.
//! - [`title`]: the command line in process listings.
//! - [`listening`]: the queue of a listening socket, and the target of new connections.
#![allow(unsafe_code, reason = "this folder is where unsafe lives")]

pub(crate) mod accept_error;
pub(crate) mod ancestry;
pub(crate) mod anonymous_file;
pub(crate) mod caught;
pub(crate) mod companion;
pub(crate) mod credentials;
#[cfg(target_os = "linux")]
pub(crate) mod datagram_sender;
pub(crate) mod descriptor;
pub(crate) mod duplicates;
pub(crate) mod ended_child;
pub(crate) mod exec;
mod exit;
pub(crate) mod fork;
pub(crate) mod forked;
pub(crate) mod held_file;
pub(crate) mod kernel_text;
pub(crate) mod launch;
#[cfg(target_vendor = "apple")]
pub(crate) mod launchd;
pub(crate) mod listening;
pub(crate) mod poller;
pub(crate) mod record_lock;
mod registrations;
mod registry;
pub(crate) mod shared_memory;
pub(crate) mod signal;
mod silence;
pub(crate) mod title;
pub(crate) mod unshared;
