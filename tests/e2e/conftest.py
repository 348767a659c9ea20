"""Fixtures: a directory for each test, and servers that are ended with it."""

import shutil
import tempfile
from pathlib import Path

import pytest

import harness


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Let fixtures know whether their test failed."""
    outcome = yield
    setattr(item, f"report_{call.when}", outcome.get_result())


@pytest.fixture
def directory(request):
    """An empty directory, kept where the test fails."""
    path = Path(tempfile.mkdtemp(prefix="mcsup-"))
    # Workers may run as somebody else.
    path.chmod(0o755)
    yield path
    report = getattr(request.node, "report_call", None)
    if report is not None and report.passed:
        shutil.rmtree(path, ignore_errors=True)
    else:
        print(f"kept: {path}")


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
