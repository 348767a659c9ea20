//! The request engine over real sockets, with an application in Rust: what a client sees, byte by byte.
//!
//! - `fixture`: an engine in a thread, whose phase the test changes, and a client that reads whole responses.
//! - the other files: one kind of behaviour each.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access_log;
mod bodies;
mod coalescing;
mod ending;
mod exchanges;
mod fixture;
mod health;
mod hold;
mod lingering;
mod listeners;
mod logged;
mod overdue;
mod pool;
mod responses;
mod retiring;
mod room;
mod siblings;
mod slow_clients;
mod static_files;
mod switching;
mod threads;
mod tls;
mod tls_records;
mod trust;
mod turns;
mod unfinished;
