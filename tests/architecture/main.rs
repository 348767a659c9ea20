//! Checks of the sources: the order of the folders, the calls of the policy, the pages in `docs/`, the
//! words, the dependencies, the workflows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod calls;
mod dependencies;
mod lengths;
mod order;
mod pages;
mod publishing;
mod sources;
mod tokens;
mod words;
