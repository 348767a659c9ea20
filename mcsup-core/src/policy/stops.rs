//! Orders to stop. Each escalates the one before, unless it is the same one again.

use std::time::Duration;

use super::event::{Moment, StopMode, Ticket};

/// The same order again within this time is the same order: a service manager signals a process and then its group, and a
/// terminal and a script may both pass on one act of a person.
pub(super) const SAME_ORDER: Duration = Duration::from_millis(250);

/// The last order to stop, and the requests that wait for the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    last: Option<Order>,
    tickets: Vec<Ticket>,
}

#[derive(Debug, Clone, Copy)]
struct Order {
    mode: StopMode,
    at: Moment,
}

impl Stops {
    /// One is asked for; says whether it is a further order.
    pub(super) fn ask(&mut self, mode: StopMode, ticket: Option<Ticket>, now: Moment) -> bool {
        self.tickets.extend(ticket);
        let is_same = self.last.is_some_and(|last| {
            let asks_for_more = mode == StopMode::Quick && last.mode == StopMode::Graceful;
            !asks_for_more && now.saturating_sub(last.at) < SAME_ORDER
        });
        if !is_same {
            self.last = Some(Order { mode, at: now });
        }
        !is_same
    }

    /// The pool has ended: returns the requests that wait for that.
    pub(super) fn take(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.tickets)
    }
}
