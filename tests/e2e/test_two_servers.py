"""Two servers that want the same thing: the second is refused and names the first, which is not touched."""

import os
import re
import socket
import stat

import pytest

from harness import HELLO, free_port, run


def refused(result, server):
    """The second server named the first one, in one line, and started nothing."""
    text = result.stderr + result.stdout
    assert result.returncode == 1, text
    lines = [line for line in text.splitlines() if "[ERROR]" in line or line.startswith("mcsup:")]
    assert len(lines) == 1 and f"pid {server.pid} " in lines[0], text
    assert "Booting" not in text
    assert server.get()[0] == 200
    return lines[0]


def test_one_pid_file(serve, directory):
    server = serve(HELLO, "-p", "app.pid")
    second = run("-p", "app.pid", "-b", f"127.0.0.1:{free_port()}", "app:app", cwd=directory)
    assert "app.pid is held by" in refused(second, server)
    assert (directory / "app.pid").read_text() == f"{server.pid}\n"
    assert server.stop() == 0
    assert not (directory / "app.pid").exists()


def test_one_port(serve, directory):
    server = serve()
    for address in ("127.0.0.1", "0.0.0.0"):
        second = run("-b", f"{address}:{server.port}", "app:app", cwd=directory)
        line = refused(second, server)
        # How much of the command is shown depends on how deep the environment lies.
        assert re.search(rf"the port is held by pid {server.pid} \(mcsup: supervisor \[app:app\] .*\) of user \S+", line), line


def test_one_unix_socket(serve, directory):
    server = serve(HELLO, "-b", "unix:app.sock")
    second = run("-b", "unix:app.sock", "app:app", cwd=directory)
    assert "the path is held by" in refused(second, server)
    assert (directory / "app.sock").exists()
    assert server.stop() == 0
    assert not (directory / "app.sock").exists()


def test_a_dead_servers_unix_socket_is_replaced(serve, directory):
    server = serve(HELLO, "-b", "unix:app.sock")
    server.kill()
    server.assert_nothing_left()
    assert (directory / "app.sock").exists()
    serve(HELLO, "-b", "unix:app.sock")
    assert ask_unix(directory / "app.sock").startswith(b"HTTP/1.1 200 OK")


def test_a_stale_pid_file_prevents_no_start(serve, directory):
    (directory / "app.pid").write_text(f"{os.getpid()}\n")
    server = serve(HELLO, "-p", "app.pid")
    assert server.get()[0] == 200


@pytest.mark.parametrize(
    ("umask", "mode"), [(None, 0o660), ("007", 0o770), ("0o077", 0o700), ("0", 0o777), ("0117", 0o660)]
)
def test_a_unix_socket_has_the_mode_that_was_asked_for(serve, directory, umask, mode):
    arguments = [] if umask is None else ["-m", umask]
    serve(HELLO, "-b", "unix:app.sock", *arguments)
    assert stat.S_IMODE((directory / "app.sock").stat().st_mode) == mode
    assert ask_unix(directory / "app.sock").startswith(b"HTTP/1.1 200 OK")


def ask_unix(path):
    """One request on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return client.recv(65536)
