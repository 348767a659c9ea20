//! Requests to stop. Each further one escalates, unless it repeats the last one.

use std::time::Duration;

use super::event::{Moment, StopMode, Ticket};

/// The same request within this time is a repetition: a service manager signals a process and then its group, and a
/// terminal and a script may both pass on one signal.
pub(super) const SAME_ORDER: Duration = Duration::from_millis(250);

/// The last request to stop, and the tickets that wait for the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    last: Option<StopRequest>,
    tickets: Vec<Ticket>,
}

#[derive(Debug, Clone, Copy)]
struct StopRequest {
    mode: StopMode,
    at: Moment,
}

impl Stops {
    /// Whether there was no request.
    pub(super) fn has_none(&self) -> bool {
        self.last.is_none()
    }

    /// Notes a request; `false`: it repeats the last one.
    pub(super) fn ask(&mut self, mode: StopMode, ticket: Option<Ticket>, now: Moment) -> bool {
        self.tickets.extend(ticket);
        let is_same = self.last.is_some_and(|last| {
            let asks_for_more = mode == StopMode::Quick && last.mode == StopMode::Graceful;
            !asks_for_more && now.saturating_sub(last.at) < SAME_ORDER
        });
        if !is_same {
            self.last = Some(StopRequest { mode, at: now });
        }
        !is_same
    }

    /// Takes the tickets, because the pool has ended.
    pub(super) fn take(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.tickets)
    }
}
