//! The subcommands, one file for each kind.

pub(crate) mod application;
pub(crate) mod beats;
mod cfg;
mod check;
mod client;
mod default_conf;
pub(crate) mod doctor;
#[cfg(test)]
mod fixture;
mod hooks;
pub(crate) mod hooks_process;
mod leftovers;
pub(crate) mod migrate;
pub(crate) mod mistaken;
mod named_files;
pub(crate) mod operator;
mod output;
mod pool;
pub(crate) mod reading;
mod remote;
pub(crate) mod serve;
pub(crate) mod service;
mod socket_access;
pub(crate) mod status;
pub(crate) mod stop;
mod wiring;
