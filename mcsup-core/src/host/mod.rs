//! The supervisor and its host: pid file, background, and other processes.
//!
//! - [`pidfile`]: a file whose lock is held for life.
//! - [`own_file`]: this server's files in folders that other users may write.
//! - [`patience`]: a common bound on the waits of a log's writes.
//! - [`outlet`]: an output for log lines that never blocks on its reader.
//! - [`daemon`]: going to the background, with an answer for the waiting process.
//! - [`handle`]: a handle on another process.
//! - [`processes`]: descriptions of other processes: the holder of a port, children.
//! - [`ports`]: all listening sockets, and the processes that have them open.
//! - [`kernel`]: the abilities of the kernel.
//! - [`processors`]: the number of processors that this process may use.
//! - `handshakes`: clients with an unfinished handshake.
//! - `recorded_path`: a path in a record for the next image.
//! - [`relatives`]: the descendants of a process.
//! - [`service_manager`]: the service manager that has started this process.
//! - [`survivors`]: processes of the application that outlive their worker or server.
//! - `cgroups`: the cgroups of a process.
//! - `out_of_memory`: the number of out-of-memory kills of a cgroup; `memory_watch`: notice of them.
//! - `descriptors`: the limit of open descriptors.
//! - [`usage`]: memory and processor time of a process.
//! - [`privileges`]: users and groups by name.
//! - [`trial`]: a function that runs once in a child process, within a time limit.
//! - [`helper`]: a process beside a pool; [`inquiry`]: a function in such a process, whose result a loop awaits.

pub(crate) mod cgroups;
pub mod daemon;
pub(crate) mod descriptors;
pub mod handle;
pub(crate) mod handshakes;
pub mod helper;
pub mod inquiry;
pub mod kernel;
pub(crate) mod memory_watch;
pub(crate) mod out_of_memory;
pub mod outlet;
pub mod own_file;
pub mod patience;
pub mod pidfile;
pub mod ports;
pub mod privileges;
pub mod processes;
pub mod processors;
pub(crate) mod recorded_path;
pub mod relatives;
pub mod service_manager;
pub mod survivors;
pub mod trial;
pub mod usage;
