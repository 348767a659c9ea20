use super::super::fixture::plan;
use super::*;

const NEW: Manager = Manager { version: Some(257), is_per_user: false };

/// The values of a key.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn a_new_systemd_reloads_by_notification_and_an_old_one_by_the_command_that_waits() {
    let unit = service(&plan(), NEW).unwrap();
    assert_eq!((values(&unit, "Type"), values(&unit, "ExecReload")), (vec!["notify-reload"], vec![]));
    let unit = service(&plan(), Manager { version: Some(252), ..NEW }).unwrap();
    assert_eq!(values(&unit, "Type"), ["notify"]);
    assert_eq!(values(&unit, "ExecReload"), ["/srv/shop/venv/bin/mcsup reload -s %t/shop/mcsup.ctl"]);
    // A new one reports the size of its store itself.
    assert_eq!(
        (values(&unit, "FileDescriptorStoreMax"), values(&unit, "Environment")),
        (vec!["1"], vec!["FDSTORE=1"])
    );
    let plan = Plan { control: Control::Off, ..plan() };
    let unit = service(&plan, Manager { version: Some(252), ..NEW }).unwrap();
    assert_eq!(values(&unit, "ExecReload"), ["/bin/kill -HUP $MAINPID"]);
}

#[test]
fn the_words_of_the_operator_are_kept_and_the_control_socket_is_in_a_directory_of_the_service() {
    let unit = service(&plan(), NEW).unwrap();
    let line =
        "/srv/shop/venv/bin/mcsup --control-socket=%t/shop/mcsup.ctl -w 4 -b 0.0.0.0:8080 shop.web:app";
    assert_eq!(values(&unit, "ExecStart"), [line]);
    assert_eq!(values(&unit, "RuntimeDirectory"), ["shop"]);
    assert_eq!(values(&unit, "WorkingDirectory"), ["/srv/shop"]);
    for (control, words) in [(Control::At("run/a.ctl".to_owned()), "-p run/a.pid a:b"), (Control::Off, "a:b")]
    {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let unit = service(&Plan { control, words: words.clone(), ..plan() }, NEW).unwrap();
        assert_eq!(values(&unit, "ExecStart"), [format!("/srv/shop/venv/bin/mcsup {}", words.join(" "))]);
        assert_eq!(values(&unit, "RuntimeDirectory"), [""; 0]);
    }
}

#[test]
fn an_added_option_stands_behind_the_subcommand() {
    let words = ["run", "a:b"].map(str::to_owned).to_vec();
    let program = ["/usr/bin/python3", "-m", "mcsup"].map(str::to_owned).to_vec();
    let unit = service(&Plan { words, program, ..plan() }, NEW).unwrap();
    let line = "/usr/bin/python3 -m mcsup run --control-socket=%t/shop/mcsup.ctl a:b";
    assert_eq!(values(&unit, "ExecStart"), [line]);
}

#[test]
fn systemd_waits_for_the_whole_drain_and_the_whole_reload() {
    let unit = service(&plan(), NEW).unwrap();
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
        let unit = service(&Plan { user, own_user, ..plan() }, Manager { is_per_user, ..NEW }).unwrap();
        assert_eq!(values(&unit, "User"), expected);
        assert_eq!(unit.contains("default.target"), is_per_user);
    }
    let unit = service(&Plan { own_user: None, ..plan() }, NEW).unwrap();
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
    assert_eq!(
        values(&service(&Plan { environment, ..plan() }, NEW).unwrap(), "Environment"),
        ["\"A=$x y\""]
    );
}

#[test]
fn a_socket_unit_has_each_address_of_the_pool() {
    let binds = vec![
        Bind::Tcp { host: "0.0.0.0".to_owned(), port: 80 },
        Bind::Tcp { host: "::1".to_owned(), port: 81 },
        Bind::Tcp { host: "fe80::1%eth0".to_owned(), port: 82 },
        Bind::Unix(Kind::Stream, "run/a.sock".to_owned()),
        Bind::Unix(Kind::Stream, "/run/b.sock".to_owned()),
        Bind::Unix(Kind::Stream, "@c".to_owned()),
        Bind::Vsock("vsock:3:1234".to_owned()),
        Bind::Udp { host: "::1".to_owned(), port: 53 },
        Bind::Unix(Kind::Datagram, "run/50%:b.sock".to_owned()),
        Bind::Unix(Kind::Seqpacket, "d.sock".to_owned()),
    ];
    let unit = socket(&Plan { binds, ..plan() }, false).unwrap();
    let expected = [
        "0.0.0.0:80",
        "[::1]:81",
        "[fe80::1]:82%%eth0",
        "/srv/shop/run/a.sock",
        "/run/b.sock",
        "@c",
        "vsock:3:1234",
    ];
    assert_eq!(values(&unit, "ListenStream"), expected);
    assert_eq!(values(&unit, "ListenDatagram"), ["[::1]:53", "/srv/shop/run/50%%:b.sock"]);
    assert_eq!(values(&unit, "ListenSequentialPacket"), ["/srv/shop/d.sock"]);
    let unit = socket(&Plan { binds: Vec::new(), ..plan() }, false).unwrap();
    assert_eq!(values(&unit, "ListenStream"), ["127.0.0.1:8000"]);
    let localhost = || "localhost".to_owned();
    for bind in
        [Bind::Passed, Bind::Tcp { host: localhost(), port: 1 }, Bind::Udp { host: localhost(), port: 1 }]
    {
        assert!(socket(&Plan { binds: vec![bind], ..plan() }, false).is_err());
    }
}

#[test]
fn a_socket_unit_has_the_queue_and_the_families_that_mcsup_would_have() {
    let binds = vec![Bind::Tcp { host: "::".to_owned(), port: 80 }];
    let unit = socket(&Plan { binds, backlog: 100, ..plan() }, false).unwrap();
    assert_eq!(values(&unit, "Backlog"), ["100"]);
    // The setting of the system counts, as for mcsup.
    assert_eq!(values(&unit, "BindIPv6Only"), [""; 0]);
    assert_eq!(values(&unit, "SocketMode"), [""; 0]);
}

#[test]
fn a_unix_socket_of_systemd_has_the_mode_and_the_owner_that_mcsup_would_set() {
    let text = |name: &str| Some(name.to_owned());
    let unix = |path: &str| vec![Bind::Unix(Kind::Stream, path.to_owned())];
    let free = Plan { binds: unix("/run/a.sock"), own_user: None, ..plan() };
    for (plan, mode, user, group) in [
        (free.clone(), "0660", None, None),
        (Plan { socket_mode: 0o700, ..free.clone() }, "0700", None, None),
        (Plan { own_user: text("me"), ..free.clone() }, "0660", Some("me"), None),
        (Plan { user: text("www"), group: text("web"), ..free.clone() }, "0660", Some("www"), Some("web")),
        (Plan { group: text("web"), own_user: text("me"), ..free.clone() }, "0660", None, Some("web")),
    ] {
        let unit = socket(&plan, false).unwrap();
        assert_eq!(values(&unit, "SocketMode"), [mode]);
        assert_eq!(values(&unit, "SocketUser"), user.into_iter().collect::<Vec<_>>());
        assert_eq!(values(&unit, "SocketGroup"), group.into_iter().collect::<Vec<_>>());
    }
    // The manager of a user owns its sockets.
    let unit = socket(&Plan { own_user: text("me"), ..free.clone() }, true).unwrap();
    assert_eq!((values(&unit, "SocketMode"), values(&unit, "SocketUser")), (vec!["0660"], vec![]));
    // An abstract name has no file.
    let unit = socket(&Plan { binds: unix("@a"), ..free }, false).unwrap();
    assert_eq!(values(&unit, "SocketMode"), [""; 0]);
}

#[test]
fn a_path_that_a_unit_cannot_have_is_refused() {
    for directory in ["/srv/a\\", "/srv/a ", "/srv/a\u{1}b", "/srv/a\n"] {
        let plan = Plan { directory: directory.to_owned(), ..plan() };
        assert!(service(&plan, NEW).is_err(), "{directory:?}");
        let binds = vec![Bind::Unix(Kind::Stream, directory.to_owned())];
        assert!(socket(&Plan { binds, ..plan }, false).is_err(), "{directory:?}");
    }
    let plan = Plan { directory: "/srv/a \\b".to_owned(), ..plan() };
    assert_eq!(values(&service(&plan, NEW).unwrap(), "WorkingDirectory"), ["/srv/a \\b"]);
}

#[test]
fn a_dollar_in_the_path_of_mcsup_is_a_character() {
    let program = ["/srv/a$b/bin/mcsup", "$c"].map(str::to_owned).to_vec();
    let unit = service(&Plan { program, ..plan() }, Manager { version: Some(252), ..NEW }).unwrap();
    for key in ["ExecStart", "ExecReload"] {
        assert!(values(&unit, key)[0].starts_with("/srv/a$b/bin/mcsup $$c "), "{unit}");
    }
}

#[test]
fn a_pool_that_changes_its_group_alone_begins_as_root_too() {
    let unit = service(&Plan { group: Some("web".to_owned()), ..plan() }, NEW).unwrap();
    assert_eq!(values(&unit, "User"), [""; 0]);
}
