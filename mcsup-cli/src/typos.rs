//! Typing errors in the names of options and keys.

/// The letters that were added, removed, changed or swapped with their neighbour.
pub(crate) fn distance(known: &str, written: &str) -> usize {
    strsim::osa_distance(known, written)
}

/// Whether a typing error explains the difference.
pub(crate) fn is_near(known: &str, written: &str) -> bool {
    distance(known, written) <= 1 + known.len() / 5
}
