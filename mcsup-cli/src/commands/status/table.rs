//! The status of a server as text: a head, a row for each worker, the next starts, the last deaths.

use std::fmt::Write;

use mcsup_core::control::{SlotStatus, Status, WorkerStatus};

/// The headers. All columns but `STATE` are aligned on the right.
const COLUMNS: [&str; 14] = [
    "SLOT", "PID", "GEN", "STATE", "AGE", "REQS", "BUSY", "OLDEST", "WAIT", "CONN", "RSS", "PSS", "CPU%",
    "RESTARTS",
];

/// Index of the only column of words.
const STATE: usize = 3;

/// Text for an unknown value.
const UNKNOWN: &str = "-";

/// The whole text, without the end of its last line.
pub(super) fn text(status: &Status) -> String {
    let mut text = head(status);
    let rows = rows(status);
    if !rows.is_empty() {
        text.push_str("\n\n");
        text.push_str(&table(&rows));
    }
    let waiting = waiting(&status.slots);
    if !waiting.is_empty() {
        text.push_str("\n\nnext starts:");
        text.push_str(&waiting);
    }
    let deaths = deaths(&status.slots);
    if !deaths.is_empty() {
        text.push_str("\n\nlast deaths:");
        text.push_str(&deaths);
    }
    text
}

fn head(status: &Status) -> String {
    let mut text = status.phase.clone().unwrap_or_else(|| "running".to_owned());
    // Writing to a String does not fail.
    let _ = write!(text, ": pid {} for {}", or_unknown(status.pid), age(status.uptime_seconds));
    if let Some(version) = &status.mcsup {
        let _ = write!(text, ", mcsup {version}");
    }
    let ready = status.workers.iter().filter(|worker| serves(worker)).count();
    let _ = write!(text, "\nworkers: {ready} of {} ready", or_unknown(status.target));
    let _ = write!(text, ", generation {}", or_unknown(status.generation));
    if let Some(new) = status.new_generation {
        let _ = write!(text, " (generation {new} is on its way)");
    }
    let _ =
        write!(text, ", {} reloads, {} upgrades", or_unknown(status.reloads), or_unknown(status.upgrades));
    if let Some(mold) = &status.mold {
        let _ =
            write!(text, "\nmold: pid {}, generation {}", or_unknown(mold.pid), or_unknown(mold.generation));
        let _ = write!(text, ", {}, age {}", mold.state.as_deref().unwrap_or(UNKNOWN), age(mold.age_seconds));
    }
    if !status.listeners.is_empty() {
        let _ = write!(text, "\nlistening: {}", status.listeners.join(", "));
    }
    text
}

/// Whether a worker serves; one that is being replaced still does.
fn serves(worker: &WorkerStatus) -> bool {
    matches!(worker.state.as_deref(), Some("ready" | "recycling" | "leaving"))
}

type Row = [String; COLUMNS.len()];

/// A row for each worker, and for each slot without one.
fn rows(status: &Status) -> Vec<Row> {
    let restarts = |slot| status.slots.iter().find(|place| place.slot == slot).map(|place| place.restarts);
    let mut workers: Vec<&WorkerStatus> = status.workers.iter().collect();
    workers.sort_by_key(|worker| (worker.slot, worker.generation, worker.pid));
    let mut rows: Vec<(usize, Row)> =
        workers.into_iter().map(|worker| (worker.slot, row(worker, restarts(worker.slot)))).collect();
    for place in &status.slots {
        if !status.workers.iter().any(|worker| worker.slot == place.slot) {
            let none = WorkerStatus { slot: place.slot, ..WorkerStatus::default() };
            let mut empty = row(&none, Some(place.restarts));
            empty[STATE] = "empty".to_owned();
            rows.push((place.slot, empty));
        }
    }
    rows.sort_by_key(|(slot, _)| *slot);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn row(worker: &WorkerStatus, restarts: Option<u64>) -> Row {
    [
        worker.slot.to_string(),
        or_unknown(worker.pid),
        or_unknown(worker.generation),
        worker.state.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        age(worker.age_seconds),
        worker.requests.map_or_else(|| UNKNOWN.to_owned(), count),
        or_unknown(worker.in_flight),
        age(worker.oldest_request_seconds),
        or_unknown(worker.waiting),
        or_unknown(worker.connections),
        bytes(worker.rss_bytes),
        bytes(worker.pss_bytes),
        worker.cpu_percent.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{percent:.0}")),
        or_unknown(restarts),
    ]
}

fn table(rows: &[Row]) -> String {
    let header = COLUMNS.map(str::to_owned);
    let all = || std::iter::once(&header).chain(rows);
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let lines: Vec<String> = all()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    STATE => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            cells.join("  ")
        })
        .collect();
    lines.join("\n")
}

/// The next start of each empty slot, and the reason of the wait.
fn waiting(slots: &[SlotStatus]) -> String {
    let line = |place: &SlotStatus| {
        let why = place.waits_because.as_ref()?;
        let when = match place.next_start_seconds {
            Some(seconds) => format!("in {}", age(Some(seconds))),
            None => "after another start".to_owned(),
        };
        Some(format!("\n  slot {}, {when}: {why}", place.slot))
    };
    slots.iter().filter_map(line).collect()
}

/// The last death of each slot, the newest first.
fn deaths(slots: &[SlotStatus]) -> String {
    let mut all: Vec<_> =
        slots.iter().filter_map(|place| Some((place.slot, place.last_death.as_ref()?))).collect();
    all.sort_by(|(_, one), (_, other)| one.seconds_ago.total_cmp(&other.seconds_ago));
    all.iter()
        .map(|(slot, death)| {
            format!("\n  slot {slot}, {} ago: {}", age(Some(death.seconds_ago)), death.cause)
        })
        .collect()
}

fn or_unknown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

/// A time in its two largest units.
fn age(seconds: Option<f64>) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let Some(seconds) = seconds else { return UNKNOWN.to_owned() };
    if seconds < 9.95 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    let whole = seconds.round() as u64;
    match whole {
        0..MINUTE => format!("{whole}s"),
        MINUTE..HOUR => format!("{}m{:02}s", whole / MINUTE, whole % MINUTE),
        HOUR..DAY => format!("{}h{:02}m", whole / HOUR, whole % HOUR / MINUTE),
        _ => format!("{}d{:02}h", whole / DAY, whole % DAY / HOUR),
    }
}

/// A number of requests, exact up to five digits.
fn count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{}k", number / 1000),
        _ => format!("{}M", number / 1_000_000),
    }
}

/// A size in binary units, with three or four digits.
fn bytes(number: Option<u64>) -> String {
    let Some(number) = number else { return UNKNOWN.to_owned() };
    let mut value = number as f64;
    for unit in ["B", "K", "M", "G"] {
        if value < 1023.5 {
            let is_short = unit != "B" && value < 99.95;
            return if is_short { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcsup_core::control::{Death, MoldStatus};

    #[test]
    fn times_counts_and_bytes_are_readable() {
        for (seconds, expected) in [
            (0.04, "0.0s"),
            (0.44, "0.4s"),
            (9.97, "10s"),
            (59.9, "1m00s"),
            (3599.0, "59m59s"),
            (3600.0, "1h00m"),
            (86_399.0, "23h59m"),
            (100_000.0, "1d03h"),
        ] {
            assert_eq!(age(Some(seconds)), expected);
        }
        for (number, expected) in [(0, "0"), (99_999, "99999"), (123_456, "123k"), (12_345_678, "12M")] {
            assert_eq!(count(number), expected);
        }
        for (number, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (47_290_000, "45.1M"),
            (1 << 27, "128M"),
            (3 << 29, "1.5G"),
        ] {
            assert_eq!(bytes(Some(number)), expected);
        }
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn a_server_is_shown_whole() {
        let worker = |slot, pid, generation, state: &str| WorkerStatus {
            slot,
            pid: Some(pid),
            generation: Some(generation),
            state: Some(state.to_owned()),
            age_seconds: Some(3700.0),
            ..WorkerStatus::default()
        };
        let busy = WorkerStatus {
            requests: Some(1234),
            in_flight: Some(2),
            oldest_request_seconds: Some(0.42),
            waiting: Some(0),
            connections: Some(17),
            rss_bytes: Some(47_290_000),
            pss_bytes: Some(12_000_000),
            cpu_percent: Some(12.3),
            ..worker(0, 4712, 3, "ready")
        };
        let death = |seconds_ago, cause: &str| Some(Death { seconds_ago, cause: cause.to_owned() });
        let status = Status {
            mcsup: Some("0.1.0".to_owned()),
            pid: Some(4711),
            phase: Some("reloading".to_owned()),
            uptime_seconds: Some(273_000.0),
            generation: Some(3),
            new_generation: Some(4),
            target: Some(3),
            listeners: vec!["127.0.0.1:8000".to_owned(), "unix:/run/app.sock".to_owned()],
            reloads: Some(2),
            upgrades: Some(0),
            mold: Some(MoldStatus { pid: Some(4700), generation: Some(3), ..MoldStatus::default() }),
            workers: vec![worker(1, 4714, 4, "booting"), busy, worker(1, 4713, 3, "recycling")],
            slots: vec![
                SlotStatus {
                    slot: 0,
                    restarts: 1,
                    last_death: death(4000.0, "exit code 1"),
                    ..SlotStatus::default()
                },
                SlotStatus { slot: 1, ..SlotStatus::default() },
                SlotStatus {
                    slot: 2,
                    restarts: 14,
                    last_death: death(3.0, "signal 9 (SIGKILL) from pid 1"),
                    next_start_seconds: Some(0.4),
                    waits_because: Some("3 of its workers died lately".to_owned()),
                },
            ],
        };
        let expected = "\
reloading: pid 4711 for 3d03h, mcsup 0.1.0
workers: 2 of 3 ready, generation 3 (generation 4 is on its way), 2 reloads, 0 upgrades
mold: pid 4700, generation 3, -, age -
listening: 127.0.0.1:8000, unix:/run/app.sock

SLOT   PID  GEN  STATE        AGE  REQS  BUSY  OLDEST  WAIT  CONN    RSS    PSS  CPU%  RESTARTS
   0  4712    3  ready      1h01m  1234     2    0.4s     0    17  45.1M  11.4M    12         1
   1  4713    3  recycling  1h01m     -     -       -     -     -      -      -     -         0
   1  4714    4  booting    1h01m     -     -       -     -     -      -      -     -         0
   2     -    -  empty          -     -     -       -     -     -      -      -     -        14

next starts:
  slot 2, in 0.4s: 3 of its workers died lately

last deaths:
  slot 2, 3.0s ago: signal 9 (SIGKILL) from pid 1
  slot 0, 1h06m ago: exit code 1";
        assert_eq!(text(&status), expected);
    }

    #[test]
    fn unknown_values_are_shown_as_a_hyphen() {
        assert_eq!(
            text(&Status::default()),
            "running: pid - for -\nworkers: 0 of - ready, generation -, - reloads, - upgrades"
        );
    }
}
