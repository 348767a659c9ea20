"""USR2 and `mcsup upgrade`: another image of the supervisor takes over in the same process, or is refused."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mcsup
from cgroups import Cgroup
from harness import HELLO, TOP, Load, children_of, clean_environment, free_port, get, is_gone, run, wait_for

BINARY = Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "debug" / "mcsup"
UPGRADED = "Upgraded: a new image supervises"
REFUSED = "Upgrade failed, this image goes on: (.*)"


@pytest.fixture
def package(directory):
    """A copy of the installed package, which comes first with its directory in PYTHONPATH."""
    (directory / "app.py").write_text(HELLO)
    copy = directory / "copy" / "mcsup"
    shutil.copytree(Path(mcsup.__file__).parent, copy)
    return copy


def with_package(package):
    """The environment of a server that is made of it."""
    return clean_environment(PYTHONPATH=str(package.parent))


def front(package, code):
    """Have the package do something before it does anything else."""
    main = package / "__main__.py"
    main.write_text(code + "\n" + (Path(mcsup.__file__).parent / "__main__.py").read_text())


def test_no_client_notices_ten_upgrades(serve, directory):
    (directory / "app.py").write_text(HELLO)
    server = serve(HELLO, "-p", "app.pid", workers=2)
    workers = server.worker_pids()
    with Load(server.port) as load:
        for count in range(1, 11):
            server.signal(signal.SIGUSR2)
            server.wait_log(UPGRADED, count, patience=20)
            load.wait_more(2)
    assert load.failures == []
    assert server.worker_pids() == workers
    assert server.process.poll() is None
    assert int((directory / "app.pid").read_text()) == server.pid
    assert "is held by" in run("-b", f"127.0.0.1:{free_port()}", "-p", "app.pid", "app:app", cwd=directory).stderr
    assert server.log.count("Listening at") == 1
    assert server.stop() == 0
    assert not (directory / "app.pid").exists()


def test_the_package_that_is_there_now_is_what_runs(serve, package):
    server = serve(env=with_package(package), workers=2)
    front(package, "import sys; print('the new package', file=sys.stderr)")
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    assert "the new package" in server.log
    # Its workers do not know how it began.
    (package.parent.parent / "app.py").write_text(HELLO.replace("os.getpid()", "os.environ.get('MCSUP_RESUME')"))
    server.signal(signal.SIGHUP)
    server.wait_log("Worker \\d+ is ready", 4, patience=20)
    wait_for(lambda: server.get()[1].startswith(b"None "), "an answer of a new worker")


def test_a_broken_package_is_refused_and_a_mended_one_is_taken(serve, package):
    server = serve(env=with_package(package), workers=2)
    workers = server.worker_pids()
    breakages = [
        ("raise RuntimeError('half installed')", "RuntimeError: half installed"),
        ("import sys; sys.argv.insert(1, '--no-such-option')", "unknown option '--no-such-option'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
    ]
    for count, (code, reason) in enumerate(breakages, 1):
        front(package, code)
        server.signal(signal.SIGUSR2)
        assert reason in server.wait_log(REFUSED, count, patience=20)[-1]
        assert server.get()[0] == 200
        wait_for(lambda: children_of(server.pid) == workers, "the dry run to be gone")
    front(package, "")
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    assert server.worker_pids() == workers


@pytest.fixture
def frozen_check(serve, package):
    """A server, its workers, the number of its upgrade check, which not even SIGKILL ends, and how to let that one go on."""
    group = Cgroup("freezer", v1=True)
    server = serve(env=with_package(package), workers=2)
    workers = server.worker_pids()
    front(package, "import os, time\nif os.environ.get('MCSUP_RESUME', '').startswith('check:'):\n    time.sleep(1000)")
    server.signal(signal.SIGUSR2)
    (check,) = wait_for(lambda: set(children_of(server.pid)) - set(workers), "the upgrade check")
    group.add(check)
    group.freeze(True)
    yield server, workers, check, lambda: group.freeze(False)
    group.freeze(False)
    if not is_gone(check):
        os.kill(check, signal.SIGKILL)
    wait_for(lambda: is_gone(check), "the end of the upgrade check")
    group.remove()


def test_a_check_that_cannot_be_killed_does_not_keep_the_stop_from_ending(frozen_check):
    server, _, check, _ = frozen_check
    assert server.stop(20) == 0
    server.wait_log(f"Process {check}, which tried the new image, was sent SIGKILL .* ago and is still there: it is left")


def test_a_check_that_cannot_be_killed_does_not_keep_the_supervisor_from_its_work(frozen_check, package):
    server, workers, check, thaw = frozen_check
    server.wait_log("Upgrade failed, this image goes on: .*within", patience=60)
    os.kill(workers[0], signal.SIGKILL)
    server.wait_ready(3)
    server.wait_log(f"Process {check}, which tried the new image, was sent SIGKILL 5s ago and is still there", patience=20)
    # It is reaped all the same when it ends.
    thaw()
    wait_for(lambda: check not in children_of(server.pid), "the end of the upgrade check")
    front(package, "")
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    assert server.stop() == 0


def holds_the_module(pid):
    """Whether a process has the extension module's file open, apart from having it mapped. One that has ended has not."""
    targets = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                targets.append(os.readlink(entry))
    return any("_mcsup" in Path(target).name for target in targets)


@pytest.mark.skipif(sys.platform != "linux", reason="open files of other processes are read in /proc")
@pytest.mark.parametrize("arguments", [[], ["--preload"]])
def test_the_file_that_the_way_back_needs_is_open_in_the_supervisor_only(serve, arguments):
    server = serve(HELLO, *arguments, workers=2)
    server.get()
    assert holds_the_module(server.pid)
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done", patience=20)
    assert holds_the_module(server.pid)
    assert not [pid for pid in server.worker_pids() if holds_the_module(pid)]


@pytest.mark.skipif(sys.platform != "linux", reason="the way back is by /proc")
def test_one_that_fails_after_the_exec_gives_the_pool_back_to_the_old_package(serve, package):
    server = serve(env=with_package(package), workers=2)
    workers = server.worker_pids()
    # It can take over when it is asked, and cannot when it should; and nothing of the old one is left on the disk.
    front(
        package,
        f"""
import os, shutil, sys
if os.environ.get("MCSUP_RESUME", "").startswith("resume:"):
    import mcsup._mcsup
    shutil.rmtree({str(package)!r})
    os.mkdir({str(package)!r})
    sys.argv.insert(1, "--no-such-option")
""",
    )
    server.signal(signal.SIGUSR2)
    assert "no-such-option" in server.wait_log(REFUSED, patience=20)[-1]
    assert server.worker_pids() == workers
    assert server.get()[0] == 200
    os.kill(workers[0], signal.SIGKILL)
    server.wait_log("Worker \\d+ is ready", 3, patience=20)
    # The next one that is whole is taken.
    shutil.rmtree(package)
    shutil.copytree(Path(mcsup.__file__).parent, package)
    server.signal(signal.SIGUSR2)
    server.wait_log(UPGRADED, patience=20)
    assert server.get()[0] == 200


def test_a_daemon_is_upgraded_by_command(package, directory):
    port, environment = free_port(), with_package(package)
    arguments = ("-D", "-p", "app.pid", "--error-logfile", "error.log", "-b", f"127.0.0.1:{port}", "app:app")
    assert run(*arguments, cwd=directory, env=environment, timeout=20).returncode == 0
    pid = int((directory / "app.pid").read_text())
    try:
        result = run("upgrade", "-p", "app.pid", cwd=directory, timeout=20)
        assert (result.returncode, result.stderr) == (0, "")
        assert " -> mcsup " in result.stdout
        assert int((directory / "app.pid").read_text()) == pid
        assert "1 upgrade" in run("status", "-p", "app.pid", cwd=directory).stdout
        front(package, "raise RuntimeError('half installed')")
        result = run("upgrade", "-p", "app.pid", cwd=directory, timeout=20)
        assert result.returncode == 3
        assert "half installed" in result.stdout + result.stderr
        assert get(port)[0] == 200
        assert UPGRADED in (directory / "error.log").read_text()
    finally:
        run("stop", "-p", "app.pid", "--timeout", "5", cwd=directory, timeout=20)
        assert is_gone(pid)


@pytest.mark.skipif(not BINARY.exists(), reason="`make test` builds it; this run is of something else")
def test_the_binary_follows_the_link_that_it_was_started_by(directory):
    (directory / "app.py").write_text(HELLO)
    link, port = directory / "current", free_port()
    link.symlink_to(BINARY)
    log = directory / "log"
    with log.open("wb") as file:
        command = ["./current", "-b", f"127.0.0.1:{port}", "--chdir", "/", "--pythonpath", directory, "app:app"]
        environment = clean_environment(VIRTUAL_ENV=sys.prefix)
        process = subprocess.Popen(command, env=environment, stderr=file, cwd=directory)
    try:
        wait_for(lambda: "is ready after" in log.read_text() or process.poll(), "a worker", 15)
        other = directory / "other"
        other.write_text(f'#!/bin/sh\necho the other >&2\nexec {BINARY} "$@"\n')
        other.chmod(0o755)
        link.unlink()
        link.symlink_to(other)
        process.send_signal(signal.SIGUSR2)
        wait_for(lambda: UPGRADED in log.read_text() or process.poll(), "the upgrade", 15)
        assert "the other" in log.read_text()
        assert get(port)[0] == 200
    finally:
        process.terminate()
        assert process.wait(5) == 0
