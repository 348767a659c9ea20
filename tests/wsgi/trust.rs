//! The environ of a request that came through a proxy.

use crate::app::{Body, Local, Proxied};
use crate::trust::{FieldRules, HeaderMap, Hops, HopsField};

use super::fixture::*;

const GET: &str = "GET /app/x HTTP/1.1\r\nHost: h\r\n";

fn served(code: &str) -> Served {
    Served::new(&wrapped(code))
}

#[track_caller]
fn with_fields(served: Served, fields: &str) {
    checked(served, &format!("{GET}{fields}\r\n"), Body::Empty);
}

#[test]
fn the_scheme_is_that_of_the_proxy() {
    for (fields, scheme) in
        [("", "http"), ("X-Forwarded-Proto: https\r\n", "https"), ("X-Forwarded-Proto: http\r\n", "http")]
    {
        let code = format!(
            "assert environ['wsgi.url_scheme'] == {scheme:?}, environ\n\
             assert ('HTTP_X_FORWARDED_PROTO' in environ) == {}",
            if fields.is_empty() { "False" } else { "True" }
        );
        with_fields(served(&code), fields);
    }
}

#[test]
fn the_scheme_gives_the_port_of_a_host_without_one_on_a_unix_socket() {
    for (fields, port) in [("", "80"), ("X-Forwarded-Proto: https\r\n", "443")] {
        let mut served = served(&format!("assert environ['SERVER_PORT'] == {port:?}, environ"));
        served.local = Local::Unix("/run/s".to_owned());
        with_fields(served, fields);
    }
}

#[test]
fn the_mount_point_of_the_proxy_replaces_that_of_the_settings() {
    for (name, script_name, path) in
        [("/app", "/app", "/x"), ("/app/", "/app", "/x"), ("app", "/app", "/x"), ("", "", "/app/x")]
    {
        let code = format!(
            "assert environ['SCRIPT_NAME'] == {script_name:?}, environ\n\
             assert environ['PATH_INFO'] == {path:?}, environ\n\
             assert environ['HTTP_SCRIPT_NAME'] == {name:?}, environ"
        );
        let settings = crate::wsgi::WsgiSettings { script_name: "/set".to_owned(), ..settings() };
        with_fields(Served::with(settings, &wrapped(&code)), &format!("SCRIPT_NAME: {name}\r\n"));
    }
}

#[test]
fn another_field_of_the_proxy_has_its_own_key() {
    let code = "assert environ['HTTP_PATH_INFO'] == '/y' and environ['PATH_INFO'] == '/app/x', environ";
    with_fields(served(code), "PATH_INFO: /y\r\n");
}

#[test]
fn a_name_with_an_underscore_is_never_the_length_or_the_type_of_a_body() {
    let mut served = served(
        "assert 'CONTENT_LENGTH' not in environ and 'CONTENT_TYPE' not in environ, environ\n\
         assert environ['HTTP_CONTENT_LENGTH'] == '5' and environ['HTTP_CONTENT_TYPE'] == 'x', environ",
    );
    served.rules = FieldRules::new([], [], HeaderMap::Dangerous, Hops::default()).unwrap();
    with_fields(served, "Content_Length: 5\r\nContent_Type: x\r\n");
}

#[test]
fn a_proxy_header_is_in_the_environ_as_with_gunicorn() {
    let mut served = served(
        "names = ('REMOTE_ADDR', 'REMOTE_PORT', 'PROXY_PROTOCOL', 'PROXY_ADDR', 'PROXY_PORT')\n\
         found = [environ[name] for name in names]\n\
         assert found == ['192.0.2.7', '4711', 'TCP4', '198.51.100.1', '443'], found",
    );
    let server = "198.51.100.1:443".parse().unwrap();
    let proxy = Some("127.0.0.1:9".parse().unwrap());
    served.proxied = Some(Box::new(Proxied { proxy, server, is_https: false }));
    with_fields(served, "");
    with_fields(self::served("assert not any(key.startswith('PROXY_') for key in environ), environ"), "");
}

#[test]
fn a_proxy_header_of_a_client_with_tls_names_the_scheme_and_its_port() {
    let proxied = Proxied { proxy: None, server: "198.51.100.1:443".parse().unwrap(), is_https: true };
    for (fields, scheme, port) in [("", "https", "443"), ("X-Forwarded-Proto: http\r\n", "http", "80")] {
        let mut served = served(&format!(
            "found = environ['wsgi.url_scheme'], environ['SERVER_PORT']\n\
             assert found == ({scheme:?}, {port:?}), found"
        ));
        served.local = Local::Unix("/run/s".to_owned());
        served.proxied = Some(Box::new(proxied));
        with_fields(served, fields);
    }
}

#[test]
fn the_mount_point_of_a_field_is_compared_before_the_path_is_decoded() {
    let code = "found = environ['SCRIPT_NAME'], environ['PATH_INFO']\n\
                assert found == ('/caf%C3%A9', '/a b'), found";
    let head = "GET /caf%C3%A9/a%20b HTTP/1.1\r\nHost: h\r\nSCRIPT_NAME: /caf%C3%A9\r\n\r\n";
    checked(served(code), head, Body::Empty);
}

#[test]
fn trusted_hops_name_the_client() {
    for (value, address, port) in [
        ("203.0.113.5", "203.0.113.5", "0"),
        ("1.2.3.4, [2001:db8::1]:80", "2001:db8::1", "80"),
        ("unknown", "192.0.2.7", "4711"),
    ] {
        let mut served = served(&format!(
            "found = environ['REMOTE_ADDR'], environ['REMOTE_PORT']\n\
             assert found == ({address:?}, {port:?}), found"
        ));
        let hops = Hops { count: 1, field: HopsField::XForwardedFor };
        served.rules = FieldRules::new([], [], HeaderMap::Drop, hops).unwrap();
        with_fields(served, &format!("X-Forwarded-For: {value}\r\n"));
    }
}
