//! Development: which files were loaded, and what a browser is shown of a version that does not boot.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::app::{Body, Verdict};
use crate::python::imported::Imported;
use crate::watch::BrokenPage;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::fixture::{Event, Outcome, Served, module, settings, start_python, whole, wrapped};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";
const CURL: &str = "Accept: */*";

type Reason = Arc<Mutex<Option<Arc<str>>>>;

/// An application that answers `ok`, and the reason why its successor does not boot.
fn served() -> (Served, Reason) {
    let reason = Reason::default();
    let asked = Arc::clone(&reason);
    let served = Served::behind(settings(), &wrapped(""), |app| {
        Box::new(BrokenPage::new(app, move || asked.lock().unwrap().clone()))
    });
    (served, reason)
}

fn ask(served: &mut Served, method: &str, field: &str) -> Outcome {
    served.ask(format!("{method} /path HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n").as_bytes(), Body::Empty)
}

#[track_caller]
fn page(outcome: &Outcome) -> String {
    outcome.is_complete();
    assert_eq!(outcome.status(), 500);
    assert_eq!(outcome.field("Content-Type"), Some(&b"text/html; charset=utf-8"[..]));
    assert_eq!(outcome.field("Cache-Control"), Some(&b"no-store"[..]));
    let [Event::Whole(body)] = &outcome.events[..] else { panic!("one whole body: {outcome:?}") };
    String::from_utf8(body.clone()).unwrap()
}

#[track_caller]
fn is_the_applications(outcome: &Outcome) {
    outcome.is_complete();
    assert_eq!((outcome.status(), &outcome.events[..]), (200, &[whole("ok")][..]));
}

#[test]
fn while_the_newest_version_is_broken_a_browser_sees_why_and_others_the_application() {
    let (mut served, reason) = served();
    is_the_applications(&ask(&mut served, "GET", BROWSER));
    *reason.lock().unwrap() = Some("Traceback:\n  File \"app.py\", line 1\nSyntaxError: not yet".into());
    for method in ["GET", "HEAD"] {
        let page = page(&ask(&mut served, method, BROWSER));
        for part in [
            "SyntaxError: not yet",
            "\n  File &quot;app.py&quot;, line 1\n",
            "http-equiv=\"refresh\"",
            "last good version",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }
    is_the_applications(&ask(&mut served, "GET", CURL));
    is_the_applications(&ask(&mut served, "GET", "User-Agent: none"));
    is_the_applications(&ask(&mut served, "POST", &format!("{BROWSER}\r\nContent-Length: 0")));
    *reason.lock().unwrap() = Some("another".into());
    assert!(page(&ask(&mut served, "GET", BROWSER)).contains("another"));
}

#[test]
fn what_the_traceback_says_is_text_and_no_markup() {
    let (mut served, reason) = served();
    *reason.lock().unwrap() = Some("</pre><script>alert(1)</script><a href='x'>&amp;".into());
    let outcome = ask(&mut served, "GET", BROWSER);
    let page = page(&outcome);
    assert!(
        page.contains("&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;a href=&#39;x&#39;&gt;&amp;amp;"),
        "{page}"
    );
    assert!(!page.contains("<script"), "{page}");
    // And if it were: nothing may run, and only the page's own style is applied.
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let digest = "
import base64, hashlib
def digest(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
";
    let digest: String = Python::attach(|py| {
        module(py, digest).getattr("digest").unwrap().call1((style,)).unwrap().extract().unwrap()
    });
    let policy = format!("default-src 'none'; style-src 'sha256-{digest}'");
    assert_eq!(outcome.field("Content-Security-Policy"), Some(policy.as_bytes()));
}

#[test]
fn a_browser_that_is_gone_is_no_error() {
    let (mut served, reason) = served();
    *reason.lock().unwrap() = Some("broken".into());
    served.patience = 0;
    let outcome = ask(&mut served, "GET", BROWSER);
    assert_eq!((outcome.verdict, outcome.log.as_str()), (Verdict::Failed, ""));
}

#[test]
fn the_files_of_the_application_are_found_and_those_of_the_standard_library_are_not() {
    start_python();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("watched_package")).unwrap();
    for name in
        ["watched_one.py", "watched_two.py", "watched_package/__init__.py", "watched_package/inner.py"]
    {
        fs::write(at(name), "").unwrap();
    }
    let mut imported = Imported::default();
    Python::attach(|py| {
        let path = py.import("sys").unwrap().getattr("path").unwrap().cast_into::<PyList>().unwrap();
        path.append(dir.path().as_os_str()).unwrap();
        let mut look = || -> Vec<PathBuf> { imported.look(py).unwrap() };
        for name in ["watched_one", "watched_package.inner", "json.decoder", "_json"] {
            py.import(name).unwrap();
        }
        let files = look();
        for name in ["watched_one.py", "watched_package/__init__.py", "watched_package/inner.py"] {
            assert!(files.contains(&at(name)), "{name} is not in {files:?}");
        }
        assert!(!files.iter().any(|file| file.ends_with("json/decoder.py")), "{files:?}");
        assert!(!files.iter().any(|file| file.to_string_lossy().contains("lib-dynload")), "{files:?}");
        py.import("watched_two").unwrap();
        assert!(look().contains(&at("watched_two.py")));
    });
}

#[test]
fn to_look_for_files_runs_no_code_of_a_module() {
    start_python();
    let code = "
import sys, types
class Lazy(types.ModuleType):
    def __getattribute__(self, name):
        raise AssertionError('a test asked for ' + name)
sys.modules['watched_lazy'] = Lazy('watched_lazy')
sys.modules['watched_stranger'] = object()
sys.modules['watched_none'] = None
";
    Python::attach(|py| {
        module(py, code);
        Imported::default().look(py).unwrap();
    });
}
