//! Which unanswered requests have a large head, and how much these take together. `unfinished` keeps them within bounds.

/// How many bytes the large heads of a worker may take together.
const HEAD_MEMORY: usize = 8 << 20;

/// The large heads of unanswered requests.
#[derive(Debug, Default)]
pub(super) struct LargeHeads {
    /// How many bytes they take.
    used: usize,
    /// The connections that have one. Each takes more than a piece, so that there are few.
    tokens: Vec<u64>,
}

impl LargeHeads {
    /// The head of the connection `token` took `before` bytes and takes `size`; 0: it is not large, or there is none.
    pub(super) fn change(&mut self, token: u64, before: usize, size: usize) {
        self.used = self.used - before + size;
        match (before, size) {
            (0, 1..) => self.tokens.push(token),
            (1.., 0) => self.tokens.retain(|other| *other != token),
            _ => {}
        }
    }

    /// Whether they take more than they may.
    pub(super) fn are_too_large(&self) -> bool {
        self.used > HEAD_MEMORY
    }

    /// The connections that have one.
    pub(super) fn tokens(&self) -> impl Iterator<Item = u64> {
        self.tokens.iter().copied()
    }
}
