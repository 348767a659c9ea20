//! Processes outside of the pool that outlive their worker or their server: the wait before they count, and
//! their names.

use std::time::Duration;

/// The delay before survivors are counted: many processes end shortly after their parent.
pub const SETTLE: Duration = Duration::from_millis(250);

/// The most processes that one sentence names.
pub(crate) const MOST_NAMED: usize = 16;

/// A sentence that counts and names survivors; `None`: there are none. `which` is a clause such as "that the
/// application started".
pub fn sentence(which: &str, mut names: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let count = names.len();
    let mut listed: Vec<String> = names.by_ref().take(MOST_NAMED).collect();
    if count > MOST_NAMED {
        listed.push(format!("{} more", count - MOST_NAMED));
    }
    let listed = listed.join(", ");
    match count {
        0 => None,
        1 => Some(format!("1 process {which} is still running: {listed}")),
        _ => Some(format!("{count} processes {which} are still running: {listed}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: usize) -> Option<String> {
        sentence("that the application started", (0..count).map(|number| format!("pid {number}")))
    }

    #[test]
    fn a_sentence_counts_all_survivors_and_names_some() {
        let rest = "that the application started";
        assert_eq!(of(0), None);
        assert_eq!(of(1), Some(format!("1 process {rest} is still running: pid 0")));
        assert_eq!(of(2), Some(format!("2 processes {rest} are still running: pid 0, pid 1")));
        let many = of(MOST_NAMED + 3).unwrap();
        assert!(many.starts_with("19 processes ") && many.ends_with(", pid 15, 3 more"), "{many}");
    }
}
