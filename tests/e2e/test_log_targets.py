"""The targets of the logs: syslog, statsd, Python's logging, the captured output, JSON."""

import json
import os
import re
import select
import signal
import socket
import time

import pytest

from harness import HELLO, PATIENCE, answers, run, wait_for

LOUD = """
import os, sys
os.write(1, b"at the import\\n")
def app(environ, start_response):
    print("by print", environ["PATH_INFO"], flush=True)
    os.write(2, b"by write\\n")
    environ["wsgi.errors"].write("by wsgi.errors\\n")
    if environ["PATH_INFO"] == "/fails":
        raise ValueError("two\\nlines")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


class Datagrams:
    """A server that keeps the datagrams that it gets."""

    def __init__(self, family=socket.AF_INET, address=("127.0.0.1", 0)):
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(0.01)
        self.texts = []

    @property
    def port(self):
        """Where it is."""
        return self.socket.getsockname()[1]

    def wait(self, pattern, count=1):
        """Wait until a pattern is in the datagrams; return the matches."""

        def found():
            try:
                self.texts.append(self.socket.recv(65536).decode())
            except TimeoutError:
                pass
            matches = re.findall(pattern, "\n".join(self.texts))
            return matches if len(matches) >= count else None

        try:
            return wait_for(found, f"{pattern!r}", patience=2 * PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.texts}") from None


@pytest.fixture
def datagrams():
    """A server on UDP."""
    server = Datagrams()
    yield server
    server.socket.close()


def test_syslog_gets_both_logs_by_udp_with_gunicorns_names(serve, datagrams):
    address = f"udp://127.0.0.1:{datagrams.port}"
    server = serve(HELLO, "--log-syslog", "--log-syslog-to", address, "--log-syslog-facility", "local0", "-n", "shop")
    server.get("/seen")
    datagrams.wait(rf"<134>gunicorn\.shop\.error: \[{server.pid}\] Starting mcsup ")
    (worker,) = server.worker_pids()
    datagrams.wait(rf'<134>gunicorn\.shop\.access: \[{worker}\] 127\.0\.0\.1 - - \[.*\] "GET /seen HTTP/1\.1" 200 ')
    assert "Starting mcsup" in server.log


def test_the_access_log_may_be_kept_out_of_syslog(serve, datagrams):
    address = f"udp://127.0.0.1:{datagrams.port}"
    server = serve(
        HELLO, "--log-syslog", "--log-syslog-to", address, "--log-syslog-prefix", "x", "--disable-redirect-access-to-syslog"
    )
    server.get("/seen")
    assert server.stop() == 0
    datagrams.wait(r"gunicorn\.x\.error: \[\d+\] Shutting down|gunicorn\.x\.error: \[\d+\] Stop", 1)
    assert not [text for text in datagrams.texts if "access" in text or "/seen" in text]


def test_syslog_by_tcp_gets_lines_and_by_a_unix_socket_datagrams(serve, directory):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        server = serve(HELLO, "--log-syslog", "--log-syslog-to", address)
        server.get("/seen")
        listener.settimeout(PATIENCE)
        texts, connections = [], []

        def seen():
            for connection in connections:
                try:
                    texts.append(connection.recv(65536).decode())
                except TimeoutError:
                    continue
            return 'gunicorn.app.app.access' in "".join(texts) and "Starting mcsup" in "".join(texts)

        for _ in range(2):
            connection, _ = listener.accept()
            connection.settimeout(0.01)
            connections.append(connection)
        wait_for(seen, "both logs")
        assert server.stop() == 0
        for connection in connections:
            connection.close()
    unix = Datagrams(socket.AF_UNIX, str(directory / "log"))
    server = serve(HELLO, "--log-syslog", "--log-syslog-to", f"unix://{directory}/log")
    server.get("/seen")
    unix.wait(r'<14>gunicorn\.app\.app\.access: .*"GET /seen')
    unix.socket.close()


def fill(listener):
    """Fill the queue of a listener, so that no further connection is made; return the connections that fill it."""
    listener.listen(0)
    clients = []
    while True:
        clients.append(socket.socket())
        clients[-1].settimeout(0.3)
        try:
            clients[-1].connect(listener.getsockname())
        except TimeoutError:
            return clients


def test_the_last_record_of_a_process_reaches_a_syslog_whose_connection_takes_time(serve):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients = fill(listener)
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        server = serve(LOUD, "--log-syslog", "--log-syslog-to", address, "--disable-redirect-access-to-syslog")
        assert server.get("/fails")[0] == 500
        server.wait_log("ValueError: two")
        # From now on no process logs.
        for client in clients:
            client.close()
        texts, connections = [], []

        def seen():
            ready, _, _ = select.select([listener, *connections], [], [], 0.01)
            for source in ready:
                if source is listener:
                    connections.append(listener.accept()[0])
                elif text := source.recv(65536):
                    texts.append(text.decode())
                else:
                    connections.remove(source)
                    source.close()
            return "Listening at" in "".join(texts) and "ValueError: two" in "".join(texts)

        # The kernel tries to connect again after 1, 2, 4 and 8 seconds.
        wait_for(seen, "the records of both processes", patience=60)
        for connection in connections:
            connection.close()


def test_a_syslog_that_does_not_read_delays_no_request(serve, directory):
    unix = Datagrams(socket.AF_UNIX, str(directory / "log"))
    server = serve(HELLO, "--log-syslog", "--log-syslog-to", f"unix://{directory}/log")
    begin = time.monotonic()
    for _ in range(300):
        assert server.get("/seen")[0] == 200
    # A wait of a fifth of a second for each line would take longer.
    assert time.monotonic() - begin < 60
    server.wait_log(r"cannot send to unix://.*/log: Resource temporarily unavailable \(os error 11\); messages are lost")
    unix.socket.close()


def test_an_unknown_host_of_syslog_is_an_error_at_the_start(directory):
    (directory / "app.py").write_text(HELLO)
    ended = run("--log-syslog", "--log-syslog-to", "udp://nowhere.invalid", "app:app", cwd=directory, timeout=30)
    assert ended.returncode == 1 and "cannot log to syslog: no address of nowhere.invalid" in ended.stderr


def test_statsd_gets_gunicorns_metrics(serve, datagrams):
    server = serve(
        LOUD, "--statsd-host", f"127.0.0.1:{datagrams.port}", "--statsd-prefix", "shop", "--dogstatsd-tags", "env:test",
        "--enable-backlog-metric", workers=2,
    )  # fmt: skip
    datagrams.wait(r"shop\.gunicorn\.workers:2\|g\|#env:test")
    for path in ("/", "/", "/fails"):
        server.get(path)
    datagrams.wait(r"shop\.gunicorn\.request\.duration:\d+\.\d+\|ms\|#env:test", 3)
    counted = lambda name: sum(int(count) for count in datagrams.wait(rf"shop\.gunicorn\.{name}:(\d+)\|c\|#env:test"))
    wait_for(lambda: counted("requests") == 3, "three requests")
    assert (counted(r"request\.status\.200"), counted(r"request\.status\.500")) == (2, 1)
    assert counted(r"log\.exception") == 1
    datagrams.wait(r"shop\.gunicorn\.backlog:\d+\|h\|#env:test")
    server.signal(signal.SIGTTIN)
    datagrams.wait(r"shop\.gunicorn\.workers:3\|g")


def test_the_error_log_can_be_json(serve, directory):
    server = serve(LOUD, "--log-format", "json", "--error-logfile", "error.log", wait=False)
    read = lambda: [json.loads(line) for line in lines_of(directory / "error.log")]
    wait_for(lambda: any("is ready" in record["message"] for record in read()), "a ready worker")
    server.get("/fails")
    (failed,) = wait_for(
        lambda: [record for record in read() if record["message"].startswith("Error handling request GET /fails")], "the error"
    )
    assert failed["level"] == "ERROR" and "ValueError: two\nlines" in failed["message"]
    assert failed["pid"] in server.worker_pids()
    assert [record["message"] for record in read() if record.get("stream") == "wsgi.errors"] == ["by wsgi.errors"]


def lines_of(path):
    """The lines of a file that may not exist yet."""
    return path.read_text().splitlines() if path.exists() else []


def test_the_captured_output_is_in_the_error_log_also_after_a_rotation(serve, directory):
    server = serve(LOUD, "--capture-output", "--error-logfile", "error.log", wait=False)
    log = directory / "error.log"
    wait_for(lambda: any("is ready" in line for line in lines_of(log)), "a ready worker")
    server.get("/one")
    for line in ("at the import", "by print /one", "by write", "by wsgi.errors"):
        wait_for(lambda line=line: line in lines_of(log), line)
    log.rename(directory / "error.old")
    server.signal(signal.SIGUSR1)
    wait_for(log.exists, "the new file")
    wait_for(lambda: server.get("/two") and "by print /two" in lines_of(log), "the output in the new file")
    assert server.stop() == 0
    assert server.log == ""


INI = """
[loggers]
keys=root, gunicorn.error, gunicorn.access
[handlers]
keys=console, errors, requests
[formatters]
keys=all
[logger_root]
level=INFO
handlers=console
[logger_gunicorn.error]
level=INFO
handlers=errors
propagate=0
qualname=gunicorn.error
[logger_gunicorn.access]
level=INFO
handlers=requests
propagate=0
qualname=gunicorn.access
[handler_console]
class=StreamHandler
formatter=all
args=(sys.stdout,)
[handler_errors]
class=FileHandler
formatter=all
args=("%(here)s/errors.log",)
[handler_requests]
class=FileHandler
formatter=all
args=("%(here)s/requests.log",)
[formatter_all]
format=%(name)s %(levelname)s %(process)d %(message)s
"""

LOGGING = """
import logging
logging.getLogger("shop").warning("at the import")
def app(environ, start_response):
    logging.getLogger("shop").warning("a request")
    if environ["PATH_INFO"] == "/fails":
        raise ValueError("on purpose")
    start_response("200 OK", [])
    return [b"ok"]
"""


@pytest.mark.parametrize("arguments", [[], ["--threads", "3"], ["--preload"]], ids=["one thread", "threads", "preload"])
def test_pythons_logging_gets_the_records_of_a_worker(serve, directory, arguments):
    (directory / "logging.ini").write_text(INI)
    server = serve(LOGGING, "--log-config", f"{directory}/logging.ini", "--access-logformat", "%(m)s %(U)s %(s)s", *arguments)
    server.get("/seen")
    server.get("/fails")
    pids = server.worker_pids()
    (line, other) = wait_for(lambda: more_than(directory / "requests.log", 1), "two lines")
    assert (line, other) in [
        (f"gunicorn.access INFO {pid} GET /seen 200", f"gunicorn.access INFO {pid} GET /fails 500") for pid in pids
    ]
    wait_for(lambda: "ValueError: on purpose" in (directory / "errors.log").read_text(), "the error")
    assert "gunicorn.error ERROR" in (directory / "errors.log").read_text()
    assert "ValueError" not in server.log, "it is in Python's log instead"
    assert re.search(r"shop WARNING \d+ at the import", server.log) and "a request" in server.log
    (directory / "requests.log").rename(directory / "requests.old")
    server.signal(signal.SIGUSR1)
    wait_for(lambda: (directory / "requests.log").exists(), "the new file")
    wait_for(lambda: server.get("/after") and lines_of(directory / "requests.log"), "a line in the new file")
    assert server.stop() == 0


def more_than(path, count):
    """The lines of a file, if there are more than that."""
    lines = lines_of(path)
    return lines if len(lines) > count else None


JSON = {
    "formatters": {"json": {"()": "formatter.AsJson"}},
    "handlers": {"requests": {"class": "logging.FileHandler", "formatter": "json", "filename": "requests.log"}},
    "loggers": {"gunicorn.access": {"level": "INFO", "handlers": ["requests"], "propagate": False}},
    "root": {"level": "INFO", "handlers": []},
}

FORMATTER = """
import json, logging
class AsJson(logging.Formatter):
    def format(self, record):
        names = ["h", "m", "U", "q", "s", "b", "B", "D", "a", "{user-agent}i", "{x-served}o", "{app.user}e", "{none}i"]
        return json.dumps({name: record.args[name] for name in names})
"""


def test_formatters_of_python_find_gunicorns_atoms(serve, directory):
    (directory / "logging.json").write_text(json.dumps(JSON))
    (directory / "formatter.py").write_text(FORMATTER)
    code = HELLO.replace("start_response(", 'environ["app.user"] = "me"; start_response(').replace("[(", '[("X-Served", "y"), (')
    server = serve(code, "--log-config-json", "logging.json", "--access-logformat", "%(m)s %({app.user}e)s")
    server.get("/seen?a=b")
    (line,) = wait_for(lambda: lines_of(directory / "requests.log"), "a line")
    found = json.loads(line)
    assert found.pop("D") >= 0
    assert found.pop("B") == int(found.pop("b")) > 0
    expected = {"h": "127.0.0.1", "m": "GET", "U": "/seen", "q": "a=b", "s": "200", "a": "-", "{user-agent}i": "-"}
    assert found == expected | {"{x-served}o": "y", "{app.user}e": "me", "{none}i": "-"}


def test_a_wrong_configuration_of_logging_fails_the_start_with_its_reason(serve, directory):
    (directory / "logging.json").write_text('{"version": 1, "root": {"handlers": ["nothing"]}}')
    server = serve(HELLO, "--log-config-json", "logging.json", wait=False)
    assert server.wait() == 4
    assert "cannot configure Python's logging: ValueError: Unable to configure root logger" in server.log


def test_files_of_the_applications_own_handlers_are_reopened(serve, directory):
    code = LOGGING.replace("import logging\n", "import logging\nlogging.basicConfig(filename='shop.log')\n", 1)
    server = serve(code)
    wait_for(lambda: lines_of(directory / "shop.log"), "a line")
    os.rename(directory / "shop.log", directory / "shop.old")
    server.signal(signal.SIGUSR1)
    wait_for(lambda: server.get("/") and lines_of(directory / "shop.log"), "a line in the new file")


STUCK = """
import logging, os, time
class Stuck(logging.FileHandler):
    def emit(self, record):
        super().emit(record)
        while "/slow" in record.getMessage() and not os.path.exists("go"):
            time.sleep(0.01)
logconfig_dict = {
    "formatters": {"all": {"format": "%(message)s"}},
    "handlers": {"requests": {"()": Stuck, "formatter": "all", "filename": "requests.log"}},
    "root": {"level": "INFO", "handlers": []},
    "loggers": {"gunicorn.access": {"level": "INFO", "handlers": ["requests"], "propagate": False}},
}
access_log_format = "%(U)s"
errorlog = "error.log"
"""


def test_requests_do_not_wait_for_the_files_of_a_handler_that_stands_still(serve, directory):
    (directory / "gunicorn.conf.py").write_text(STUCK)
    server = serve(HELLO, wait=False)
    wait_for(lambda: any("is ready" in line for line in lines_of(directory / "error.log")), "a ready worker")
    server.get("/slow")
    wait_for(lambda: lines_of(directory / "requests.log") == ["/slow"], "a handler that stands still")
    for name in ("error", "requests"):
        (directory / f"{name}.log").rename(directory / f"{name}.old")
    server.signal(signal.SIGUSR1)
    wait_for((directory / "error.log").exists, "the new error log")
    for _ in range(30):
        assert server.get("/after", timeout=30)[0] == 200
    assert not (directory / "requests.log").exists()
    (directory / "go").touch()
    wait_for(lambda: server.get("/after") and lines_of(directory / "requests.log"), "a line in the new file", patience=30)


CONF = """
import logging
class OnlySeen(logging.Filter):
    def filter(self, record):
        return record.args["U"] != "/health"
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"seen": {"()": OnlySeen}},
    "formatters": {"all": {"format": "%(name)s %(levelname)s %(message)s"}},
    "handlers": {
        "all": {"class": "logging.FileHandler", "formatter": "all", "filename": "all.log"},
        "requests": {"class": "logging.FileHandler", "formatter": "all", "filename": "requests.log", "filters": ["seen"]},
    },
    "root": {"level": "INFO", "handlers": ["all"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "propagate": True},
        "gunicorn.access": {"level": "INFO", "handlers": ["requests"], "propagate": False},
    },
}
access_log_format = "%(m)s %(U)s"
def post_fork(server, worker):
    server.log.info("forked by the hook")
"""


def test_a_dictionary_of_gunicorn_conf_configures_logging_beside_hooks_that_log(serve, directory):
    (directory / "gunicorn.conf.py").write_text(CONF)
    server = serve(LOGGING)
    for path in ("/health", "/seen", "/fails"):
        server.get(path)
    lines = wait_for(lambda: more_than(directory / "requests.log", 1), "two lines")
    assert lines == ["gunicorn.access INFO GET /seen", "gunicorn.access INFO GET /fails"]
    wait_for(lambda: "ValueError: on purpose" in (directory / "all.log").read_text(), "the error")
    assert server.stop() == 0
    text = (directory / "all.log").read_text()
    assert text.count("gunicorn.error INFO forked by the hook\n") == 1, text
    assert text.count("ValueError: on purpose") == 1 and "shop WARNING a request" in text


HANGS = """
import logging, time
class Hangs(logging.Handler):
    def emit(self, record):
        open("hangs", "w").close()
        while True:
            time.sleep(60)
logconfig_dict = {
    "handlers": {"hangs": {"()": Hangs}},
    "root": {"level": "INFO", "handlers": []},
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["hangs"], "propagate": False}},
}
"""

RAISES = """
def app(environ, start_response):
    raise ValueError(environ["PATH_INFO"] + 3_000_000 * "x")
"""


def test_a_handler_that_hangs_costs_no_record_of_an_error_and_delays_no_end(serve, directory):
    (directory / "gunicorn.conf.py").write_text(HANGS)
    server = serve(RAISES, "--graceful-timeout", "120", wait=False)
    wait_for(lambda: answers(server.port), "an answer", patience=20)
    wait_for((directory / "hangs").exists, "a handler that hangs", patience=20)
    # Its queue is full then.
    for number in range(6):
        assert server.get(f"/{number}", timeout=30)[0] == 500
    server.wait_log("Python's handlers are too slow: records of this process are lost", patience=20)
    server.wait_log("ValueError: /5x", patience=20)
    assert server.stop(timeout=60) == 0
    assert "The handlers of Python's logging are too slow" in server.log
