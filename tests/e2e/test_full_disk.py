"""A full disk: serving goes on, a client that cannot be served gets an error, the logs report it; later all is as before."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import clean_environment, connect, free_port, is_gone, read_all, run, wait_for
from lifecycle import Operator, descriptors_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts a small tmpfs")

# A body of this size is spooled; it fits onto the empty disk, and does not onto the full one.
UPLOAD = 3 << 20
APPLICATION = """
import hashlib
def app(environ, start_response):
    if environ["PATH_INFO"] == "/log":
        environ["wsgi.errors"].write("a line of the application" * 50 + "\\n")
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{len(body)} {hashlib.sha1(body).hexdigest()}".encode()]
"""


@pytest.fixture
def disk(directory):
    """A file system of a few megabytes."""
    place = directory / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk):
    """Until nothing more fits, not even a file without content's name."""
    with (disk / "filling").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def used(disk):
    """How many bytes are taken."""
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def empty(disk):
    (disk / "filling").unlink()


def upload(port, size=UPLOAD):
    """The first line and the body of the answer to a large upload."""
    with connect(port) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode())
        # A server that refuses need not read it all.
        with contextlib.suppress(OSError):
            connection.sendall(b"x" * size)
        answer = read_all(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode().split("\r\n")[0], body.decode()


def processor_time(pid):
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_full_disk_stops_nothing_and_is_reported(serve, directory, disk):
    options = ["--pid", disk / "app.pid", "--error-logfile", disk / "error.log", "--access-logfile", disk / "access.log"]
    options += ["--soak", "0", "--threads", "2", "--limit-request-body", "0"]
    server = serve(APPLICATION, *options, workers=2, env=clean_environment(TMPDIR=str(disk)), wait=False)
    log = lambda: (disk / "error.log").read_text(errors="replace")  # noqa: E731
    with Operator(disk / "app.ctl") as operator:
        wait_for(lambda: (disk / "app.ctl").exists(), "the control socket")
        operator.wait_at_rest()
        workers, before = server.worker_pids(), descriptors_of(server.pid)
        assert upload(server.port)[0] == "HTTP/1.1 200 OK"
        # Its file is given back behind the answer.
        wait_for(lambda: used(disk) < UPLOAD, "the body's file to be given back")

        fill(disk)
        # What is left of the logs' last pages is filled as well.
        for _ in range(20):
            assert server.get(f"/log?{'x' * 1000}")[0] == 200
        assert upload(server.port, 60_000)[0] == "HTTP/1.1 200 OK", "a small body needs no disk"
        assert upload(server.port)[0] == "HTTP/1.1 503 Service Unavailable"
        assert upload(server.port)[0] == "HTTP/1.1 503 Service Unavailable"
        assert server.get()[0] == 200
        assert server.worker_pids() == workers, "a worker did not survive"
        operator.done("reload")
        operator.done("scale", workers=3)
        operator.done("reopen-logs")
        operator.done("recycle", slot=0)
        # The command's own way needs no disk either.
        assert run("status", "-s", disk / "app.ctl", cwd=directory).returncode == 0
        workers = [worker["pid"] for worker in operator.wait_at_rest()["workers"]]
        spent = {pid: processor_time(pid) for pid in [server.pid, *workers]}
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:
            # Each process reports its own losses.
            assert server.get(f"/log?{'x' * 1000}")[0] == 200
            time.sleep(0.02)
        for pid, seconds in spent.items():
            assert processor_time(pid) - seconds < 0.25, f"process {pid} does not rest"
        # Where there is nothing to write to, standard error says so.
        server.wait_log(r"Cannot write the log file .*error.log: No space left on device")
        assert "records of this process are lost" not in log()

        empty(disk)
        for _ in range(10):
            assert server.get("/log")[0] == 200
        assert upload(server.port)[0] == "HTTP/1.1 200 OK"
        operator.done("scale", workers=2)
        operator.done("reload")
        assert [worker["pid"] for worker in operator.wait_at_rest()["workers"]] != workers
        wait_for(lambda: descriptors_of(server.pid) == before, "the supervisor's descriptors to be what they were")
        wait_for(lambda: "records of this process are lost" in log(), "the log to admit its losses")
        said = "access.log is written again; lines lost: "
        wait_for(lambda: said in log(), f"the access log's losses to be admitted; the log:\n{log()[-2000:]}")
    assert "panick" not in log() and "panick" not in server.log
    assert server.stop() == 0
    server.assert_nothing_left()
    assert not (disk / "app.pid").exists() and not (disk / "app.ctl").exists()


def test_a_start_on_a_full_disk_is_refused_with_the_reason(directory, disk):
    (directory / "app.py").write_text(APPLICATION)
    fill(disk)
    port = free_port()
    ended = run("-b", f"127.0.0.1:{port}", "--pid", disk / "app.pid", "app:app", cwd=directory)
    assert ended.returncode == 1
    assert f"cannot write the pid file {disk}/app.pid: No space left on device" in ended.stderr
    # Nothing is left that would look like a server.
    assert not (disk / "app.pid").exists(), "an empty pid file is left"
    empty(disk)
    process = subprocess.Popen(
        [sys.executable, "-m", "mcsup", "-b", f"127.0.0.1:{port}", "--pid", disk / "app.pid", "app:app"],
        cwd=directory, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: (disk / "app.pid").exists() and (disk / "app.pid").read_text().strip() == str(process.pid), "it")
    finally:
        process.terminate()
        process.wait(5)
    assert is_gone(process.pid)
