//! What an application has left in its environ, for the access log.

use crate::app::Left;

use super::fixture::{Served, settings};

/// Serves `code`, and keeps variables of these names.
fn keeping<const N: usize>(code: &str, names: [&str; N]) -> Served {
    Served::behind(settings(), code, |app| Box::new(app.keeping(&names.map(str::to_owned))))
}

const CHANGES: &str = "
def application(environ, start_response):
    environ['REMOTE_ADDR'] = '198.51.100.7'
    environ['app.user'] = 'caf\\u00e9'
    environ['app.far'] = '\\u20ac'
    environ['app.number'] = 7
    del environ['HTTP_HOST']
    start_response('204 No Content', [])
    return []
";

#[test]
fn variables_are_those_that_the_application_has_left() {
    let names = ["app.user", "APP.NUMBER", "app.far", "http_host", "request_method", "wsgi.url_scheme", "no"];
    let mut served = keeping(CHANGES, names);
    served.get();
    let left = served.left();
    let text = |text: &[u8]| Some(text.to_vec());
    let expected =
        [text(b"caf\xe9"), text(b"7"), text("€".as_bytes()), None, text(b"GET"), text(b"http"), None];
    assert_eq!((left.remote, left.variables), (text(b"198.51.100.7"), expected.to_vec()));
    assert_eq!(served.left(), Left::default(), "they belong to one request");
}

#[test]
fn the_address_of_a_client_that_was_not_replaced_is_not_copied() {
    let plain = "
def application(environ, start_response):
    start_response('204 No Content', [])
    return []
";
    let mut served = keeping(plain, []);
    served.get();
    assert_eq!(served.left(), Left::default());
}
