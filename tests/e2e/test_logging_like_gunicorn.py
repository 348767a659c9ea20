"""The loggers gunicorn.error and gunicorn.access, as applications and configurations find and change them, beside gunicorn."""

import contextlib
import re
import signal
from pathlib import Path

import pytest

from beside_gunicorn import Gunicorn
from harness import PATIENCE, Server, answers, get, wait_for

APP = """
def app(environ, start_response):
    if environ["PATH_INFO"] == "/fails":
        raise ValueError("on purpose")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

PATHS = ["/health", "/a"]
FILES = ["--access-logfile", "access.log", "--error-logfile", "error.log", "--access-logformat", "%(m)s %(U)s %(s)s"]


def text_of(path):
    """The text of a file, which may not be there."""
    return path.read_text(errors="replace") if path.exists() else ""


def both(directory, files, *arguments, paths=PATHS, until=None):
    """Serve the same files by gunicorn and by mcsup; return the directories of both after some requests and the end.

    `until`: a file and a pattern that it has at the end.
    """
    found = []
    for name, start in (("theirs", lambda *all: Gunicorn(*all, "app:app")), ("ours", lambda *all: Server(*all, wait=False))):
        place = directory / name
        place.mkdir()
        for file, text in {"app.py": APP, **files}.items():
            (place / file).write_text(text)
        server = start(place, *arguments)
        try:
            wait_for(lambda: answers(server.port), "an answer", 4 * PATIENCE)  # noqa: B023
            for path in paths:
                get(server.port, path)
            if until:
                file, pattern = until
                wait_for(lambda: re.search(pattern, text_of(place / file)), f"{pattern} in {file}", 2 * PATIENCE)  # noqa: B023
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}; {server.log}; {text_of(place / 'error.log')}") from None
        finally:
            server.process.terminate()
            server.process.wait(4 * PATIENCE)
        (place / "log").write_text(server.log)
        found.append(place)
    return found


def requests(place, file="access.log"):
    """The lines of requests but for those of the fixtures."""
    return [line for line in text_of(place / file).splitlines() if not re.search(r"GET / \d", line)]


FILTER = """
import logging
class Filter(logging.Filter):
    def filter(self, record):
        return "/health" not in record.getMessage()
"""
ADD = "logging.getLogger('gunicorn.access').addFilter(Filter())\n"
PLACES = {
    "the top of the configuration": {"gunicorn.conf.py": FILTER + ADD},
    "post_fork": {
        "gunicorn.conf.py": FILTER + "def post_fork(server, worker):\n    server.log.access_log.addFilter(Filter())\n"
    },
    "post_worker_init": {"gunicorn.conf.py": FILTER + "def post_worker_init(worker):\n    " + ADD},
    "the application": {"app.py": FILTER + ADD + APP},
}


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
@pytest.mark.parametrize("place", PLACES)
def test_a_filter_of_requests_counts_wherever_it_is_added(directory, place, preload):
    theirs, ours = both(directory, PLACES[place], *FILES, *preload, until=("access.log", "/a"))
    assert requests(ours) == requests(theirs) == ["GET /a 200"]


def test_a_filter_that_changes_a_line_keeps_a_secret_out_of_the_log(directory):
    redact = "record.args = dict(record.args, r='GET ***')\n        return True"
    files = {"app.py": FILTER.replace('return "/health" not in record.getMessage()', redact) + ADD + APP}
    until = ("access.log", "\\* 200\n")
    theirs, ours = both(directory, files, *FILES[:-1], "%(r)s %(s)s", paths=["/a?token=secret"], until=until)
    assert set(text_of(ours / "access.log").split("\n")) == set(text_of(theirs / "access.log").split("\n")) == {"GET *** 200", ""}


RECIPE = """
import logging
server = logging.getLogger("gunicorn.error")
shop = logging.getLogger("shop")
shop.handlers = server.handlers
shop.setLevel(server.level)
shop.propagate = False
shop.warning("at the import, level %s", server.level)
def app(environ, start_response):
    shop.debug("shop at work")
    shop.info("shop %s", environ["PATH_INFO"])
    server.info("server %s", environ["PATH_INFO"])
    logging.getLogger("gunicorn.access").info("GET /by-hand 200")
    try:
        raise ValueError("on purpose")
    except ValueError:
        server.exception("caught %s", environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.parametrize("arguments", [[], ["--preload"], ["--log-level", "debug"]], ids=["", "preload", "debug"])
def test_an_application_logs_by_the_handlers_of_the_server(directory, arguments):
    until = ("error.log", "(?s)server /a.*ValueError: on purpose")
    theirs, ours = both(directory, {"app.py": RECIPE}, *FILES, *arguments, until=until)

    def lines(place):
        lines = re.findall(r"\[\d+\] (\[\w+\] (?:at the import|shop|server|caught).*)", text_of(place / "error.log"))
        return [line for line in lines if not line.endswith(" /")]

    assert [line for line in lines(ours) if "at work" not in line] == [line for line in lines(theirs) if "at work" not in line]
    assert "[INFO] shop /a" in lines(ours) and "[ERROR] caught /a" in lines(ours)
    is_debug = "debug" in arguments
    assert ("[DEBUG] shop at work" in lines(ours), "[DEBUG] shop at work" in lines(theirs)) == (is_debug, is_debug)
    assert "GET /by-hand 200" in requests(ours) and "GET /by-hand 200" in requests(theirs)
    assert "ValueError" not in text_of(ours / "log"), "it is in the error log, once"


FORMATTERS = """
import logging
def post_fork(server, worker):
    for handler in server.log.error_log.handlers:
        handler.setFormatter(logging.Formatter("error %(levelname)s|%(message)s"))
    for handler in server.log.access_log.handlers:
        handler.setFormatter(logging.Formatter("access|%(message)s"))
    server.log.info("of the hook")
"""


def test_a_formatter_of_the_configuration_makes_the_lines(directory):
    files = {"gunicorn.conf.py": FORMATTERS}
    theirs, ours = both(directory, files, *FILES, paths=["/a", "/fails", "/b"], until=("access.log", "/b"))
    expected = ["access|GET /a 200", "access|GET /b 200"]
    for place in (theirs, ours):
        # gunicorn has no path for a request that fails.
        assert [line for line in requests(place) if not line.endswith(" 500")] == expected
        assert "error INFO|of the hook\n" in text_of(place / "error.log")
        assert re.search(r"(?m)^error ERROR\|.*/fails(.*\n)+.*ValueError: on purpose", text_of(place / "error.log"))


HANDLERS = """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"all": {"format": "%(name)s %(levelname)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "app.log", "formatter": "all"}},
    "loggers": {"gunicorn.access": {"handlers": ["file"]}},
})
class Collector(logging.Handler):
    def emit(self, record):
        further = set(vars(record)) - set(vars(logging.makeLogRecord({}))) - {"message", "asctime"}
        with open("collected", "a") as file:
            file.write(f"{record.levelname} {sorted(further)} {self.format(record)}\\n")
logging.getLogger("gunicorn.error").addHandler(Collector(logging.ERROR))
"""


def test_handlers_of_the_application_get_requests_and_exceptions(directory):
    files = {"app.py": HANDLERS + APP}
    theirs, ours = both(directory, files, *FILES, paths=["/a", "/fails", "/b"], until=("app.log", "/b"))
    for place in (theirs, ours):
        expected = ["gunicorn.access INFO GET /a 200", "gunicorn.access INFO GET /b 200"]
        assert [line for line in requests(place, "app.log") if not line.endswith(" 500")] == expected
        assert requests(place) == [], "the handler of the server is replaced"
        assert re.search(r"ERROR \[\] .*/fails(.*\n)+.*ValueError: on purpose", text_of(place / "collected"))
        assert "ValueError: on purpose" in text_of(place / "error.log"), "that logger keeps the handler of the server"


def test_requests_that_propagate_reach_the_root(directory):
    code = "import logging\nlogging.basicConfig(filename='root.log', format='root %(message)s', level=logging.INFO)\n"
    files = {"app.py": code + "logging.getLogger('gunicorn.access').propagate = True\n" + APP}
    theirs, ours = both(directory, files, *FILES, until=("root.log", "/a"))
    assert requests(ours, "root.log") == requests(theirs, "root.log") == ["root GET /health 200", "root GET /a 200"]
    assert requests(ours) == requests(theirs) == ["GET /health 200", "GET /a 200"]


@pytest.mark.parametrize(
    "change",
    ["logging.config.dictConfig({'version': 1})", "logging.getLogger('gunicorn.access').setLevel('WARNING')"],
    ids=["disabled", "level"],
)
def test_a_logger_of_requests_that_is_turned_off_writes_nothing(directory, change):
    files = {"app.py": f"import logging, logging.config\n{change}\n" + APP}
    until = ("note", "/last")
    note = "    open('note', 'a').write(environ['PATH_INFO'] + '\\n')\n"
    files["app.py"] = files["app.py"].replace("response):\n", "response):\n" + note)
    theirs, ours = both(directory, files, *FILES, paths=["/a", "/last"], until=until)
    assert text_of(ours / "access.log") == text_of(theirs / "access.log") == ""
    assert ("logger gunicorn.access is disabled" in text_of(ours / "error.log")) == ("dictConfig" in change)


def threads_of(pid):
    """The names of the threads of a process."""
    names = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            names.add((task / "comm").read_text().strip())
    return names


def test_a_line_needs_no_python_while_the_loggers_are_as_they_were_made(serve):
    code = "import logging\nlogging.basicConfig(level='INFO')\nshop = logging.getLogger('shop')\n"
    code += "shop.handlers = logging.getLogger('gunicorn.error').handlers\n"
    server = serve(code + APP, "--access-logfile", "access.log")
    server.get("/a")
    (worker,) = server.worker_pids()
    assert "logging" not in threads_of(worker)
    server = serve(code + FILTER + ADD + APP, "--access-logfile", "access.log")
    server.get("/a")
    (worker,) = server.worker_pids()
    assert "logging" in threads_of(worker)


def test_the_file_of_filtered_requests_is_opened_again(serve, directory):
    server = serve(FILTER + ADD + APP, *FILES[:2], *FILES[4:])
    path = directory / "access.log"
    server.get("/before")
    wait_for(lambda: "/before" in text_of(path), "a line")
    path.rename(directory / "access.old")
    server.signal(signal.SIGUSR1)
    wait_for(lambda: server.get("/after") and "/after" in text_of(path), "a line in the new file")
    assert server.stop() == 0


MASTER = """
import logging
logconfig_dict = {
    "version": 1,
    "formatters": {"all": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "all.log", "formatter": "all"}},
    "root": {"level": "INFO", "handlers": ["file"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "propagate": True}},
}
log = logging.getLogger(__name__)
def on_starting(server):
    log.info("on_starting")
def when_ready(server):
    log.info("when_ready")
    logging.getLogger("my.module").warning("when_ready")
    server.log.info("by server.log")
def child_exit(server, worker):
    log.warning("child_exit")
"""


def test_hooks_of_the_master_log_by_the_configuration_of_logging(directory):
    theirs, ours = both(directory, {"gunicorn.conf.py": MASTER}, until=("all.log", "by server.log"))

    def lines(place):
        return re.findall(r".*(?:on_starting|when_ready|child_exit|by server.log)$", text_of(place / "all.log"), re.MULTILINE)

    assert lines(ours) == lines(theirs)
    assert len(lines(ours)) == 5


def test_a_hook_of_the_master_that_changes_the_logger_of_requests_is_a_warning(directory, serve):
    conf = FILTER + "def on_starting(server):\n    server.log.access_log.addFilter(Filter())\n"
    (directory / "gunicorn.conf.py").write_text(conf + "def when_ready(server):\n    pass\n")
    server = serve(APP, "--access-logfile", "access.log")
    server.wait_log(r"\[WARNING\] The hook on_starting changes the logger gunicorn.access of its own process only: ")
    assert server.stop() == 0
    assert server.log.count("changes the logger") == 1, server.log
