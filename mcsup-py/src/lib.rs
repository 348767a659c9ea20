//! The WSGI worker of mcsup.
pub mod app;
pub mod http;
