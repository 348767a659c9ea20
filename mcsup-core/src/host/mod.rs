//! What the supervisor owes the machine it runs on: a pid file, a place in the background, and plain words about
//! who else is there.
//!
//! - [`pidfile`]: a file whose lock is held for life.
//! - [`own_file`]: files of ours in folders that other users may write.
//! - [`patience`]: how long the writes of a log may wait, taken together.
//! - [`outlet`]: a way out for lines on which no process waits for its reader.
//! - [`daemon`]: leaving the terminal, with an answer for the process that waits.
//! - [`handle`]: a hold on another process.
//! - [`processes`]: other processes: who holds a port, who is whose child.
//! - `handshakes`: clients that are about to be connected.
//! - `recorded_path`: a path in a record for the next image.
//! - [`relatives`]: the processes below another one.
//! - [`survivors`]: those of the application that outlive their worker or server, in words.
//! - `out_of_memory`: how many processes of a cgroup the kernel has killed for lack of memory; `memory_watch`: notice of it.
//! - `descriptors`: how many a process may have open.
//! - [`usage`]: what a process uses of memory and processor.
//! - [`privileges`]: users and groups by name.

pub mod daemon;
pub(crate) mod descriptors;
pub mod handle;
pub(crate) mod handshakes;
pub(crate) mod memory_watch;
pub(crate) mod out_of_memory;
pub mod outlet;
pub mod own_file;
pub mod patience;
pub mod pidfile;
pub mod privileges;
pub mod processes;
pub(crate) mod recorded_path;
pub mod relatives;
pub mod survivors;
pub mod usage;
