//! Typing errors in the names of options, keys and commands.

/// The known name of which `written` may be a typing error.
pub(crate) fn nearest<T: AsRef<str>>(known: impl Iterator<Item = T>, written: &str) -> Option<T> {
    let nearest = known.min_by_key(|known| distance(known.as_ref(), written));
    nearest.filter(|near| is_near(near.as_ref(), written))
}

/// The same for a word that may well be meant as it is: one letter differs, or two of a long name.
pub(crate) fn nearly<T: AsRef<str>>(known: impl Iterator<Item = T>, written: &str) -> Option<T> {
    let nearest = known.min_by_key(|known| distance(known.as_ref(), written))?;
    let most = if nearest.as_ref().len() < 10 { 1 } else { 2 };
    (distance(nearest.as_ref(), written) <= most).then_some(nearest)
}

/// The letters that were added, removed, changed or swapped with their neighbour.
fn distance(known: &str, written: &str) -> usize {
    strsim::osa_distance(known, written)
}

/// Whether a typing error explains the difference.
fn is_near(known: &str, written: &str) -> bool {
    distance(known, written) <= 1 + known.len() / 5
}
