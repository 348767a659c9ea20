use super::super::fixture::plan;
use super::*;

const NEW: Manager = Manager { version: Some(257), is_per_user: false };

/// The values of a key.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn a_new_systemd_reloads_by_notification_and_an_old_one_by_the_command_that_waits() {
    let unit = service(&plan(), NEW);
    assert_eq!((values(&unit, "Type"), values(&unit, "ExecReload")), (vec!["notify-reload"], vec![]));
    let unit = service(&plan(), Manager { version: Some(252), ..NEW });
    assert_eq!(values(&unit, "Type"), ["notify"]);
    assert_eq!(values(&unit, "ExecReload"), ["/srv/shop/venv/bin/mcsup reload -s %t/shop/mcsup.ctl"]);
    // A new one reports the size of its store itself.
    assert_eq!(
        (values(&unit, "FileDescriptorStoreMax"), values(&unit, "Environment")),
        (vec!["1"], vec!["FDSTORE=1"])
    );
    let plan = Plan { control: Control::Off, ..plan() };
    let unit = service(&plan, Manager { version: Some(252), ..NEW });
    assert_eq!(values(&unit, "ExecReload"), ["/bin/kill -HUP $MAINPID"]);
}

#[test]
fn the_words_of_the_operator_are_kept_and_the_control_socket_is_in_a_directory_of_the_service() {
    let unit = service(&plan(), NEW);
    let line =
        "/srv/shop/venv/bin/mcsup --control-socket=%t/shop/mcsup.ctl -w 4 -b 0.0.0.0:8080 shop.web:app";
    assert_eq!(values(&unit, "ExecStart"), [line]);
    assert_eq!(values(&unit, "RuntimeDirectory"), ["shop"]);
    assert_eq!(values(&unit, "WorkingDirectory"), ["/srv/shop"]);
    for (control, words) in [(Control::At("run/a.ctl".to_owned()), "-p run/a.pid a:b"), (Control::Off, "a:b")]
    {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let unit = service(&Plan { control, words: words.clone(), ..plan() }, NEW);
        assert_eq!(values(&unit, "ExecStart"), [format!("/srv/shop/venv/bin/mcsup {}", words.join(" "))]);
        assert_eq!(values(&unit, "RuntimeDirectory"), [""; 0]);
    }
}

#[test]
fn an_added_option_stands_behind_the_subcommand() {
    let words = ["run", "a:b"].map(str::to_owned).to_vec();
    let program = ["/usr/bin/python3", "-m", "mcsup"].map(str::to_owned).to_vec();
    let unit = service(&Plan { words, program, ..plan() }, NEW);
    let line = "/usr/bin/python3 -m mcsup run --control-socket=%t/shop/mcsup.ctl a:b";
    assert_eq!(values(&unit, "ExecStart"), [line]);
}

#[test]
fn systemd_waits_for_the_whole_drain_and_the_whole_reload() {
    let unit = service(&plan(), NEW);
    assert_eq!(
        (values(&unit, "TimeoutStopSec"), values(&unit, "TimeoutStartSec")),
        (vec!["40"], vec!["252"])
    );
    assert_eq!(values(&unit, "KillMode"), ["mixed"]);
}

#[test]
fn a_unit_of_the_system_does_not_run_as_root_unless_the_pool_changes_the_user() {
    let text = |name: &str| Some(name.to_owned());
    for (user, own_user, is_per_user, expected) in [
        (None, text("me"), false, vec!["me"]),
        (None, text("me"), true, vec![]),
        (text("www"), None, false, vec![]),
        (None, None, false, vec![]),
    ] {
        let unit = service(&Plan { user, own_user, ..plan() }, Manager { is_per_user, ..NEW });
        assert_eq!(values(&unit, "User"), expected);
        assert_eq!(unit.contains("default.target"), is_per_user);
    }
    let unit = service(&Plan { own_user: None, ..plan() }, NEW);
    assert!(unit.contains("#User="));
}

#[test]
fn a_word_is_quoted_so_that_systemd_reads_it_as_it_was() {
    for (value, expected) in [
        ("--env=A=b", "--env=A=b"),
        ("a b", "\"a b\""),
        ("", "\"\""),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        (";", "\";\""),
        ("say \"no\"", "\"say \\\"no\\\"\""),
        ("a\\b", "\"a\\\\b\""),
        ("a\nb\u{1}", "\"a\\nb\\x01\""),
        ("'", "\"'\""),
        ("Ü", "\"Ü\""),
    ] {
        assert_eq!(word(value, Dollar::Doubled), expected, "{value}");
    }
    let environment = vec![("A".to_owned(), "$x y".to_owned())];
    assert_eq!(values(&service(&Plan { environment, ..plan() }, NEW), "Environment"), ["\"A=$x y\""]);
}

#[test]
fn a_socket_unit_has_each_address_of_the_pool() {
    let binds = vec![
        Bind::Tcp { host: "0.0.0.0".to_owned(), port: 80 },
        Bind::Tcp { host: "::1".to_owned(), port: 81 },
        Bind::Unix("run/a.sock".to_owned()),
        Bind::Unix("/run/b.sock".to_owned()),
        Bind::Unix("@c".to_owned()),
        Bind::Special { key: "ListenDatagram", address: "[::1]:53".to_owned() },
        Bind::Special { key: "ListenSequentialPacket", address: "d.sock".to_owned() },
    ];
    let unit = socket(&Plan { binds, ..plan() }).unwrap();
    let expected = ["0.0.0.0:80", "[::1]:81", "/srv/shop/run/a.sock", "/run/b.sock", "@c"];
    assert_eq!(values(&unit, "ListenStream"), expected);
    assert_eq!(values(&unit, "ListenDatagram"), ["[::1]:53"]);
    assert_eq!(values(&unit, "ListenSequentialPacket"), ["/srv/shop/d.sock"]);
    let unit = socket(&Plan { binds: Vec::new(), ..plan() }).unwrap();
    assert_eq!(values(&unit, "ListenStream"), ["127.0.0.1:8000"]);
    for bind in [Bind::Passed, Bind::Tcp { host: "localhost".to_owned(), port: 1 }] {
        assert!(socket(&Plan { binds: vec![bind], ..plan() }).is_err());
    }
}
