//! Reports the engine's load to the host: at most once a turn, and only changes, so it costs a request nothing.

use std::time::{Duration, Instant};

use super::Host;
use super::overdue::{self, Running};

/// The oldest request is looked for as often as this.
const SOMETIMES: Duration = Duration::from_millis(100);

/// The host looks whether an operator has asked for the stacks as often as this.
const SELDOM: Duration = Duration::from_millis(500);

/// The values that the host has.
#[derive(Debug)]
pub(super) struct Gauges {
    waiting: usize,
    /// When the oldest of several requests began.
    oldest: Option<Instant>,
    looked: Instant,
    looked_for_stacks: Instant,
}

impl Gauges {
    pub(super) fn new(now: Instant) -> Self {
        Self { waiting: 0, oldest: None, looked: now, looked_for_stacks: now }
    }

    /// `waiting`: how many requests no permit has taken. The host knows already about the request of a single permit.
    pub(super) fn report(&mut self, waiting: usize, running: &[Running], host: &dyn Host, now: Instant) {
        if waiting != std::mem::replace(&mut self.waiting, waiting) {
            host.waiting(waiting);
        }
        if now >= self.looked_for_stacks + SELDOM {
            self.looked_for_stacks = now;
            host.show_asked_stacks();
            host.name_slow_hooks();
        }
        if running.len() == 1 || now < self.looked + SOMETIMES {
            return;
        }
        self.looked = now;
        let oldest = overdue::oldest(running);
        if oldest != std::mem::replace(&mut self.oldest, oldest) {
            host.oldest(oldest.map(|since| now.saturating_duration_since(since)));
        }
    }
}
