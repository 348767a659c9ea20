//! Another image of the supervisor takes over in the same process: pid, children, listeners and locks stay what they are.
//!
//! - [`image`]: what to execute, settled when the process begins.
//! - `letter`: what the old image leaves to the new one: a record in a sealed file, and open descriptors.
//! - [`detour`]: another program in the place of one that has not begun.
//! - `checker`: a dry run of the new image, as a child, with the real letter.
//! - [`succession`]: what a process finds that is such a new image; and the way back to the old one, which is taken
//!   unless the new one has taken over.
//!
//! What the record is made of is the supervisor's business; nothing here decides when.
//!
//! The letter travels by the environment variable [`VARIABLE`]: `check:FD:ANSWER` in the dry run, `resume:FD` after the
//! exec, `fallback:FD:REASON` on the way back.

pub(crate) mod checker;
pub mod detour;
pub mod image;
pub(crate) mod letter;
pub mod succession;

pub use image::{Again, Image};
pub use succession::Succession;

/// Names the letter to a process that is a new image.
pub const VARIABLE: &str = "MCSUP_RESUME";

/// This program and its version, as the other image reads it.
pub(crate) const US: &str = concat!("mcsup ", env!("CARGO_PKG_VERSION"));

/// What the new image says when it can take over.
const CAN: &[u8] = b"OK\n";
