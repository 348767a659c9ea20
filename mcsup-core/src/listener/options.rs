//! How listeners are opened, whatever their kind.

/// How listeners are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many connections the kernel queues for us, as listen(2) takes it.
    pub backlog: i32,
    /// Whether each slot has sockets of its own (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The mode of Unix sockets.
    pub unix_mode: u32,
    /// User and group id that own Unix sockets; `None` in a place: ours.
    pub unix_owner: (Option<u32>, Option<u32>),
}

impl Default for Options {
    fn default() -> Self {
        Self { backlog: 2048, reuse_port: false, unix_mode: 0o660, unix_owner: (None, None) }
    }
}
