"""Hooks of gunicorn.conf.py in the worker, beside gunicorn itself."""

import contextlib
import http.client
import json
import os
import pwd
import re
import signal

import pytest
from beside_gunicorn import Gunicorn
from harness import HELLO, PATIENCE, Server, connect, get, is_gone, read_all, wait_for

CONF = "gunicorn.conf.py"

# Each hook appends what it sees to a file. One write for each record keeps the lines of several processes whole.
RECORDING = """
import os
def note(*seen):
    with open("record", "a") as record:
        record.write(repr(seen) + "\\n")
def life(worker):
    return (worker.nr, worker.alive, worker.booted, worker.pid == os.getpid(), worker.ppid == os.getppid())
def post_fork(server, worker):
    note("post_fork", life(worker), server.num_workers, server.pid == worker.ppid, worker.timeout)
    note(worker.cfg.threads, worker.cfg.timeout, server.cfg.workers, len(server.LISTENERS), len(worker.sockets))
    note(server.LISTENERS[0].getsockname() == worker.sockets[0].getsockname(), server.log is worker.log)
    note(worker.app.callable is not None, server.timeout, worker.cfg.env, worker.log.loglevel)
    note(server.proc_name, worker.cfg.proc_name, server.worker_age == worker.age, server.reexec_pid, server.pidfile)
    # Among the workers of gunicorn that of gthread has it.
    connections = worker.cfg.worker_connections
    note(worker.is_parent_alive(), getattr(worker, "worker_connections", connections) == connections)
    worker.log.info("a line of post_fork, pid %s", worker.pid)
def post_worker_init(worker):
    note("post_worker_init", life(worker), worker.wsgi is worker.app.callable, callable(worker.app.wsgi()))
def worker_int(worker):
    note("worker_int", life(worker))
def worker_abort(worker):
    note("worker_abort", life(worker))
def worker_exit(server, worker):
    note("worker_exit", life(worker), server.num_workers)
def pre_request(worker, req):
    note("pre_request", life(worker), req.method, req.uri, req.path, req.query, req.version, req.scheme)
    note([field for field in req.headers if field[0] != "HOST"], req.remote_addr[0], len(req.trailers))
    req.headers.append(("X-OF-THE-HOOK", "added"))
def post_request(worker, req, environ, resp):
    note("post_request", life(worker), req.path, environ["PATH_INFO"], environ.get("of the application"))
    # gunicorn sets status_code with the status.
    note(resp.status, getattr(resp, "status_code", None), resp.headers, resp.headers_sent, resp.sent, resp.response_length)
    note(resp.chunked, environ["HTTP_X_OF_THE_HOOK"], environ["QUERY_STRING"], "noted")
"""

APP = """
import os
def app(environ, start_response):
    environ["of the application"] = environ["HTTP_X_OF_THE_HOOK"]
    if environ["PATH_INFO"] == "/fails":
        raise ValueError("as it should")
    body = b"hello"
    fields = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    if environ["PATH_INFO"] == "/pieces":
        start_response("201 Made", fields[:1])
        return iter([b"one", b"two"])
    start_response("200 OK", fields)
    return [body]
"""


def of_each(directory, act, *arguments):
    """The records of gunicorn and of mcsup after `act`, which gets the port, a pid of a worker and a way to the end."""
    (directory / CONF).write_text(RECORDING)
    (directory / "app.py").write_text(APP)
    record = directory / "record"
    theirs = Gunicorn(directory, *arguments, "app:app")
    # The request that has shown that it answers is not one of the test.
    try:
        wait_for(lambda: "noted" in record.read_text(), "the first request")
        record.write_text("")
        act(theirs.port, theirs.worker(), theirs.end)
    finally:
        theirs.end()
    expected = record.read_text()
    record.write_text("")
    ours = Server(directory, "-c", CONF, *arguments)
    try:
        assert get(ours.port)[0] == 200
        wait_for(lambda: "noted" in record.read_text(), "the first request")
        record.write_text("")

        def end(number=signal.SIGTERM):
            if ours.process.poll() is None:
                ours.signal(number)
                ours.wait(4 * PATIENCE)

        act(ours.port, ours.worker_pids()[-1], end)
        end()
    finally:
        ours.clean_up()
    return expected.splitlines(), record.read_text().splitlines()


def booting(directory, *arguments):
    """The records of a start of each."""
    (directory / CONF).write_text(RECORDING)
    (directory / "app.py").write_text(APP)
    record = directory / "record"
    found = []
    for start in (lambda: Gunicorn(directory, *arguments, "app:app"), lambda: Server(directory, "-c", CONF, *arguments)):
        record.write_text("")
        server = start()
        try:
            wait_for(lambda: "post_worker_init" in record.read_text(), "the hook")
            lines = record.read_text().splitlines()
            found.append(lines[: 1 + next(at for at, line in enumerate(lines) if "post_worker_init" in line)])
            assert f"a line of post_fork, pid {os.getpid()}" not in server.log
            wait_for(lambda server=server: re.search(r"\[INFO\] a line of post_fork, pid \d+", server.log), "its line")
        finally:
            server.process.terminate()
            server.process.wait(4 * PATIENCE)
    return found


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_post_fork_and_post_worker_init_see_what_they_see_under_gunicorn(directory, preload):
    theirs, ours = booting(directory, "--threads", "2", "-t", "20", "-e", "A=b=c", *preload)
    assert ours == theirs


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_hooks_of_requests_and_the_end_see_what_they_see_under_gunicorn(directory, threads):
    def act(port, _, end):
        assert get(port, "/a%20b?c=d")[0] == 200
        assert get(port, "/fails")[0] == 500
        assert get(port, "/pieces")[0] == 201
        wait_for(lambda: (directory / "record").read_text().count("noted") == 3, "the last hook")
        end()

    theirs, ours = of_each(directory, act, "--threads", threads)
    assert len(ours) == 3 * 5 + 1
    assert ours == theirs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_worker_int_is_called_at_a_quick_stop(directory, number):
    theirs, ours = of_each(directory, lambda _port, _pid, end: end(number))
    assert [line.split(",")[0] for line in ours] == ["('worker_int'", "('worker_exit'"]
    assert ours == theirs


def test_worker_int_is_called_when_a_changed_file_ends_the_worker(directory):
    def act(_port, pid, _end):
        # gunicorn does not notice a change that comes before its first look at the file.
        for _ in range(5):
            (directory / "app.py").write_text(APP + "\n# changed\n")
            with contextlib.suppress(AssertionError):
                return wait_for(lambda: is_gone(pid), "the worker")
        raise AssertionError("the worker does not end")

    theirs, ours = of_each(directory, act, "--reload")
    ended = [[line for line in lines if "worker_" in line and "init" not in line] for lines in (theirs, ours)]
    assert ended[1][0].startswith("('worker_int'") and ended[1][1].startswith("('worker_exit'")
    # A thread of gunicorn's worker calls the hook, and on a busy machine the process ends before it.
    assert not any("worker_int" in line for line in ended[0]) or ended[1][:2] == ended[0][:2]


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_worker_abort_is_called_at_sigabrt(directory, preload):
    def act(port, pid, _end):
        os.kill(pid, signal.SIGABRT)
        wait_for(lambda: is_gone(pid), "the worker")
        # A worker that is not ready when the service ends calls no hook.
        assert get(port, "/")[0] == 200
        wait_for(lambda: "noted" in (directory / "record").read_text(), "its successor")

    theirs, ours = of_each(directory, act, *preload)
    assert ours[0].startswith("('worker_abort'")
    assert ours == theirs


def test_a_worker_that_hangs_leaves_its_stacks_and_calls_worker_abort(directory):
    (directory / CONF).write_text(RECORDING)
    (directory / "app.py").write_text("import time\ndef app(environ, start_response):\n    time.sleep(60)\n")
    server = Server(directory, "-c", CONF, "-t", "1", "--request-timeout", "0")
    try:
        pid = server.worker_pids()[-1]
        with pytest.raises(OSError):
            server.get(timeout=PATIENCE)
        wait_for(lambda: is_gone(pid), "the worker")
        record = (directory / "record").read_text()
        assert record.index("worker_abort") < record.index("worker_exit")
        server.wait_log(r"File \"\S+/app.py\", line 3 in app")
        server.wait_log(r"Worker \d+ is ready", 2)
    finally:
        server.clean_up()


RAISING = """
def fail(*_):
    raise ValueError("of a hook")
def post_fork(server, worker): fail()
def post_worker_init(worker): fail()
def post_request(worker, req): fail()
def worker_exit(server, worker): fail()
"""


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_hooks_that_raise_are_named_and_the_service_goes_on(directory, preload):
    (directory / CONF).write_text(RAISING)
    (directory / "app.py").write_text(HELLO)
    server = Server(directory, "-c", CONF, *preload)
    try:
        assert server.get()[0] == 200
        server.wait_log(r"Exception in post_request hook\nTraceback")
        assert server.stop() == 0
        for name in ["post_fork", "post_worker_init", "worker_exit"]:
            server.wait_log(rf"\[ERROR\] Exception in the hook {name}\nTraceback")
        assert server.log.count("ValueError: of a hook") == 4
    finally:
        server.clean_up()


def test_a_hook_that_does_not_return_is_named(directory):
    (directory / CONF).write_text(
        "import os, time\ndef post_worker_init(worker):\n    while not os.path.exists('go'):\n        time.sleep(0.01)\n"
    )
    (directory / "app.py").write_text(HELLO)
    server = Server(directory, "-c", CONF, wait=False)
    try:
        text = r"\[WARNING\] The hook post_worker_init of gunicorn.conf.py has not returned for 5 seconds"
        server.wait_log(text, patience=4 * PATIENCE)
        (directory / "go").touch()
        server.wait_ready()
        assert server.get()[0] == 200
    finally:
        server.clean_up()


GATE = """
import os, time
def wait(name):
    open(name + " runs", "w").close()
    while not os.path.exists(name + " may end"):
        time.sleep(0.01)
"""


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("hook", ["pre_request", "post_request"])
def test_a_hook_of_a_request_that_does_not_return_is_named(directory, hook, threads):
    (directory / CONF).write_text(f"{GATE}def {hook}(worker, req): wait('hook')\n")
    (directory / "app.py").write_text(HELLO)
    server = Server(directory, "-c", CONF, "--threads", threads)
    try:
        with connect(server.port) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            text = rf"\[WARNING\] The hook {hook} of gunicorn.conf.py has not returned for 5 seconds"
            server.wait_log(text, patience=4 * PATIENCE)
            (directory / "hook may end").touch()
            assert read_all(client).startswith(b"HTTP/1.1 200 ")
        assert len(re.findall(text, server.log)) == 1
    finally:
        server.clean_up()


PIECES = """
import tempfile
def app(environ, start_response):
    path, fields = environ["PATH_INFO"], [("Content-Type", "text/plain")]
    if path == "/pieces":
        start_response("200 OK", fields)
        return iter([b"one", b"two"])
    start_response("200 OK", [*fields, ("Content-Length", "6")])
    if path == "/file":
        file = tempfile.TemporaryFile()
        file.write(b"onetwo")
        file.seek(0)
        return environ["wsgi.file_wrapper"](file)
    return [b"onetwo"]
"""


@pytest.mark.parametrize("path", ["/whole", "/pieces", "/file"])
def test_a_client_does_not_wait_for_post_request(directory, path):
    (directory / CONF).write_text(f"{GATE}def post_request(worker, req): wait('hook')\n")
    (directory / "app.py").write_text(PIECES)
    server = Server(directory, "-c", CONF, "--threads", "2", wait=False)
    try:
        server.wait_ready()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=4 * PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            # While the hook runs: nothing ends it before.
            assert connection.getresponse().read() == b"onetwo"
            wait_for((directory / "hook runs").exists, "the hook")
            (directory / "hook may end").touch()
            connection.request("GET", path)
            assert connection.getresponse().read() == b"onetwo"
    finally:
        (directory / "hook may end").touch()
        server.clean_up()


def test_a_hook_that_exits_fails_the_boot_and_a_reload_keeps_the_old_workers(directory):
    (directory / CONF).write_text("workers = 1\n")
    (directory / "app.py").write_text(HELLO)
    server = Server(directory, "-c", CONF)
    try:
        (directory / CONF).write_text("import sys\ndef post_fork(server, worker):\n    sys.exit('no database')\n")
        server.signal(signal.SIGHUP)
        server.wait_log(r"the hook post_fork of gunicorn.conf.py has ended the worker: SystemExit: no database")
        assert server.get()[0] == 200
    finally:
        server.clean_up()


def test_a_worker_whose_alive_is_set_to_false_is_replaced_without_a_lost_request(directory):
    code = "def post_request(worker, req):\n    if worker.nr == 3:\n        worker.alive = False\n"
    (directory / CONF).write_text(code)
    (directory / "app.py").write_text(HELLO)
    server = Server(directory, "-c", CONF)
    try:
        assert [server.get()[0] for _ in range(3)] == [200] * 3
        server.wait_log(r"a hook has set worker.alive to False")
        server.wait_log(r"Worker \d+ is ready", 2)
        assert server.get()[0] == 200
    finally:
        server.clean_up()


# The names come from gunicorn itself.
READS_ALL = """
statsd_host = "127.0.0.1:1"
statsd_prefix = "of the file"
def post_worker_init(worker):
    from gunicorn.config import Config
    known = Config().settings
    names = [name for name, setting in known.items() if not callable(setting.get()) or name.endswith("_class")]
    absent = [name for name in names if not hasattr(worker.cfg, name)]
    kinds = [name for name in names if name in TYPED and type(getattr(worker.cfg, name)) is not type(known[name].get())]
    cfg = worker.cfg
    values = [cfg.statsd_host, cfg.statsd_prefix, cfg.capture_output, cfg.sendfile, cfg.forwarded_allow_ips, cfg.proxy_protocol]
    with open("record", "w") as record:
        record.write(repr((absent, kinds, values)) + "\\n")
TYPED = ["forwarded_allow_ips", "secure_scheme_headers", "forwarder_headers", "initgroups", "syslog", "header_map", "max_requests"]
"""


# The values of cfg that are not gunicorn's defaults.
COMPARES_DEFAULTS = """
def post_worker_init(worker):
    import json
    from gunicorn.config import Config
    known = {name: setting.get() for name, setting in Config().settings.items()}
    other = {name: getattr(worker.cfg, name, "none") for name, value in known.items() if not callable(value)}
    other = {name: value for name, value in other.items() if value != known[name]}
    with open("record", "w") as record:
        record.write(json.dumps(other) + "\\n")
"""


def test_cfg_has_gunicorns_defaults_where_mcsup_has_no_other_one(serve, directory):
    (directory / CONF).write_text(COMPARES_DEFAULTS)
    # gunicorn's default is the number of the user.
    server = serve(HELLO, "-u", pwd.getpwuid(os.geteuid()).pw_name)
    found = json.loads((directory / "record").read_text())
    assert found == {
        # The command line of the test.
        "bind": [f"127.0.0.1:{server.port}"], "wsgi_app": "app:app",
        # gunicorn has the application's name as default_proc_name.
        "proc_name": "app:app",
        # Defaults of mcsup, as docs/SETTINGS.md has them.
        "limit_request_line": 8190, "worker_connections": 0,
        # The path of gunicorn's own, in the user's home.
        "control_socket": "gunicorn.ctl",
    }  # fmt: skip
    assert server.stop() == 0


def test_cfg_has_each_setting_of_gunicorn_with_the_value_of_the_highest_source(serve, directory):
    (directory / CONF).write_text(READS_ALL)
    words = ["--statsd-host", "127.0.0.1:2", "--no-sendfile", "--forwarded-allow-ips", "10.0.0.1,10.0.0.2", "--capture-output"]
    server = serve(HELLO, *words)
    values = ["127.0.0.1:2", "of the file", True, False, ["10.0.0.1", "10.0.0.2"], "off"]
    assert (directory / "record").read_text() == repr(([], [], values)) + "\n"
    assert server.stop() == 0
