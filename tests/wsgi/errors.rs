//! `wsgi.errors`: rule 9.

use crate::app::Body;

use super::fixture::{Event, Served, check, checked, said, wrapped};

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn what_is_written_reaches_the_log_at_once_and_in_order() {
    let code = "
errors = environ['wsgi.errors']
assert errors.write('caf\\u00e9') == 4
errors.writelines(['a', 'b'])
errors.flush()
print('printed', file=errors)";
    let outcome = checked(Served::new(&wrapped(code)), GET, Body::Empty);
    let said: Vec<_> = ["café", "a", "b", "printed", "\n"].map(said).into();
    assert_eq!(outcome.events[..5], said);
    assert_eq!(outcome.events[5], Event::Whole(b"ok".to_vec()));
}

#[test]
fn what_is_no_unicode_is_written_all_the_same() {
    let outcome =
        checked(Served::new(&wrapped("environ['wsgi.errors'].write('a\\udcffb')")), GET, Body::Empty);
    assert_eq!(outcome.events[0], said("a\\udcffb"));
}

#[test]
fn it_cannot_be_closed_and_takes_text_only() {
    let code = "
errors = environ['wsgi.errors']
assert not hasattr(errors, 'close')
try:
    errors.write(b'bytes')
except TypeError:
    pass
else:
    raise AssertionError('bytes were taken')";
    check(GET, Body::Empty, code);
}
