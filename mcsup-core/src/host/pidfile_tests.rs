use super::*;

#[test]
fn a_held_pid_file_names_its_holder_and_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pid");
    assert_eq!(PidFile::running(&path).unwrap(), Running::No);
    let held = PidFile::hold(&path).unwrap();
    let ours = std::process::id();
    assert_eq!(PidFile::running(&path).unwrap(), Running::Pid(ours.try_into().unwrap()));
    let refused = PidFile::hold(&path).unwrap_err().to_string();
    assert!(refused.contains(&format!("pid {ours} ")), "{refused}");
    drop(held);
    assert!(!path.exists());
}

#[test]
fn a_stale_file_keeps_no_server_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pid");
    std::fs::write(&path, "1\n").unwrap();
    assert_eq!(PidFile::running(&path).unwrap(), Running::No);
    let _held = PidFile::hold(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
}

#[test]
fn a_missing_directory_is_named() {
    let error = PidFile::hold(Path::new("/no/such/dir/a.pid")).unwrap_err().to_string();
    assert!(error.contains("/no/such/dir/a.pid (there is no directory /no/such/dir)"), "{error}");
}

#[test]
fn a_stale_file_is_removed_by_one_start_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pid");
    let stale = own_file::rewrite(&path, 0o600, None).unwrap().0;
    let turn = Turn::wait_for(&path).unwrap();
    assert!(remove_stale(&stale, &path).is_err());
    assert!(path.exists());
    // The other one replaces the file in its turn.
    std::fs::remove_file(&path).unwrap();
    let new = own_file::rewrite(&path, 0o600, None).unwrap().0;
    drop(turn);
    remove_stale(&stale, &path).unwrap();
    assert!(is_still(&new, &path));
    remove_stale(&new, &path).unwrap();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_stale_file_that_another_start_has_locked_meanwhile_is_not_removed() {
    use crate::sys::fork::{self, OtherThreads, Side};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pid");
    let stale = own_file::rewrite(&path, 0o600, None).unwrap().0;
    let (mut locked, say) = std::os::unix::net::UnixStream::pair().unwrap();
    let (done, end) = std::os::unix::net::UnixStream::pair().unwrap();
    match fork::fork_beside(OtherThreads::LeaveBehind).unwrap() {
        Side::Child => {
            drop((locked, end));
            let _ = record_lock::take(&stale).map(|_| (&say).write_all(b"."));
            let _ = (&done).read(&mut [0]);
            fork::exit_now(0);
        }
        Side::Parent(child) => {
            drop((say, done));
            locked.read_exact(&mut [0]).unwrap();
            remove_stale(&stale, &path).unwrap();
            assert!(is_still(&stale, &path));
            drop(end);
            rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap();
        }
    }
}
