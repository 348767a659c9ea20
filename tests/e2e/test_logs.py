"""The logs: gunicorn's forms, and USR1."""

import json
import re
import signal

from harness import HELLO, wait_for

LINE = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[(DEBUG|INFO|WARNING|ERROR|CRITICAL)\] .+$")


def lines_of(path):
    """The lines of a file that may not exist yet."""
    return path.read_text().splitlines() if path.exists() else []


def test_the_error_log_has_gunicorns_lines(serve):
    server = serve(workers=2)
    assert server.stop() == 0
    lines = server.log.splitlines()
    assert lines and all(LINE.match(line) for line in lines), server.log
    for text in ("Starting mcsup 0.", f"Listening at: http://127.0.0.1:{server.port} ({server.pid})", "Booting worker with pid: "):
        assert text in server.log


def test_the_level_decides_what_is_logged(serve):
    server = serve(HELLO, "--log-level", "warning", wait=False)
    wait_for(lambda: answers(server), "an answer")
    assert server.stop() == 0
    assert server.log == ""


def answers(server):
    """Whether the server answers yet."""
    try:
        return server.get()[0] == 200
    except OSError:
        return False


def test_the_access_log_has_gunicorns_default_form(serve, directory):
    server = serve(HELLO, "--access-logfile", "access.log")
    server.get("/x?y=z")
    (line,) = wait_for(lambda: lines_of(directory / "access.log"), "a line")
    assert re.match(r'^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /x\?y=z HTTP/1\.1" 200 \d+ "-" "-"$', line)


def test_the_access_log_goes_to_standard_output(serve):
    server = serve(HELLO, "--access-logfile", "-", "--access-logformat", "%(m)s %(U)s %(s)s")
    server.get("/here")
    server.wait_log("^GET /here 200$".replace("^", "").replace("$", ""))


def test_the_access_log_can_be_json(serve, directory):
    server = serve(HELLO, "--access-logfile", "access.log", "--access-logformat", "json")
    server.get("/x")
    (line,) = wait_for(lambda: lines_of(directory / "access.log"), "a line")
    entry = json.loads(line)
    assert (entry["method"], entry["path"], entry["status"], entry["remote_addr"]) == ("GET", "/x", 200, "127.0.0.1")


def test_both_logs_are_reopened_in_all_processes(serve, directory):
    server = serve(
        "import sys\n" + HELLO.replace("start_response(", "environ['wsgi.errors'].write('served\\n'); start_response("),
        "--error-logfile", "error.log", "--access-logfile", "access.log", "--access-logformat", "%(U)s",
        workers=1, wait=False,
    )  # fmt: skip
    wait_for(lambda: answers(server), "an answer")
    wait_for(lambda: lines_of(directory / "access.log"), "a line")
    for name in ("error", "access"):
        (directory / f"{name}.log").rename(directory / f"{name}.old")
    server.signal(signal.SIGUSR1)
    wait_for(lambda: (directory / "error.log").exists() and (directory / "access.log").exists(), "the new files")
    server.get("/after")
    wait_for(lambda: lines_of(directory / "access.log") == ["/after"], "the line in the new file")
    wait_for(lambda: "served" in (directory / "error.log").read_text(), "the worker's line in the new file")
    server.signal(signal.SIGHUP)
    wait_for(lambda: "Reload done" in (directory / "error.log").read_text(), "the supervisor's line in the new file")
    assert "Reload done" not in (directory / "error.old").read_text()


def test_a_full_disk_loses_lines_and_nothing_else(serve):
    server = serve(HELLO, "--access-logfile", "/dev/full", "--error-logfile", "/dev/full", wait=False)
    wait_for(lambda: answers(server), "an answer")
    for _ in range(20):
        assert server.get()[0] == 200
    assert server.stop() == 0
