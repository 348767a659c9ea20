//! The variables of a service manager: taken from the environment once, and passed to the next image.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::{PassedSocket, STORED, ServiceManager};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::exec;

/// The descriptor of the first socket (SD_LISTEN_FDS_START, sd_listen_fds(3)).
const FIRST: i32 = 3;

/// The most sockets that a service manager passes: more is a mistake in the variable.
const MOST: i32 = 4096;

/// The name of a socket without one, as in sd_listen_fds_with_names(3).
const UNNAMED: &str = "unknown";

/// Variables with the pid of the process that the others are for.
const PIDS: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];

/// The sockets for the next image as `FD:NAME,FD:NAME`, where systemd's variables cannot describe them: the numbers of
/// launchd's sockets are any ones.
const SOCKETS: &str = "MCSUP_PASSED_SOCKETS";

impl ServiceManager {
    /// The variables that [`from_environment`](Self::from_environment) takes.
    pub const VARIABLES: [&'static str; 9] = [
        "LISTEN_PID",
        "LISTEN_PIDFDID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "FDSTORE",
        SOCKETS,
    ];

    /// Reads the variables and removes them from the environment, so that no child takes them for its own.
    ///
    /// Call it on the process's only thread: with others, which may read the environment, the variables stay. Sockets
    /// and watchdog of another pid (`LISTEN_PID`, `WATCHDOG_PID`) are not this process's, and are skipped. An upgrade
    /// passes the variables to the next image.
    ///
    /// # Errors
    /// A number is invalid.
    pub fn from_environment() -> Result<Self> {
        let taken: Vec<(&str, OsString)> = Self::VARIABLES
            .into_iter()
            .filter_map(|name| exec::take_variable(name).map(|value| (name, value)))
            .collect();
        for (name, value) in &taken {
            exec::keep_for_next_image(name, value);
        }
        let look_up = |name: &str| taken.iter().find(|(taken, _)| *taken == name).map(|(_, value)| &**value);
        Self::read(&look_up, std::process::id())
    }

    fn read<'a>(look_up: &dyn Fn(&str) -> Option<&'a OsStr>, pid: u32) -> Result<Self> {
        let text = |name: &str| look_up(name).filter(|value| !value.is_empty());
        let number = |name: &str| text(name).map(|value| number(name, value)).transpose();
        let is_ours = |name: &str| Ok::<_, Error>(number(name)?.map(|given| given == u64::from(pid)));
        let mut manager = Self {
            notify_socket: text("NOTIFY_SOCKET").map(OsStr::to_owned),
            store: usize::try_from(number("FDSTORE")?.unwrap_or(0)).unwrap_or(usize::MAX),
            ..Self::default()
        };
        // sd_listen_fds(3) requires the pid, sd_watchdog_enabled(3) does not.
        if is_ours("LISTEN_PID")? == Some(true) {
            let names = text("LISTEN_FDNAMES").map(OsStr::to_string_lossy);
            let sockets = sockets(number("LISTEN_FDS")?.unwrap_or(0), names.as_deref())?;
            (manager.stored, manager.sockets) =
                sockets.into_iter().partition(|socket| socket.name.starts_with(STORED));
        }
        if let Some(described) = text(SOCKETS) {
            manager.sockets = described_sockets(&described.to_string_lossy());
        }
        if is_ours("WATCHDOG_PID")? != Some(false) {
            let time = number("WATCHDOG_USEC")?.filter(|time| *time > 0);
            manager.watchdog = time.map(Duration::from_micros);
        }
        Ok(manager)
    }
}

fn sockets(count: u64, names: Option<&str>) -> Result<Vec<PassedSocket>> {
    let count = i32::try_from(count).ok().filter(|count| *count <= MOST).ok_or_else(|| {
        Error::new(ErrorKind::Setting, format!("LISTEN_FDS = {count}: expected at most {MOST}"))
    })?;
    let mut names = names.into_iter().flat_map(|names| names.split(':'));
    let name = |given: Option<&str>| given.filter(|name| !name.is_empty()).unwrap_or(UNNAMED).to_owned();
    Ok((FIRST..FIRST + count).map(|fd| PassedSocket { fd, name: name(names.next()) }).collect())
}

fn described_sockets(text: &str) -> Vec<PassedSocket> {
    let socket = |part: &str| {
        let (fd, name) = part.split_once(':')?;
        Some(PassedSocket { fd: fd.parse().ok()?, name: name.to_owned() })
    };
    text.split(',').filter_map(socket).collect()
}

/// Passes `sockets` to the next image.
#[cfg(target_vendor = "apple")]
pub(super) fn keep_sockets(sockets: &[PassedSocket]) {
    exec::keep_for_next_image(SOCKETS, OsStr::new(&description(sockets)));
}

#[cfg(any(target_vendor = "apple", test))]
fn description(sockets: &[PassedSocket]) -> String {
    let parts: Vec<String> = sockets.iter().map(|PassedSocket { fd, name }| format!("{fd}:{name}")).collect();
    parts.join(",")
}

fn number(name: &str, value: &OsStr) -> Result<u64> {
    value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::new(
            ErrorKind::Setting,
            format!("{name} = {value:?} (from the service manager): expected a number"),
        )
    })
}

/// The kept variables for the program that process `pid` is about to execute.
pub(crate) fn for_next_image(pid: u32) -> Vec<(OsString, OsString)> {
    let value = |name: &OsStr, kept: OsString| {
        // A daemon has another pid than the process that the service manager has started.
        if PIDS.iter().any(|pid| name == *pid) { pid.to_string().into() } else { kept }
    };
    exec::kept_for_next_image().into_iter().map(|(name, kept)| (name.clone(), value(&name, kept))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<ServiceManager> {
        let look_up = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsStr::new(*value))
        };
        ServiceManager::read(&look_up, 7)
    }

    fn named(variables: &[(&str, &str)]) -> Vec<(i32, String)> {
        read(variables).unwrap().sockets.into_iter().map(|socket| (socket.fd, socket.name)).collect()
    }

    #[test]
    fn sockets_are_counted_from_the_third_descriptor_and_have_names() {
        let ours = ("LISTEN_PID", "7");
        let expect =
            |names: &[&str]| (3..).zip(names.iter().map(|name| (*name).to_owned())).collect::<Vec<_>>();
        assert_eq!(named(&[ours, ("LISTEN_FDS", "1")]), expect(&["unknown"]));
        let names = ("LISTEN_FDNAMES", "web:admin");
        assert_eq!(named(&[ours, ("LISTEN_FDS", "2"), names]), expect(&["web", "admin"]));
        assert_eq!(named(&[ours, ("LISTEN_FDS", "3"), names]), expect(&["web", "admin", "unknown"]));
        assert_eq!(named(&[ours, ("LISTEN_FDS", "0")]), []);
        assert_eq!(named(&[ours]), []);
    }

    #[test]
    fn what_is_for_another_process_is_skipped() {
        let count = ("LISTEN_FDS", "2");
        assert_eq!(named(&[("LISTEN_PID", "8"), count]), []);
        assert_eq!(named(&[count]), []);
        let watchdog = |variables: &[_]| read(variables).unwrap().watchdog();
        let time = ("WATCHDOG_USEC", "3000000");
        assert_eq!(watchdog(&[time, ("WATCHDOG_PID", "8")]), None);
        assert_eq!(watchdog(&[time, ("WATCHDOG_PID", "7")]), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(&[time]), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "0")]), None);
    }

    #[test]
    fn stored_sockets_of_an_earlier_supervisor_are_separate_from_the_others() {
        let manager = read(&[
            ("LISTEN_PID", "7"),
            ("LISTEN_FDS", "2"),
            ("LISTEN_FDNAMES", "mcsup,x:web"),
            ("FDSTORE", "8"),
        ])
        .unwrap();
        assert_eq!((manager.stored()[0].fd, manager.sockets()[0].fd, manager.store()), (3, 4, 8));
    }

    #[test]
    fn the_next_image_gets_sockets_with_any_numbers() {
        let sockets = [(7, "web"), (9, "web"), (8, "admin")]
            .map(|(fd, name)| PassedSocket { fd, name: name.to_owned() });
        let text = description(&sockets);
        assert_eq!(text, "7:web,9:web,8:admin");
        assert_eq!(read(&[(SOCKETS, &text)]).unwrap().sockets(), sockets);
    }

    #[test]
    fn an_invalid_number_is_an_error_that_names_its_variable() {
        for variables in [
            &[("LISTEN_PID", "seven")][..],
            &[("LISTEN_PID", "7"), ("LISTEN_FDS", "-1")],
            &[("LISTEN_PID", "7"), ("LISTEN_FDS", "99999999999")],
            &[("WATCHDOG_USEC", "1s")],
        ] {
            let error = read(variables).unwrap_err().to_string();
            let (name, value) = variables.last().unwrap();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
