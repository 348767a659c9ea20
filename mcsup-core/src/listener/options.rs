//! How listeners are opened, whatever their kind.

/// How listeners are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many connections the kernel queues for us, as listen(2) takes it.
    pub backlog: i32,
    /// The mode of Unix sockets.
    pub unix_mode: u32,
    /// User and group id that own Unix sockets; `None` in a place: ours.
    pub unix_owner: (Option<u32>, Option<u32>),
    /// One socket for each slot and TCP address, among which the kernel spreads connections, where it can (Linux);
    /// else, and for all other addresses, one that the workers share.
    pub reuse_port: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { backlog: 2048, unix_mode: 0o660, unix_owner: (None, None), reuse_port: false }
    }
}
