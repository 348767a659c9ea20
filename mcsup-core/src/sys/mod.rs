//! The only unsafe room of this crate: what rustix leaves out of its safe interface.
//!
//! Each file wraps one family of system calls behind functions that are safe to call, and proves at each block why.
//! Nothing here decides anything.
//!
//! - [`anonymous_file`]: files without a name, sealed where that is possible.
//! - [`exec`]: another program in the place of this one.
//! - [`fork`]: fork; [`exit`]: an end without exit handlers; [`ancestry`]: whose child a process is.
//! - [`forked`]: processes that a worker's own code forks; [`unshared`]: descriptors that they do not get.
//! - [`companion`]: threads that are away while a worker's code forks.
//! - [`signal`]: masks and dispositions; [`caught`]: the one handler; [`registry`]: handlers of an application.
//! - [`credentials`]: users, groups and dropping to them, completely and in order.
//! - [`shared_memory`]: cache lines of atomics, shared over fork.
//! - [`descriptor`]: taking over inherited descriptors, and replacing what one refers to.
//! - [`held_file`]: one file, changed as the same whatever its name means by then.
//! - [`record_lock`]: locks of a process on a file, and who has one.
//! - [`accept_error`]: the meaning of accept(2)'s errors.
//! - [`kernel_text`]: files with names in them that may be no UTF-8.
//! - [`listening`]: the queue of a listening socket, and which sockets of a shared port get new connections.
#![allow(unsafe_code, reason = "this folder is where unsafe lives")]

pub(crate) mod accept_error;
pub(crate) mod ancestry;
pub(crate) mod anonymous_file;
pub(crate) mod caught;
pub(crate) mod companion;
pub(crate) mod credentials;
pub(crate) mod descriptor;
pub(crate) mod exec;
mod exit;
pub(crate) mod fork;
pub(crate) mod forked;
pub(crate) mod held_file;
pub(crate) mod kernel_text;
pub(crate) mod listening;
pub(crate) mod record_lock;
mod registry;
pub(crate) mod shared_memory;
pub(crate) mod signal;
pub(crate) mod unshared;
