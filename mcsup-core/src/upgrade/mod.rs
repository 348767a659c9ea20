//! Upgrades: another image of the supervisor takes over in the same process, with its pid, children,
//! listeners and locks.
//!
//! - `image`: the program to execute, recorded when the process begins.
//! - `state`: the state passed to the new image: a record in a sealed file, and open descriptors.
//! - `detour`: replacing a program that has not begun.
//! - `dry_run`: a dry run of the new image, as a child with the real state.
//! - `calls`: the call of the program that takes over.
//! - `resumption`: the new image's view of the state, and the return to the old image if it does not take
//!   over.
//!
//! The supervisor defines the contents of the record and the time of an upgrade.
//!
//! The environment variable [`VARIABLE`] names the state's descriptor: `check:FD:ANSWER` in the dry run,
//! `resume:FD` after the exec, `fallback:FD:REASON` on the return to the old image.

pub(crate) mod calls;
pub mod detour;
pub(crate) mod dry_run;
mod image;
mod resumption;
pub(crate) mod state;

pub use image::{Image, Reexec};
pub use resumption::Resumption;

/// The variable that names the state's descriptor to a new image.
pub const VARIABLE: &str = "MCSUP_RESUME";

/// This program and its version, for the other image.
pub(crate) const PROGRAM: &str = concat!("mcsup ", env!("CARGO_PKG_VERSION"));

/// The answer of a new image that can take over.
const READY: &[u8] = b"OK\n";
