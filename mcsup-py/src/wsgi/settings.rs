//! The server's properties in the environ.

use super::errors::ErrorSink;

/// The server's properties in the environ.
#[derive(Clone)]
pub struct WsgiSettings {
    /// Whether another thread of this process may call the application at the same time.
    pub multithread: bool,
    /// Whether another process may.
    pub multiprocess: bool,
    /// `SERVER_SOFTWARE`.
    pub server_software: String,
    /// The part of every path that belongs to the server: `""` or `/x`.
    pub script_name: String,
    /// Where `wsgi.errors` goes.
    pub errors: ErrorSink,
    /// Whether the engine sends the files of `wsgi.file_wrapper`, or the wrapper reads them (PEP 3333, "Optional
    /// Platform-Specific File Handling").
    pub sendfile: bool,
}
