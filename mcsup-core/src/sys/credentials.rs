//! Users and groups by name, the peer of a socket, and dropping privileges: groups, then group, then user,
//! then a proof that root cannot be regained.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr;

/// The user and groups of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// The user id and primary group of a user name or number; a number without an entry has no primary group.
pub(crate) fn find_user(name: &str) -> io::Result<Option<(u32, Option<u32>)>> {
    let by_name = entry(name, libc::getpwnam_r)?.map(|user: libc::passwd| (user.pw_uid, Some(user.pw_gid)));
    if by_name.is_some() {
        return Ok(by_name);
    }
    let Ok(uid) = name.parse::<u32>() else { return Ok(None) };
    Ok(Some((uid, user_of(uid)?.map(|(_, gid)| gid))))
}

/// The group id of a group name or number.
pub(crate) fn find_group(name: &str) -> io::Result<Option<u32>> {
    let by_name = entry(name, libc::getgrnam_r)?.map(|group: libc::group| group.gr_gid);
    Ok(by_name.or_else(|| name.parse().ok()))
}

/// The name and primary group of a user id.
pub(crate) fn user_of(uid: u32) -> io::Result<Option<(String, u32)>> {
    look_up(
        |record, buffer, size, found| {
            // SAFETY: `look_up` hands over valid pointers and the buffer's true size.
            unsafe { libc::getpwuid_r(uid, record, buffer, size, found) }
        },
        |user: &libc::passwd| {
            // SAFETY: a found record's name is a C string inside the buffer, which still lives here.
            (unsafe { CStr::from_ptr(user.pw_name) }.to_string_lossy().into_owned(), user.pw_gid)
        },
    )
}

/// The process at the other end of a connected Unix socket: the one that connected, or that called listen(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its effective user at that time.
    pub(crate) uid: u32,
    /// `None`: it is in another PID namespace, or the system does not report it.
    pub(crate) pid: Option<i32>,
}

/// The peer of a connected Unix socket.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    // rustix requires a process id for each peer. A peer in another PID namespace has 0 here, and a user
    // nevertheless.
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    // SAFETY: a `ucred` is three integers, for which any bytes are a value.
    unsafe { read_option(socket, (libc::SOL_SOCKET, libc::SO_PEERCRED), &mut peer) }?;
    Ok(Peer { uid: peer.uid, pid: Some(peer.pid).filter(|pid| *pid > 0) })
}

/// The peer of a connected Unix socket.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    use std::os::fd::AsRawFd;
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: the descriptor is open, and both results have room for an id.
    check(unsafe { libc::getpeereid(socket.as_raw_fd(), &mut uid, &mut gid) })?;
    Ok(Peer { uid, pid: peer_pid(socket) })
}

#[cfg(target_vendor = "apple")]
fn peer_pid(socket: BorrowedFd<'_>) -> Option<i32> {
    let mut pid: libc::pid_t = 0;
    // SAFETY: any bytes are an integer.
    unsafe { read_option(socket, (libc::SOL_LOCAL, libc::LOCAL_PEERPID), &mut pid) }.ok()?;
    Some(pid).filter(|pid| *pid > 0)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn peer_pid(_: BorrowedFd<'_>) -> Option<i32> {
    None
}

/// Reads an option of a socket.
///
/// # Safety
/// Any bytes are a value of `T`.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
unsafe fn read_option<T>(
    socket: BorrowedFd<'_>,
    (level, option): (libc::c_int, libc::c_int),
    value: &mut T,
) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut size = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the descriptor is open, and `value` has room for `size` bytes, which are all that is written;
    // by this function's contract it is a value afterwards.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, std::ptr::from_mut(value).cast(), &mut size)
    })
}

/// The groups of `user`, including `gid`.
pub(crate) fn groups_of(user: &str, gid: u32) -> io::Result<Vec<u32>> {
    let user = CString::new(user).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut groups: Vec<GroupId> = vec![0; 64];
    loop {
        let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        // SAFETY: `user` is a C string, `groups` has room for `count` ids, and the call writes no more than
        // that.
        let fits =
            unsafe { libc::getgrouplist(user.as_ptr(), gid as GroupId, groups.as_mut_ptr(), &mut count) };
        let needed = usize::try_from(count).unwrap_or(0);
        if fits >= 0 {
            groups.truncate(needed);
            return Ok(groups.into_iter().map(group_number).collect());
        }
        groups.resize(needed.max(groups.len() * 2), 0);
    }
}

/// Drops all privileges: supplementary groups, group, user. Each step needs the privilege that the next one
/// drops.
///
/// # Errors
/// A step failed, or root's privileges could be regained.
pub(crate) fn drop_to(to: &Credentials) -> io::Result<()> {
    match drop_all(to)? {
        true => Ok(()),
        false => Err(io::Error::other("root's privileges could be taken back")),
    }
}

/// The same without an allocation, also of an error: EPERM if root's privileges could be regained.
pub(crate) fn drop_in_child(to: &Credentials) -> io::Result<()> {
    match drop_all(to)? {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EPERM)),
    }
}

/// `false`: root's privileges could be regained.
fn drop_all(to: &Credentials) -> io::Result<bool> {
    let count = to.groups.len();
    // SAFETY: `groups` points at `count` ids.
    check(unsafe { libc::setgroups(count as _, to.groups.as_ptr().cast()) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::setgid(to.gid) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::setuid(to.uid) })?;
    // SAFETY: plain integers; meant to fail.
    Ok(to.uid == 0 || unsafe { libc::setuid(0) } != 0)
}

#[cfg(target_vendor = "apple")]
type GroupId = libc::c_int;
#[cfg(not(target_vendor = "apple"))]
type GroupId = libc::gid_t;

#[cfg(target_vendor = "apple")]
fn group_number(group: GroupId) -> u32 {
    group as u32
}
#[cfg(not(target_vendor = "apple"))]
fn group_number(group: GroupId) -> u32 {
    group
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

type ByName<T> = unsafe extern "C" fn(
    *const libc::c_char,
    *mut T,
    *mut libc::c_char,
    libc::size_t,
    *mut *mut T,
) -> libc::c_int;

fn entry<T: Copy>(name: &str, call: ByName<T>) -> io::Result<Option<T>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    look_up(
        |record, buffer, size, found| {
            // SAFETY: `name` is a C string; `look_up` hands over valid pointers and the buffer's true size.
            unsafe { call(name.as_ptr(), record, buffer, size, found) }
        },
        |record: &T| *record,
    )
}

/// Calls a function of the `get..._r` family with a growing buffer. `read` extracts the result while the
/// buffer lives.
///
/// # Errors
/// The look-up failed, and the entry may exist: no descriptor or memory is left, or a service does not
/// respond.
fn look_up<T, V>(
    call: impl Fn(*mut T, *mut libc::c_char, libc::size_t, *mut *mut T) -> libc::c_int,
    read: impl FnOnce(&T) -> V,
) -> io::Result<Option<V>> {
    let mut buffer: Vec<libc::c_char> = vec![0; 1024];
    loop {
        let mut record = MaybeUninit::<T>::uninit();
        let mut found: *mut T = ptr::null_mut();
        match call(record.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found) {
            libc::ERANGE => buffer.resize(buffer.len() * 2, 0),
            libc::EINTR => {}
            // SAFETY: a non-null `found` points at `record`, which the call filled in.
            0 if !found.is_null() => return Ok(Some(read(unsafe { &*found }))),
            // The variants of "not found" in getpwnam(3), by C library and service.
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_number() {
        assert_eq!(find_user("root").unwrap(), Some((0, Some(0))));
        assert_eq!(find_user("0").unwrap(), Some((0, Some(0))));
        assert_eq!(user_of(0).unwrap().unwrap().0, "root");
        assert!(groups_of("root", 0).unwrap().contains(&0));
    }

    #[test]
    fn the_peer_of_a_socket_pair_is_us() {
        use std::os::fd::AsFd;
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let ours =
            Peer { uid: rustix::process::geteuid().as_raw(), pid: i32::try_from(std::process::id()).ok() };
        assert_eq!(peer(one.as_fd()).unwrap(), ours);
    }

    #[test]
    fn a_user_that_does_not_exist_is_not_found() {
        assert_eq!(find_user("no-such-user-here").unwrap(), None);
        assert_eq!(find_group("no-such-group-here").unwrap(), None);
    }

    /// Looks up an entry by a call that returns each of `answers` in turn; 0 finds it.
    fn look_up_with(answers: &[libc::c_int]) -> io::Result<Option<u32>> {
        let left = std::cell::RefCell::new(answers.iter());
        look_up(
            |record: *mut u32, _, _, found| {
                let answer = *left.borrow_mut().next().unwrap();
                if answer == 0 {
                    // SAFETY: `look_up` hands over valid pointers.
                    unsafe { (*record, *found) = (7, record) };
                }
                answer
            },
            |record| *record,
        )
    }

    #[test]
    fn a_failed_look_up_is_not_taken_for_an_entry_that_does_not_exist() {
        for error in [libc::EIO, libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            let failed = look_up_with(&[error]).unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(error));
        }
        for absent in [libc::ENOENT, libc::ESRCH, libc::EBADF, libc::EPERM] {
            assert_eq!(look_up_with(&[absent]).unwrap(), None);
        }
    }

    #[test]
    fn an_interrupted_look_up_is_tried_again() {
        assert_eq!(look_up_with(&[libc::EINTR, libc::ERANGE, libc::EINTR, 0]).unwrap(), Some(7));
    }
}
