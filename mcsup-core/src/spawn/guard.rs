//! Calls of the embedder's code: a panic becomes a text that names the call, and processes forked there end.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use super::code;
use crate::sys::{fork, forked};

/// Whether the panic hook of this process records places. Forked processes inherit it.
static RECORDS: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The place of the last panic of this thread.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic of the embedder's code.
#[derive(Debug)]
pub(crate) struct Panic {
    /// The call that panicked.
    call: &'static str,
    /// The file, line and column, if known.
    place: Option<String>,
    message: String,
}

impl fmt::Display for Panic {
    /// `in Worker::run at src/main.rs:7:5: index out of bounds`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {}", self.call)?;
        if let Some(place) = &self.place {
            write!(f, " at {place}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Records the places of panics in this process, whose only code is a worker or a mold, and in its forks.
///
/// The hook that the embedder has set still runs for each panic.
pub(super) fn record_places() {
    if RECORDS.swap(true, Ordering::Relaxed) {
        return;
    }
    let embedders = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string);
        // A panic while the thread ends has no place to record it.
        let _ = PLACE.try_with(|last| last.replace(place));
        embedders(info);
    }));
}

/// Runs the embedder's `code`, which is named `call`.
pub(crate) fn caught<T>(call: &'static str, code: impl FnOnce() -> T) -> Result<T, Panic> {
    let _ = PLACE.try_with(|last| last.replace(None));
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let place = PLACE.try_with(|last| last.replace(None)).ok().flatten();
        Panic { call, place, message: message(payload) }
    })
}

/// Runs the embedder's `code` in a worker or a mold. A process that this code has forked ends here when it
/// returns.
pub(super) fn guarded<T>(call: &'static str, code: impl FnOnce() -> T) -> Result<T, Panic> {
    let done = caught(call, code);
    if forked::is_forked_off() {
        fork::exit_now(if done.is_ok() { 0 } else { code::FAILED });
    }
    done
}

/// The text of a panic.
fn message(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<String>() {
        Ok(text) => return *text,
        Err(payload) => payload,
    };
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    // Its destructor is the embedder's code too.
    std::mem::forget(payload);
    "a value without a text".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(code: impl FnOnce()) -> String {
        caught("Worker::run", code).unwrap_err().to_string()
    }

    #[test]
    fn a_panic_is_described_by_its_call_and_its_message() {
        assert_eq!(text(|| panic!("no queue")), "in Worker::run: no queue");
        assert_eq!(text(|| panic!("no queue {}", 7)), "in Worker::run: no queue 7");
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let unnamed = text(|| std::panic::panic_any(Panics));
        assert_eq!(unnamed, "in Worker::run: a value without a text");
        assert_eq!(caught("Worker::run", || 7).unwrap(), 7);
    }
}
