"""The text of gunicorn.conf.py that processes execute is the one that was accepted, not a newer one on the disk."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from beside_gunicorn import GUNICORN, Gunicorn
from harness import MCSUP, answers, children_of, clean_environment, free_port, get, is_gone, run, wait_for

APP = """
import os, sys
def app(environ, start_response):
    conf = sys.modules.get("__config__") or sys.modules["settings_of_server"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {conf.mark} {os.environ.get('HOOK')}".encode()]
"""

CONF = """
import os
mark = "accepted"
wsgi_app = "app:app"
pidfile = "pid"
def post_fork(server, worker):
    os.environ["HOOK"] = "accepted"
"""

REFUSED = CONF.replace("accepted", "refused") + "limit_request_line = 'nonsense'\n"


def broken(path):
    path.write_text("import no_such_module\n")


def refused(path):
    path.write_text(REFUSED)


def emptied(path):
    path.write_text("")


def changed(path):
    path.write_text(CONF.replace("accepted", "never read"))


def replace_worker(port, patience=20):
    """Kill the worker, and return the answer of the one in its place, without its pid."""

    def answer():
        try:
            status, body = get(port)
        except OSError:
            return None
        return body.decode().split() if status == 200 else None

    pid, *_ = wait_for(answer, "an answer", patience)
    os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: is_gone(int(pid)), "the end of the worker")
    other = wait_for(lambda: (found := answer()) and found[0] != pid and found, "another worker", patience)
    return other[1:]


@pytest.mark.parametrize("words", [(), ("--preload",)])
@pytest.mark.parametrize("change", [broken, refused, emptied, changed, Path.unlink])
def test_a_worker_in_the_place_of_a_dead_one_executes_the_text_that_was_accepted(serve, directory, change, words):
    (directory / "app.py").write_text(APP)
    path = directory / "gunicorn.conf.py"
    path.write_text(CONF)
    port = free_port()
    server = serve(None, "-w", "1", "-b", f"127.0.0.1:{port}", *words, bare=True, port=port)
    change(path)
    if change is refused:
        assert run("reload", "-p", "pid", cwd=directory, timeout=30).returncode != 0
    for _ in range(2):
        assert replace_worker(port) == ["accepted", "accepted"], server.log
    assert server.stop(timeout=20) == 0
    server.assert_nothing_left()


def test_gunicorn_replaces_workers_beside_a_broken_file_too(directory):
    (directory / "app.py").write_text(APP)
    (directory / "gunicorn.conf.py").write_text(CONF)
    server = Gunicorn(directory, "-w", "1")
    try:
        broken(directory / "gunicorn.conf.py")
        assert replace_worker(server.port) == ["accepted", "accepted"]
    finally:
        server.end()


def test_a_module_is_executed_by_the_accepted_text_too(serve, directory):
    (directory / "app.py").write_text(APP)
    path = directory / "settings_of_server.py"
    path.write_text(CONF)
    port = free_port()
    words = ("-c", "python:settings_of_server", "-w", "1", "-b", f"127.0.0.1:{port}")
    server = serve(None, *words, bare=True, port=port)
    for change in (refused, Path.unlink):
        change(path)
        assert replace_worker(port) == ["accepted", "accepted"], server.log
    assert server.stop(timeout=20) == 0
    server.assert_nothing_left()


def test_a_directory_of_the_start_that_is_removed_ends_no_service(serve, directory):
    current, release = directory / "current", directory / "release"
    current.mkdir()
    release.mkdir()
    (current / "app.py").write_text(APP)
    conf = directory / "conf.py"
    conf.write_text(CONF.replace('"pid"', repr(str(directory / "pid"))))
    port = free_port()
    through = ("sh", "-c", f'cd {release} && exec "$@"', "sh")
    words = ("-c", conf, "--chdir", current, "-w", "1", "-b", f"127.0.0.1:{port}")
    server = serve(None, *words, bare=True, port=port, through=through)
    shutil.rmtree(release)
    assert replace_worker(port) == ["accepted", "accepted"], server.log
    conf.write_text(conf.read_text().replace("accepted", "next"))
    reloaded = run("reload", "-p", directory / "pid", cwd=directory, timeout=30)
    assert reloaded.returncode == 0, reloaded.stderr + server.log
    assert replace_worker(port) == ["next", "next"], server.log
    assert server.stop(timeout=20) == 0
    server.assert_nothing_left()


def test_another_process_of_the_hooks_executes_the_accepted_text(serve, directory):
    (directory / "app.py").write_text(APP)
    path = directory / "gunicorn.conf.py"
    hooks = 'def when_ready(server):\n    open("hooks", "w").write(str(os.getpid()))\n'
    hooks += 'def child_exit(server, worker):\n    open("record", "a").write(f"{os.getpid()} {mark}\\n")\n'
    path.write_text(CONF + hooks)
    port = free_port()
    server = serve(None, "-w", "1", "-b", f"127.0.0.1:{port}", bare=True, port=port)
    pid = wait_for(lambda: (directory / "hooks").exists() and (directory / "hooks").read_text(), "the process of the hooks")
    path.write_text("import no_such_module\n")

    def age():
        started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")

    # A process that ends sooner is not started again.
    wait_for(lambda: age() > 5.5, "an old process of the hooks", patience=20)
    os.kill(int(pid), signal.SIGKILL)
    wait_for(lambda: is_gone(int(pid)), "the end of the process of the hooks")
    replace_worker(port)
    record = directory / "record"
    line = wait_for(lambda: record.exists() and record.read_text().split(), "child_exit in another process", patience=20)
    assert line[1] == "accepted" and line[0] != pid, (line, server.log)
    assert int(line[0]) in children_of(server.pid)
    assert server.stop(timeout=20) == 0
    server.assert_nothing_left()


def heed_interrupts():
    """A job in the background of a shell has SIGINT ignored, and gunicorn leaves that so until it serves."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("place", ["on_starting", "file"])
def test_an_interrupt_while_the_file_or_on_starting_runs_ends_the_start_as_with_gunicorn(directory, place):
    (directory / "app.py").write_text(APP)
    wait = "    open('begun', 'w').close()\n    while os.path.exists('begun'): time.sleep(0.01)\n"
    code = {"on_starting": f"def on_starting(server):\n{wait}", "file": f"if True:\n{wait}"}[place]
    (directory / "gunicorn.conf.py").write_text(f"import os, time\nwsgi_app = 'app:app'\n{code}")
    for command in (GUNICORN, MCSUP):
        words = [str(command), "-b", f"127.0.0.1:{free_port()}"]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                words, cwd=directory, env=clean_environment(), stdout=log, stderr=log, preexec_fn=heed_interrupts
            )
        try:
            wait_for((directory / "begun").exists, "the beginning of the wait", patience=20)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == -signal.SIGINT, command
            (directory / "begun").unlink(missing_ok=True)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def test_signals_while_on_exit_runs_have_no_effect_as_with_gunicorn(directory):
    (directory / "app.py").write_text(APP)
    wait = "open('begun', 'w').close()\n    while not os.path.exists('go'): time.sleep(0.01)\n    open('over', 'w').close()\n"
    (directory / "gunicorn.conf.py").write_text(CONF + f"import time\ndef on_exit(server):\n    {wait}")
    begun, go, over = (directory / name for name in ("begun", "go", "over"))
    for command in (GUNICORN, MCSUP):
        port = free_port()
        words = [str(command), "-w", "1", "-b", f"127.0.0.1:{port}"]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(words, cwd=directory, env=clean_environment(), stdout=log, stderr=log)
        try:
            wait_for(lambda port=port: answers(port), "an answer", patience=20)
            process.send_signal(signal.SIGTERM)
            wait_for(begun.exists, "on_exit", patience=20)
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
                process.send_signal(number)
            go.touch()
            assert process.wait(20) == 0, (command, (directory / "log").read_text())
            assert over.exists()
            for path in (begun, go, over):
                path.unlink()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
