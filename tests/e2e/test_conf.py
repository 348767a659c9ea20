"""gunicorn.conf.py: its settings, its errors, and reloads of it."""

import os
import re
import signal
import subprocess
import time

import pytest

from harness import MCSUP, HELLO, children_of, clean_environment, free_port, get, is_gone, run, wait_for

CONF = """
import multiprocessing, os
port = {port}
bind = f"127.0.0.1:{{port}}"
workers = min(multiprocessing.cpu_count() * 2 + 1, 2)
loglevel = os.environ.get("LOG_LEVEL", "info")
wsgi_app = "app:app"
graceful_timeout = "0x5"
raw_env = ["FROM_CONF=yes"]
"""

APP = """
import os, sys
def app(environ, start_response):
    conf = sys.modules["__config__"]
    body = f"{os.getpid()} {conf.__file__} {conf.workers} {os.environ['FROM_CONF']} {os.getcwd()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""


@pytest.fixture
def conf(serve, directory):
    """Starts a server with a gunicorn.conf.py in its directory, and nothing else."""

    def start(text=CONF, *arguments, **options):
        port = free_port()
        (directory / "app.py").write_text(APP)
        (directory / "gunicorn.conf.py").write_text(text.replace("{port}", str(port)).replace("{{", "{").replace("}}", "}"))
        return serve(None, *arguments, bare=True, port=port, **{"workers": 2, **options})

    return start


def test_the_file_of_the_directory_is_read_without_an_option_and_workers_execute_it_too(conf, directory):
    server = conf()
    pid, *rest = server.get()[1].decode().split()
    assert rest == [str(directory / "gunicorn.conf.py"), "2", "yes", str(directory)]
    assert int(pid) in server.worker_pids()
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_worker_executes_the_file_in_the_directory_of_the_start(conf, directory):
    (directory / "elsewhere").mkdir()
    (directory / "sizes.txt").write_text("1")
    (directory / "elsewhere" / "app.py").write_text(APP)
    server = conf(CONF + "chdir = 'elsewhere'\nworkers = int(open('sizes.txt').read())\n", workers=1)
    _, file, workers, _, place = server.get()[1].decode().split()
    assert (file, workers, place) == (str(directory / "gunicorn.conf.py"), "1", str(directory / "elsewhere"))
    assert server.stop() == 0


def test_the_command_line_and_gunicorns_variable_are_above_the_file(conf, directory):
    port = free_port()
    environment = clean_environment(GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{port}", WEB_CONCURRENCY="7")
    server = conf(CONF, "-w", "1", env=environment, workers=1)
    assert get(port)[0] == 200
    assert len(server.worker_pids()) == 1
    assert server.stop() == 0


def test_a_module_and_any_path_are_read_when_they_are_named(serve, directory):
    (directory / "app.py").write_text(HELLO)
    for name, word in [("conf_module.py", "python:conf_module"), ("settings", "file:settings"), ("b.py", "b.py")]:
        port = free_port()
        (directory / name).write_text(f"bind = '127.0.0.1:{port}'\nwsgi_app = 'app:app'\n")
        server = serve(HELLO, "-c", word, bare=True, port=port)
        assert server.get()[0] == 200
        assert server.stop() == 0


@pytest.mark.parametrize(
    "text, expected",
    [
        ("workers = 2\nbind = undefined\n", "gunicorn.conf.py, line 2: NameError: name 'undefined' is not defined"),
        ("workers = (\n", "gunicorn.conf.py, line 1: SyntaxError: '(' was never closed"),
        ("import sys\nsys.exit('not today')\n", "gunicorn.conf.py, line 2: SystemExit: not today"),
        ("import os\nos._exit(7)\n", "cannot read gunicorn.conf.py: the process ended before it was done: exit code 7"),
        ("workers = 'many'\n", "workers = \"many\" (from gunicorn.conf.py:1): "),
        ("\nbind = {}\n", "gunicorn.conf.py:2: bind is a dictionary: expected a text or a number"),
        ("def post_fork(server): pass\n", "gunicorn.conf.py:1: post_fork takes 1 arguments: expected 2"),
        ("dirty_workers = 2\n", "dirty_workers = \"2\" (from gunicorn.conf.py:1): "),
    ],
)
def test_an_error_in_the_file_is_one_clear_message_with_its_line(directory, text, expected):
    (directory / "app.py").write_text(HELLO)
    (directory / "gunicorn.conf.py").write_text(text)
    for command in ([], ["check"]):
        ended = run(*command, "app:app", cwd=directory, timeout=20)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.splitlines()[0].startswith(f"mcsup: {expected}"), ended.stderr


@pytest.mark.parametrize(
    "text, first, frames",
    [
        ("\nworkers = (\n", "gunicorn.conf.py, line 2: SyntaxError: '(' was never closed", ["gunicorn.conf.py"]),
        ("import other\n", "gunicorn.conf.py, line 1: ZeroDivisionError: division by zero", ["gunicorn.conf.py", "other.py"]),
    ],
)
def test_an_error_in_the_file_has_its_place_once_and_a_traceback_of_the_files_of_the_operator(directory, text, first, frames):
    (directory / "app.py").write_text(HELLO)
    (directory / "other.py").write_text("1 / 0\n")
    (directory / "gunicorn.conf.py").write_text(text)
    (directory / "conf_module.py").write_text(text)
    for words, name in ((), "gunicorn.conf.py"), (("-c", "python:conf_module"), "conf_module.py"):
        ended = run("check", *words, "app:app", cwd=directory, timeout=20)
        lines = ended.stderr.splitlines()
        place = "python:conf_module" if words else name
        assert lines[0] == f"mcsup: {first.replace('gunicorn.conf.py', place)}", ended.stderr
        shown = re.findall(r'File "([^"]*)"', ended.stderr)
        shown = [file for file in shown if not file.startswith("<frozen importlib")]
        assert shown == [str(directory / frame.replace("gunicorn.conf.py", name)) for frame in frames], ended.stderr


def test_a_name_that_gunicorn_would_ignore_is_a_warning_if_it_is_nearly_a_setting(conf):
    server = conf(CONF + "time_out = 7\n")
    assert "gunicorn.conf.py:10: time_out is no setting; is 'timeout' meant?" in server.log
    assert "port is no setting" not in server.log
    assert server.stop() == 0


def reload(directory):
    """`mcsup reload`, to its end."""
    return run("reload", "-p", directory / "pid", cwd=directory, timeout=20)


def test_an_error_at_a_reload_keeps_the_old_settings_and_reaches_the_operator(conf, directory):
    text = CONF + "pidfile = 'pid'\n"
    server = conf(text)
    path = directory / "gunicorn.conf.py"
    good = path.read_text()
    workers = server.worker_pids()
    path.write_text(good + "raise ValueError('typed wrongly')\n")
    failed = reload(directory)
    assert failed.returncode != 0
    assert "gunicorn.conf.py, line 11: ValueError: typed wrongly" in failed.stderr, failed.stderr
    assert 'gunicorn.conf.py", line 11' in failed.stderr, failed.stderr
    assert "gunicorn.conf.py, line 11: ValueError: typed wrongly" in server.log
    assert server.worker_pids() == workers
    path.write_text(good + "workers = 3\n")
    assert reload(directory).returncode == 0
    wait_for(lambda: b" 3 " in server.get()[1], "the new settings")
    assert server.stop() == 0
    server.assert_nothing_left()


def test_the_pool_serves_and_replaces_a_worker_while_the_file_takes_its_time(conf, directory):
    text = CONF + "import time\nwhile os.path.exists('slow'): time.sleep(0.01)\n"
    server = conf(text)
    (directory / "slow").touch()
    server.signal(signal.SIGHUP)
    server.wait_log("Reloading: booting generation 2")
    reading = wait_for(lambda: [pid for pid in children_of(server.pid) if pid not in server.seen], "the reading process")
    victim = int(server.get()[1].split()[0])
    os.kill(victim, signal.SIGKILL)
    server.wait_log("Worker .* died")
    assert server.get()[0] == 200
    assert not any(is_gone(pid) for pid in reading)
    (directory / "slow").unlink()
    server.wait_log("Reload done: generation 2", patience=20)
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_stop_does_not_wait_for_the_file(conf, directory):
    server = conf(CONF + "import time\nwhile os.path.exists('slow'): time.sleep(0.01)\n")
    (directory / "slow").touch()
    server.signal(signal.SIGHUP)
    server.wait_log("Reloading: booting generation 2")
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 4
    server.assert_nothing_left()


def test_an_upgrade_that_the_file_fails_returns_to_the_old_image_without_its_execution(conf, directory):
    # It fails in the children of the supervisor, so not in the dry run, whose parent is another process.
    fails = "if os.path.exists('fails') and os.getppid() == int(open('pid').read()): raise ValueError('gone')\n"
    server = conf(CONF + "pidfile = 'pid'\n" + fails, workers=2)
    workers = server.worker_pids()
    (directory / "fails").touch()
    server.signal(signal.SIGUSR2)
    server.wait_log("Upgrade failed, this image goes on: .*ValueError: gone", patience=60)
    assert server.worker_pids() == workers
    assert server.get()[0] == 200
    (directory / "fails").unlink()
    server.signal(signal.SIGUSR2)
    server.wait_log("Upgraded: a new image supervises", patience=60)
    assert server.stop() == 0
    server.assert_nothing_left()
