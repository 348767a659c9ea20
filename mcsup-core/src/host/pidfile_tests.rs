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
    assert!(error.contains("/no/such/dir/a.pid"), "{error}");
}
