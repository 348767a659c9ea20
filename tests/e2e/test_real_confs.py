"""gunicorn.conf.py files after the shape of those of real projects, unchanged, with their effects."""

import json
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest
from beside_gunicorn import Gunicorn
from harness import HELLO, PATIENCE, Server, clean_environment, free_port, get, is_gone, run, wait_for

CONFS = Path(__file__).with_name("confs")

# Answers with its process, and with an object of the test.
TELLING = """
import json, os, sys
def app(environ, start_response):
    found = tell(environ)
    body = json.dumps({"pid": os.getpid(), **found}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def conf(directory):
    """Starts a server with one of the files as its gunicorn.conf.py, and nothing on its command line but the application."""
    servers = []

    def start(name, *arguments, workers=1, wait=True, **variables):
        shutil.copy(CONFS / f"{name}.py", directory / "gunicorn.conf.py")
        port = free_port()
        env = clean_environment(TEST_PORT=str(port), **variables)
        server = Server(directory, *arguments, bare=True, port=port, env=env, workers=workers, wait=wait)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.clean_up()
        server.assert_nothing_left()


def app(directory, tell, text=TELLING, name="app.py"):
    """Writes an application whose answer is the expression `tell`."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + f"\ndef tell(environ):\n    return {tell}\n")


def ask(server, path="/"):
    status, body = server.get(path)
    assert status == 200
    return json.loads(body)


def total(found):
    """The number of requests in the metrics of an answer."""
    return float(re.search(r"^requests_total (\S+)", found["metrics"], re.MULTILINE).group(1))


def test_a_formula_of_the_processors_gives_the_workers_and_the_threads(directory, conf):
    app(directory, '{"threads": environ["wsgi.multithread"]}')
    server = conf("cpu_count", "app:app", workers=3, GUNICORN_MAX_WORKERS="3")
    assert ask(server)["threads"]
    assert len(server.worker_pids()) == 3
    server.wait_log(r'"GET / HTTP/1.1" 200')
    assert server.stop() == 0


METRICS = """
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess
requests = Counter("requests", "Requests")
running = Gauge("running", "Processes", multiprocess_mode="liveall")
def application(environ, start_response):
    requests.inc()
    running.set(1)
    return app(environ, start_response)
def metrics():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry).decode()
"""


def metrics_after_two_reloads_and_a_killed_worker(server, log, supervisor):
    """The number of living processes in the metrics, whether these are the workers, and whether no request is missing."""
    asked, last = 1, set()

    def both(old):
        nonlocal asked
        found = set()

        def all_of_them():
            nonlocal asked
            asked += 1
            found.add(json.loads(get(server.port)[1])["pid"])
            return len(found - old) >= 2

        wait_for(all_of_them, "answers of two workers", patience=4 * PATIENCE)
        return found - old

    for count in (4, 6):
        last = both(last)
        os.kill(supervisor, signal.SIGHUP)
        wait_for(lambda count=count: log().count("Worker spawned") >= count, "new workers", patience=4 * PATIENCE)
        wait_for(lambda: all(is_gone(pid) for pid in last), "the end of the old ones", patience=4 * PATIENCE)
        wait_for(lambda: log().count("are marked") >= count - 2, "their marks")
    last = both(last)
    killed = min(last)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: f"metrics of {killed} are marked" in log(), "its mark")
    last = both({killed}) | both({killed})
    asked += 1
    found = json.loads(get(server.port, "/metrics")[1])
    assert found["settings"] == "project.settings.production"
    living = set(map(int, re.findall(r'running\{pid="(\d+)"\} 1.0', found["metrics"])))
    return len(living), living == last, total(found) == asked


@pytest.mark.parametrize("preload", ["no", "yes"])
def test_metrics_of_processes_are_those_of_gunicorn_after_two_reloads_and_a_killed_worker(directory, conf, preload):
    # The metrics cannot be read while the file of a dead process is removed.
    tell = """{
        "settings": os.environ["DJANGO_SETTINGS_MODULE"],
        "metrics": metrics() if environ["PATH_INFO"] == "/metrics" else None,
    }"""
    app(directory, tell, TELLING + METRICS, "project/wsgi.py")
    shutil.copy(CONFS / "django.py", directory / "gunicorn.conf.py")
    # gunicorn loads the application before on_starting, which makes it again.
    (directory / "metrics").mkdir()
    variables = {"PRELOAD": preload, "PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics")}
    theirs = Gunicorn(directory, **variables)
    try:
        expected = metrics_after_two_reloads_and_a_killed_worker(theirs, lambda: theirs.log, theirs.process.pid)
    finally:
        theirs.end()
    server = conf("django", workers=2, **variables)
    server.wait_log(r"metrics of 2 workers are in \S+/metrics")
    assert get(server.port)[0] == 200
    ours = metrics_after_two_reloads_and_a_killed_worker(server, lambda: server.log, server.pid)
    assert ours == expected == (2, True, True)


def test_a_client_is_initialised_in_each_worker_and_flushed_at_its_end(directory, conf):
    (directory / "error_client.py").write_text("""
import os
client = None
def init(dsn, server_name):
    global client
    client = (server_name, os.getpid())
def flush(timeout):
    with open("flushed", "a") as file:
        file.write(f"{client[0]} {os.getpid()}\\n")
""")
    app(directory, '{"client": error_client.client}', TELLING + "import error_client\n")
    server = conf("sentry", "app:app", workers=2)
    found = ask(server)
    assert found["client"] == [f"worker-{found['pid']}", found["pid"]]
    server.wait_log(rf"client initialised in worker \d+ of {server.pid}", 2)
    workers = re.findall(r"client initialised in worker (\d+)", server.log)
    assert server.stop() == 0
    flushed = (directory / "flushed").read_text().split("\n")
    assert sorted(flushed) == sorted(["", *(f"worker-{pid} {pid}" for pid in workers)])


def test_the_loggers_of_a_configuration_of_logging_get_what_hooks_and_the_application_log(directory, conf):
    app(directory, "logging.getLogger('project').info('of the view') or {}", TELLING + "import logging\n")
    server = conf("dict_config", "app:app")
    ask(server, "/a?b")

    def lines():
        return re.findall(r"INFO\|.*", (directory / "app.log").read_text())

    size = len(json.dumps({"pid": server.worker_pids()[0]}))
    expected = [
        "INFO|gunicorn.error|worker 1 logs to a file",
        "INFO|project|of the view",
        f"INFO|gunicorn.error|GET /a -> 200 OK, {size} bytes",
    ]
    wait_for(lambda: lines() == expected, f"{expected} in {lines()}")


def test_the_handlers_of_logconfig_dict_get_requests_and_what_hooks_log(directory, conf):
    app(directory, "{}")
    server = conf("logconfig", "app:app")
    pid = ask(server, "/a?b")["pid"]
    line = f"INFO gunicorn.error: worker {pid} has its application\n"
    wait_for(lambda: line in (directory / "error.log").read_text(), "the line of the hook")
    wait_for(lambda: (directory / "access.log").read_text() == "access: GET /a 200\n", "the line of the request")


def test_environment_directories_and_a_factory_reach_the_application(directory, conf):
    (directory / "lib").mkdir()
    (directory / "lib" / "helper.py").write_text("here = __file__\n")
    code = "import helper\ndef create_app(name):\n    tell.name = name\n    return app\n"
    tell = '{"mode": os.environ["APP_MODE"], "database": os.environ["DATABASE_URL"], "name": tell.name, "cwd": os.getcwd()}'
    app(directory, tell, TELLING + code, "src/service.py")
    server = conf("raw_env")
    found = ask(server)
    assert found["mode"] == "production"
    assert found["database"] == "postgres://u:p=w@db/app?sslmode=disable"
    assert (found["name"], found["cwd"]) == ("from the file", str(directory / "src"))
    assert int((directory / "server.pid").read_text()) == server.pid


def test_a_bind_depends_on_the_environment(directory, conf):
    (directory / "app.py").write_text(HELLO)
    server = conf("conditional_bind", "app:app")
    assert server.get()[0] == 200
    server.wait_log(r"Booting mold")
    path = directory / "socket"
    server = conf("conditional_bind", "app:app", SOCKET=str(path), ENVIRONMENT="development")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert path.stat().st_mode & 0o777 == 0o770
    assert "Booting mold" not in server.log


def test_an_access_log_in_json_is_json_also_for_hostile_fields(directory, conf):
    app(directory, '{"id": environ.get("HTTP_X_REQUEST_ID")}')
    server = conf("json_logs", "app:app")
    pid = server.worker_pids()[0]
    # A field that a hook has added is the application's.
    assert ask(server, "/a?b=c")["id"] == f"{pid}-0"
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(b'GET /"q" HTTP/1.1\r\nHost: h\r\nX-Request-Id: 7\r\nUser-Agent: a "b"\r\nConnection: close\r\n\r\n')
        wait_for(lambda: not client.recv(65536), "the end of the connection")
    lines = wait_for(
        lambda: len(found := (directory / "access.log").read_text().splitlines()) == 2 and found, "two lines"
    )
    assert re.search(r'"method": "GET", "path": "/a", "query": "b=c", "status": "200"', lines[0])
    assert json.loads(lines[0])["bytes"] == str(len(json.dumps({"pid": pid, "id": f"{pid}-0"})))
    assert '"request_id": "7"' in lines[1]


def test_metrics_reach_statsd_with_prefix_and_tags(directory, conf):
    (directory / "app.py").write_text(HELLO)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(PATIENCE)
        server = conf("statsd", "app:app", STATSD_HOST=f"127.0.0.1:{agent.getsockname()[1]}")
        assert server.get()[0] == 200
        received = ""

        def has_all():
            nonlocal received
            received += agent.recv(65536).decode() + "\n"
            wanted = ("project.gunicorn.requests:1", "project.gunicorn.request.status.200:1")
            return all(metric in received for metric in wanted)

        wait_for(has_all, "the metrics")
        assert re.search(r"project\.gunicorn\.requests:1(\.0)?\|c\|(@1\.0\|)?#env:test,service:web", received)


def test_a_worker_class_for_asgi_is_refused_with_what_serves_it(directory, conf):
    (directory / "app.py").write_text(HELLO)
    shutil.copy(CONFS / "uvicorn_worker.py", directory / "gunicorn.conf.py")
    result = run("app:app", cwd=directory, env=clean_environment(TEST_PORT=str(free_port())))
    assert result.returncode == 2
    assert "gunicorn.conf.py:5" in result.stderr
    assert "mcsup exec" in result.stderr


def test_the_hooks_of_the_example_of_gunicorn_are_called(directory, conf):
    app(directory, '{"stage": os.environ["STAGE"]}')
    server = conf("every_hook", "app:app")
    assert ask(server)["stage"] == "test"
    server.wait_log(r"Server is ready. Spawning workers")
    server.wait_log(r"Worker spawned \(pid: \d+\)")
    server.signal(signal.SIGINT)
    server.wait()
    server.wait_log(r"worker received INT or QUIT signal")
    server.wait_log(r'File: ".*gunicorn.conf.py", line \d+, in worker_int')


def test_a_worker_over_its_memory_limit_is_replaced_after_its_request(directory, conf):
    app(directory, "{}")
    server = conf("memory_limit", "app:app", MEMORY_LIMIT_KIB="1")
    pid = ask(server)["pid"]
    server.wait_log(rf"worker {pid} uses \d+ KiB after 1 requests")
    server.wait_log(r"Worker \d+ is ready", 2)
    wait_for(lambda: ask(server)["pid"] != pid, "the successor", patience=4 * PATIENCE)


def test_a_hook_with_the_wrong_arguments_is_refused_with_its_line(directory):
    (directory / "app.py").write_text(HELLO)
    (directory / "gunicorn.conf.py").write_text("workers = 2\n\ndef post_fork(worker):\n    pass\n")
    result = run("app:app", cwd=directory)
    assert result.returncode == 2
    assert "gunicorn.conf.py:3: post_fork takes 1 arguments: expected 2" in result.stderr
