use crate::http::response::Stamp;
use std::io::{IoSliceMut, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

use super::*;
use crate::engine::coalescing::{Held, Watch};
use crate::engine::table::tests::NoHost;
use crate::engine::waker::Waker;

/// Whether an answer from a file has been sent when it ends.
fn is_sent(file: &File, length: u64) -> bool {
    let (ours, client) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let stream = Arc::new(Stream::from(OwnedFd::from(ours)));
    let (held, watch, waker) = (Held::default(), Watch::default(), Waker::new().unwrap());
    let (host, gave_up, race) = (NoHost(client), AtomicBool::new(false), AnswerRace::default());
    race.start();
    let asked = Asked {
        received: &[],
        method: "GET",
        version: Version::Http11,
        keep_alive: true,
        host: &host,
        gave_up: &gave_up,
        stamp: Stamp { server: b"", date: b"" },
        write_timeout: Duration::from_secs(1),
        handles_signals: false,
        race: &race,
        coalesce: false,
        holding: Holding { held: &held, watch: &watch, waker: &waker },
    };
    let mut outgoing = Outgoing::default();
    let mut exchange = Exchange::new(&stream, &mut outgoing, asked, None);
    exchange.send_file(&ResponseHead::of_text(200), file.try_clone().unwrap(), 0, length).unwrap();
    let answered = exchange.finish(Verdict::Complete);
    assert_eq!((answered.then, answered.abort, answered.bytes), (Then::Next, false, length));
    assert_eq!(outgoing.len(), 0);
    outgoing.tail().is_none()
}

#[test]
fn a_short_file_that_is_not_in_memory_is_not_sent_by_a_permit() {
    let length = 40_000;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[b'x'; 40_000]).unwrap();
    assert!(is_sent(&file, length));
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut byte = [0];
    let seen = preadv2(&file, &mut [IoSliceMut::new(&mut byte)], 20_000, ReadWriteFlags::NOWAIT);
    // Not each file system tells, and some files are in memory always.
    if seen == Err(Errno::AGAIN) {
        assert!(!is_sent(&file, length));
        assert_eq!(pread(&file, &mut vec![0; 40_000], 0), Ok(40_000));
        assert!(is_sent(&file, length));
    }
}
