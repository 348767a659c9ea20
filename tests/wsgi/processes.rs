//! What needs a process of its own: forks, a virtual environment, an abort, the end. Such a process is this binary
//! again, running one of the ignored tests below.
#![allow(unsafe_code, reason = "forks and ends processes as the supervisor does")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use crate::python::logging::LogConfig;
use crate::python::{ending, fork, interpreter, site, traceback};
use pyo3::prelude::*;

use super::fixture::{log_record, module, no_access_log, start_python};

/// Runs an ignored test of this file in a process of its own.
fn run(name: &str, venv: Option<&Path>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        &format!("tests::processes::{name}"),
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env_remove("VIRTUAL_ENV").env_remove("PYTHONUNBUFFERED");
    if let Some(venv) = venv {
        command.env("VIRTUAL_ENV", venv);
    }
    command.output().unwrap()
}

/// The same, for one whose end says everything.
fn succeeds(name: &str) {
    let output = run(name, None);
    assert!(output.status.success(), "{output:?}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_child_runs_python_whatever_its_parents_threads_did_at_the_fork() {
    succeeds("forks_beside_a_busy_thread");
}

#[test]
#[ignore = "run in a process of its own"]
fn forks_beside_a_busy_thread() {
    start_python();
    let code = "
import os, random, threading
parent = os.getpid()
forked = []
os.register_at_fork(after_in_child=lambda: forked.append(os.getpid()))
busy = threading.Event()
def spin():
    busy.set()
    while True:
        pass
threading.Thread(target=spin, daemon=True).start()
busy.wait()
def check():
    assert forked == [os.getpid()] and os.getpid() != parent
    assert threading.current_thread() is threading.main_thread()
    thread = threading.Thread(target=lambda: forked.append('thread'))
    thread.start()
    thread.join(5)
    assert forked[1:] == ['thread']
    return True
";
    let checks = Python::attach(|py| module(py, code).unbind());
    for _ in 0..20 {
        fork::before();
        // SAFETY: the child only runs the lines below and ends by `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: a child that hangs ends itself.
            unsafe { libc::alarm(10) };
            fork::after_in_child();
            let fine = Python::attach(|py| checks.bind(py).call_method0("check").is_ok());
            // SAFETY: as every worker ends.
            unsafe { libc::_exit(i32::from(!fine)) };
        }
        fork::after_in_parent();
        let mut status = 0;
        // SAFETY: waits for the child that was just made.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!((waited, status), (pid, 0));
    }
}

#[test]
fn without_an_interpreter_the_fork_hooks_do_nothing() {
    succeeds("calls_the_hooks_without_python");
}

#[test]
#[ignore = "run in a process of its own"]
fn calls_the_hooks_without_python() {
    fork::before();
    fork::after_in_parent();
    fork::before();
    fork::after_in_child();
    assert!(Python::try_attach(|_| ()).is_none());
}

#[test]
fn a_virtual_environment_is_honoured() {
    start_python();
    let dir = tempfile::tempdir().unwrap();
    let venv = dir.path().canonicalize().unwrap().join("venv");
    Python::attach(|py| {
        let options = pyo3::types::PyDict::new(py);
        options.set_item("symlinks", true).unwrap();
        py.import("venv").unwrap().call_method("create", (&venv,), Some(&options)).unwrap();
    });
    let output = run("tells_its_prefix", Some(&venv));
    let seen = text(&output.stdout);
    assert!(seen.contains(&format!("prefix={}\n", venv.display())), "{output:?}");
    assert!(seen.contains(&format!("executable={}/bin/python3", venv.display())), "{output:?}");
    assert!(seen.contains(&format!("packages={}", venv.join("lib").display())), "{output:?}");
    assert!(!text(&run("tells_its_prefix", None).stdout).contains(&venv.display().to_string()));
}

#[test]
#[ignore = "run in a process of its own"]
fn tells_its_prefix() {
    let venv = std::env::var_os("VIRTUAL_ENV");
    interpreter::ensure(venv.as_deref().map(Path::new)).unwrap();
    // Again: does nothing.
    interpreter::ensure(venv.as_deref().map(Path::new)).unwrap();
    Python::attach(|py| {
        site::run(py, &[]).unwrap();
        let code = "
import sys, signal
packages = [path for path in sys.path if path.endswith('site-packages')][0]
seen = f'prefix={sys.prefix}\\nexecutable={sys.executable}\\npackages={packages}\\n'
";
        let seen: String = module(py, code).getattr("seen").unwrap().extract().unwrap();
        std::io::stdout().write_all(seen.as_bytes()).unwrap();
    });
}

#[test]
fn an_aborted_process_leaves_the_stacks_of_all_its_threads() {
    let output = run("is_aborted", None);
    let seen = text(&output.stderr);
    assert!(
        seen.contains("Aborted") && seen.contains("in stuck_here") && seen.contains("in waits_there"),
        "{seen}"
    );
}

#[test]
#[ignore = "run in a process of its own"]
fn is_aborted() {
    start_python();
    Python::attach(|py| {
        traceback::dump_stacks_when_asked(py, 2).unwrap();
        let code = "
import os, threading
begun = threading.Event()
def waits_there():
    begun.set()
    threading.Event().wait()
threading.Thread(target=waits_there, daemon=True).start()
begun.wait()
def stuck_here():
    os.kill(os.getpid(), 6)
    while True:
        pass
";
        module(py, code).getattr("stuck_here").unwrap().call0().unwrap();
    });
}

#[test]
fn stacks_are_shown_also_where_the_log_is_a_full_pipe_that_waits() {
    succeeds("shows_stacks_beside_a_full_pipe");
}

#[test]
#[ignore = "run in a process of its own"]
fn shows_stacks_beside_a_full_pipe() {
    use std::os::fd::AsRawFd;
    start_python();
    let (_reading, writing) = rustix::pipe::pipe().unwrap();
    let mut writing = std::fs::File::from(writing);
    let log = writing.as_raw_fd();
    // SAFETY: changes flags of a descriptor that is open, and sets a timer that ends this process where it hangs.
    let flags = unsafe {
        libc::alarm(20);
        let flags = libc::fcntl(log, libc::F_GETFL);
        libc::fcntl(log, libc::F_SETFL, flags | libc::O_NONBLOCK);
        flags
    };
    while writing.write(&[b'x'; 4096]).is_ok() {}
    // SAFETY: as above.
    unsafe { libc::fcntl(log, libc::F_SETFL, flags) };
    Python::attach(|py| {
        traceback::dump_stacks_when_asked(py, log).unwrap();
        traceback::keep_stacks(py).unwrap();
        let code = "
import threading
begun = threading.Event()
def waits_there():
    begun.set()
    threading.Event().wait()
threading.Thread(target=waits_there, daemon=True).start()
begun.wait()
";
        module(py, code);
    });
    for _ in 0..2 {
        let stacks = traceback::dump_stacks().unwrap();
        assert_eq!(stacks.matches("in waits_there").count(), 1, "{stacks}");
    }
}

#[test]
fn the_stacks_of_many_deep_threads_are_shown_whole_and_once() {
    succeeds("shows_the_stacks_of_many_deep_threads");
}

#[test]
#[ignore = "run in a process of its own"]
fn shows_the_stacks_of_many_deep_threads() {
    start_python();
    Python::attach(|py| {
        traceback::dump_stacks_when_asked(py, 2).unwrap();
        traceback::keep_stacks(py).unwrap();
        let code = "
import threading
def deep_one_with_a_name_that_makes_its_line_long(depth, begun):
    if depth:
        return deep_one_with_a_name_that_makes_its_line_long(depth - 1, begun)
    begun.set()
    threading.Event().wait()
def waits_there(begun):
    begun.set()
    threading.Event().wait()
def start(target, *arguments):
    begun = threading.Event()
    threading.Thread(target=target, args=(*arguments, begun), daemon=True).start()
    begun.wait()
start(waits_there)
for _ in range(20):
    start(deep_one_with_a_name_that_makes_its_line_long, 150)
";
        module(py, code);
    });
    assert_eq!(traceback::take_stacks().unwrap(), None);
    // The newest thread comes first.
    let stacks = traceback::dump_stacks().unwrap();
    assert!(stacks.len() > 100_000, "{}", stacks.len());
    assert_eq!(stacks.matches("in waits_there").count(), 1, "{stacks}");
    // SAFETY: it has no preconditions; the handler has run when it returns.
    unsafe { libc::raise(libc::SIGURG) };
    assert_eq!(traceback::take_stacks().unwrap().unwrap().matches("in waits_there").count(), 1);
    assert_eq!(traceback::take_stacks().unwrap(), None);
    // SAFETY: the process has said all.
    unsafe { libc::_exit(0) };
}

#[test]
fn at_the_end_exit_functions_run_and_what_was_printed_is_flushed() {
    let output = run("ends_in_order", None);
    let seen = text(&output.stdout);
    assert!(seen.contains("printed\nfunction ran\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
#[ignore = "run in a process of its own"]
fn ends_in_order() {
    start_python();
    Python::attach(|py| {
        let code = "
import atexit, threading
atexit.register(print, 'function ran')
print('printed')
# A thread that never ends must not keep the process.
threading.Thread(target=threading.Event().wait).start()
";
        module(py, code);
        ending::run_exit_functions(py);
    });
    // SAFETY: as every worker ends.
    unsafe { libc::_exit(7) };
}

#[test]
fn pythons_signal_handlers_are_not_installed() {
    let output = run("is_interrupted", None);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(libc::SIGINT), "{output:?}");
}

#[test]
#[ignore = "run in a process of its own"]
fn is_interrupted() {
    start_python();
    // SAFETY: asks for the default, which a parent may have changed before it started this binary.
    unsafe { libc::raise(libc::SIGINT) };
}

#[test]
fn a_hook_of_the_master_that_hangs_is_named_and_ends_its_process_and_others_go_on_after_an_exception() {
    let output = run("calls_hooks_of_the_master", None);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = text(&output.stdout) + &text(&output.stderr);
    assert!(text.contains("ready with 2 workers of 7"), "{text}");
    assert!(text.contains("Exception in the hook when_ready"), "{text}");
    assert!(text.contains("The hook pre_fork has not returned within 5s"), "{text}");
}

#[test]
#[ignore = "run in a process of its own"]
fn calls_hooks_of_the_master() {
    use crate::conf::{MasterEvent, MasterFacts, MasterHooks, Script, Source, remember_directory};
    use std::os::unix::net::UnixStream;

    struct Printing;

    impl log::Log for Printing {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let _ = std::io::stderr().write_all(format!("{}\n", record.args()).as_bytes());
        }

        fn flush(&self) {}
    }

    static PRINTING: Printing = Printing;
    log::set_logger(&PRINTING).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let dir = tempfile::tempdir().unwrap();
    let code = "
import time
def when_ready(server):
    server.log.info('ready with %d workers of %d', server.num_workers, server.pid)
    raise ValueError('wrong')
def pre_fork(server, worker):
    time.sleep(60)
";
    std::fs::write(dir.path().join("gunicorn.conf.py"), code).unwrap();
    remember_directory(dir.path().to_owned());
    let hooks = MasterHooks {
        script: Script { source: Source::File("gunicorn.conf.py".into()), text: None },
        cfg: "{}".to_owned(),
        facts: MasterFacts { pid: 7, workers: 2, ..MasterFacts::default() },
        venv: None,
        arguments: vec!["mcsup".to_owned()],
        environment: Vec::new(),
        log_config: LogConfig::default(),
        python_path: Vec::new(),
        write_record: log_record(),
        access: no_access_log(),
        // The start of the interpreter counts too, on a busy machine.
        limit: std::time::Duration::from_secs(5),
        reopen_error_log: Box::new(|| {}),
    };
    let (mut events, theirs) = UnixStream::pair().unwrap();
    let (_started, to_started) = UnixStream::pair().unwrap();
    for event in [MasterEvent::WhenReady {}, MasterEvent::Born { pid: 8, age: 1 }] {
        events.write_all(event.line().as_bytes()).unwrap();
    }
    hooks.run(theirs.into(), to_started.into());
    unreachable!("the hook hangs");
}
