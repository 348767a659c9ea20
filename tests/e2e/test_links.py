"""Files of ours in folders that other users may write: no link is followed, and only our files change owners."""

import os
import pwd
import select
import signal
import stat
import subprocess

import pytest
from harness import HELLO, MCSUP, answers, clean_environment, free_port, run, wait_for

SECRET = "for root alone\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root gives files to another user")


@pytest.fixture
def logs(directory):
    """A folder in which the user of the workers may do as it likes."""
    place = directory / "logs"
    place.mkdir()
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(place, user.pw_uid, user.pw_gid)
    return place


@pytest.fixture
def victim(directory):
    """A file that is to stay as it is."""
    path = directory / "victim"
    path.write_text(SECRET)
    path.chmod(0o600)
    yield path
    there = path.stat()
    assert (path.read_text(), there.st_uid, stat.S_IMODE(there.st_mode)) == (SECRET, os.geteuid(), 0o600)


def replace(path, victim, how):
    """What the workers' user can do: the file is still open under another name."""
    path.rename(path.with_suffix(".old"))
    if how == "a symbolic link":
        path.symlink_to(victim)
    else:
        os.link(victim, path)


def text(path):
    return path.read_text() if path.exists() else ""


def start(serve, logs, *options):
    files = ["--error-logfile", "logs/error.log", "--access-logfile", "logs/access.log", "-u", "nobody", "-g", "nogroup"]
    server = serve(HELLO, *files, *options, wait=False)
    wait_for(lambda: answers(server.port), "an answer")
    return server


@needs_root
@pytest.mark.parametrize(("how", "said"), [("a symbolic link", "symbolic link"), ("a second name", "names (hard links)")])
def test_logs_that_were_replaced_by_links_are_refused_and_the_pool_goes_on(serve, directory, logs, victim, how, said):
    server = start(serve, logs, "--pid", "app.pid")
    for name in ("error.log", "access.log"):
        replace(logs / name, victim, how)
    server.signal(signal.SIGUSR1)
    old = lambda: text(logs / "error.old")  # noqa: E731
    wait_for(lambda: "cannot reopen the log file" in old() and said in old(), f"the refusal; the log:\n{old()}")
    assert server.get()[0] == 200
    wait_for(lambda: text(logs / "access.old").count('"GET / ') >= 2, "the line in the file that is still open")
    # A reload, a worker that dies, and an upgrade meet the same files.
    server.signal(signal.SIGHUP)
    wait_for(lambda: "Reload done" in old(), f"the reload; the log:\n{old()}", 10)
    assert "cannot write the access log" in old()
    wait_for(lambda: len(server.worker_pids()) == 1, "the old worker's end")
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: server.worker_pids() not in ([], [worker]), "the next worker", 10)
    wait_for(lambda: answers(server.port), "an answer", 10)
    wait_for(lambda: "Serving without the access log" in old(), "the next worker's word")
    server.signal(signal.SIGUSR2)
    server.wait_log("Upgraded", patience=15)
    assert "going on with standard error" in server.log
    assert server.get()[0] == 200
    assert server.stop() == 0
    server.assert_nothing_left()


@needs_root
def test_a_folder_that_was_replaced_by_a_link_is_not_entered(serve, directory, logs, victim):
    server = start(serve, logs)
    victim.rename(directory / "error.log")
    try:
        logs.rename(directory / "logs.old")
        logs.symlink_to(directory)
        os.chown(logs, pwd.getpwnam("nobody").pw_uid, -1, follow_symlinks=False)
        server.signal(signal.SIGUSR1)
        old = lambda: text(directory / "logs.old" / "error.log")  # noqa: E731
        wait_for(lambda: "root follows only root's" in old(), f"the refusal; the log:\n{old()}")
        assert server.get()[0] == 200
    finally:
        (directory / "error.log").rename(victim)
    assert server.stop() == 0


@pytest.mark.parametrize("option", ["--pid", "--error-logfile", "--access-logfile"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_start_is_refused_that_would_follow_a_link(directory, victim, option, exists):
    (directory / "app.py").write_text(HELLO)
    target = victim if exists else directory / "nowhere"
    (directory / "link").symlink_to(target)
    ended = run(option, "link", "-b", f"127.0.0.1:{free_port()}", "app:app", cwd=directory)
    assert ended.returncode == 1, ended.stderr
    assert f"it is a symbolic link, which is never followed (it leads to {target}; name that instead)" in ended.stderr
    assert not (directory / "nowhere").exists()


@pytest.mark.parametrize("target", ["socket", "nowhere"])
def test_a_unix_socket_is_not_bound_through_a_link(serve, directory, target):
    other = serve(HELLO, "-b", "unix:socket")
    (directory / "link").symlink_to(target)
    ended = run("-b", "unix:link", "app:app", cwd=directory)
    assert ended.returncode == 1 and "the path is taken by something that is no socket" in ended.stderr
    assert (directory / "link").is_symlink() and not (directory / "nowhere").exists()
    assert other.stop() == 0


def test_streams_by_name_and_fifos_are_used_and_never_waited_for(directory):
    (directory / "app.py").write_text(HELLO)
    os.mkfifo(directory / "fifo")
    port = free_port()
    command = [MCSUP, "-b", f"127.0.0.1:{port}", "--error-logfile", "/dev/stderr", "--access-logfile", "fifo", "app:app"]
    process = subprocess.Popen(command, cwd=directory, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: answers(port), "an answer without a reader of the log")
        reader = os.open(directory / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        wait_for(lambda: select.select([reader], [], [], 0)[0] and b'"GET / ' in os.read(reader, 65536), "the line")
        os.close(reader)
        process.send_signal(signal.SIGUSR1)
        assert answers(port)
    finally:
        process.terminate()
        _, said = process.communicate(timeout=10)
    assert process.returncode == 0 and "Handling signal: USR1" in said, said
