use super::*;
use std::fs::File;
use std::io::Read;
use std::time::Instant;

/// A stream for the rest of the test's life.
fn stream(fd: impl Into<OwnedFd>) -> BorrowedFd<'static> {
    let kept: &'static OwnedFd = Box::leak(Box::new(fd.into()));
    kept.as_fd()
}

fn fill(outlet: &Outlet) -> usize {
    let mut written = 0;
    loop {
        match outlet.write(&[b'x'; 4096], &Patience::none()) {
            Ok(()) => written += 4096,
            Err(cut) => {
                assert_eq!(cut.error, Errno::AGAIN);
                return written + cut.written;
            }
        }
    }
}

/// All methods of writing, each to a full pipe or socket.
fn outlets() -> Vec<(&'static str, Outlet, Box<dyn Read + Send>)> {
    let (ours, theirs) = rustix::pipe::pipe().unwrap();
    let reopened = Outlet::of_stream(stream(theirs));
    let (shared, writing) = rustix::pipe::pipe().unwrap();
    let waiting = Outlet { held: Held::Shared(stream(writing)), way: Way::Waiting, is_terminal: false };
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let socket = Outlet::of_stream(stream(other));
    vec![
        ("a pipe", reopened, Box::new(File::from(ours))),
        ("a pipe that waits", waiting, Box::new(File::from(shared))),
        ("a socket", socket, Box::new(one)),
    ]
}

#[test]
fn a_reader_that_does_not_read_is_not_waited_for() {
    for (name, outlet, mut reader) in outlets() {
        assert!(fill(&outlet) > 0, "{name}");
        let begun = Instant::now();
        let cut = outlet.write(b"lost\n", &Patience::once(Duration::from_millis(20))).unwrap_err();
        assert_eq!((cut.error, cut.written), (Errno::AGAIN, 0), "{name}");
        assert!(begun.elapsed() >= Duration::from_millis(20), "{name}: patience is kept");
        reader.read_exact(&mut [0; 65536]).unwrap();
        outlet.write(b"written\n", &Patience::none()).unwrap();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_write_that_finds_no_room_where_poll_sees_some_is_given_up() {
    use rustix::event::{EventfdFlags, eventfd};
    // It has room for small writes, but not for this one.
    let outlet = Outlet::of_file(eventfd(1, EventfdFlags::NONBLOCK).unwrap());
    assert!(outlet.has_room(Duration::ZERO));
    let cut =
        outlet.write(&(u64::MAX - 1).to_ne_bytes(), &Patience::once(Duration::from_secs(60))).unwrap_err();
    assert_eq!((cut.error, cut.written), (Errno::AGAIN, 0));
}

#[test]
fn the_flags_of_a_shared_stream_stay_as_they_are() {
    for (name, outlet, _reader) in outlets() {
        let Held::Shared(shared) = outlet.held else { continue };
        let flags = rustix::fs::fcntl_getfl(shared).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "{name}");
    }
    let (_ours, theirs) = rustix::pipe::pipe().unwrap();
    let theirs = stream(theirs);
    let outlet = Outlet::of_stream(theirs);
    fill(&outlet);
    assert!(!rustix::fs::fcntl_getfl(theirs).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
}

#[test]
fn lines_that_a_pipe_has_no_room_for_are_left_out_whole() {
    for (name, outlet, mut reader) in outlets() {
        if outlet.way == Way::Socket {
            continue;
        }
        let lines = "a line of the log\n".repeat(10_000);
        let cut = outlet.write_lines(lines.as_bytes(), &Patience::none()).unwrap_err();
        assert!(cut.written > 0 && lines.as_bytes()[cut.written - 1] == b'\n', "{name}: {cut:?}");
        let mut received = vec![0; cut.written];
        reader.read_exact(&mut received).unwrap();
        assert!(lines.as_bytes().starts_with(&received), "{name}");
    }
}

#[test]
fn a_line_that_is_longer_than_a_pipe_takes_whole_is_cut() {
    assert_eq!(whole_lines(b"one\ntwo\nthr"), 8);
    assert_eq!(whole_lines(b"one"), 3);
    let long = vec![b'x'; 2 * rustix::pipe::PIPE_BUF];
    assert_eq!(whole_lines(&long), rustix::pipe::PIPE_BUF);
}

#[test]
fn a_replacing_file_is_written_by_its_own_kind() {
    let (_reader, writing) = rustix::pipe::pipe().unwrap();
    let mut outlet = Outlet::of_stream(stream(writing));
    let number = outlet.number();
    fill(&outlet);
    let (mut one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    outlet.replace(other).unwrap();
    // Elsewhere the stream was shared, and is not replaced.
    if cfg!(all(target_os = "linux", not(mcsup_force_fallback))) {
        assert_eq!(outlet.number(), number);
    }
    outlet.write(b"here", &Patience::none()).unwrap();
    one.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn a_slow_reader_is_waited_for_within_one_budget_for_all_writes() {
    for (name, outlet, mut reader) in outlets() {
        fill(&outlet);
        let patience = Patience::new(Duration::from_millis(50), Duration::from_secs(3600));
        let (mut lost, mut waited) = (0, 0);
        for _ in 0..20 {
            let slow = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                reader.read_exact(&mut [0; 16384]).unwrap();
                reader
            });
            // Refills it, so that the next round waits as well.
            match outlet.write(&[b'x'; 8192], &patience) {
                Ok(()) => waited += 1,
                Err(_) => lost += 1,
            }
            reader = slow.join().unwrap();
            fill(&outlet);
        }
        assert!(lost > 10, "{name}: {waited} waited, {lost} did not");
        assert_eq!(patience.left(), Duration::ZERO, "{name}");
    }
}
