//! The users that can connect to a Unix socket, for the log of a start.
//!
//! connect(2) needs write permission for the socket file and search permission for each directory above it (unix(7)).
//! gunicorn makes the file with mode 0777; here it has 0660, and a proxy that runs as another user gets EACCES.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mcsup_core::Local;
use mcsup_core::host::processes;

/// The users of proxies, as the packages of distributions name them.
const PROXIES: [&str; 6] = ["www-data", "nginx", "http", "caddy", "haproxy", "apache"];

/// The permission bits that connect(2) needs of a socket, and of a directory above it.
const WRITE: u32 = 0o2;
const SEARCH: u32 = 0o1;

/// Mode and owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Access {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// A user of this host, with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    groups: Vec<u32>,
}

/// A socket, and the directories above it with the root first.
struct Place {
    socket: Access,
    above: Vec<(PathBuf, Access)>,
}

impl Access {
    fn of(file: &fs::Metadata) -> Self {
        Self { mode: file.mode() & 0o7777, uid: file.uid(), gid: file.gid() }
    }

    /// Whether a user has a permission, by the first class that it is in (path_resolution(7)).
    fn grants(self, bit: u32, user: &User) -> bool {
        let class = if user.uid == self.uid {
            self.mode >> 6
        } else if user.groups.contains(&self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        user.uid == 0 || class & bit != 0
    }
}

/// One line on the mode and owner of a socket's file; `None`: the socket has no file.
pub(super) fn describe(local: &Local) -> Option<String> {
    let (Local::Unix(path) | Local::UnixDatagram(path) | Local::UnixSeqpacket(path)) = local else {
        return None;
    };
    let place = Place::of(path)?;
    let group = group_names().into_iter().find(|(_, gid, _)| *gid == place.socket.gid);
    let group = group.map_or_else(|| place.socket.gid.to_string(), |(name, ..)| name);
    let owner = (processes::user_of(place.socket.uid), group);
    Some(format!("{local} {}", line(&place, &owner, &proxies())))
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let path = std::path::absolute(path).ok()?;
        let socket = fs::symlink_metadata(&path).ok().filter(|file| file.file_type().is_socket())?;
        let above = path.ancestors().skip(1);
        let above = above.filter_map(|folder| Some((folder.into(), Access::of(&fs::metadata(folder).ok()?))));
        let mut above: Vec<(PathBuf, Access)> = above.collect();
        above.reverse();
        Some(Self { socket: Access::of(&socket), above })
    }
}

/// The line behind the address.
fn line(place: &Place, (user, group): &(String, String), proxies: &[User]) -> String {
    let mode = place.socket.mode;
    let users = match (mode & 0o020 != 0, mode & 0o002 != 0) {
        (_, true) => "each user",
        (true, false) => "root, this user and this group alone",
        (false, false) => "root and this user alone",
    };
    let mut line = format!("has mode {mode:04o}, user {user}, group {group}: {users} can connect");
    let mut may_be_given = false;
    for proxy in proxies {
        let shut = place.above.iter().find(|(_, folder)| !folder.grants(SEARCH, proxy));
        if let Some((folder, _)) = shut {
            line += &format!("; the user {} cannot: it may not enter {}", proxy.name, folder.display());
        } else if !place.socket.grants(WRITE, proxy) {
            line += &format!("; the user {} cannot", proxy.name);
            may_be_given = true;
        }
    }
    if may_be_given {
        line += " (--socket-mode, --socket-owner)";
    }
    line
}

/// The users of proxies that this host has.
fn proxies() -> Vec<User> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let groups = group_names();
    users.lines().filter_map(|line| user_in(line, &groups)).collect()
}

/// Parses a line of passwd(5), if it is that of a proxy.
fn user_in(line: &str, groups: &[(String, u32, Vec<String>)]) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, ..] = fields[..] else { return None };
    if !PROXIES.contains(&name) {
        return None;
    }
    let others = groups.iter().filter(|(_, _, members)| members.iter().any(|member| member == name));
    let groups = [gid.parse().ok()?].into_iter().chain(others.map(|(_, gid, _)| *gid)).collect();
    Some(User { name: name.to_owned(), uid: uid.parse().ok()?, groups })
}

/// The local groups: name, number, members.
fn group_names() -> Vec<(String, u32, Vec<String>)> {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    text.lines().filter_map(group_in).collect()
}

/// Parses a line of group(5).
fn group_in(line: &str) -> Option<(String, u32, Vec<String>)> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else { return None };
    let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned);
    Some((name.to_owned(), gid.parse().ok()?, members.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Access = Access { mode: 0o755, uid: 0, gid: 0 };

    fn described(mode: u32, folder: Access, groups: &[u32]) -> String {
        let socket = Access { mode, uid: 1000, gid: 2000 };
        let place = Place { socket, above: vec![("/".into(), OPEN), ("/run/app".into(), folder)] };
        let proxy = User { name: "www-data".to_owned(), uid: 33, groups: groups.to_vec() };
        line(&place, &("app".to_owned(), "web".to_owned()), &[proxy])
    }

    #[test]
    fn a_proxy_that_cannot_connect_is_named() {
        let hint = " (--socket-mode, --socket-owner)";
        let rest = "root, this user and this group alone can connect";
        for (mode, groups, expected) in [
            (
                0o660,
                &[33][..],
                format!("has mode 0660, user app, group web: {rest}; the user www-data cannot{hint}"),
            ),
            (0o660, &[33, 2000], format!("has mode 0660, user app, group web: {rest}")),
            (
                0o600,
                &[33, 2000],
                format!(
                    "has mode 0600, user app, group web: root and this user alone can connect; the user www-data cannot{hint}"
                ),
            ),
            (0o777, &[33], "has mode 0777, user app, group web: each user can connect".to_owned()),
        ] {
            assert_eq!(described(mode, OPEN, groups), expected);
        }
    }

    #[test]
    fn a_directory_that_a_proxy_may_not_enter_is_named() {
        let shut = Access { mode: 0o750, uid: 1000, gid: 1000 };
        let text = described(0o666, shut, &[33]);
        assert!(text.ends_with("; the user www-data cannot: it may not enter /run/app"), "{text}");
        assert!(described(0o666, shut, &[33, 1000]).ends_with("each user can connect"));
    }

    #[test]
    fn the_first_class_of_a_user_decides() {
        let user = |uid| User { name: String::new(), uid, groups: vec![7] };
        let file = Access { mode: 0o062, uid: 5, gid: 7 };
        assert!(!file.grants(WRITE, &user(5)));
        assert!(file.grants(WRITE, &user(6)));
        assert!(file.grants(WRITE, &user(0)));
        assert!(!Access { mode: 0o602, ..file }.grants(WRITE, &user(6)));
    }

    #[test]
    fn users_and_groups_are_read_from_their_lines() {
        let group = group_in("web:x:2000:app,www-data").unwrap();
        assert_eq!(group, ("web".to_owned(), 2000, vec!["app".to_owned(), "www-data".to_owned()]));
        assert_eq!(group_in("broken:x"), None);
        let groups = [group];
        let user = user_in("www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin", &groups).unwrap();
        assert_eq!((user.uid, user.groups), (33, vec![33, 2000]));
        assert_eq!(user_in("app:x:1:1::/:/bin/sh", &groups), None);
    }

    #[test]
    fn a_socket_without_a_file_has_no_line() {
        assert_eq!(describe(&Local::Unix("\0name".into())), None);
        assert_eq!(describe(&Local::Tcp("127.0.0.1:80".parse().unwrap())), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(describe(&Local::Unix(path)).unwrap().contains(".sock has mode 0"));
    }
}
