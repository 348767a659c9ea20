//! Checks of the sources as text: the order of the folders, the pages in `docs/`, the words.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod order;
mod pages;
mod sources;
mod words;
