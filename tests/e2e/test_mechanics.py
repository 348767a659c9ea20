"""Users, files, sockets and limits of the processes: what an operator reads where one of them is wrong."""

import os
import resource
import shutil
import subprocess

import pytest
from harness import HELLO, MCSUP, clean_environment, free_port, run

REFUSED, USAGE = 1, 2


def write(directory):
    """The usual application."""
    (directory / "app.py").write_text(HELLO)


def test_the_start_tells_the_mode_and_the_owner_of_a_unix_socket(serve, directory):
    server = serve(HELLO, "-b", "unix:app.sock")
    (line,) = server.wait_log(r"\[INFO\] unix:\S+app\.sock has mode (.*)")
    assert line.startswith("0660, user "), line
    assert "this user and this group alone can connect" in line, line
    open_to_all = serve(HELLO, "-b", "unix:open.sock", "--umask", "0")
    open_to_all.wait_log(r"unix:\S+open\.sock has mode 0777, user .*: each user can connect")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run workers as another user")
@pytest.mark.skipif("www-data" not in open("/etc/passwd").read(), reason="there is no user www-data")
def test_the_start_names_a_proxy_of_this_host_that_cannot_connect(serve, directory):
    server = serve(HELLO, "-b", "unix:app.sock")
    server.wait_log(r"app\.sock has mode 0660, user root, .*; the user www-data cannot\n")
    given = serve(HELLO, "-b", "unix:given.sock", "-g", "www-data")
    given.wait_log(r"given\.sock has mode 0660, user root, group www-data: [^;\n]* can connect\n")


def test_a_port_that_a_daemon_of_mcsup_holds_is_named_as_one_of_mcsup(directory):
    write(directory)
    port = free_port()
    address = f"127.0.0.1:{port}"
    daemon = run("-D", "-p", "app.pid", "-b", address, "app:app", cwd=directory)
    assert daemon.returncode == 0, daemon.stderr
    try:
        second = run("-b", address, "app:app", cwd=directory)
        assert second.returncode == REFUSED
        assert ", a server of mcsup: " in second.stderr and "parent is gone" not in second.stderr, second.stderr
        assert "a server of mcsup listens there" in run("doctor", "-b", address, "app:app", cwd=directory).stdout
    finally:
        assert run("stop", "-p", "app.pid", cwd=directory, timeout=20).returncode == 0


def test_a_small_limit_of_file_sizes_is_named(directory):
    write(directory)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    result = run("-b", f"127.0.0.1:{free_port()}", "app:app", cwd=directory, preexec_fn=limit)
    assert result.returncode == REFUSED, result
    assert "the limit of file sizes is 1024 bytes" in result.stderr and "ulimit -f" in result.stderr, result.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_a_passed_descriptor_that_was_not_inherited_is_named_with_its_variable(directory):
    write(directory)
    script = f"exec 3<&-; LISTEN_FDS=1 LISTEN_PID=$BASHPID exec {MCSUP} app:app"
    result = subprocess.run(
        ["bash", "-c", script], cwd=directory, env=clean_environment(), capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == REFUSED
    assert "LISTEN_FDS passes descriptor 3, which this process did not inherit" in result.stderr, result.stderr


def test_a_processor_that_is_not_there_and_a_probe_without_an_address_are_usage_errors(directory):
    address = f"127.0.0.1:{free_port()}"
    result = run("exec", "--cpus", "1023", "-b", address, "sleep", "600", cwd=directory)
    assert result.returncode == USAGE
    assert "--cpus 1023: this process may use the processors " in result.stderr, result.stderr
    result = run("exec", "--ready", "tcp", "-b", "unix:app.sock", "sleep", "600", cwd=directory)
    assert result.returncode == USAGE
    assert "--ready tcp needs a TCP address" in result.stderr, result.stderr


def test_a_program_in_kubernetes_needs_the_name_of_its_image(directory):
    words = ("service", "kubernetes")
    result = run(*words, "exec", "-b", "0.0.0.0:80", "sleep", "600", cwd=directory)
    assert result.returncode == USAGE and "--image IMAGE" in result.stderr, result
    result = run(*words, "--image", "a:1", "exec", "--no-listener", "sleep", "600", cwd=directory)
    assert result.returncode == 0, result.stderr
    assert "Probe" not in result.stdout and "kind: Service\n" not in result.stdout
