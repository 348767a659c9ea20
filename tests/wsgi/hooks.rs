//! Hooks of `gunicorn.conf.py` in a worker: their arguments, their effects, and errors of them.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::fixture::{Outcome, Served, log_record, no_access_log, settings, start_python};
use crate::app::{Body, Verdict};
use crate::conf::{DefinedHooks, Facts, Source, WorkerHooks};
use crate::python::loading::LoadError;
use crate::python::logging::{LogConfig, Loggers, Outputs};
use crate::wsgi::RequestHooks;

/// A configuration whose hooks note what they see in `seen`, and an application that does too.
struct Configured {
    namespace: Py<PyDict>,
    hooks: WorkerHooks,
    /// The number of requests for another worker.
    left: Arc<AtomicUsize>,
}

fn namespace(py: Python<'_>, code: &str) -> Py<PyDict> {
    let namespace = PyDict::new(py);
    py.run(&CString::new(format!("seen = []\n{code}")).unwrap(), Some(&namespace), None).unwrap();
    namespace.unbind()
}

fn defined(py: Python<'_>, code: &str) -> Result<Option<DefinedHooks>, LoadError> {
    DefinedHooks::find(py, &Source::File("gunicorn.conf.py".into()), namespace(py, code))
}

impl Configured {
    fn new(code: &str) -> Self {
        start_python();
        let left = Arc::new(AtomicUsize::new(0));
        let leaving = Arc::clone(&left);
        let (namespace, hooks) = Python::attach(|py| {
            let outputs = Outputs::new(&log_record(), &no_access_log());
            let configured = Loggers::configure(py, (&LogConfig::default(), &[]), None, outputs);
            configured.map_err(|error| error.summary).unwrap();
            let namespace = namespace(py, code);
            let source = Source::File("gunicorn.conf.py".into());
            let defined = DefinedHooks::find(py, &source, namespace.clone_ref(py)).unwrap().unwrap();
            let facts = Facts {
                number: 3,
                listeners: vec![(0, "http://127.0.0.1:8080".to_owned())],
                target: "app:application".to_owned(),
                settings: r#"{"workers": 2, "bind": ["127.0.0.1:8080", "unix:/run/x"], "raw_env": ["A=b=c"]}"#,
                error_log: 2,
                leave: Box::new(move || {
                    leaving.fetch_add(1, Ordering::SeqCst);
                }),
                beat: Box::new(|| {}),
            };
            (namespace, defined.begin(py, facts).unwrap())
        });
        Self { namespace, hooks, left }
    }

    /// The list `seen`, as `repr` writes it.
    fn seen(&self) -> String {
        Python::attach(|py| {
            let seen = self.namespace.bind(py).get_item("seen").unwrap().unwrap();
            seen.repr().unwrap().to_string()
        })
    }

    fn forked(&self) -> Result<(), LoadError> {
        Python::attach(|py| self.hooks.forked(py, None))
    }

    fn initialised(&self, application: &str) -> Result<String, LoadError> {
        Python::attach(|py| {
            let code = CString::new(application).unwrap();
            let application = py.eval(&code, None, Some(self.namespace.bind(py))).unwrap();
            let found = self.hooks.initialised(py, application.unbind())?;
            Ok(found.call0(py).unwrap().extract(py).unwrap())
        })
    }

    fn end(&self, is_quick: bool) {
        Python::attach(|py| self.hooks.end(py, is_quick, 7));
    }

    /// An application with the hooks of requests.
    fn served(&self, application: &str) -> Served {
        let hooks = Python::attach(|py| self.hooks.of_requests(py).unwrap()).map(RequestHooks::new);
        Served::behind(settings(), application, |app| Box::new(app.with_hooks(hooks)))
    }
}

const HELLO: &str = "
def application(environ, start_response):
    start_response('200 OK', [('X-A', 'b'), ('Content-Length', '5')])
    return [b'hello']
";

const REQUEST: &[u8] =
    b"POST /a%20b?c=d HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nX-One: 2\r\nContent-Length: 2\r\n\r\n";

fn ask(served: &mut Served) -> Outcome {
    served.ask(REQUEST, Body::Memory(b"hi".to_vec().into()))
}

#[test]
fn a_worker_without_hooks_has_no_objects_for_them() {
    start_python();
    Python::attach(|py| {
        assert!(defined(py, "workers = 3\npost_fork = None\non_starting = print").unwrap().is_none());
    });
    let without = Configured::new("def post_fork(server, worker): pass");
    assert!(Python::attach(|py| without.hooks.of_requests(py).unwrap()).is_none());
}

#[test]
fn a_hook_that_gunicorn_could_not_call_is_refused_with_its_line() {
    start_python();
    for (code, expected) in [
        ("def post_fork(worker): pass", "post_fork (line 2) takes 1 positional arguments: expected 2"),
        ("def pre_request(a, b, c): pass", "pre_request (line 2) takes 3 positional arguments: expected 2"),
        (
            "post_request = lambda a: a",
            "post_request (line 2) takes 1 positional arguments: expected 2 or 3 or 4",
        ),
        ("worker_exit = 3", "worker_exit is a int: expected a function"),
        ("worker_int = 'print'", "worker_int is 'print': expected a function, or its name as MODULE.NAME"),
        ("worker_int = 'no_such_module.hook'", "No module named 'no_such_module'"),
    ] {
        let error = Python::attach(|py| defined(py, code).map(|_| ()).unwrap_err());
        assert!(error.summary.starts_with("gunicorn.conf.py: "), "{error:?}");
        assert!(error.summary.contains(expected), "{error:?}");
    }
    Python::attach(|py| {
        assert!(defined(py, "worker_int = 'os.path.basename'").unwrap().is_some());
    });
}

#[test]
fn server_and_worker_have_the_attributes_that_configurations_read() {
    let code = "
import os
def post_fork(server, worker):
    seen.append((server.num_workers, server.cfg.workers, server.address, server.cfg.env, server.pid == os.getppid()))
    seen.append((worker.age, worker.pid == os.getpid(), worker.ppid == server.pid, worker.nr, worker.booted))
    seen.append((worker.alive, worker.aborted, str(worker.sockets[0]), server.LISTENERS is worker.sockets))
    seen.append((worker.timeout, worker.cfg.threads, worker.app.app_uri, worker.app.cfg is worker.cfg))
    seen.append((callable(worker.tmp.notify), worker.log is server.log, worker.cfg.settings['workers'].get()))
    seen.append((worker.max_requests > 1 << 60, str(worker) == f'<Worker {worker.pid}>', worker.sockets[0].fileno()))
    try:
        worker.cfg.no_such_setting
    except AttributeError as error:
        seen.append(str(error))
my_own = 1
max_requests = 0
";
    let configured = Configured::new(code);
    configured.forked().unwrap();
    assert_eq!(
        configured.seen(),
        "[(2, 2, [('127.0.0.1', 8080), '/run/x'], {'A': 'b=c'}, True), (3, True, True, 0, False), \
         (True, False, 'http://127.0.0.1:8080', True), (15.0, 1, 'app:application', True), \
         (True, True, 2), (True, True, 0), \"cfg has no setting 'no_such_setting'\"]"
    );
}

#[test]
fn the_logger_has_the_methods_of_gunicorns_and_writes_to_the_error_log() {
    // Records are kept for the thread that logs, from level error on.
    let code = "
import logging
def pre_request(worker, req):
    log = worker.log
    log.error('an %s', 'error')
    log.critical('a critical one')
    log.log('error', 'by name')
    log.log(logging.ERROR, 'by number')
    log.info('not that low')
    log.error_log.error('of the logger')
    logging.getLogger('gunicorn.error').error('of the library')
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception('an exception')
";
    let outcome = ask(&mut Configured::new(code).served(HELLO));
    assert_eq!(outcome.verdict, Verdict::Complete);
    let expected = "an error\na critical one\nby name\nby number\nof the logger\nof the library\n\
                    an exception\nTraceback (most recent call last):\n";
    assert!(outcome.log.starts_with(expected), "{}", outcome.log);
    assert!(outcome.log.ends_with("ZeroDivisionError: division by zero\n"), "{}", outcome.log);
}

#[test]
fn hooks_of_requests_get_the_request_the_environ_and_the_response() {
    let code = "
def pre_request(worker, req):
    seen.append((req.method, req.uri, req.path, req.query, req.version, req.scheme, worker.nr))
    seen.append((req.headers, req.remote_addr, req.body.read()))
def post_request(worker, req, environ, resp):
    seen.append((environ['mine'], resp.status, resp.status_code, resp.headers, resp.headers_sent))
    seen.append((resp.sent, resp.response_length, worker.nr, req.method))
";
    let configured = Configured::new(code);
    let application = HELLO.replace("start_response(", "environ['mine'] = 1\n    start_response(");
    let mut served = configured.served(&application);
    ask(&mut served).is_complete();
    assert_eq!(
        configured.seen(),
        "[('POST', '/a%20b?c=d', '/a%20b', 'c=d', (1, 1), 'http', 0), \
         ([('HOST', 'h'), ('X-ONE', '1'), ('X-ONE', '2'), ('CONTENT-LENGTH', '2')], ('192.0.2.7', 4711), b'hi'), \
         (1, '200 OK', 200, [('X-A', 'b'), ('Content-Length', '5')], True), (5, 5, 1, 'POST')]"
    );
    ask(&mut served).is_complete();
    assert!(configured.seen().ends_with("(5, 5, 2, 'POST')]"));
}

#[test]
fn post_request_is_called_with_as_many_arguments_as_it_takes() {
    for (code, expected) in [
        ("def post_request(worker, req): seen.append(req.path)", "['/a%20b']"),
        ("def post_request(worker, req, environ): seen.append(environ['PATH_INFO'])", "['/a b']"),
        ("def post_request(worker, req, environ, resp): seen.append(resp.status)", "['200 OK']"),
    ] {
        let configured = Configured::new(code);
        ask(&mut configured.served(HELLO)).is_complete();
        assert_eq!(configured.seen(), expected);
    }
}

#[test]
fn what_pre_request_changes_reaches_the_environ() {
    let code = "
def pre_request(worker, req):
    req.headers.append(('X-REQUEST-ID', '7'))
    req.headers.remove(('X-ONE', '2'))
    req.path = '/moved%20here'
    req.query = 'e=f'
    req.scheme = 'https'
";
    let application = "
def application(environ, start_response):
    keys = ['HTTP_X_REQUEST_ID', 'HTTP_X_ONE', 'PATH_INFO', 'QUERY_STRING', 'wsgi.url_scheme', 'HTTP_HOST', 'RAW_URI']
    start_response('200 OK', [])
    return [' '.join(environ[key] for key in keys).encode()]
";
    let outcome = ask(&mut Configured::new(code).served(application));
    outcome.is_complete();
    assert_eq!(outcome.events, [super::fixture::whole("7 1 /moved here e=f https h /a%20b?c=d")]);
}

#[test]
fn an_exception_of_pre_request_fails_the_request_and_post_request_is_called_without_a_response() {
    let code = "
def pre_request(worker, req):
    raise ValueError('no')
def post_request(worker, req, environ, resp):
    seen.append((environ, resp, req.method, worker.nr))
";
    let configured = Configured::new(code);
    let outcome = ask(&mut configured.served(HELLO));
    outcome.is_refused(&["Exception in the hook pre_request for POST /a%20b?c=d", "ValueError: no"]);
    assert_eq!(outcome.log.matches("Traceback").count(), 1);
    assert_eq!(configured.seen(), "[({}, None, 'POST', 0)]");
}

#[test]
fn an_exception_of_post_request_is_logged_and_the_answer_stays_whole() {
    let configured = Configured::new("def post_request(worker, req): raise ValueError('late')");
    let outcome = ask(&mut configured.served(HELLO));
    assert_eq!(outcome.verdict, Verdict::Complete);
    assert!(outcome.log.starts_with("Exception in post_request hook\nTraceback"), "{}", outcome.log);
    assert!(outcome.log.contains("ValueError: late"), "{}", outcome.log);
}

#[test]
fn post_request_is_called_after_an_application_that_fails() {
    let code = "
def post_request(worker, req, environ, resp):
    seen.append((environ['PATH_INFO'], resp.status, resp.headers, resp.sent, resp.headers_sent))
";
    let configured = Configured::new(code);
    let outcome =
        ask(&mut configured.served("def application(environ, start_response): raise KeyError('x')"));
    outcome.is_refused(&["Error handling request POST /a%20b?c=d", "KeyError: 'x'"]);
    assert_eq!(configured.seen(), "[('/a b', None, [], 0, False)]");
}

#[test]
fn post_worker_init_finds_the_application_and_may_wrap_it() {
    let code = "
def post_worker_init(worker):
    seen.append((worker.app.callable(), worker.app.wsgi() is worker.wsgi, worker.booted))
    inner = worker.wsgi
    worker.wsgi = lambda: 'wrapped ' + inner()
def worker_exit(server, worker):
    seen.append((worker.booted, worker.alive, worker.nr))
";
    let configured = Configured::new(code);
    assert_eq!(configured.initialised("lambda: 'application'").unwrap(), "wrapped application");
    configured.end(false);
    assert_eq!(configured.seen(), "[('application', True, False), (True, False, 7)]");
    let broken = Configured::new("def post_worker_init(worker): worker.wsgi = 3");
    let error = broken.initialised("lambda: ''").unwrap_err();
    assert!(
        error.summary.contains("a hook has set worker.wsgi to a int, which cannot be called"),
        "{error:?}"
    );
}

#[test]
fn an_exception_of_a_hook_is_logged_with_its_name_and_the_worker_goes_on() {
    let code = "
def post_fork(server, worker): raise ValueError('at the fork')
def post_worker_init(worker): raise ValueError('at the start')
def worker_exit(server, worker): raise SystemExit('at the end')
def pre_request(worker, req): pass
";
    let configured = Configured::new(code);
    let mut served = configured.served(HELLO);
    // The log of this thread begins with a request.
    ask(&mut served).is_complete();
    configured.forked().unwrap();
    assert_eq!(configured.initialised("lambda: 'application'").unwrap(), "application");
    configured.end(false);
    let log = super::fixture::take_log();
    for (name, text) in [
        ("post_fork", "ValueError: at the fork"),
        ("post_worker_init", "ValueError: at the start"),
        ("worker_exit", "SystemExit: at the end"),
    ] {
        assert!(log.contains(&format!("Exception in the hook {name}\nTraceback")), "{log}");
        assert!(log.contains(text), "{log}");
    }
}

#[test]
fn a_hook_that_exits_ends_the_worker_before_it_is_ready() {
    let configured = Configured::new("def post_fork(server, worker): raise SystemExit('no database')");
    let error = configured.forked().unwrap_err();
    let expected = "the hook post_fork of gunicorn.conf.py has ended the worker: SystemExit: no database";
    assert_eq!(error.summary, expected);
    assert!(error.traceback.unwrap().contains("in post_fork"));
}

#[test]
fn worker_int_is_called_at_a_quick_stop_before_worker_exit() {
    let code = "
def worker_int(worker): seen.append(('int', worker.alive))
def worker_exit(server, worker): seen.append('exit')
";
    for (is_quick, expected) in [(true, "[('int', False), 'exit']"), (false, "['exit']")] {
        let configured = Configured::new(code);
        configured.end(is_quick);
        assert_eq!(configured.seen(), expected);
    }
}

#[test]
fn a_worker_whose_alive_is_set_to_false_asks_once_for_another_one() {
    let code = "
def post_request(worker, req):
    worker.alive = False
    seen.append(worker.alive)
";
    let configured = Configured::new(code);
    let mut served = configured.served(HELLO);
    ask(&mut served).is_complete();
    ask(&mut served).is_complete();
    assert_eq!((configured.left.load(Ordering::SeqCst), configured.seen().as_str()), (1, "[False, False]"));
}
