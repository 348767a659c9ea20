//! The WSGI worker of mcsup.
pub mod access;
pub mod app;
pub mod engine;
pub mod http;
pub mod net;
