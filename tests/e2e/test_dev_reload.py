"""`--reload`: what a developer sees while files change."""

import contextlib
import http.client
import os
from pathlib import Path

import pytest
from harness import PATIENCE, wait_for

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%s"]
"""
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def version(text):
    """An application that answers `text`."""
    return APP % text


def save(path, text):
    """Save as most editors do: a new file takes the place of the old one."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


def ask(server, accept, method="GET"):
    """Status, type and body of an answer to a client that accepts this."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request(method, "/", headers={"Accept": accept, "Connection": "close"})
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read().decode()
    finally:
        connection.close()


def wait_answer(server, text):
    """Wait until the application answers this."""
    try:
        wait_for(lambda: server.get() == (200, text.encode()), f"the answer {text!r}")
    except AssertionError as error:
        raise AssertionError(f"{error}; the log:\n{server.log}") from None


@pytest.mark.parametrize("engine", ["auto", "poll", "inotify"])
def test_an_edited_file_is_served_a_moment_later(serve, directory, engine):
    server = serve(version("one"), "--reload", "--reload-engine", engine)
    assert server.get() == (200, b"one")
    (directory / "app.py").write_text(version("two"))
    wait_answer(server, "two")
    server.wait_log("app.py has changed")
    save(directory / "app.py", version("three"))
    wait_answer(server, "three")
    assert server.stop() == 0
    server.assert_nothing_left()


def test_without_the_option_nothing_is_watched(serve, directory):
    server = serve(version("one"))
    (directory / "app.py").write_text(version("two"))
    (worker,) = server.worker_pids()
    names = [path.read_text().strip() for path in Path(f"/proc/{worker}/task").glob("*/comm")]
    assert names and "watcher" not in names
    assert server.get() == (200, b"one")


def test_a_syntax_error_leaves_the_last_good_version_and_shows_browsers_why(serve, directory):
    server = serve(version("one"), "--reload", workers=2)
    (directory / "app.py").write_text(version("two") + 'if "<b>" :::\n')
    server.wait_log("Reload failed, the old generation goes on serving: .*SyntaxError")
    assert 'app.py", line 5' in server.log and 'if "<b>" :::' in server.log, server.log
    # Each of the two workers has noticed it.
    pages = wait_for(lambda: all_broken([ask(server, BROWSER) for _ in range(10)]), "the page")
    for status, kind, page in pages:
        assert (status, kind) == (500, "text/html; charset=utf-8")
        assert "SyntaxError" in page and "app.py&quot;, line 5" in page and "&lt;b&gt;" in page
        assert "<b>" not in page
    assert ask(server, BROWSER, "HEAD") == (500, "text/html; charset=utf-8", "")
    for accept in ["*/*", "application/json"]:
        assert ask(server, accept) == (200, "text/plain", "one")
    assert ask(server, BROWSER, "POST") == (200, "text/plain", "one")
    save(directory / "app.py", version("three"))
    wait_answer(server, "three")
    wait_for(lambda: ask(server, BROWSER) == (200, "text/plain", "three"), "the application for browsers as well")
    assert server.stop() == 0


def all_broken(answers):
    """The answers, if all of them are of a version that is broken."""
    return answers if all(status == 500 for status, _, _ in answers) else None


def test_what_only_the_broken_version_has_loaded_can_be_mended(serve, directory):
    server = serve(version("one"), "--reload")
    package = directory / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("1 / 0\n")
    save(directory / "app.py", "import package.inner\n" + version("two"))
    server.wait_log("Reload failed, .*ZeroDivisionError")
    wait_for(lambda: "package/inner.py" in ask(server, BROWSER)[2], "the page")
    wait_for(lambda: is_watched(server, package), "the worker to watch what the traceback names")
    (package / "inner.py").write_text("# mended\n")
    wait_answer(server, "two")


def is_watched(server, directory):
    """Whether a worker has asked the system for events of a directory."""
    mark = f" ino:{directory.stat().st_ino:x} "
    for worker in server.worker_pids():
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{worker}/fdinfo").iterdir():
                if any(line.startswith("inotify ") and mark in line for line in path.read_text().splitlines()):
                    return True
    return False


def test_modules_that_are_imported_late_are_watched_as_well(serve, directory):
    late = directory / "elsewhere" / "late.py"
    late.parent.mkdir()
    late.write_text("TEXT = b'late one'\n")
    server = serve(
        """
import sys
sys.path.append("elsewhere")
def app(environ, start_response):
    import late
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [late.TEXT]
""",
        "--reload",
    )
    wait_answer(server, "late one")
    wait_for(lambda: is_watched(server, late.parent), "the worker to watch what was imported late")
    late.write_text("TEXT = b'late, and changed'\n")
    wait_answer(server, "late, and changed")


def test_extra_files_and_patterns_are_watched(serve, directory):
    (directory / "templates" / "mail").mkdir(parents=True)
    (directory / "templates" / "mail" / "bill.html").write_text("one")
    extra = ["--reload-extra-file", "settings.toml", "--reload-extra-file", "templates/**/*.html"]
    server = serve(version("one"), "--reload", *extra)
    (directory / "settings.toml").write_text("a = 1\n")
    server.wait_log("settings.toml has changed")
    server.wait_log("Reload done", 1)
    save(directory / "templates" / "mail" / "bill.html", "two")
    server.wait_log("templates/mail/bill.html has changed")
    server.wait_log("Reload done", 2)
    (directory / "other.txt").write_text("nobody's")
    (directory / "templates" / "index.html").write_text("new")
    server.wait_log("templates/index.html has changed")
    assert "other.txt has changed" not in server.log


def test_a_burst_of_writes_is_one_reload_for_all_workers(serve, directory):
    server = serve(version("zero"), "--reload", workers=2)
    for number in range(20):
        (directory / "app.py").write_text(version(f"burst {number}"))
        (directory / f"module_{number % 3}.py").write_text(f"NUMBER = {number}\n")
    server.wait_log("Reload done: generation 2 serves")
    wait_answer(server, "burst 19")
    # Had it been more than one, this would not be the third generation.
    save(directory / "app.py", version("after"))
    wait_answer(server, "after")
    server.wait_log("Reload done", 2)
    assert server.log.count("Reloading: ") == server.log.count("Reload done: ") == 2, server.log


def test_a_touch_is_a_change_and_a_change_of_mode_is_none(serve, directory):
    server = serve(version("one"), "--reload")
    (directory / "app.py").chmod(0o600)
    (directory / "app.log").write_text("nobody's")
    os.utime(directory / "app.py")
    server.wait_log("Reload done: generation 2 serves")
    save(directory / "app.py", version("two"))
    wait_answer(server, "two")
    server.wait_log("Reload done", 2)
    assert server.log.count("Reloading: ") == 2, server.log
