//! A plan for tests.

use std::time::Duration;

use super::{Bind, Control, Plan, Times, Tls};

/// A pool with common settings.
pub(super) fn plan() -> Plan {
    let text = |text: &str| text.to_owned();
    Plan {
        name: text("shop"),
        title: text("shop.web:app"),
        program: vec![text("/srv/shop/venv/bin/mcsup")],
        words: ["-w", "4", "-b", "0.0.0.0:8080", "shop.web:app"].map(text).to_vec(),
        directory: text("/srv/shop"),
        environment: Vec::new(),
        ignored_variables: Vec::new(),
        binds: vec![Bind::Tcp { host: text("0.0.0.0"), port: 8080 }],
        backlog: 2048,
        socket_mode: 0o660,
        socket_owner: (None, None),
        files: Vec::new(),
        control: Control::Free,
        is_program: false,
        has_listener: true,
        health_path: None,
        tls: Tls::None,
        has_workers: true,
        sockets: 1,
        times: Times {
            before_boot: Duration::ZERO,
            boot: Duration::from_secs(60),
            reload: Duration::from_secs(242),
            drain_delay: None,
            graceful: Duration::from_secs(30),
            on_exit: Duration::ZERO,
        },
        user: None,
        group: None,
        own_user: Some(text("shop")),
    }
}
