//! A worker's first moments: what its process does between the fork and its own code, as named steps, and how it
//! ends.

pub(crate) mod child;
pub(crate) mod reap;
