//! The environ: what is the same for all requests of a listener is copied, the rest is added.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{ffi, intern};

use super::draining::{Draining, IsDraining};
use super::errors::Errors;
use super::file_wrapper::FileWrapper;
use super::input::Input;
use super::settings::WsgiSettings;
use crate::app::{Body, Local, Proxied, Request};
use crate::http::authority;
use crate::http::framing::Framing;
use crate::http::head::Head;
use crate::http::target::percent_decoded;
use crate::trust::mount_point;

/// Makes environs.
pub(super) struct Environs {
    settings: WsgiSettings,
    is_draining: IsDraining,
    /// One dictionary for each listener.
    bases: Vec<(Local, Py<PyDict>)>,
    /// Field names as they were sent, with the key that each becomes.
    keys: HashMap<Vec<u8>, Py<PyString>, BuildHasherDefault<Fnv>>,
    /// The address of the last client as text: many come from one proxy.
    last_address: Option<(IpAddr, Py<PyString>)>,
    /// The input of all requests that have no body.
    no_input: Option<Py<Input>>,
}

/// FNV-1a: quick for names of a few letters. That a client can make names collide costs little, since few are kept.
#[derive(Default)]
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The keys that every request sets, besides those of the client.
const SET_FOR_EACH: [&str; 9] = [
    "REQUEST_METHOD",
    "SERVER_PROTOCOL",
    "RAW_URI",
    "REQUEST_URI",
    "QUERY_STRING",
    "PATH_INFO",
    "REMOTE_ADDR",
    "wsgi.input",
    "wsgi.early_hints",
];

/// The number of field names that are remembered, none longer than this. CPython 3.12 keeps an interned string for ever, so that no
/// other name is interned: a client invents as many as it likes.
const MOST_KEYS: usize = 512;
const LONGEST_KEPT: usize = 64;

impl Environs {
    pub(super) fn new(mut settings: WsgiSettings, is_draining: IsDraining) -> Self {
        // Bytes of a str with slashes more or less at its ends are a str.
        settings.script_name =
            String::from_utf8(mount_point::of(settings.script_name.as_bytes()).into_owned())
                .unwrap_or_default();
        Self {
            settings,
            is_draining,
            bases: Vec::new(),
            keys: HashMap::default(),
            last_address: None,
            no_input: None,
        }
    }

    /// The environ of one request, whose body it takes.
    pub(super) fn make<'py>(
        &mut self,
        py: Python<'py>,
        request: Request<'_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let client = request.client();
        let Request { head, body, peer, secured } = request;
        let environ = self.base(py, &peer.local)?.bind(py).copy()?;
        if let Some(secured) = secured {
            environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
            for (name, value) in &secured.variables {
                environ.set_item(PyString::intern(py, name), latin1(py, value.as_bytes())?)?;
            }
        }
        self.add_request_line(py, &environ, &head)?;
        self.add_client(py, &environ, client)?;
        if let (Some(proxied), Some(remote)) = (&peer.proxied, peer.remote) {
            add_proxy(py, &environ, proxied, remote)?;
        }
        if let Some(scheme) = head.scheme() {
            environ.set_item(intern!(py, "wsgi.url_scheme"), scheme)?;
        }
        self.add_fields(py, &environ, &head)?;
        if head.delimited().framing == Framing::Chunked {
            environ.set_item(intern!(py, "CONTENT_LENGTH"), body.len().to_string())?;
        }
        if let Local::Unix(path) = &peer.local {
            let is_https = secured.is_some() || peer.proxied.as_ref().is_some_and(|proxied| proxied.is_https);
            add_name_by_host(py, &environ, &head, path, is_https)?;
        }
        environ.set_item(intern!(py, "wsgi.input"), self.input(py, body)?)?;
        Ok(environ)
    }

    /// An empty input has no state, so all requests share it.
    fn input<'py>(&mut self, py: Python<'py>, body: Body) -> PyResult<Bound<'py, Input>> {
        if !body.is_empty() {
            return Bound::new(py, Input::new(body));
        }
        if self.no_input.is_none() {
            self.no_input = Some(Py::new(py, Input::new(Body::Empty))?);
        }
        match &self.no_input {
            Some(input) => Ok(input.bind(py).clone()),
            None => Bound::new(py, Input::new(Body::Empty)),
        }
    }

    fn base(&mut self, py: Python<'_>, local: &Local) -> PyResult<&Py<PyDict>> {
        let known = self.bases.iter().position(|(other, _)| other == local);
        let at = match known {
            Some(at) => at,
            None => {
                self.bases.push((local.clone(), self.make_base(py, local)?.unbind()));
                self.bases.len() - 1
            }
        };
        Ok(&self.bases[at].1)
    }

    fn make_base<'py>(&self, py: Python<'py>, local: &Local) -> PyResult<Bound<'py, PyDict>> {
        let WsgiSettings { multithread, multiprocess, server_software, script_name, errors, sendfile } =
            &self.settings;
        let base = PyDict::new(py);
        // What every request sets: with places for these the copy of this dictionary never has to grow.
        for key in SET_FOR_EACH {
            base.set_item(PyString::intern(py, key), py.None())?;
        }
        base.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
        base.set_item("wsgi.url_scheme", "http")?;
        base.set_item("wsgi.errors", Errors::new(errors.clone()).into_pyobject(py)?)?;
        base.set_item("wsgi.multithread", multithread)?;
        base.set_item("wsgi.multiprocess", multiprocess)?;
        base.set_item("wsgi.run_once", false)?;
        if *sendfile {
            base.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
        } else {
            base.set_item("wsgi.file_wrapper", py.import("wsgiref.util")?.getattr("FileWrapper")?)?;
        }
        base.set_item("wsgi.input_terminated", true)?;
        let draining = Draining::new(Arc::clone(&self.is_draining));
        base.set_item("mcsup.draining", draining.into_pyobject(py)?)?;
        base.set_item("SERVER_SOFTWARE", server_software)?;
        base.set_item("SCRIPT_NAME", latin1(py, script_name.as_bytes())?)?;
        if let Local::Tcp(address) = local {
            base.set_item(intern!(py, "REMOTE_PORT"), intern!(py, ""))?;
            // RFC 3875 §4.1.14: an IPv6 address has its brackets.
            let name = match address.ip() {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            base.set_item("SERVER_NAME", name)?;
            base.set_item("SERVER_PORT", address.port().to_string())?;
        }
        Ok(base)
    }

    fn add_request_line(&self, py: Python<'_>, environ: &Bound<'_, PyDict>, head: &Head<'_>) -> PyResult<()> {
        let target = latin1(py, head.target())?;
        environ.set_item(intern!(py, "REQUEST_METHOD"), method(py, head.method()))?;
        environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol(py, head))?;
        environ.set_item(intern!(py, "RAW_URI"), &target)?;
        environ.set_item(intern!(py, "REQUEST_URI"), &target)?;
        environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, head.query())?)?;
        // The beginning of the path that a field names is compared before the path is decoded, as by gunicorn.
        let given = head.script_name().map(mount_point::of);
        let given_below = given.as_deref().and_then(|given| mount_point::below(head.path(), given));
        let path = given_below.unwrap_or(head.path());
        let decoded;
        let path = if memchr::memchr(b'%', path).is_some() {
            decoded = percent_decoded(path);
            &decoded
        } else {
            path
        };
        let path = match &given {
            Some(given) => {
                environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, given)?)?;
                path
            }
            // A path elsewhere stays whole: a proxy may have taken the name off already.
            None => mount_point::below(path, self.settings.script_name.as_bytes()).unwrap_or(path),
        };
        // PEP 3333 knows paths and the empty string only: this is the target of `OPTIONS *`.
        let path = if path == b"*" { b"" } else { path };
        let path = if path == head.target() { target } else { latin1(py, path)? };
        environ.set_item(intern!(py, "PATH_INFO"), path)
    }

    fn add_client(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        client: Option<SocketAddr>,
    ) -> PyResult<()> {
        let Some(remote) = client else {
            return environ.set_item(intern!(py, "REMOTE_ADDR"), intern!(py, ""));
        };
        match &self.last_address {
            Some((last, text)) if *last == remote.ip() => {
                environ.set_item(intern!(py, "REMOTE_ADDR"), text)?;
            }
            _ => {
                let text = PyString::new(py, &remote.ip().to_string());
                environ.set_item(intern!(py, "REMOTE_ADDR"), &text)?;
                self.last_address = Some((remote.ip(), text.unbind()));
            }
        }
        let mut digits = itoa::Buffer::new();
        environ.set_item(intern!(py, "REMOTE_PORT"), latin1(py, digits.format(remote.port()).as_bytes())?)
    }

    /// The text of the last client's address; `None`: none had one.
    pub(super) fn last_address(&self) -> Option<&Py<PyString>> {
        self.last_address.as_ref().map(|(_, text)| text)
    }

    fn add_fields(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, head: &Head<'_>) -> PyResult<()> {
        let decoded = head.delimited().framing == Framing::Chunked;
        for (name, value) in head.headers() {
            if decoded && name.eq_ignore_ascii_case(b"transfer-encoding") {
                // The application sees the body without it.
                continue;
            }
            let key = self.key(py, name)?;
            let value = latin1(py, value)?;
            let Some(before) = set_default(environ, &key, &value)? else { continue };
            // RFC 9110 §5.3; cookies are joined as RFC 6265 §5.4 writes them.
            let between = if name.eq_ignore_ascii_case(b"cookie") { "; " } else { "," };
            environ.set_item(key, before.add(between)?.add(value)?)?;
        }
        // A request of 1.0 may have it in the target alone.
        if let Some(authority) = head.authority().filter(|_| head.header("host").is_none()) {
            environ.set_item(intern!(py, "HTTP_HOST"), latin1(py, authority)?)?;
        }
        Ok(())
    }

    /// The environ's key for a field: made once for each way of writing its name.
    fn key<'py>(&mut self, py: Python<'py>, name: &[u8]) -> PyResult<Bound<'py, PyString>> {
        if let Some(key) = self.keys.get(name) {
            return Ok(key.bind(py).clone());
        }
        let upper: String = name
            .iter()
            .map(|byte| if *byte == b'-' { '_' } else { byte.to_ascii_uppercase() as char })
            .collect();
        // The same with an underscore is another field, which says nothing about the body.
        let text = match upper.as_str() {
            "CONTENT_TYPE" | "CONTENT_LENGTH" if memchr::memchr(b'_', name).is_none() => upper,
            _ => format!("HTTP_{upper}"),
        };
        if self.keys.len() >= MOST_KEYS || name.len() > LONGEST_KEPT {
            return Ok(PyString::new(py, &text));
        }
        let key = PyString::intern(py, &text);
        self.keys.insert(name.to_vec(), key.clone().unbind());
        Ok(key)
    }
}

/// gunicorn's names for what a PROXY header says, and the scheme.
fn add_proxy(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    proxied: &Proxied,
    client: SocketAddr,
) -> PyResult<()> {
    let protocol = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    if proxied.is_https {
        environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
    }
    environ.set_item(intern!(py, "PROXY_PROTOCOL"), protocol)?;
    environ.set_item(intern!(py, "PROXY_ADDR"), proxied.server.ip().to_string())?;
    environ.set_item(intern!(py, "PROXY_PORT"), proxied.server.port().to_string())
}

/// A Unix socket has no name of its own that a URL could be made of: the client's word is taken.
fn add_name_by_host(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    head: &Head<'_>,
    path: &str,
    is_https: bool,
) -> PyResult<()> {
    let host = head.authority().or_else(|| head.header("host")).unwrap_or_default();
    let (name, port) = authority::split(host).unwrap_or_default();
    // Neither is ever empty (PEP 3333).
    let name = [name, path.as_bytes()].into_iter().find(|name| !name.is_empty()).unwrap_or(b"localhost");
    let port = match port {
        b"" if head.scheme().map_or(is_https, |scheme| scheme == "https") => b"443",
        b"" => &b"80"[..],
        port => port,
    };
    environ.set_item(intern!(py, "SERVER_NAME"), latin1(py, name)?)?;
    environ.set_item(intern!(py, "SERVER_PORT"), latin1(py, port)?)
}

fn method<'py>(py: Python<'py>, method: &str) -> Bound<'py, PyString> {
    match method {
        "GET" => intern!(py, "GET").clone(),
        "POST" => intern!(py, "POST").clone(),
        "HEAD" => intern!(py, "HEAD").clone(),
        "PUT" => intern!(py, "PUT").clone(),
        other => PyString::new(py, other),
    }
}

fn protocol<'py>(py: Python<'py>, head: &Head<'_>) -> Bound<'py, PyString> {
    match head.version().as_str() {
        "HTTP/1.1" => intern!(py, "HTTP/1.1").clone(),
        other => PyString::new(py, other),
    }
}

/// A str whose code points are the bytes (PEP 3333, "Unicode Issues").
pub(super) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let length = ffi::Py_ssize_t::try_from(bytes.len()).unwrap_or(ffi::Py_ssize_t::MAX);
    // Nearly all; and half as dear. Python has the strings of one letter ready.
    if bytes.len() > 1 && bytes.is_ascii() {
        // SAFETY: a new str of `length` ASCII characters, whose memory holds as many bytes and a zero that is there
        // already; no other reference exists before it is filled; null comes with an exception set.
        unsafe {
            let text = Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_New(length, 127))?;
            let memory = ffi::PyUnicode_1BYTE_DATA(text.as_ptr());
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len());
            return Ok(text.cast_into_unchecked());
        }
    }
    // SAFETY: the pointer and the length are those of a slice; the result is a new reference to a str, or null with an
    // exception set.
    unsafe {
        let text = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null());
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}

/// Sets what is not there yet in one look-up; otherwise returns what is. The value does not tell whether it was there:
/// texts of one letter or none are one object.
fn set_default<'py>(
    environ: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
    value: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let count = environ.len();
    // SAFETY: three live objects, the first a dict; the result is borrowed from the dict, or null with an exception
    // set, and is made a reference of its own at once.
    let there = unsafe {
        let there = ffi::PyDict_SetDefault(environ.as_ptr(), key.as_ptr(), value.as_ptr());
        Bound::from_borrowed_ptr_or_err(environ.py(), there)?
    };
    Ok((environ.len() == count).then_some(there))
}
