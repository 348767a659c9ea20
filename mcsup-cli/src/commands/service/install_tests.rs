use super::*;

fn lines(steps: &[Step]) -> Vec<String> {
    steps.iter().map(|step| step.words.join(" ")).collect()
}

#[test]
fn systemd_reads_a_new_unit_before_it_starts_it_and_forgets_one_after_its_end() {
    let file = Path::new("/home/me/.config/systemd/user/shop.service");
    assert_eq!(Host::Systemd.file(Path::new("/home/me"), Path::new("/home/me/.config"), "shop"), file);
    let expected = [
        "systemctl --user daemon-reload",
        "systemctl --user enable shop.service",
        "systemctl --user restart shop.service",
    ];
    assert_eq!(lines(&Host::Systemd.install_steps("shop", file, true)), expected);
    assert_eq!(lines(&Host::Systemd.install_steps("shop", file, false)), expected[..2]);
    let (before, behind) = Host::Systemd.uninstall_steps("shop");
    assert_eq!(lines(&before), ["systemctl --user disable --now shop.service"]);
    assert_eq!(lines(&behind)[0], "systemctl --user daemon-reload");
}

#[test]
fn launchd_ends_an_older_agent_before_it_starts_the_new_one() {
    let host = Host::Launchd { uid: 501 };
    let file = Path::new("/Users/me/Library/LaunchAgents/shop.plist");
    assert_eq!(host.file(Path::new("/Users/me"), Path::new("/unused"), "shop"), file);
    let steps = host.install_steps("shop", file, true);
    let expected = [
        "launchctl enable gui/501/shop",
        "launchctl bootout gui/501/shop",
        "launchctl bootstrap gui/501 /Users/me/Library/LaunchAgents/shop.plist",
    ];
    assert_eq!(lines(&steps), expected);
    assert_eq!(steps.iter().map(|step| step.may_fail).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(lines(&host.uninstall_steps("shop").0), ["launchctl bootout gui/501/shop"]);
}

#[test]
fn a_file_of_another_author_is_not_replaced_and_an_own_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("systemd/user/shop.service");
    replace(&file, &format!("# {MARK} systemd\nfirst\n")).unwrap();
    replace(&file, &format!("# {MARK} systemd\nsecond\n")).unwrap();
    assert!(fs::read_to_string(&file).unwrap().contains("second"));
    fs::write(&file, "[Service]\n").unwrap();
    assert_eq!(replace(&file, "new").unwrap_err().exit, Exit::Refused);
    assert_eq!(fs::read_to_string(&file).unwrap(), "[Service]\n");
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_command_that_fails_is_named_with_its_reason() {
    let failing = Step::new(&["sh", "-c", "echo no bus >&2; exit 1"]);
    assert_eq!(perform(&failing).unwrap_err(), "`sh -c echo no bus >&2; exit 1` failed: no bus");
    assert_eq!(perform(&failing.that_may_fail()), Ok(()));
    let absent = perform(&Step::new(&["/nosuch/systemctl"])).unwrap_err();
    assert!(absent.starts_with("cannot run `/nosuch/systemctl`: "), "{absent}");
}
