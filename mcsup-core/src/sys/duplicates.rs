//! Duplicates of listeners that a worker's code owns, and their release with the originals.
//!
//! A runtime such as tokio owns its listeners, and closes them when it likes. So a duplicate is known here by
//! its number and by the identity of its socket, and a number that has become another file is left alone.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};

use super::descriptor::{self, Identity};
use super::registrations;
use super::silence::Silence;
use super::unshared::{between_forks, release_number};

/// The duplicates of this process. Changed [between forks](between_forks) only, so a forked process finds it
/// unlocked.
static DUPLICATES: Mutex<Vec<(RawFd, Identity)>> = Mutex::new(Vec::new());

fn duplicates() -> MutexGuard<'static, Vec<(RawFd, Identity)>> {
    DUPLICATES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a number still is the duplicate that it was.
fn is_unchanged((fd, identity): &(RawFd, Identity)) -> bool {
    descriptor::identity(*fd).is_ok_and(|now| now == *identity)
}

/// The lowest number of duplicates, where the limit allows.
///
/// The kernel gives the lowest free number to a new file. In a process with fewer files, a number from here on is
/// not given to another file between a look at it and its replacement. In a process with more, another thread
/// can open a file in these microseconds, and it is replaced. select(2) ends at 1024; numbers below that would be
/// reached by common workers.
const APART: u64 = 2048;

/// Duplicates a listener for code that owns it. Close-on-exec, and not shared with processes that a worker's
/// code forks.
///
/// # Errors
/// No descriptor is left.
pub(crate) fn make(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let apart = i32::try_from(APART.min(limit / 2)).unwrap_or(0);
    between_forks(|| {
        let duplicate = rustix::io::fcntl_dupfd_cloexec(listener, apart)
            .or_else(|_| rustix::io::fcntl_dupfd_cloexec(listener, 3))?;
        let known = (duplicate.as_raw_fd(), descriptor::identity(duplicate.as_raw_fd())?);
        let mut all = duplicates();
        all.retain(is_unchanged);
        all.push(known);
        Ok(duplicate)
    })
}

/// Lets `listeners` and all their duplicates refer to silent sockets, so that this process no longer holds
/// their addresses. No poller of this process reports them any more.
///
/// Returns `false` if some refer to /dev/null instead, as no descriptor was left.
pub(crate) fn release(listeners: &[BorrowedFd<'_>]) -> bool {
    let identities: Vec<_> =
        listeners.iter().filter_map(|fd| descriptor::identity(fd.as_raw_fd()).ok()).collect();
    let mut all = duplicates();
    all.retain(is_unchanged);
    let is_of_these = |(_, identity): &(RawFd, Identity)| identities.contains(identity);
    let (theirs, others): (Vec<_>, Vec<_>) = all.drain(..).partition(is_of_these);
    *all = others;
    // SAFETY: each number was open a moment ago. If its owner has closed it meanwhile, the calls below are
    // refused or find the number free. In a process with very many files (`APART`) they may find another one,
    // which they replace at worst.
    let owned_elsewhere =
        theirs.iter().map(|(fd, _)| unsafe { BorrowedFd::borrow_raw(*fd) }).collect::<Vec<_>>();
    registrations::forget(&[listeners, &owned_elsewhere].concat());
    let mut silence = Silence::default();
    listeners.iter().for_each(|fd| silence.fall_on(*fd));
    for (known, fd) in theirs.iter().zip(owned_elsewhere) {
        if is_unchanged(known) {
            silence.fall_on(fd);
        }
    }
    !silence.is_broken
}

/// Releases the duplicates in a forked child with one thread.
pub(super) fn release_in_child(null: RawFd) {
    let Ok(all) = DUPLICATES.try_lock() else { return };
    for known in all.iter().filter(|known| is_unchanged(known)) {
        release_number(known.0, null);
    }
}

/// Forgets the duplicates of the parent, in a new worker or mold.
pub(super) fn forget_all() {
    if let Ok(mut all) = DUPLICATES.try_lock() {
        all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    fn kind_of(result: io::Result<impl Sized>) -> io::ErrorKind {
        result.err().map_or(io::ErrorKind::Other, |error| error.kind())
    }

    /// A listener with a queued client, and the same socket in another process.
    fn listening() -> (TcpListener, TcpListener, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let elsewhere = listener.try_clone().unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener, elsewhere, client)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_poller_is_silent_when_its_listeners_are_released_although_clients_wait_at_the_socket() {
        use rustix::event::epoll;
        let (listener, elsewhere, _client) = listening();
        let duplicate = TcpListener::from(make(listener.as_fd()).unwrap());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_nonblocking(true).unwrap();
        let udp_elsewhere = udp.try_clone().unwrap();
        udp_elsewhere.send_to(b"one", udp.local_addr().unwrap()).unwrap();
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        for fd in [listener.as_fd(), duplicate.as_fd(), udp.as_fd()] {
            epoll::add(&poller, fd, epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
        }
        let ready = || {
            let mut events =
                [epoll::Event { flags: epoll::EventFlags::IN, data: epoll::EventData::new_u64(0) }; 8];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&poller, &mut events, Some(&now)).unwrap()
        };
        assert_eq!(ready(), 3);
        assert!(release(&[listener.as_fd(), udp.as_fd()]));
        assert_eq!(ready(), 0);
        assert_eq!(kind_of(listener.accept()), io::ErrorKind::WouldBlock);
        assert_eq!(kind_of(duplicate.accept()), io::ErrorKind::WouldBlock);
        assert_eq!(kind_of(udp.recv_from(&mut [0; 8])), io::ErrorKind::WouldBlock);
        // The processes that still have the sockets lose nothing.
        elsewhere.accept().unwrap();
        assert_eq!(udp_elsewhere.recv_from(&mut [0; 8]).unwrap().0, 3);
    }

    #[test]
    fn an_address_is_free_when_the_original_and_its_duplicates_are_released() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let duplicates = [(); 3].map(|()| TcpListener::from(make(listener.as_fd()).unwrap()));
        assert!(TcpListener::bind(address).is_err());
        release(&[listener.as_fd()]);
        TcpListener::bind(address).unwrap();
        drop(duplicates);
    }

    #[test]
    fn a_number_that_has_become_another_file_is_left_alone() {
        let (listener, elsewhere, _client) = listening();
        let number = make(listener.as_fd()).unwrap().as_raw_fd();
        // It is closed, and a file gets its number.
        let file = rustix::io::fcntl_dupfd_cloexec(File::open("/dev/zero").unwrap(), number).unwrap();
        assert_eq!(file.as_raw_fd(), number);
        let before = descriptor::identity(number).unwrap();
        release(&[listener.as_fd()]);
        assert_eq!(descriptor::identity(number).unwrap(), before);
        // Nor does a release of one listener concern the duplicates of another.
        let other = TcpListener::from(make(elsewhere.as_fd()).unwrap());
        release(&[UdpSocket::bind("127.0.0.1:0").unwrap().as_fd()]);
        other.accept().unwrap();
    }
}
