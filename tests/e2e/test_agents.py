"""Agents from PyPI, started as their documentation says: their threads are in the workers, never in the supervisor."""

import http.server
import importlib.metadata
import json
import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path

import pytest

from harness import TOP, clean_environment, wait_for

VENV = Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "agents-venv"
PACKAGES = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
UPGRADED = "Upgraded: a new image supervises"
# Agents are slow to import, and this machine may be busy.
PATIENT = 60

APP = """
import os, sys, threading
from flask import Flask

app = Flask(__name__)

@app.get("/<mark>")
def index(mark):
    agent = sys.modules.get("newrelic.api.transaction")
    return {
        "pid": os.getpid(),
        "threads": [thread.name for thread in threading.enumerate()],
        "is_traced": bool(agent and agent.current_transaction()),
    }
"""


INSTALLED = {dist.name.lower() for dist in importlib.metadata.distributions(path=[str(PACKAGES)])}


def needs(package):
    """Skips a test whose package could not be installed, and says so."""
    reason = f"{package} is not in {VENV}: `make {VENV.parent.name}/{VENV.name}/.ready` says why"
    return pytest.mark.skipif(not {package, "flask", "mcsup"} <= INSTALLED, reason=reason)


class Pool:
    """A server with an agent in it, which is taken through all that happens to a pool."""

    def __init__(self, serve, wrapper, arguments=(), workers=2, **variables):
        environment = clean_environment(**{name: str(value) for name, value in variables.items()})
        command = [*wrapper, VENV / "bin" / "mcsup"]
        options = {"command": command, "env": environment, "workers": workers, "wait": False}
        self.server = serve(APP, "--boot-timeout", PATIENT, *arguments, **options)
        self.workers, self.count, self.ready = workers, 0, 0
        self.wait_ready(workers)

    def wait_ready(self, more):
        self.ready += more
        self.server.wait_log(r"Worker (\d+) is ready", self.ready, PATIENT)

    def ask(self):
        """One answer, and the mark that its request has."""
        self.count += 1
        mark = f"mark-{self.count}"
        status, body = self.server.get(f"/{mark}", timeout=PATIENT)
        assert status == 200, body
        return mark, json.loads(body)

    def live(self, assert_alive, molds=0):
        """From the start to the stop. After each event a worker has the agent, and the supervisor has not."""
        server = self.server

        def check():
            wait_for(lambda: len(server.worker_pids()) == self.workers + molds, "the old workers to be gone", PATIENT)
            assert_alive(*self.ask())
            self.assert_supervisor_is_free()

        check()
        os.kill(self.ask()[1]["pid"], signal.SIGKILL)
        self.wait_ready(1)
        check()
        server.signal(signal.SIGHUP)
        server.wait_log("Reload done", patience=PATIENT)
        self.wait_ready(self.workers)
        check()
        server.signal(signal.SIGUSR2)
        server.wait_log(UPGRADED, patience=PATIENT)
        check()
        os.kill(self.ask()[1]["pid"], signal.SIGKILL)
        self.wait_ready(1)
        check()
        assert server.stop(PATIENT) == 0
        server.assert_nothing_left()

    def assert_supervisor_is_free(self):
        """It has one thread, and no extension of a package but ours."""
        assert len(os.listdir(f"/proc/{self.server.pid}/task")) == 1
        maps = Path(f"/proc/{self.server.pid}/maps").read_text().splitlines()
        assert [line for line in maps if "site-packages" in line and "/mcsup/" not in line] == []


@pytest.fixture
def intake():
    """What agents send by HTTP: all bodies so far."""
    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    bodies.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
            else:
                bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    server.server_close()


PRELOADS = [(), ("--preload",)]


@needs("opentelemetry-distro")
@pytest.mark.parametrize("arguments", PRELOADS)
def test_opentelemetry_instrument(serve, arguments):
    wrapper = [VENV / "bin" / "opentelemetry-instrument"]
    exporters = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    pool = Pool(serve, wrapper, arguments, OTEL_BSP_SCHEDULE_DELAY=50, **exporters)

    def assert_alive(mark, answer):
        assert [name for name in answer["threads"] if name.startswith("OtelBatchSpan")]
        pool.server.wait_log(f'"http.target": "/{mark}"', patience=PATIENT)

    pool.live(assert_alive, molds=len(arguments))


@needs("ddtrace")
@pytest.mark.parametrize("arguments", PRELOADS)
def test_ddtrace_run(serve, intake, arguments):
    url, bodies = intake
    variables = {"DD_TRACE_AGENT_URL": url, "DD_TRACE_WRITER_INTERVAL_SECONDS": 0.1, "DD_REMOTE_CONFIGURATION_ENABLED": 0}
    pool = Pool(serve, [VENV / "bin" / "ddtrace-run"], arguments, **variables)

    def assert_alive(mark, _):
        # Its threads are not Python's.
        wait_for(lambda: any(f"/{mark}".encode() in body for body in list(bodies)), "the trace to be sent", PATIENT)

    pool.live(assert_alive, molds=len(arguments))


@needs("newrelic")
def test_newrelic_admin(serve):
    # Its developer mode does all but talk to the collector.
    variables = {"NEW_RELIC_DEVELOPER_MODE": "true", "NEW_RELIC_LICENSE_KEY": "0" * 40, "NEW_RELIC_APP_NAME": "test"}
    pool = Pool(serve, [VENV / "bin" / "newrelic-admin", "run-program"], workers=1, **variables)

    def assert_alive(*_):
        # It activates itself at the first request.
        wait_for(lambda: pool.ask()[1]["is_traced"], "a transaction", PATIENT)
        assert "NR-Harvest-Thread" in pool.ask()[1]["threads"]

    pool.live(assert_alive)


@needs("coverage")
@pytest.mark.parametrize("arguments", PRELOADS)
def test_coverage_of_subprocesses(serve, directory, arguments):
    (directory / "coverage.ini").write_text(f"[run]\nparallel = true\ndata_file = {directory}/data\ninclude = */app.py\n")
    # What older versions have their users write.
    hook = PACKAGES / "hook-of-test-agents.pth"
    pool = None
    try:
        hook.write_text("import coverage; coverage.process_startup()\n")
        pool = Pool(serve, [], arguments, COVERAGE_PROCESS_START=directory / "coverage.ini")
        answered = set()
        pool.live(lambda _, answer: answered.add(answer["pid"]), molds=len(arguments))
    finally:
        hook.unlink()
    view = APP.splitlines().index("def index(mark):") + 2
    found = {}
    for path in directory.glob("data.*"):
        pid = next(int(part.lstrip("pid")) for part in path.name.split(".") if part.lstrip("pid").isdigit())
        found[pid] = path
    assert pool.server.pid not in found
    last = max(found.keys() & answered)
    assert view in lines_of(found[last])


def lines_of(path):
    """The lines that a data file of coverage has seen."""
    with sqlite3.connect(path) as data:
        (blob,) = data.execute("select numbits from line_bits").fetchone()
    return {8 * index + bit for index, byte in enumerate(blob) for bit in range(8) if byte >> bit & 1}
