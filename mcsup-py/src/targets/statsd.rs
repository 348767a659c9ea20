//! Metrics for statsd and dogstatsd, with gunicorn's names.
//!
//! gunicorn sends three datagrams for each request. Here the requests of half a second share datagrams: the durations
//! one by one, the counters as sums. Several metrics in a datagram are separated by newlines, which statsd, its exporter
//! for Prometheus, Telegraf and the agent of Datadog read.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::Address;
use super::link::{Link, Report};

/// A datagram of this size fits one packet of any usual network.
const DATAGRAM: usize = 1400;

/// Requests wait for others for this time.
const BATCH: Duration = Duration::from_millis(500);

/// The time between two samples of the backlog.
const SAMPLE: Duration = Duration::from_secs(1);

/// A way to statsd.
#[derive(Debug)]
pub struct Statsd {
    link: Link,
    prefix: String,
    /// With its separator; empty if there are none.
    tags: String,
}

impl Statsd {
    /// A client with `prefix` before each name, and the tags of dogstatsd after each value.
    ///
    /// # Errors
    /// The host has no address.
    pub fn open(address: Address, prefix: &str, tags: &str) -> io::Result<Self> {
        let prefix = prefix.trim_end_matches('.');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        let tags = if tags.is_empty() { String::new() } else { format!("|#{tags}") };
        Ok(Self { link: Link::open(address)?, prefix, tags })
    }

    /// Adds to a counter.
    #[must_use = "a report belongs into the error log"]
    pub fn count(&self, name: &str, by: u64) -> Option<Report> {
        self.link.send(self.metric(name, by, "c").as_bytes())
    }

    /// Sets a gauge.
    #[must_use = "a report belongs into the error log"]
    pub fn gauge(&self, name: &str, value: u64) -> Option<Report> {
        self.link.send(self.metric(name, value, "g").as_bytes())
    }

    fn metric(&self, name: &str, value: impl std::fmt::Display, kind: &str) -> String {
        format!("{}{name}:{value}|{kind}{}", self.prefix, self.tags)
    }
}

/// The requests that were not sent yet.
#[derive(Debug)]
pub(crate) struct Requests {
    statsd: Arc<Statsd>,
    /// Whole metrics, each on a line.
    text: String,
    /// The number of requests of each status since `since`.
    statuses: Vec<(u16, u64)>,
    since: Option<Instant>,
    /// When the backlog was last sampled; `None`: it is not.
    sampled: Option<Instant>,
}

impl Requests {
    pub(crate) fn new(statsd: Arc<Statsd>, samples_backlog: bool) -> Self {
        let sampled = samples_backlog.then(Instant::now);
        Self { statsd, text: String::new(), statuses: Vec::new(), since: None, sampled }
    }

    pub(crate) fn note(&mut self, status: u16, took: Duration) {
        let milliseconds = took.as_secs_f64() * 1000.0;
        self.add(&self.statsd.metric("gunicorn.request.duration", format_args!("{milliseconds:.3}"), "ms"));
        match self.statuses.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => self.statuses.push((status, 1)),
        }
        self.since.get_or_insert_with(Instant::now);
    }

    /// Whether the backlog is to be sampled now.
    pub(crate) fn wants_backlog(&mut self, now: Instant) -> bool {
        let is_due = self.sampled.is_some_and(|last| now >= last + SAMPLE);
        if is_due {
            self.sampled = Some(now);
        }
        is_due
    }

    pub(crate) fn note_backlog(&mut self, length: usize) {
        self.add(&self.statsd.metric("gunicorn.backlog", length, "h"));
        self.since.get_or_insert_with(Instant::now);
    }

    /// Sends a batch that is old enough.
    pub(crate) fn send_due(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() >= BATCH) {
            self.send();
        }
    }

    /// Sends everything.
    pub(crate) fn send(&mut self) {
        self.since = None;
        let statuses = std::mem::take(&mut self.statuses);
        let all: u64 = statuses.iter().map(|(_, count)| count).sum();
        if all > 0 {
            self.add(&self.statsd.metric("gunicorn.requests", all, "c"));
        }
        for (status, count) in statuses {
            let mut name = String::from("gunicorn.request.status.");
            // Writing to a string cannot fail.
            let _ = write!(name, "{status}");
            self.add(&self.statsd.metric(&name, count, "c"));
        }
        self.send_text();
    }

    fn add(&mut self, metric: &str) {
        if !self.text.is_empty() && self.text.len() + 1 + metric.len() > DATAGRAM {
            self.send_text();
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(metric);
    }

    fn send_text(&mut self) {
        if self.text.is_empty() {
            return;
        }
        if let Some(report) = self.statsd.link.send(self.text.as_bytes()) {
            report.log();
        }
        self.text.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    struct Bench {
        server: UdpSocket,
        statsd: Arc<Statsd>,
    }

    impl Bench {
        fn new(prefix: &str, tags: &str) -> Self {
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
            server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let address = Address::statsd(&server.local_addr().unwrap().to_string()).unwrap();
            Self { statsd: Arc::new(Statsd::open(address, prefix, tags).unwrap()), server }
        }

        fn received(&self) -> String {
            let mut buffer = [0; 2048];
            let length = self.server.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        }
    }

    #[test]
    fn the_metrics_of_requests_have_gunicorns_names_and_share_a_datagram() {
        let bench = Bench::new("shop..", "env:test,zone:a");
        let mut requests = Requests::new(Arc::clone(&bench.statsd), false);
        requests.note(200, Duration::from_micros(1500));
        requests.note(200, Duration::from_millis(2));
        requests.note(404, Duration::ZERO);
        requests.send();
        let expected = "shop.gunicorn.request.duration:1.500|ms|#env:test,zone:a\n\
            shop.gunicorn.request.duration:2.000|ms|#env:test,zone:a\n\
            shop.gunicorn.request.duration:0.000|ms|#env:test,zone:a\n\
            shop.gunicorn.requests:3|c|#env:test,zone:a\n\
            shop.gunicorn.request.status.200:2|c|#env:test,zone:a\n\
            shop.gunicorn.request.status.404:1|c|#env:test,zone:a";
        assert_eq!(bench.received(), expected);
    }

    #[test]
    fn no_datagram_is_larger_than_a_packet_and_none_has_a_part_of_a_metric() {
        let bench = Bench::new("", "");
        let mut requests = Requests::new(Arc::clone(&bench.statsd), false);
        (0..200).for_each(|_| requests.note(200, Duration::from_millis(7)));
        requests.send();
        let mut durations = 0;
        while durations < 200 {
            let text = bench.received();
            assert!(
                text.len() <= DATAGRAM
                    && text.lines().all(|line| line.contains(":7.000|ms") || line.ends_with("|c"))
            );
            durations += text.matches("gunicorn.request.duration:7.000|ms").count();
        }
    }

    #[test]
    fn a_batch_waits_for_further_requests_and_is_sent_soon() {
        let bench = Bench::new("", "");
        let mut requests = Requests::new(Arc::clone(&bench.statsd), false);
        requests.note(200, Duration::ZERO);
        requests.send_due();
        assert!(!requests.text.is_empty(), "it was sent alone");
        requests.since = requests.since.map(|since| since.checked_sub(BATCH).unwrap());
        requests.send_due();
        assert!(requests.text.is_empty() && bench.received().ends_with("gunicorn.request.status.200:1|c"));
    }

    #[test]
    fn the_backlog_is_sampled_once_a_second_and_only_on_request() {
        let bench = Bench::new("", "");
        let mut requests = Requests::new(Arc::clone(&bench.statsd), true);
        let now = Instant::now();
        assert!(!requests.wants_backlog(now));
        assert!(requests.wants_backlog(now + SAMPLE) && !requests.wants_backlog(now + SAMPLE));
        requests.note_backlog(7);
        requests.send();
        assert_eq!(bench.received(), "gunicorn.backlog:7|h");
        assert!(!Requests::new(Arc::clone(&bench.statsd), false).wants_backlog(now + SAMPLE * 9));
    }

    #[test]
    fn gauges_and_counters_are_sent_at_once() {
        let bench = Bench::new("a.b", "");
        assert!(bench.statsd.gauge("gunicorn.workers", 3).is_none());
        assert_eq!(bench.received(), "a.b.gunicorn.workers:3|g");
        assert!(bench.statsd.count("gunicorn.log.error", 1).is_none());
        assert_eq!(bench.received(), "a.b.gunicorn.log.error:1|c");
    }
}
