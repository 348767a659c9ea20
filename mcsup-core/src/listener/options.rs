//! Options for opening listeners of any kind.

/// Options for opening listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The length of the kernel's queue (listen(2)).
    pub backlog: i32,
    /// The mode of Unix sockets.
    pub unix_mode: u32,
    /// User and group id that own Unix sockets; `None`: those of this process.
    pub unix_owner: (Option<u32>, Option<u32>),
    /// One socket for each slot and TCP address; the kernel spreads connections over them (Linux). Elsewhere,
    /// and for all other addresses, the workers share one socket.
    pub reuse_port: bool,
    /// Refuses all sockets but TCP and Unix streams, for workers that speak a protocol over those.
    pub streams_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog: 2048,
            unix_mode: 0o660,
            unix_owner: (None, None),
            reuse_port: false,
            streams_only: false,
        }
    }
}
