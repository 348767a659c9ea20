//! No option of a command line is lost in its translation.

use super::*;
use crate::table::State;

/// Values of settings without a default, or whose default the other options do not allow.
const VALUES: [(&str, &str); 37] = [
    ("app", "shop.wsgi:app"),
    ("static", "/static=static"),
    ("socket_mode", "0666"),
    ("socket_owner", ":www-data"),
    ("health_path", "/health"),
    ("chdir", "/srv"),
    ("pythonpath", "a,b"),
    ("raw_paste_global_conf", "A=1"),
    ("env_file", "a.env"),
    ("env", "A=b c"),
    ("secure_scheme_headers", "X-Scheme=https"),
    ("trusted_hops", "2"),
    ("trusted_hops_field", "forwarded"),
    ("certfile", "a.pem"),
    ("keyfile", "a.key"),
    ("cert_reqs", "2"),
    ("ca_certs", "ca.pem"),
    ("ciphers", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("tls_min_version", "1.3"),
    ("reload_extra_file", "a.yml"),
    ("request_timeout", "9"),
    ("pid", "a.pid"),
    ("user", "www-data"),
    ("group", "www-data"),
    ("umask", "007"),
    ("name", "shop"),
    ("control_socket", "a.sock"),
    ("access_logfile", "-"),
    ("syslog_prefix", "shop"),
    ("statsd_host", "127.0.0.1:8125"),
    ("statsd_prefix", "shop"),
    ("dogstatsd_tags", "a:b"),
    ("logconfig", "log.ini"),
    ("logconfig_json", "log.json"),
    ("proxy_protocol", "v2"),
    ("max_requests", "9"),
    ("worker_class", "gthread"),
];

/// A file and PasteDeploy stand for other settings; the control socket is open or not.
const APART: [&str; 3] = ["config", "paste", "no_control_socket"];

/// A value that the setting takes.
fn value_of(row: &Row) -> &'static str {
    let found = VALUES.iter().find(|(name, _)| *name == row.name).map(|(_, value)| *value);
    found.or(row.default).unwrap_or_else(|| panic!("{} has no value here", row.name))
}

/// The options of a command line, and the settings that these give.
fn given(rows: &[&'static Row]) -> (Vec<String>, Given) {
    let (mut line, mut given) = (vec!["gunicorn".to_owned()], Given::none(Served::Application));
    for row in rows {
        match row.kind {
            Kind::Flag | Kind::Hook => {
                line.push(format!("--{}", row.flag));
                given.turn_on(row);
            }
            Kind::Value | Kind::List => {
                let value = value_of(row);
                line.push(if row.flag.is_empty() {
                    value.to_owned()
                } else {
                    format!("--{}={value}", row.flag)
                });
                given.give(row, vec![value.to_owned()]);
            }
        }
    }
    (line, given)
}

fn migrated(line: &[String]) -> Migration {
    migration(&CommandLine::read(line, None).unwrap(), None).unwrap()
}

#[test]
fn every_option_that_has_an_effect_is_in_the_printed_command_and_file() {
    let is_tried = |row: &&Row| {
        row.is_on_command_lines()
            && Served::Application.has(row)
            && row.is_supported()
            && !APART.contains(&row.name)
    };
    let mut rows: Vec<_> = table::rows().filter(is_tried).collect();
    // The argument is the last word.
    rows.sort_by_key(|row| row.name == "app");
    let (line, expected) = given(&rows);
    let found = migrated(&line);
    assert!(!found.text.contains("Refused") && !found.text.contains("Without effect"), "{}", found.text);
    let command = shlex::split(found.text.lines().nth(2).unwrap()).unwrap();
    let Ok(Invocation::Run(read)) = args::parse(command.into_iter().map(Into::into)) else {
        panic!("{}", found.text)
    };
    assert_eq!(read, expected);
    for row in rows {
        let key = format!("\n    {} = ", row.name);
        assert!(found.text.contains(&key), "{} is not in the file of\n{}", row.name, found.text);
    }
}

#[test]
fn every_option_that_has_no_effect_or_is_refused_is_named() {
    let is_tried = |row: &&Row| !row.is_supported() && !row.flag.is_empty();
    for row in table::rows().filter(is_tried).filter(|row| !row.harmless.contains(&"true")) {
        let option = if row.kind == Kind::Flag { String::new() } else { "=7".to_owned() };
        let line = ["gunicorn".to_owned(), format!("--{}{option}", row.flag), "app:app".to_owned()];
        let found = migrated(&line);
        let heading = if matches!(row.state, State::Refused(_)) { "Refused" } else { "Without effect" };
        let named = format!("{heading}, and left out above:\n\n- {} ", row.name);
        let named = [named.clone(), named.trim_end().to_owned() + ":"];
        assert!(
            named.iter().any(|named| found.text.contains(named)),
            "{} is not in\n{}",
            row.name,
            found.text
        );
    }
}

#[test]
fn an_option_that_needs_one_of_the_file_is_kept() {
    use mcsup_py::conf::{Report, Source, Value, Variable};
    let text = |name: &str, value: &str| Variable {
        name: name.to_owned(),
        line: Some(3),
        value: Value::Text(value.to_owned()),
    };
    let variables = vec![text("wsgi_app", "app:app"), text("certfile", "a.pem")];
    let conf = Conf {
        source: Source::File("gunicorn.conf.py".into()),
        report: Report { variables, others: Vec::new(), text: None },
    };
    let line = ["gunicorn", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"].map(str::to_owned);
    let found = migration(&CommandLine::read(&line, None).unwrap(), Some(&conf)).unwrap();
    assert!(found.text.contains("mcsup --ciphers ECDHE-RSA-AES128-GCM-SHA256\n"), "{}", found.text);
    assert!(!found.text.contains("Without effect"), "{}", found.text);
}
