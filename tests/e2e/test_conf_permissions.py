"""gunicorn.conf.py and the user of the workers: files that it may not read, and files that it may change."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness import HELLO, free_port, run


def any_user_can_run_python():
    """Whether an unprivileged user can run the Python that the tests run with."""
    try:
        return subprocess.run([sys.executable, "-c", "import ast"], user="nobody", check=False).returncode == 0
    except PermissionError:
        return False


pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run workers as another user"),
    pytest.mark.skipif(not any_user_can_run_python(), reason="an unprivileged user cannot run this Python"),
]

USER = ("-u", "nobody")

APP = """
import os, sys
def app(environ, start_response):
    conf = sys.modules.get("__config__")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{getattr(conf, 'mark', None)} {os.environ.get('FROM_CONF')} {os.geteuid()}".encode()]
"""

SETTINGS = "mark = 'executed'\nraw_env = ['FROM_CONF=yes']\n"


@pytest.fixture
def elsewhere():
    """A directory that all users may enter, beside that of the start."""
    path = Path(tempfile.mkdtemp(prefix="mcsup-elsewhere-"))
    path.chmod(0o755)
    (path / "app.py").write_text(APP)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def uid():
    return pwd.getpwnam("nobody").pw_uid


@pytest.mark.parametrize("words", [(), ("--preload",)])
def test_a_start_in_a_directory_that_the_user_of_the_workers_may_not_enter_serves(serve, directory, elsewhere, words):
    conf = elsewhere / "conf.py"
    conf.write_text(SETTINGS)
    directory.chmod(0o700)
    server = serve(None, "-c", conf, *USER, "--chdir", elsewhere, *words)
    assert server.get() == (200, f"executed yes {uid()}".encode())
    assert server.stop() == 0


@pytest.mark.parametrize("is_closed", [True, False])
def test_workers_go_on_without_a_file_that_their_user_may_not_read(serve, directory, elsewhere, is_closed):
    folder = directory if is_closed else elsewhere
    (folder / "secret").write_text("5ecret")
    (folder / "secret").chmod(0o600)
    conf = folder / "conf.py"
    conf.write_text(SETTINGS + f"open({str(folder / 'secret')!r}).read()\n")
    directory.chmod(0o700)
    server = serve(None, "-c", conf, *USER, "--chdir", elsewhere)
    body = server.get()[1].decode().split()
    assert body[1:] == ["yes", str(uid())]
    server.wait_log(rf"Workers go on without {conf}: user {USER[1]} may not execute it: .*Permission denied")
    assert run("check", "-c", conf, *USER, "--chdir", elsewhere, "app:app", cwd=directory).returncode == 0
    assert server.stop() == 0


@pytest.mark.parametrize(
    "needed", ["def post_fork(server, worker): pass\n", "logconfig_dict = {'version': 1, 'incremental': True}\n"]
)
def test_a_file_with_parts_of_workers_that_their_user_may_not_read_is_an_error_with_the_user(directory, elsewhere, needed):
    conf = elsewhere / "conf.py"
    conf.write_text(needed)
    conf.chmod(0o600)
    ended = run("-b", f"127.0.0.1:{free_port()}", "-c", conf, *USER, "--chdir", elsewhere, "app:app", cwd=directory)
    assert ended.returncode != 0
    assert "Permission denied" in ended.stderr
    assert f"as user {USER[1]}, which needs the permission to read it" in ended.stderr, ended.stderr


def test_root_executes_a_default_file_that_the_user_of_the_workers_may_change_only_if_it_is_named(serve, directory):
    (directory / "app.py").write_text(APP)
    conf = directory / "gunicorn.conf.py"
    conf.write_text(SETTINGS + "open('executed', 'w')\n")
    trace = directory / "executed"
    for place, owner in ((conf, conf), (directory, directory)):
        os.chown(owner, uid(), -1)
        for command in ((), ("check",), ("doctor",)):
            words = ["-b", f"127.0.0.1:{free_port()}", *USER, *(() if "doctor" in command else ("app:app",))]
            ended = run(*command, *words, cwd=directory)
            assert ended.returncode == 2, ended
            expected = f"gunicorn.conf.py is not executed as root: user {USER[1]} may change {place}; name it with -c"
            assert expected in ended.stderr
        assert not trace.exists()
        os.chown(owner, 0, -1)
    os.chown(directory, uid(), -1)
    for words, user in ((("-c", "gunicorn.conf.py", *USER), uid()), ((), 0)):
        server = serve(None, *words)
        assert server.get() == (200, f"executed yes {user}".encode())
        assert server.stop() == 0


def test_a_default_file_that_appears_after_the_start_is_not_executed(serve, directory):
    os.chown(directory, uid(), -1)
    server = serve(HELLO, "-p", "pid", *USER)
    (directory / "gunicorn.conf.py").write_text("open('executed', 'w')\n")
    assert run("reload", "-p", "pid", cwd=directory, timeout=30).returncode == 0
    assert not (directory / "executed").exists()
    assert server.stop() == 0
