//! The units of systemd on this host that run mcsup.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use mcsup_core::Address;

use super::facts;
use crate::args::{self, Invocation};
use crate::commands::service;
use crate::doctor::mistakes::{Pool, Server, Unit};
use crate::doctor::unit;
use crate::settings::{self, ControlSocket, Settings};

/// Reads the given units, or all of this host that run mcsup.
pub(super) fn collect(given: &[String]) -> Vec<Unit> {
    let systemd = service::systemd_version();
    if !given.is_empty() {
        return given.iter().map(|path| read(Path::new(path), systemd)).collect();
    }
    let found = folders().into_iter().flat_map(|folder| services_in(&folder));
    found.map(|path| read(&path, systemd)).filter(|unit| runs_mcsup(&unit.server)).collect()
}

/// Whether a unit is one of mcsup, also with wrong settings.
fn runs_mcsup(server: &Server) -> bool {
    matches!(server, Server::Wrong(_) | Server::Unresolved(_) | Server::Pool(_))
}

/// The folders of the administrator and of this user.
fn folders() -> Vec<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let of_user = config.or(home).map(|config| config.join("systemd/user"));
    ["/etc/systemd/system".into(), "/etc/systemd/user".into()].into_iter().chain(of_user).collect()
}

fn services_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    // An enabled unit of a package is a link to it; a masked one is a link to /dev/null.
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "service") && path.is_file())
        .collect();
    files.sort();
    files
}

fn read(path: &Path, systemd: Option<u32>) -> Unit {
    let name = path.display().to_string();
    let (unit, server) = match text_with_drop_ins(path) {
        Ok(text) => {
            let unit = unit::Unit::parse(&text);
            let server = server(&unit);
            (unit, server)
        }
        Err(error) => (unit::Unit::default(), Server::Unreadable(error.to_string())),
    };
    let is_per_user = path.components().any(|part| part.as_os_str() == "user") || is_for_users(&unit);
    Unit { path: name, unit, is_per_user, systemd, server }
}

/// Whether the installation of a unit is that of a user's manager.
fn is_for_users(unit: &unit::Unit) -> bool {
    unit.installation() == Some("default.target")
}

/// The text of a unit and of its drop-ins, in the order of their names.
fn text_with_drop_ins(path: &Path) -> std::io::Result<String> {
    let mut text = fs::read_to_string(path)?;
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|file| file.extension().is_some_and(|end| end == "conf")).collect();
    files.sort();
    for file in files {
        text.push('\n');
        text += &fs::read_to_string(file)?;
    }
    Ok(text)
}

/// The server that a unit starts.
fn server(unit: &unit::Unit) -> Server {
    let Some(words) = unit.command().and_then(|words| own_words(&words)) else { return Server::Other };
    let words = ["mcsup".into()].into_iter().chain(words.into_iter().map(OsString::from));
    let (run, is_program) = match args::parse(words) {
        Ok(Invocation::Run(run)) => (run, false),
        Ok(Invocation::Exec(exec)) => (exec.given, true),
        // A command for a server, such as a reload by a timer.
        Ok(_) => return Server::Other,
        Err(error) => return Server::Wrong(error.to_string()),
    };
    let directory = unit.get("WorkingDirectory").map(|path| path.trim_start_matches('-')).unwrap_or("/");
    if let Some(file) = run.text("config").filter(|file| is_unresolved(file, directory)) {
        return Server::Unresolved(file.to_owned());
    }
    let read_file = settings::reader(directory.replace("%%", "%").into());
    // Variables of the unit are not read: a file of it may have secrets.
    match Settings::resolve(run, &|_| None, &read_file) {
        Ok(settings) => {
            let pool = pool(&settings);
            // A program has its own path.
            Server::Pool(Pool { has_directory: is_program || pool.has_directory, ..pool })
        }
        Err(error) => Server::Wrong(error.to_string()),
    }
}

/// Whether a settings file depends on a specifier of systemd.unit(5), or on the home directory of the service.
fn is_unresolved(file: &str, directory: &str) -> bool {
    let is_of_home = directory == "~" || directory.replace("%%", "").contains('%');
    file.contains('%') || is_of_home && !file.starts_with('/')
}

/// The words behind the command `mcsup`, or behind `-m mcsup`.
fn own_words(words: &[String]) -> Option<Vec<String>> {
    let is_name = |word: &String| Path::new(word).file_name().is_some_and(|name| name == "mcsup");
    let at = words.iter().position(is_name)?;
    // An interpreter, its options and a script: a shell or another program may do more.
    let is_started = words[..at].iter().all(|word| {
        let name = Path::new(word).file_name().unwrap_or_default().to_string_lossy();
        word.starts_with('-') || name.starts_with("python") || name == "env"
    });
    is_started.then(|| words[at + 1..].to_vec())
}

fn pool(settings: &Settings) -> Pool {
    let process = &settings.process;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let pid_file = process.pid.as_ref().map(|file| path(&file.value));
    let has_control = match &settings.control.socket.value {
        ControlSocket::At(_) => true,
        ControlSocket::Beside => process.pid.is_some(),
        ControlSocket::Off => false,
    };
    let temporary = settings.binds.value.iter().filter_map(|address| match address {
        Address::Unix(place) if facts::is_temporary(place) => Some(path(place)),
        _ => None,
    });
    Pool {
        stop: settings.draining.delay.value.saturating_add(settings.pool.graceful.value),
        boot: settings.pool.boot.value,
        is_daemon: process.daemon.value,
        pid_file,
        has_control,
        changes_user: process.user.is_some(),
        temporary_sockets: temporary.collect(),
        has_directory: process.chdir.is_some() || settings.python_path.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_found_behind_an_interpreter_and_not_behind_a_shell() {
        let own = |line: &str| own_words(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for line in [
            "/v/bin/mcsup -w 2",
            "/v/bin/python3 -m mcsup -w 2",
            "/usr/bin/env mcsup -w 2",
            "python /v/mcsup -w 2",
        ] {
            assert_eq!(own(line), Some(vec!["-w".to_owned(), "2".to_owned()]), "{line}");
        }
        for line in ["/bin/sh -c mcsup", "/bin/gunicorn app:app", "/v/bin/mcsup-helper"] {
            assert_eq!(own(line), None, "{line}");
        }
    }

    #[test]
    fn a_settings_file_that_systemd_alone_knows_is_not_called_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("100%.toml");
        fs::write(&file, "workers = 2\n").unwrap();
        let server = |directory: &str, file: &str| {
            let lines = format!("WorkingDirectory={directory}\nExecStart=/bin/mcsup -c {file} a:b\n");
            server(&unit::Unit::parse(&format!("[Service]\n{lines}")))
        };
        for (directory, file) in [("%h/x", "a.toml"), ("~", "a.toml"), ("/srv", "%h/a.toml")] {
            assert_eq!(server(directory, file), Server::Unresolved(file.to_owned()));
        }
        fs::write(folder.path().join("a.toml"), "workers = 2\n").unwrap();
        let place = folder.path().display().to_string();
        for (directory, file) in [("%h/x", format!("{place}/a.toml")), (place.as_str(), "a.toml".to_owned())]
        {
            assert!(matches!(server(directory, &file), Server::Pool(_)), "{directory}");
        }
        assert!(matches!(server("/srv", "absent.toml"), Server::Wrong(_)));
    }

    #[test]
    fn a_unit_that_sends_a_command_starts_no_server() {
        let unit = unit::Unit::parse("[Service]\nType=oneshot\nExecStart=/bin/mcsup reload -p /run/a.pid\n");
        assert_eq!(server(&unit), Server::Other);
    }

    #[test]
    fn drop_ins_are_read_behind_the_unit_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.service");
        fs::write(&path, "[Service]\nType=simple\nExecStart=/bin/mcsup -w 0 a:b\n").unwrap();
        assert!(matches!(read(&path, None).server, Server::Wrong(reason) if reason.contains("workers")));
        fs::create_dir(folder.path().join("a.service.d")).unwrap();
        let drop_in = "[Service]\nType=notify\nExecStart=\nExecStart=/bin/mcsup --graceful-timeout 5 a:b\n";
        fs::write(folder.path().join("a.service.d/10.conf"), drop_in).unwrap();
        fs::write(folder.path().join("a.service.d/ignored"), "[Service]\nType=exec\n").unwrap();
        let unit = read(&path, None);
        assert_eq!(unit.unit.get("Type"), Some("notify"));
        assert!(matches!(unit.server, Server::Pool(Pool { stop, .. }) if stop.as_secs() == 5));
        let absent = read(&folder.path().join("absent.service"), None);
        assert!(matches!(absent.server, Server::Unreadable(_)));
    }
}
