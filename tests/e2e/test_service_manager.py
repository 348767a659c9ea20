"""systemd: messages to the service manager, and sockets that it passes."""

import shutil
import signal
import socket
import sys
import time

import pytest

from harness import (
    HELLO, MCSUP, PATIENCE, can_bind, children_of, connect, free_port, get, read_all, run, state_of, wait_for,
)  # fmt: skip
from lifecycle import Operator
from service_manager import ServiceManager

ACTIVATE = shutil.which("systemd-socket-activate")
VARIABLES = [
    "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE",
]  # fmt: skip

# Answers with the variables of the service manager that its process, and a program of its, have.
REPORT = f"""
import os, subprocess, sys
NAMES = {VARIABLES!r}
def app(environ, start_response):
    own = [name for name in NAMES if name in os.environ]
    code = "import os, sys; print([name for name in sys.argv[1:] if name in os.environ])"
    child = subprocess.check_output([sys.executable, "-c", code, *NAMES]).decode().strip()
    body = f"{{own}} {{child}} {{environ['SERVER_PORT']}}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def manager(directory):
    (directory / "app.py").write_text(HELLO)
    made = ServiceManager(directory)
    yield made
    made.close()


def listener(family=socket.AF_INET, address=("127.0.0.1", 0)):
    """A socket as a service manager opens it."""
    made = socket.socket(family)
    made.bind(address)
    made.listen(16)
    return made


def port_of(listening):
    return listening.getsockname()[1]


@pytest.mark.skipif(ACTIVATE is None, reason="NOT TESTED: systemd-socket-activate is not installed (Debian: systemd)")
def test_systemd_drives_start_reload_failed_reload_upgrade_and_stop_and_gets_each_message(manager, directory):
    port = free_port()
    activate = [ACTIVATE, "--listen", f"127.0.0.1:{port}", "--fdname", "http", "--setenv=NOTIFY_SOCKET"]
    server = manager.start("-w", "2", "-p", "app.pid", "--soak", "0", "app:app", command=[*activate, MCSUP])
    # The first client starts the server, and is its first one.
    wait_for(lambda: "Listening on" in server.log, "the socket to be open")
    assert get(port)[0] == 200
    ready = manager.wait_field("READY")
    # It executes the server in its own process.
    assert manager.messages[ready]["MAINPID"] == str(server.pid)
    done = manager.wait_status("serving: 2 of 2 workers ready, generation 1")
    assert manager.states() == ["READY"]

    asked = time.monotonic()
    server.signal(signal.SIGHUP)
    begun = manager.wait_field("RELOADING", since=done)
    assert asked * 1e6 <= int(manager.messages[begun]["MONOTONIC_USEC"]) <= time.monotonic() * 1e6
    again = manager.wait_field("READY", since=begun)
    done = manager.wait_status("serving: 2 of 2 workers ready, generation 2", since=again)
    assert manager.states(ready + 1) == ["RELOADING", "READY"]

    (directory / "app.py").write_text("raise ValueError('a bad version')\n")
    server.signal(signal.SIGHUP)
    begun = manager.wait_field("RELOADING", since=done)
    again = manager.wait_field("READY", since=begun)
    failed = manager.wait_status("generation 2; the last reload failed: ", since=again)
    assert "a bad version" in manager.messages[failed]["STATUS"]
    assert get(port)[0] == 200

    (directory / "app.py").write_text(HELLO)
    workers = children_of(server.pid)
    with Operator(directory / "app.ctl") as operator:
        operator.done("upgrade")
    begun = manager.wait_field("RELOADING", since=failed)
    again = manager.wait_field("READY", since=begun)
    assert manager.messages[again]["MAINPID"] == str(server.pid)
    assert children_of(server.pid) == workers
    # The new image has the same sockets, and a reload keeps them.
    server.signal(signal.SIGHUP)
    begun = manager.wait_field("RELOADING", since=again)
    again = manager.wait_field("READY", since=begun)
    manager.wait_status("serving: 2 of 2 workers ready, generation 4", since=again)
    assert get(port)[0] == 200

    assert server.stop() == 0
    stopping = manager.wait_field("STOPPING", since=again)
    assert manager.states(stopping) == ["STOPPING"]
    assert manager.senders == {server.pid}
    assert "Listening at: http://127.0.0.1:" in server.log


def test_passed_sockets_are_served_instead_of_the_default_address(manager, directory):
    path = directory / "passed.sock"
    tcp, unix = listener(), listener(socket.AF_UNIX, str(path))
    server = manager.start("app:app", sockets=[("http", tcp), ("local", unix)], env={"PORT": str(free_port())})
    manager.wait_field("READY")
    assert get(port_of(tcp))[0] == 200
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
    assert server.log.count("Listening at: ") == 2
    assert server.stop() == 0
    # The path is the service manager's.
    assert path.exists()


# Answers with the passed sockets that a program of the application inherits.
INHERITED = """
import subprocess, sys
CODE = "import os; print([fd for fd in (3, 4) if 'socket' in os.path.realpath(f'/proc/self/fd/{fd}')])"
def app(environ, start_response):
    body = subprocess.check_output([sys.executable, "-c", CODE], close_fds=False).strip()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_a_socket_is_chosen_by_its_name(manager, directory):
    (directory / "app.py").write_text(INHERITED)
    http, admin = listener(), listener()
    server = manager.start("-b", "fd://http", "app:app", sockets=[("http", http), ("admin", admin)])
    manager.wait_field("READY")
    assert get(port_of(http))[0] == 200
    assert f":{port_of(admin)}" not in server.log
    assert "The passed socket fd://admin (descriptor 4) is not served: no address names it" in server.log
    # A program of the application inherits neither of them.
    assert get(port_of(http))[1] == b"[]"
    assert server.stop() == 0


def test_a_name_that_was_not_passed_is_refused_with_the_names_that_were(manager):
    server = manager.start("-b", "fd://other", "app:app", sockets=[("http", listener())])
    assert server.wait() == 1
    assert "cannot listen on fd://other: the service manager has passed sockets of these names: http" in server.log


def test_a_bind_to_the_address_of_a_passed_socket_is_that_socket(manager):
    passed, port = listener(), free_port()
    binds = ["-b", f"127.0.0.1:{port_of(passed)}", "-b", f"127.0.0.1:{port}"]
    server = manager.start(*binds, "app:app", sockets=[("http", passed)])
    manager.wait_field("READY")
    assert get(port_of(passed))[0] == 200 and get(port)[0] == 200
    assert server.log.count("Listening at: ") == 2
    assert server.stop() == 0


def test_sockets_for_another_process_are_left_alone(manager):
    passed, port = listener(), free_port()
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "PORT": str(port)}
    server = manager.start("app:app", command=["env", *(f"{name}={value}" for name, value in environment.items()), MCSUP])
    manager.wait_field("READY")
    assert get(port)[0] == 200
    assert f":{port_of(passed)}" not in server.log
    assert server.stop() == 0


@pytest.mark.parametrize("options", [[], ["--preload"], ["upgrade"]], ids=["alone", "preload", "upgraded"])
def test_neither_workers_nor_their_programs_have_the_service_managers_variables(manager, directory, options):
    (directory / "app.py").write_text(REPORT)
    passed = listener()
    preload = ["--preload"] if "--preload" in options else []
    server = manager.start(
        "-p", "app.pid", *preload, "app:app", sockets=[("http", passed)],
        env={"FDSTORE": "4", "WATCHDOG_USEC": "60000000"},
    )  # fmt: skip
    since = manager.wait_field("READY")
    if "upgrade" in options:
        with Operator(directory / "app.ctl") as operator:
            operator.done("upgrade")
            operator.done("reload")
        manager.wait_status("generation 2", since)
    assert get(port_of(passed)) == (200, f"[] [] {port_of(passed)}".encode())
    assert server.stop() == 0


def test_the_watchdog_is_fed_also_by_the_image_of_an_upgrade(manager, directory):
    server = manager.start("-b", f"127.0.0.1:{free_port()}", "-p", "app.pid", "app:app", env={"WATCHDOG_USEC": "400000"})
    first = manager.wait_field("WATCHDOG")
    manager.wait_field("WATCHDOG", since=first + 1)
    manager.wait_field("READY")
    with Operator(directory / "app.ctl") as operator:
        operator.done("upgrade")
    since = len(manager.messages)
    for _ in range(4):
        since = manager.wait_field("WATCHDOG", since=since) + 1
    # It ends this process if two of them are further apart than that.
    beats = [fields["at"] for fields in manager.messages if "WATCHDOG" in fields]
    assert len(beats) >= 6
    assert server.stop() == 0


def test_a_daemon_tells_the_service_manager_its_pid(manager, directory):
    passed = listener()
    server = manager.start("-D", "-p", "app.pid", "app:app", sockets=[("http", passed)], env={"WATCHDOG_USEC": "400000"})
    assert server.wait() == 0
    pid = int((directory / "app.pid").read_text())
    ready = manager.wait_field("READY")
    assert manager.messages[ready]["MAINPID"] == str(pid) != str(server.pid)
    since = manager.wait_field("WATCHDOG", since=ready)
    with Operator(directory / "app.ctl") as operator:
        operator.done("upgrade")
        operator.done("reload")
    manager.wait_field("WATCHDOG", since=since + 1)
    assert get(port_of(passed))[0] == 200
    assert run("stop", "-p", "app.pid", cwd=directory).returncode == 0
    manager.wait_field("STOPPING")


def test_a_start_that_fails_sends_no_ready(manager, directory):
    (directory / "app.py").write_text("raise ValueError('broken')\n")
    server = manager.start("-b", f"127.0.0.1:{free_port()}", "app:app")
    assert server.wait() == 4
    assert manager.states() == ["STOPPING"]


def test_a_service_manager_that_is_gone_stops_nothing(manager, directory):
    port = free_port()
    server = manager.start("-b", f"127.0.0.1:{port}", "app:app")
    manager.wait_field("READY")
    manager.path.unlink()
    server.signal(signal.SIGHUP)
    wait_for(lambda: "Reload done" in server.log, "the reload")
    assert get(port)[0] == 200
    assert server.log.count("Cannot notify the service manager") == 1
    assert server.stop() == 0


def test_clients_in_the_queue_of_a_killed_supervisor_are_served_by_the_next_one(manager, directory):
    path, port = directory / "own.sock", free_port()
    arguments = ["-b", f"127.0.0.1:{port}", "-b", f"unix:{path}", "-p", "app.pid", "app:app"]
    first = manager.start(*arguments, env={"FDSTORE": "8"})
    manager.wait_field("READY")
    manager.wait(lambda fields: fields.get("FDNAME", "").startswith("mcsup,unix"), "the second stored socket")
    assert len(manager.store) == 2
    workers = children_of(first.pid)
    first.signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: all(state_of(worker) is None for worker in workers), "the workers to be gone")
    # No process serves: the store keeps both queues.
    waiting = [connect(port) for _ in range(3)]
    local = socket.socket(socket.AF_UNIX)
    local.settimeout(PATIENCE)
    local.connect(str(path))
    for client in [*waiting, local]:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    since = len(manager.messages)
    second = manager.start(*arguments, env={"FDSTORE": "8"})
    for client in [*waiting, local]:
        assert read_all(client).startswith(b"HTTP/1.1 200")
        client.close()
    manager.wait_field("READY", since=since)
    assert len(manager.store) == 2
    # An orderly end leaves nothing in the store, and no path.
    assert second.stop() == 0
    manager.receive()
    assert manager.store == [] and not path.exists()


def test_the_store_follows_the_addresses_of_a_reload_and_of_an_upgrade(manager, directory):
    ports = [free_port(), free_port()]
    bind = lambda port: (directory / "mcsup.toml").write_text(f'bind = ["127.0.0.1:{port}"]\n')  # noqa: E731
    bind(ports[0])
    server = manager.start("-c", "mcsup.toml", "--soak", "0", "-p", "app.pid", "app:app", env={"FDSTORE": "8"})
    manager.wait_field("READY")
    stored = lambda port: lambda: manager.receive() or [name for name, _ in manager.store] == [f"mcsup,127.0.0.1%3A{port}"]  # noqa: E731
    wait_for(stored(ports[0]), "the first address in the store")
    bind(ports[1])
    with Operator(directory / "app.ctl") as operator:
        operator.done("reload")
        wait_for(stored(ports[1]), "the second address alone in the store")
        operator.done("upgrade")
        bind(ports[0])
        operator.done("reload")
    wait_for(stored(ports[0]), "the first address alone in the store")
    wait_for(lambda: can_bind(ports[1]), "the second address to be free")
    assert server.stop() == 0


def test_no_socket_is_stored_where_the_service_manager_stores_none(manager):
    server = manager.start("-b", f"127.0.0.1:{free_port()}", "app:app")
    manager.wait_field("READY")
    assert server.stop() == 0
    manager.receive()
    assert not any("FDNAME" in fields for fields in manager.messages)


PROGRAM = """
import os, select, signal, socket
is_to_end = []
signal.signal(signal.SIGTERM, lambda *_: is_to_end.append(True))
own = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect("\\0" + own[1:] if own[0] == "@" else own)
    notify.send(b"READY=1")
listener = socket.socket(fileno=3)
listener.setblocking(False)
# Ends between two requests: those of its last moment have their answer.
while not is_to_end:
    if not select.select([listener], [], [], 0.05)[0]:
        continue
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        continue
    connection.setblocking(True)
    connection.recv(65536)
    names = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "FDSTORE"]
    body = f"{os.environ['LISTEN_PID'] == str(os.getpid())} {[os.environ.get(name) for name in names]}".encode()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
    connection.close()
"""


def test_a_program_of_exec_has_the_passed_socket_and_no_other_variable_of_the_service_manager(manager, directory):
    (directory / "program.py").write_text(PROGRAM)
    passed = listener()
    server = manager.start(
        "exec", "-w", "2", "-p", "app.pid", "--soak", "0", "--", sys.executable, "program.py",
        sockets=[("http", passed)], env={"FDSTORE": "4", "WATCHDOG_USEC": "60000000"},
    )  # fmt: skip
    manager.wait_status("serving: 2 of 2 workers ready, generation 1")
    for generation in (1, 2):
        status, body = get(port_of(passed))
        is_its_pid, names = body.decode().split(" ", 1)
        assert (status, is_its_pid) == (200, "True")
        assert str(manager.path) not in names and names.endswith(", None, None]")
        if generation == 1:
            server.signal(signal.SIGHUP)
            manager.wait_status("serving: 2 of 2 workers ready, generation 2")
    assert server.stop() == 0
    # The reports of the workers are for the supervisor.
    assert manager.states() == ["READY", "RELOADING", "READY", "STOPPING"]
    assert manager.senders == {server.pid}
