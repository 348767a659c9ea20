"""Handlers of SIGTERM that the application installs in Python, beside gunicorn."""

import os
import signal

import pytest
from beside_gunicorn import Gunicorn
from harness import Server, wait_for

# One line for each call of a handler. The environment names the form of the handler.
APP = """
import os, signal, sys
EARLIER = signal.getsignal(signal.SIGTERM)
def note(text):
    with open("record", "a") as record:
        record.write(f"{text}\\n")
def chain(number, frame):
    note(f"term {number}")
    EARLIER(number, frame)
def leave(number, frame):
    note(f"term {number}")
    sys.exit(0)
def clean_up(number, frame):
    note(f"term {number}")
def fail(number, frame):
    note(f"term {number}")
    raise ValueError("of a handler")
note(callable(EARLIER))
signal.signal(signal.SIGTERM, {"chain": chain, "leave": leave, "clean_up": clean_up, "fail": fail}[os.environ["FORM"]])
def app(environ, start_response):
    if environ["PATH_INFO"] == "/fork":
        pid = os.fork()
        if pid == 0:
            EARLIER(signal.SIGTERM, None)
            os._exit(0)
        note(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

# A worker of gunicorn whose handler does not end it is killed at this time.
LIMIT = ("--graceful-timeout", "2")


@pytest.fixture
def record(directory):
    (directory / "app.py").write_text(APP)
    path = directory / "record"
    path.write_text("")
    return path


def environment(monkeypatch, form):
    monkeypatch.setenv("FORM", form)


def start(directory, *arguments):
    return Server(directory, *LIMIT, *arguments)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("form", ["chain", "leave", "clean_up", "fail"])
def test_a_handler_of_sigterm_runs_once_at_a_stop_as_with_gunicorn(directory, record, monkeypatch, form, threads):
    environment(monkeypatch, form)
    arguments = ["--threads", str(threads)]
    theirs = Gunicorn(directory, *LIMIT, *arguments, "app:app")
    theirs.end()
    expected = record.read_text()
    assert expected == "True\nterm 15\n"
    record.write_text("")
    ours = start(directory, *arguments)
    try:
        assert ours.get()[0] == 200
        assert ours.stop() == 0
    finally:
        ours.clean_up()
    assert record.read_text() == expected
    if form == "fail":
        ours.wait_log(r"Error in a signal handler\nTraceback (?:.*\n)*ValueError: of a handler")


def test_a_reload_calls_the_handler_of_each_earlier_worker_and_a_quick_stop_calls_none(directory, record, monkeypatch):
    environment(monkeypatch, "clean_up")
    server = start(directory)
    try:
        server.signal(signal.SIGHUP)
        server.wait_ready(2)
        wait_for(lambda: "term" in record.read_text(), "the handler of the earlier worker")
        server.signal(signal.SIGINT)
        assert server.wait() == 0
    finally:
        server.clean_up()
    assert record.read_text().count("term 15") == 1


def test_a_worker_that_gets_sigterm_itself_drains_if_the_handler_calls_the_earlier_one(directory, record, monkeypatch):
    environment(monkeypatch, "chain")
    server = start(directory)
    try:
        [worker] = server.worker_pids()
        os.kill(worker, signal.SIGTERM)
        server.wait_ready(2)
        wait_for(lambda: worker not in server.worker_pids(), "the end of the worker")
        assert record.read_text() == "True\nterm 15\nTrue\n"
        assert server.stop() == 0
    finally:
        server.clean_up()
    assert "Error in a signal handler" not in server.log


def test_a_process_that_the_application_forks_ends_by_the_earlier_handler(directory, record, monkeypatch):
    environment(monkeypatch, "chain")
    server = start(directory)
    try:
        assert server.get("/fork")[0] == 200
        assert record.read_text() == f"True\n{-signal.SIGTERM}\n"
        assert server.worker_pids(), "the worker goes on"
    finally:
        server.clean_up()


def test_a_handler_that_a_mold_has_installed_is_replaced_in_its_workers_as_with_gunicorn(directory, record, monkeypatch):
    environment(monkeypatch, "clean_up")
    theirs = Gunicorn(directory, *LIMIT, "--preload", "app:app")
    theirs.end()
    assert "term" not in record.read_text()
    record.write_text("")
    ours = start(directory, "--preload")
    try:
        assert ours.get()[0] == 200
        assert ours.stop() == 0
    finally:
        ours.clean_up()
    assert record.read_text() == "True\n"
