use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use log::{Log, Record};

use super::*;

/// A log in a file of its own.
struct Bench {
    folder: tempfile::TempDir,
    log: ErrorLog,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = ErrorLog::open(&Destination::File(folder.path().join("e.log")), Form::Text).unwrap();
        Self { folder, log }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("e.log")
    }
}

/// A log that writes to a sink.
fn over(sink: Sink) -> ErrorLog {
    ErrorLog { sink: Arc::new(sink), form: Form::Text, targets: Arc::default() }
}

fn say(logger: &targets::Logger, level: log::Level, target: &str, message: &str) {
    logger.log(&Record::builder().level(level).target(target).args(format_args!("{message}")).build());
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_line_has_gunicorns_form() {
    let bench = Bench::new();
    say(&bench.log.logger(Level::Info), log::Level::Warn, "any", "hello");
    let line = text(&bench.path());
    let shape: String = line.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let pid = "9".repeat(std::process::id().to_string().len());
    let shape = shape.replacen(" -", " +", 1);
    assert_eq!(shape, format!("[9999-99-99 99:99:99 +9999] [{pid}] [WARNING] hello\n"));
    assert!(line.contains(&format!(" [{}] ", std::process::id())));
}

#[test]
fn levels_have_gunicorns_names() {
    let bench = Bench::new();
    let logger = bench.log.logger(Level::Debug);
    for (level, target) in [
        (log::Level::Debug, "a"),
        (log::Level::Info, "a"),
        (log::Level::Warn, "a"),
        (log::Level::Error, "a"),
        (log::Level::Error, CRITICAL),
    ] {
        say(&logger, level, target, "x");
    }
    let names: Vec<String> =
        text(&bench.path()).lines().map(|line| line.rsplit('[').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["DEBUG] x", "INFO] x", "WARNING] x", "ERROR] x", "CRITICAL] x"]);
}

#[test]
fn a_level_hides_what_is_below_it() {
    for (level, expected) in
        [(Level::Debug, 5), (Level::Info, 4), (Level::Warning, 3), (Level::Error, 2), (Level::Critical, 1)]
    {
        let bench = Bench::new();
        let logger = bench.log.logger(level);
        for (level, target) in [
            (log::Level::Trace, "a"),
            (log::Level::Debug, "a"),
            (log::Level::Info, "a"),
            (log::Level::Warn, "a"),
            (log::Level::Error, "a"),
            (log::Level::Error, CRITICAL),
        ] {
            say(&logger, level, target, "x");
        }
        assert_eq!(text(&bench.path()).lines().count(), expected, "{level:?}");
    }
}

#[test]
fn a_record_is_one_write_whatever_its_length() {
    // A datagram socket keeps the bounds of each write.
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let held = Sink::over(theirs.into());
    let log = over(held);
    let traceback = format!("Traceback:\n{}end", "  a line\n".repeat(500));
    say(&log.logger(Level::Info), log::Level::Error, "a", &traceback);
    say(&log.logger(Level::Info), log::Level::Error, "a", "next");
    let mut buffer = vec![0; 65536];
    let length = ours.recv(&mut buffer).unwrap();
    let first = String::from_utf8(buffer[..length].to_vec()).unwrap();
    assert!(first.ends_with(&format!("[ERROR] {traceback}\n")));
}

#[test]
fn a_new_file_is_not_for_everyone() {
    let bench = Bench::new();
    let mode = fs::metadata(bench.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    assert_eq!(mode & 0o600, 0o600, "{mode:o}");
}

#[test]
fn an_old_file_is_appended_to() {
    let bench = Bench::new();
    fs::write(bench.path(), "old\n").unwrap();
    let log = ErrorLog::open(&Destination::File(bench.path()), Form::Text).unwrap();
    log.raw_writer()(b"new\n");
    assert_eq!(text(&bench.path()), "old\nnew\n");
}

#[test]
fn a_file_that_was_moved_away_is_made_again_under_the_same_descriptor() {
    let bench = Bench::new();
    let moved = bench.folder.path().join("e.log.1");
    let (raw, fd) = (bench.log.raw_writer(), bench.log.fd());
    raw(b"one\n");
    fs::rename(bench.path(), &moved).unwrap();
    raw(b"two\n");
    bench.log.reopen().unwrap();
    raw(b"three\n");
    assert_eq!((text(&moved).as_str(), text(&bench.path()).as_str()), ("one\ntwo\n", "three\n"));
    assert_eq!(bench.log.fd(), fd);
}

#[test]
fn a_reopen_that_fails_leaves_the_old_file_in_use() {
    let bench = Bench::new();
    // A missing folder alone would be created again.
    let gone = bench.folder.path().join("gone").join("too");
    fs::create_dir_all(&gone).unwrap();
    let log = ErrorLog::open(&Destination::File(gone.join("e.log")), Form::Text).unwrap();
    let kept = bench.folder.path().join("kept.log");
    fs::rename(gone.join("e.log"), &kept).unwrap();
    fs::remove_dir_all(bench.folder.path().join("gone")).unwrap();
    let error = log.reopen().unwrap_err().to_string();
    assert!(error.starts_with("cannot reopen the log file /") && error.contains("No such file"), "{error}");
    log.raw_writer()(b"still here\n");
    assert_eq!(text(&kept), "still here\n");
}

#[test]
fn the_error_of_a_log_that_cannot_be_opened_has_its_path() {
    let error = ErrorLog::open(&Destination::File("/nowhere/at/all/e.log".into()), Form::Text)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot open the log file /nowhere/at/all/e.log: No such file"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_does_no_harm() {
    let log = ErrorLog::open(&Destination::File("/dev/full".into()), Form::Text).unwrap();
    log.raw_writer()(b"lost\n");
    say(&log.logger(Level::Info), log::Level::Error, "a", "lost");
}

#[test]
fn records_that_could_not_be_written_are_counted_and_reported_later() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let bench = Bench::new();
    let log = over(Sink::over(theirs.into()));
    drop(ours);
    log.raw_writer()(b"lost\n");
    log.raw_writer()(b"lost\n");
    log.sink.redirect(std::fs::File::create(bench.path()).unwrap().into());
    log.raw_writer()(b"written\n");
    log.raw_writer()(b"written\n");
    let text = text(&bench.path());
    assert!(text.starts_with("\n[") && text.ends_with("\nwritten\nwritten\n"), "{text}");
    assert!(text.contains("[ERROR] This log could not be written: 2 records of this process are lost\n"));
}

#[test]
fn a_slow_reader_of_a_workers_log_is_not_waited_for_at_each_record() {
    use std::io::Read;
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut reader = std::fs::File::from(reader);
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let filler = writer.try_clone().unwrap();
    let log = over(Sink::over(writer));
    log.use_in_worker();
    let mut received = Vec::new();
    for _ in 0..20 {
        while rustix::io::write(&filler, &[b'x'; 4096]).is_ok() {}
        let slow = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let mut piece = vec![0; 16384];
            reader.read_exact(&mut piece).unwrap();
            (reader, piece)
        });
        log.raw_writer()(b"first\n");
        let (back, piece) = slow.join().unwrap();
        received.extend(piece);
        reader = back;
        // There is room again: the loss is reported, and the next record may be waited for.
        log.raw_writer()(b"second\n");
    }
    drop((log, filler));
    reader.read_to_end(&mut received).unwrap();
    let count = |text: &str| String::from_utf8_lossy(&received).matches(text).count();
    assert_eq!(count("second\n"), 20);
    assert!(count("first\n") < 10, "{} of 20 records waited", count("first\n"));
}

#[test]
fn records_that_the_parent_has_lost_are_not_reported_by_its_child() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let bench = Bench::new();
    let log = over(Sink::over(theirs.into()));
    drop(ours);
    log.raw_writer()(b"lost\n");
    log.use_in_worker();
    log.sink.redirect(std::fs::File::create(bench.path()).unwrap().into());
    log.raw_writer()(b"written\n");
    assert_eq!(text(&bench.path()), "written\n");
}

#[test]
fn a_reader_that_is_gone_does_no_harm() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(ours);
    let log = over(Sink::over(theirs.into()));
    log.raw_writer()(b"lost\n");
    say(&log.logger(Level::Info), log::Level::Error, "a", "lost");
}

#[test]
fn giving_the_log_to_oneself_changes_nothing() {
    let bench = Bench::new();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    bench.log.give_to(uid, gid).unwrap();
    bench.log.reopen().unwrap();
    ErrorLog::open(&Destination::Standard, Form::Text).unwrap().give_to(uid, gid).unwrap();
}

#[test]
fn the_standard_stream_is_the_file_behind_descriptor_two() {
    use std::os::unix::fs::MetadataExt;
    let log = ErrorLog::open(&Destination::Standard, Form::Text).unwrap();
    // It may be another description of it.
    let identity =
        |number| fs::metadata(format!("/dev/fd/{number}")).map(|file| (file.dev(), file.ino())).ok();
    assert_eq!(identity(log.fd()), identity(2));
    log.reopen().unwrap();
}

#[test]
fn a_full_pipe_is_not_waited_for_and_is_reported_when_it_has_room() {
    use std::io::Read;
    let bench = Bench::new();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(bench.folder.path().join("fifo"))
            .status()
            .unwrap()
            .success()
    );
    let path = bench.folder.path().join("fifo");
    let log = ErrorLog::open(&Destination::File(path.clone()), Form::Text).unwrap();
    let record = [b'x'; 4095].iter().chain(b"\n").copied().collect::<Vec<u8>>();
    (0..100).for_each(|_| log.raw_writer()(&record));
    let mut reader = fs::File::open(path).unwrap();
    let mut text = vec![0; 65536];
    reader.read_exact(&mut text).unwrap();
    log.raw_writer()(b"written\n");
    let count = reader.read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..count]);
    assert!(text.contains(" records of this process are lost\n") && text.ends_with("written\n"), "{text}");
}

#[test]
fn a_json_record_is_one_object_on_one_line_whatever_its_text() {
    let bench = Bench::new();
    let log = ErrorLog::open(&Destination::File(bench.path()), Form::Json).unwrap();
    say(&log.logger(Level::Info), log::Level::Error, CRITICAL, "a \"b\"\nTraceback:\n  c");
    log.raw_writer()(b"from the application\n");
    log.raw_writer()(b"\n");
    log.raw_writer()(b"\xff two\nlines\n");
    let text = text(&bench.path());
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("message"), ["a \"b\"\nTraceback:\n  c", "from the application", "\u{fffd} two\nlines"]);
    assert_eq!(
        of("level"),
        [serde_json::Value::from("CRITICAL"), serde_json::Value::Null, serde_json::Value::Null]
    );
    assert_eq!(lines[1]["stream"], "wsgi.errors");
    assert!(lines.iter().all(|line| line["pid"] == std::process::id()));
    // RFC 3339, with milliseconds.
    assert_eq!(lines[0]["time"].as_str().unwrap().len(), "2026-11-25T07:50:01.123+00:00".len());
}

/// A log with targets beside its file.
fn with_targets(bench: &Bench, targets: Targets) -> targets::Logger {
    ErrorLog { targets: Arc::new(targets), ..bench.log.clone() }.logger(Level::Debug)
}

fn server() -> (std::net::UdpSocket, String) {
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let address = server.local_addr().unwrap().to_string();
    (server, address)
}

fn received(server: &std::net::UdpSocket) -> String {
    let mut buffer = [0; 4096];
    let length = server.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn syslog_gets_each_record_with_its_severity_beside_the_file() {
    use mcsup_py::targets::{Address, Facility, Syslog};
    let (bench, (server, address)) = (Bench::new(), server());
    let address = Address::syslog(&format!("udp://{address}")).unwrap();
    let syslog = Syslog::open(address, Facility::parse("user").unwrap(), "gunicorn.app.error".to_owned());
    let logger = with_targets(&bench, Targets { syslog: Some(syslog.unwrap()), ..Targets::default() });
    for (level, target, priority) in [
        (log::Level::Error, CRITICAL, 10),
        (log::Level::Error, "a", 11),
        (log::Level::Warn, "a", 12),
        (log::Level::Info, "a", 14),
        (log::Level::Debug, "a", 15),
    ] {
        say(&logger, level, target, "hello");
        let expected = format!("<{priority}>gunicorn.app.error: [{}] hello", std::process::id());
        assert_eq!(received(&server), expected);
    }
    assert_eq!(text(&bench.path()).lines().count(), 5);
}

#[test]
fn statsd_counts_the_records_of_high_levels_with_gunicorns_names() {
    use mcsup_py::EXCEPTION;
    use mcsup_py::targets::{Address, Statsd};
    let (bench, (server, address)) = (Bench::new(), server());
    let statsd = Statsd::open(Address::statsd(&address).unwrap(), "", "").unwrap();
    let logger = with_targets(&bench, Targets { statsd: Some(Arc::new(statsd)), ..Targets::default() });
    for (level, target, name) in [
        (log::Level::Error, CRITICAL, "critical"),
        (log::Level::Error, "a", "error"),
        (log::Level::Error, EXCEPTION, "exception"),
        (log::Level::Info, "a", ""),
        (log::Level::Warn, "a", "warning"),
    ] {
        say(&logger, level, target, "hello");
        if !name.is_empty() {
            assert_eq!(received(&server), format!("gunicorn.log.{name}:1|c"));
        }
    }
}

#[test]
fn records_go_to_a_queue_for_python_instead_of_the_file_and_back() {
    use mcsup_py::targets::queue::{Entry, Queue};
    let bench = Bench::new();
    let logger = bench.log.logger(Level::Info);
    let (queue, reader) = Queue::new();
    bench.log.redirect(Some(queue));
    say(&logger, log::Level::Warn, "a", "for Python");
    bench.log.redirect(None);
    say(&logger, log::Level::Warn, "a", "for the file");
    let entries = reader.take(9);
    assert!(matches!(&entries[..], [Entry::Error { text, .. }] if text == "for Python"), "{entries:?}");
    assert!(text(&bench.path()).ends_with("[WARNING] for the file\n"));
    assert_eq!(text(&bench.path()).lines().count(), 1);
}
