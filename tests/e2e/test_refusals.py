"""What cannot be meant or cannot be done: one clear line, a documented exit code, nothing started."""

import grp
import os
import pwd
import socket
import subprocess
from pathlib import Path

import pytest

from harness import HELLO, MCSUP, clean_environment, free_port, run

USAGE, REFUSED, APPLICATION = 2, 1, 4


def complaint(result, code):
    """The one line that says what is wrong."""
    text = result.stderr + result.stdout
    assert result.returncode == code, text
    lines = [line for line in text.splitlines() if line.startswith("mcsup: ") or "[ERROR]" in line]
    lines = [line for line in lines if "the first workers could not boot" not in line]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-such-flag", "app:app"], "--no-such-flag"),
        (["-w", "many", "app:app"], 'workers = "many" (from the command line)'),
        (["-w", "0", "app:app"], "workers"),
        (["-b", "nowhere:port", "app:app"], "nowhere:port"),
        (["-b", "::1:80", "app:app"], "brackets"),
        (["-t", "-1", "app:app"], "timeout"),
        (["-m", "999", "app:app"], "umask"),
        (["--log-level", "loud", "app:app"], "loud"),
        (["--access-logformat", "%(nonsense", "app:app"], "nonsense"),
        (["--threads=-1", "app:app"], "threads"),
        (["app-with-dash:app"], "app-with-dash:app"),
        ([], "no application"),
        (["stop"], "-p PIDFILE"),
        (["reload"], "-p PIDFILE"),
        (["scale", "0", "-p", "x"], "not from 1 to 512"),
        (["exec", "-p", "x"], "<PROGRAM>"),
    ],
)
def test_bad_usage(directory, arguments, words):
    (directory / "app.py").write_text(HELLO)
    result = run(*arguments, cwd=directory)
    line = complaint(result, USAGE)
    assert words in line
    assert "Booting" not in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("WEB_CONCURRENCY", "x", "from WEB_CONCURRENCY"),
        ("PORT", "http", "from PORT"),
        ("GUNICORN_CMD_ARGS", "--worker-class gevent", "GUNICORN_CMD_ARGS"),
        ("MCSUP_CMD_ARGS", "-w 'x", "MCSUP_CMD_ARGS"),
    ],
)
def test_bad_usage_in_the_environment_is_named(directory, variable, value, words):
    (directory / "app.py").write_text(HELLO)
    result = run("app:app", cwd=directory, env=clean_environment(**{variable: value}))
    assert words in complaint(result, USAGE)


@pytest.mark.parametrize(
    ("code", "target", "words"),
    [
        (HELLO, "absent:app", "there is no module \"absent\""),
        (HELLO, "app:absent", "has no attribute \"absent\""),
        (HELLO, "app:application", "there is: app"),
        ("app = 3\n", "app:app", "is a int, which cannot be called"),
        ("async def app(scope, receive, send):\n    pass\n", "app:app", "mcsup exec -w 2 -b 127.0.0.1:8000"),
        ("import absent\n", "app:app", "ModuleNotFoundError: No module named 'absent'"),
        ("raise SystemExit(9)\n", "app:app", "SystemExit: 9"),
        ("def make():\n    raise KeyError('setting')\n", "app:make()", "KeyError: 'setting'"),
        (HELLO, "app:app(os.getpid())", "literal"),
    ],
)
def test_an_application_that_cannot_be_loaded(directory, code, target, words):
    (directory / "app.py").write_text(code)
    port = free_port()
    assert words in complaint(run("-b", f"127.0.0.1:{port}", target, cwd=directory), APPLICATION)
    assert words in complaint(run("--check-config", target, cwd=directory), APPLICATION)


def test_a_good_configuration_is_said_to_be_one(directory):
    (directory / "app.py").write_text(HELLO)
    assert run("--check-config", "app:app", cwd=directory).returncode == 0


def test_a_directory_that_is_not_there(directory):
    assert "no-such-dir" in complaint(run("--chdir", "no-such-dir", "app:app", cwd=directory), USAGE)


def test_a_pid_file_that_cannot_be_written(directory):
    (directory / "app.py").write_text(HELLO)
    result = run("-b", f"127.0.0.1:{free_port()}", "-p", "no/such/dir/app.pid", "app:app", cwd=directory)
    assert "no/such/dir/app.pid" in complaint(result, REFUSED)


def test_a_log_that_cannot_be_written(directory):
    (directory / "app.py").write_text(HELLO)
    result = run("-b", f"127.0.0.1:{free_port()}", "--error-logfile", "no/such/log", "app:app", cwd=directory)
    assert "no/such/log" in complaint(result, REFUSED)


def test_a_user_that_does_not_exist(directory):
    (directory / "app.py").write_text(HELLO)
    result = run("-b", f"127.0.0.1:{free_port()}", "-u", "no-such-user", "app:app", cwd=directory)
    assert "no-such-user" in complaint(result, USAGE)


def test_a_descriptor_that_was_not_inherited(directory):
    (directory / "app.py").write_text(HELLO)
    assert "fd://77" in complaint(run("-b", "fd://77", "app:app", cwd=directory), REFUSED)


def test_a_port_that_another_process_holds(directory):
    (directory / "app.py").write_text(HELLO)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        result = run("-b", f"127.0.0.1:{holder.getsockname()[1]}", "app:app", cwd=directory)
    assert f"the port is held by pid {os.getpid()} " in complaint(result, REFUSED)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")


def without(capability, *arguments, cwd):
    """Run the command as root without one of root's capabilities."""
    dropped = [f"--{which}=-{capability}" for which in ("bounding-set", "inh-caps")]
    command = ["setpriv", *dropped, str(MCSUP), *arguments]
    return subprocess.run(
        command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=20, check=False
    )


@as_root
def test_a_privileged_port_without_the_privilege(directory):
    (directory / "app.py").write_text(HELLO)
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as setting:
        if int(setting.read()) <= 81:
            pytest.skip("every port is open to all users here")
    result = without("net_bind_service", "-b", "127.0.0.1:81", "app:app", cwd=directory)
    assert "a port below 1024 needs root" in complaint(result, REFUSED)


@as_root
def test_an_application_that_cannot_be_read(directory):
    secret = directory / "app.py"
    secret.write_text(HELLO)
    secret.chmod(0o600)
    os.chown(secret, 65534, 65534)
    result = without("dac_override,-dac_read_search", "-b", f"127.0.0.1:{free_port()}", "app:app", cwd=directory)
    assert "PermissionError" in complaint(result, APPLICATION)


def any_user_can_run_python():
    """Whether an unprivileged user can run the Python that the tests run with."""
    python = MCSUP.with_name("python")
    try:
        return subprocess.run([python, "-c", "import ast"], user="nobody", check=False).returncode == 0
    except PermissionError:
        return False


@as_root
def test_workers_run_as_the_configured_user_and_no_other(serve):
    if not any_user_can_run_python():
        pytest.skip("an unprivileged user cannot run this Python; tests/core covers the privileges")
    server = serve(HELLO, "-u", "nobody", "-g", "nogroup", workers=2)
    uid, gid = str(pwd.getpwnam("nobody").pw_uid), str(grp.getgrnam("nogroup").gr_gid)
    for worker in server.worker_pids():
        status = Path(f"/proc/{worker}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == [uid] * 4 and fields["Gid"].split() == [gid] * 4
        assert fields["Groups"].split() in ([gid], [])
    assert server.get()[0] == 200
    assert server.stop() == 0


def test_version_and_help_are_no_errors(directory):
    assert run("--version", cwd=directory).stdout.startswith("mcsup 0.")
    text = run("--help", cwd=directory).stdout
    assert "--graceful-timeout" in text and "WEB_CONCURRENCY" in text


def test_the_module_is_the_command(directory):
    python = MCSUP.with_name("python")
    result = subprocess.run([python, "-m", "mcsup", "--version"], capture_output=True, text=True, check=True, cwd=directory)
    assert result.stdout.startswith("mcsup 0.")
