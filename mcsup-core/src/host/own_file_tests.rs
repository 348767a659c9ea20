use super::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// A folder with a file that must not change.
struct Bench {
    folder: tempfile::TempDir,
}

const SECRET: &str = "for root's eyes only\n";

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(bench.at("victim"), SECRET).unwrap();
        bench
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn victim_is_untouched(&self) {
        let victim = fs::metadata(self.at("victim")).unwrap();
        assert_eq!(fs::read_to_string(self.at("victim")).unwrap(), SECRET);
        assert_eq!(victim.uid(), rustix::process::geteuid().as_raw());
    }
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        // Not by eprintln, which this crate never uses.
        let _ = std::io::Write::write_all(&mut io::stderr(), b"SKIPPED: this needs root\n");
    }
    is_root
}

#[test]
fn a_link_is_refused_and_named_with_where_it_leads() {
    let bench = Bench::new();
    for target in [bench.at("victim"), bench.at("nowhere")] {
        symlink(&target, bench.at("log")).unwrap();
        for error in [
            append(&bench.at("log"), 0o640).unwrap_err(),
            rewrite(&bench.at("log"), 0o644, None).unwrap_err(),
        ] {
            assert!(is_refusal(&error), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("symbolic link") && text.contains(target.to_str().unwrap()), "{text}");
        }
        fs::remove_file(bench.at("log")).unwrap();
    }
    assert!(!bench.at("nowhere").exists());
    bench.victim_is_untouched();
}

#[test]
fn a_second_name_of_a_file_is_neither_opened_nor_given_by_root() {
    let bench = Bench::new();
    fs::hard_link(bench.at("victim"), bench.at("log")).unwrap();
    if is_root() {
        assert!(is_refusal(&append(&bench.at("log"), 0o640).unwrap_err()));
        assert!(is_refusal(&rewrite(&bench.at("log"), 0o644, None).unwrap_err()));
        let held = fs::OpenOptions::new().append(true).open(bench.at("log")).unwrap();
        assert!(is_refusal(&give(&bench.at("log"), &held, (65534, 65534)).unwrap_err()));
    }
    bench.victim_is_untouched();
}

#[test]
fn the_open_file_changes_owner_although_its_name_was_swapped() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let log = append(&bench.at("log"), 0o640).unwrap();
    fs::rename(bench.at("log"), bench.at("aside")).unwrap();
    symlink(bench.at("victim"), bench.at("log")).unwrap();
    give(&bench.at("log"), &log, (65534, 65534)).unwrap();
    assert_eq!(fs::metadata(bench.at("aside")).unwrap().uid(), 65534);
    bench.victim_is_untouched();
}

#[test]
fn a_third_users_file_is_not_given_away() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let log = append(&bench.at("log"), 0o640).unwrap();
    give(&bench.at("log"), &log, (12345, 12345)).unwrap();
    let error = give(&bench.at("log"), &log, (65534, 65534)).unwrap_err();
    assert!(is_refusal(&error) && error.to_string().contains("12345"), "{error}");
}

#[test]
fn root_rewrites_its_own_files_and_the_pools_users_and_no_others() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let path = bench.at("a.pid");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
    for user in [None, Some(65534)] {
        let error = rewrite(&path, 0o600, user).unwrap_err();
        assert!(is_refusal(&error), "{error:?}");
        assert_eq!(error.to_string(), "it is a file of user 12345; remove it, or name another");
    }
    rewrite(&path, 0o600, Some(12345)).unwrap();
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    rewrite(&path, 0o600, None).unwrap();
}

#[test]
fn root_follows_only_its_own_links_on_the_way() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    fs::create_dir(bench.at("real")).unwrap();
    symlink("real", bench.at("logs")).unwrap();
    writeln!(append(&bench.at("logs/log"), 0o640).unwrap(), "by root's link").unwrap();
    assert_eq!(fs::read_to_string(bench.at("real/log")).unwrap(), "by root's link\n");
    symlink(bench.at("real"), bench.at("whole")).unwrap();
    append(&bench.at("whole/../real/log"), 0o640).unwrap();
    std::os::unix::fs::lchown(bench.at("logs"), Some(65534), Some(65534)).unwrap();
    let error = append(&bench.at("logs/other"), 0o640).unwrap_err();
    assert!(is_refusal(&error) && error.to_string().contains("logs on the way to"), "{error}");
    assert!(!bench.at("real/other").exists());
}

#[test]
fn a_new_file_has_its_mode_and_an_old_one_keeps_it() {
    let bench = Bench::new();
    drop(append(&bench.at("log"), 0o640).unwrap());
    assert_eq!(fs::metadata(bench.at("log")).unwrap().mode() & 0o137, 0, "not for others");
    fs::set_permissions(bench.at("log"), fs::Permissions::from_mode(0o600)).unwrap();
    drop(append(&bench.at("log"), 0o640).unwrap());
    assert_eq!(fs::metadata(bench.at("log")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(append(&bench.at("no/such/log"), 0o640).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_fifo_is_opened_without_a_reader_and_never_waited_for() {
    let bench = Bench::new();
    let made = std::process::Command::new("mkfifo").arg(bench.at("log")).status().unwrap();
    assert!(made.success());
    let mut fifo = append(&bench.at("log"), 0o640).unwrap();
    let mut written = 0;
    let error = loop {
        match fifo.write(&[b'x'; 4096]) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert!(written > 0 && error.kind() == io::ErrorKind::WouldBlock, "{written} {error}");
    assert!(is_refusal(&rewrite(&bench.at("log"), 0o644, None).unwrap_err()));
}

#[test]
#[cfg(target_os = "linux")]
fn streams_and_devices_are_opened_as_named() {
    use std::os::fd::AsRawFd;
    let bench = Bench::new();
    let held = fs::OpenOptions::new().append(true).open(bench.at("victim")).unwrap();
    for place in ["/dev/fd", "/proc/self/fd"] {
        append(Path::new(&format!("{place}/{}", held.as_raw_fd())), 0o640).unwrap();
    }
    append(Path::new("/dev/null"), 0o640).unwrap();
    for (path, expected) in [
        ("/dev/stdout", true),
        ("/proc/1/fd/2", true),
        ("/dev/shm/log", false),
        ("/dev/fd/../shm", false),
        ("/proc/self/fd/x", false),
        ("/tmp/dev/stdout", false),
    ] {
        assert_eq!(is_stream(Path::new(path)), expected, "{path}");
    }
}

#[test]
fn a_folder_is_made_for_a_file_and_one_further_up_is_not() {
    let bench = Bench::new();
    let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
    append(&bench.at("logs/log"), 0o640).unwrap();
    rewrite(&bench.at("run/a.pid"), 0o644, None).unwrap();
    rustix::process::umask(umask);
    for folder in ["logs", "run"] {
        let mode = fs::metadata(bench.at(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{folder}: {mode:o}");
    }
    let error = append(&bench.at("no/such/log"), 0o640).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(!bench.at("no").exists());
}

#[test]
fn no_folder_is_made_where_a_link_leads_or_to_read() {
    let bench = Bench::new();
    symlink(bench.at("elsewhere"), bench.at("run")).unwrap();
    append(&bench.at("run/log"), 0o640).unwrap_err();
    read(&bench.at("absent/a.pid")).unwrap_err();
    assert!(!bench.at("elsewhere").exists() && !bench.at("absent").exists());
}
