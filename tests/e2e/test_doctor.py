"""`mcsup doctor`: what this host gives and lacks, what holds a port, what other servers left behind, mistakes in units."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from harness import HELLO, children_of, clean_environment, free_port, run, wait_for

OK, PROBLEM, USAGE = 0, 1, 2

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the facts are those of Linux")

# A server of another kind: its parent listens, and two children that it forks inherit the socket.
PRE_FORK = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.setsid()
for _ in range(2):
    if os.fork() == 0:
        time.sleep(120)
print("ready", flush=True)
time.sleep(120)
"""

# The steps of daemon(7): the process in the middle ends, and the daemon does not lead its group. Its arguments are the
# port and the number of its workers.
DAEMON = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        time.sleep(120)
print(os.getpid(), flush=True)
time.sleep(120)
"""


def examine(directory, *arguments, units=(), **variables):
    """The exit code and the findings."""
    own = [word for unit in units for word in ("--unit", unit)]
    environment = clean_environment(HOME=str(directory), XDG_CONFIG_HOME="", **variables)
    result = run("doctor", "--json", *own, *arguments, cwd=directory, env=environment, timeout=20)
    assert result.returncode in (OK, PROBLEM), result.stderr
    return result.returncode, json.loads(result.stdout)["findings"]


def about(findings, words):
    """The findings with these words."""
    return [finding for finding in findings if words in finding["text"]]


def test_a_free_host_has_no_problem_and_each_ability_is_named(directory):
    code, findings = examine(directory, "-b", f"127.0.0.1:{free_port()}")
    assert (code, [finding for finding in findings if finding["level"] == "problem"]) == (OK, [])
    for ability in ("pidfd", "subreaper", "EPOLLEXCLUSIVE", "tcp_migrate_req", "somaxconn", "two generations"):
        assert about(findings, ability), ability
    text = run("doctor", "-b", f"127.0.0.1:{free_port()}", cwd=directory, timeout=20).stdout
    assert "ok       kernel Linux" in text
    assert text.rstrip().endswith(("note", "notes"))


def test_the_holder_of_a_port_is_named(directory):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, findings = examine(directory, "-b", f"0.0.0.0:{port}")
        taken = about(findings, f"0.0.0.0:{port}")
        assert (code, len(taken)) == (PROBLEM, 1)
        assert f"pid {os.getpid()} (" in taken[0]["text"]
    assert examine(directory, "-b", f"0.0.0.0:{port}")[0] == OK


def test_a_running_server_of_mcsup_is_recognised(serve, directory):
    server = serve(HELLO, "-b", f"unix:{directory}/a.sock")
    for address in (f"127.0.0.1:{server.port}", f"unix:{directory}/a.sock"):
        code, findings = examine(directory, "-b", address)
        taken = about(findings, "a server of mcsup listens there")
        assert (code, len(taken)) == (PROBLEM, 1), findings
        assert f"pid {server.pid} (" in taken[0]["text"]
        assert "mcsup stop" in taken[0]["advice"]
    assert server.stop() == 0


def test_workers_that_another_server_left_behind_are_found_with_the_way_to_end_it(directory):
    port = free_port()
    # A process that starts it and ends: the first process, or the next one that adopts orphans, becomes the parent.
    command = [sys.executable, "-c", PRE_FORK, str(port)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"ready\n"
    workers = sorted(children_of(parent.pid))
    assert len(workers) == 2
    try:
        # While its server runs it is a holder like any other.
        _, findings = examine(directory, "-b", f"127.0.0.1:{port}")
        assert "its pid is" in about(findings, "listens there")[0]["advice"]
        parent.kill()
        parent.wait(5)
        code, findings = examine(directory, "-b", f"127.0.0.1:{port}")
        if int(parent_of(workers[0])) != 1:
            pytest.skip("another process than the first one adopts orphans here")
        left = about(findings, f"127.0.0.1:{port}")
        assert code == PROBLEM
        assert "a server that is gone" in left[0]["text"]
        first, second = workers
        assert left[0]["advice"] == f"kill {first} {second}; if that does not end it: kill -9 {first} {second}"
        # Also where the server has another address.
        code, findings = examine(directory, "-b", f"127.0.0.1:{free_port()}")
        for worker in workers:
            left = about(findings, f"pid {worker} (")
            assert (code, left[0]["level"]) == (OK, "note")
            assert f"listens at 127.0.0.1:{port}, and its server is gone" in left[0]["text"]
    finally:
        parent.stdout.close()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not about(examine(directory)[1], f"pid {workers[0]} ("), "the end of the worker")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_daemon_is_not_called_left_behind(directory, workers):
    port = free_port()
    command = [sys.executable, "-c", DAEMON, str(port), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        pid = int(first.stdout.readline())
    all_of_it = [pid, *children_of(pid)]
    try:
        # Where another server has its address there is no finding.
        code, findings = examine(directory, "-b", f"127.0.0.1:{free_port()}")
        assert (code, about(findings, f"pid {pid} (")) == (OK, [])
        code, findings = examine(directory, "-b", f"127.0.0.1:{port}")
        (taken,) = about(findings, f"127.0.0.1:{port}")
        assert code == PROBLEM
        assert f"pid {pid} (" in taken["text"]
        assert "kill" not in taken["advice"]
        assert "its own service or command" in taken["advice"]
    finally:
        for each in all_of_it:
            os.kill(each, signal.SIGKILL)


def parent_of(pid):
    """The parent of a process."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[1]


def test_limits_that_are_too_low_for_the_settings_are_problems(directory):
    def lowered(*arguments):
        words = ["sh", "-c", 'ulimit -n 100 && exec "$0" "$@"', *arguments]
        result = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=20, check=False)
        return result.returncode, json.loads(result.stdout)["findings"]

    mcsup = [sys.executable, "-m", "mcsup", "doctor", "--json", "-b", f"127.0.0.1:{free_port()}"]
    code, findings = lowered(*mcsup, "-w", "20")
    assert code == PROBLEM
    assert "may need 146 descriptors, and the hard limit is 100" in about(findings, "hard limit")[0]["text"]
    code, findings = lowered(*mcsup, "-w", "2", "--worker-connections", "50")
    assert (code, len(about(findings, "--worker-connections 50 is more than the 4"))) == (PROBLEM, 1)


def test_a_temporary_directory_that_cannot_be_written_is_a_problem(directory):
    code, findings = examine(directory, "-b", f"127.0.0.1:{free_port()}", TMPDIR="/nosuch")
    assert (code, len(about(findings, "large request bodies get 503"))) == (PROBLEM, 1)


UNIT = """
[Service]
Type=simple
ExecStart=/srv/venv/bin/mcsup -D --graceful-timeout 120 -b unix:/tmp/a.sock app:app
PrivateTmp=yes
KillMode=process
[Install]
WantedBy=multi-user.target
"""


def test_mistakes_of_a_unit_are_found(directory):
    (directory / "a.service").write_text(UNIT)
    code, findings = examine(directory, units=["a.service"])
    texts = "\n".join(finding["text"] for finding in findings)
    assert code == PROBLEM
    for words in (
        "--daemon with Type=simple",
        "KillMode=process",
        "after 90 s, and its workers may drain for 120 s",
        "no Restart=",
        "no WorkingDirectory=",
        "the application runs as root",
        "the socket /tmp/a.sock",
    ):
        assert f"a.service: {words}" in texts or words in texts, words


@pytest.mark.parametrize("options", [[], ["--per-user"], ["--systemd", "252"]])
@pytest.mark.parametrize("front, back", [([], ["app:app"]), (["exec"], ["--", "node", "server.js"])])
def test_a_printed_unit_has_no_mistake(directory, options, front, back):
    usual = ["-w", "3", "--graceful-timeout", "100", "-e", "A=50% \"x\"", "-b", f"127.0.0.1:{free_port()}"]
    words = [*front, *usual, *back]
    text = run("service", "systemd", *options, *words, cwd=directory).stdout
    if os.geteuid() == 0:
        text = text.replace("#User=www-data", "User=www-data")
    (directory / "app.service").write_text(text)
    _, findings = examine(directory, units=["app.service"])
    ours = about(findings, "app.service")
    assert [finding["text"] for finding in ours] == ["app.service: no mistake"], ours


def test_units_of_this_user_are_found_and_those_of_other_programs_are_not(directory):
    folder = directory / ".config/systemd/user"
    folder.mkdir(parents=True)
    (folder / "web.service").write_text("[Service]\nExecStart=/v/bin/mcsup -w none app:app\n")
    (folder / "other.service").write_text("[Service]\nExecStart=/bin/sleep 5\n")
    code, findings = examine(directory)
    assert code == PROBLEM
    assert 'workers = "none"' in about(findings, f"{folder}/web.service")[0]["text"]
    assert not about(findings, "other.service")


def test_wrong_words_are_refused(directory):
    result = run("doctor", "-w", "none", cwd=directory)
    assert (result.returncode, result.stdout) == (USAGE, "")
    assert run("doctor", "reload", "-p", "x", cwd=directory).returncode == USAGE
