//! `wsgi.file_wrapper`: rule 30.

use super::fixture::{Served, block, file, said, whole};

/// An application that returns a wrapper around `opened`, an expression in which `path` names a file of `0123456789`.
fn wrapping(opened: &str, headers: &str) -> (tempfile::NamedTempFile, Served) {
    let place = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(place.path(), "0123456789").unwrap();
    let path = place.path().display();
    let code = format!(
        "
import gzip, io, tempfile
path = '{path}'
class Telling:
    def __init__(self, inner, environ):
        self.inner, self.errors = inner, environ['wsgi.errors']
    def read(self, size):
        return self.inner.read(size)
    def close(self):
        self.inner.close()
        self.errors.write('closed')
class Upper(io.FileIO):
    def read(self, size=-1):
        return super().read(size).replace(b'0', b'X')
    def readinto(self, room):
        count = super().readinto(room)
        room[:count] = bytes(room[:count]).replace(b'0', b'X')
        return count
def packed():
    with gzip.open(path + '.gz', 'wb') as out:
        out.write(b'0123456789')
    return gzip.open(path + '.gz', 'rb')
def temporary():
    opened = tempfile.TemporaryFile()
    opened.write(b'0123456789')
    opened.seek(7)
    return opened
def telling(path):
    file = open(path, 'rb')
    def tell():
        file.close()
        with open(path + '.other', 'wb') as out:
            out.write(b'secret')
        opened.append(open(path + '.other', 'rb'))
        return 0
    file.tell = tell
    return file
def at(opened, position):
    opened.seek(position)
    return opened
opened = []
def application(environ, start_response):
    start_response('200 OK', {headers})
    opened.append({opened})
    return environ['wsgi.file_wrapper'](opened[-1], 4)
"
    );
    (place, Served::new(&code))
}

#[test]
fn a_real_file_goes_out_without_python() {
    for opened in ["open(path, 'rb')", "open(path, 'rb', 0)", "open(path, 'r+b')"] {
        let (_place, mut served) = wrapping(opened, "[]");
        let outcome = served.get();
        outcome.is_complete();
        assert_eq!(outcome.events, [file("0123456789")], "{opened}");
    }
}

#[test]
fn it_goes_out_from_the_position_that_was_reached() {
    let (_place, mut served) = wrapping("at(open(path, 'rb'), 3)", "[]");
    assert_eq!(served.get().events, [file("3456789")]);
    let (_place, mut served) = wrapping("temporary()", "[]");
    assert_eq!(served.get().events, [file("789")]);
}

#[test]
fn no_more_goes_out_than_was_announced() {
    let (_place, mut served) = wrapping("open(path, 'rb')", "[('Content-Length', '4')]");
    assert_eq!(served.get().events, [file("0123")]);
}

#[test]
fn at_the_end_of_a_file_the_body_is_empty() {
    let (_place, mut served) = wrapping("at(open(path, 'rb'), 10)", "[]");
    let outcome = served.get();
    outcome.is_complete();
    assert_eq!(outcome.events, [whole("")]);
}

#[test]
fn what_only_looks_like_a_file_is_read() {
    let (place, mut served) = wrapping("packed()", "[]");
    assert_eq!(served.get().events, [block("0123"), block("4567"), block("89")]);
    std::fs::remove_file(format!("{}.gz", place.path().display())).unwrap();
    let (_place, mut served) = wrapping("Upper(path)", "[]");
    assert_eq!(served.get().events, [block("X123"), block("4567"), block("89")]);
    let (_place, mut served) = wrapping("io.BufferedReader(Upper(path))", "[]");
    assert_eq!(served.get().events, [block("X123"), block("4567"), block("89")]);
    let (_place, mut served) = wrapping("io.BytesIO(b'012345')", "[]");
    assert_eq!(served.get().events, [block("0123"), block("45")]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_whose_size_is_made_up_is_read() {
    for path in ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let (_place, mut served) = wrapping(&format!("open('{path}', 'rb')"), "[]");
        let outcome = served.get();
        outcome.is_complete();
        let blocks: Vec<_> =
            text.as_bytes().chunks(4).map(|bytes| block(std::str::from_utf8(bytes).unwrap())).collect();
        assert_eq!(outcome.events, blocks, "{path}");
    }
}

#[test]
fn a_file_that_is_closed_while_its_position_is_asked_for_is_not_taken_for_another() {
    let (place, mut served) = wrapping("telling(path)", "[]");
    let outcome = served.get();
    std::fs::remove_file(format!("{}.other", place.path().display())).unwrap();
    assert_eq!(outcome.events, [], "the other file has been sent");
    outcome.is_refused(&["ValueError"]);
}

#[test]
fn the_file_is_closed() {
    let (_place, mut served) = wrapping("Telling(open(path, 'rb'), environ)", "[]");
    assert_eq!(served.get().events, [block("0123"), block("4567"), block("89"), said("closed")]);
    let (_place, mut served) = wrapping(
        "environ['wsgi.errors'].write('' if all(f.closed for f in opened) else 'open') and None or open(path, 'rb')",
        "[]",
    );
    served.get().is_complete();
    assert_eq!(served.get().events, [said(""), file("0123456789")]);
}

#[test]
fn a_wrapper_inside_another_iterable_is_only_read() {
    let code = "
import io
def application(environ, start_response):
    start_response('200 OK', [])
    wrapper = environ['wsgi.file_wrapper'](io.BytesIO(b'abc'), 2)
    assert wrapper.filelike.tell() == 0
    return (block.upper() for block in wrapper)";
    assert_eq!(Served::new(code).get().events, [block("AB"), block("C")]);
}

#[test]
fn a_text_file_is_an_error_of_the_application() {
    let (_place, mut served) = wrapping("open(path)", "[]");
    served.get().is_refused(&["TypeError", "bytes"]);
}

#[test]
fn a_wrapper_without_start_response_is_refused() {
    let code = "
def application(environ, start_response):
    return environ['wsgi.file_wrapper'](open(__import__('os').__file__, 'rb'))";
    Served::new(code).get().is_refused(&["did not call start_response()"]);
}
