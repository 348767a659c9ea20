"""Fixtures: a directory for each test, and servers that are ended with it."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))

import harness  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Let fixtures know whether their test failed."""
    outcome = yield
    setattr(item, f"report_{call.when}", outcome.get_result())


def pytest_terminal_summary(terminalreporter):
    """Report what tests have measured. No test fails because of such a figure."""
    for outcome in ("passed", "failed", "xfailed", "xpassed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties if report.when == "call" else ():
                terminalreporter.write_line(f"{report.location[2]}: {name} {value}")


@pytest.fixture
def directory(request, monkeypatch):
    """An empty directory, kept where the test fails. No process that the test started outlives it."""
    path = Path(tempfile.mkdtemp(prefix="mcsup-"))
    # Workers may run as another user.
    path.chmod(0o755)
    monkeypatch.setenv(harness.MARK, str(path))
    yield path
    left = harness.end_marked(path)
    reports = [getattr(request.node, f"report_{when}", None) for when in ("setup", "call")]
    if left or any(report is not None and report.failed for report in reports):
        print(f"kept: {path}")
    else:
        shutil.rmtree(path, ignore_errors=True)
    assert not left, f"processes left behind: {left}"


@pytest.fixture
def serve(directory):
    """Start servers in the test's directory: `serve(code, *arguments, **options)`."""
    servers = []

    def start(code=harness.HELLO, *arguments, **options):
        if code is not None:
            (directory / "app.py").write_text(code)
        server = harness.Server(directory, *arguments, **options)
        servers.append(server)
        return server

    yield start
    left = []
    for server in servers:
        server.clean_up()
        left += [pid for pid in server.seen if not harness.is_gone(pid)]
    assert not left, f"processes left behind: {left}"
