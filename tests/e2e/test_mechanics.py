"""Users, files, sockets and limits of the processes: what an operator reads where one of them is wrong."""

import ast
import contextlib
import grp
import os
import pwd
import resource
import shutil
import stat
import subprocess
import sys

import pytest
from harness import HELLO, MCSUP, PATIENCE, answers, clean_environment, free_port, get, run, wait_for

REFUSED, USAGE = 1, 2

# The environment that the application sees.
ENVIRONMENT = """
import json, os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(dict(os.environ)).encode()]
"""

# Its user, group and supplementary groups.
IDENTITY = """
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr([os.getuid(), os.getgid(), sorted(os.getgroups())]).encode()]
"""

# A file by wsgi.file_wrapper, and the class of that.
FILE = """
def app(environ, start_response):
    wrapper = environ["wsgi.file_wrapper"]
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Wrapper", wrapper.__module__)])
    return wrapper(open("large", "rb"), 65536)
"""

PASTE = """
import logging

def make(global_conf, **local):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [repr((global_conf.get("colour"), global_conf["here"], sorted(local.items()))).encode()]
    logging.getLogger("shop").info("made %s", local.get("name"))
    return application

def shouting(global_conf):
    def shout(app):
        return lambda environ, start_response: [part.upper() for part in app(environ, start_response)]
    return shout
"""

INI = """
[DEFAULT]
colour = red

[app:main]
use = call:shop:make
name = first

[pipeline:loud]
pipeline = shout main

[filter:shout]
paste.filter_factory = shop:shouting

[loggers]
keys = root
[handlers]
keys = file
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = file
[handler_file]
class = FileHandler
args = ("%(here)s/shop.log",)
formatter = plain
[formatter_plain]
format = %(name)s %(message)s
"""


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
    server.wait_log(r"app\.sock has mode 0660, user root, .*; the user www-data cannot \(--socket-mode, --socket-owner\)\n")
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


@pytest.fixture(scope="module")
def pastedeploy(tmp_path_factory):
    """A folder with PasteDeploy.

    Not in the environment of the tests: it runs code at each start of Python there, which a worker of another user may
    not be able to read.
    """
    folder = tmp_path_factory.mktemp("packages")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, "PasteDeploy==3.1.0"]
    done = subprocess.run(install, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: PasteDeploy cannot be installed: {done.stderr.strip()[-200:]}")
    return str(folder)


@contextlib.contextmanager
def gunicorn(directory, *arguments, **variables):
    """gunicorn on a port of its own, which it yields."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "-b", f"127.0.0.1:{port}", *arguments]
    with (directory / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, env=clean_environment(**variables), stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(port), "gunicorn", 4 * PATIENCE)
        yield port
    finally:
        process.terminate()
        process.wait(4 * PATIENCE)


def test_an_application_of_pastedeploy_is_served_as_by_gunicorn(serve, directory, pastedeploy):
    (directory / "shop.py").write_text(PASTE)
    (directory / "shop.ini").write_text(INI)
    path = {"PYTHONPATH": pastedeploy}
    for section, globals_ in (("", []), ("#loud", []), ("", ["--paste-global", "colour=blue"])):
        words = ["--pythonpath", str(directory), "--paste", f"shop.ini{section}", *globals_]
        address = f"127.0.0.1:{(port := free_port())}"
        server = serve(None, "-b", address, *words, bare=True, port=port, env=clean_environment(**path))
        ours = server.get()
        assert server.stop() == 0
        wait_for(lambda: "shop made first" in (directory / "shop.log").read_text(), "the log of the ini file")
        (directory / "shop.log").unlink()
        with gunicorn(directory, *words, **path) as theirs:
            assert ours == get(theirs)
        colour = "BLUE" if globals_ else "RED"
        assert colour.lower() in ours[1].decode().lower() and (b"FIRST" in ours[1]) == bool(section), ours


def test_a_file_of_pastedeploy_that_is_absent_or_beside_an_application_is_an_error(directory):
    address = f"127.0.0.1:{free_port()}"
    result = run("-b", address, "--paste", "none.ini", cwd=directory)
    assert result.returncode == USAGE and f"there is no file {directory}/none.ini" in result.stderr, result
    (directory / "shop.ini").write_text(INI)
    result = run("-b", address, "--paste", "shop.ini", cwd=directory)
    assert result.returncode == 4 and "which is not installed: pip install PasteDeploy" in result.stderr, result
    result = run("-b", address, "--paste", "none.ini", "app:app", cwd=directory)
    assert result.returncode == USAGE and "name one of them" in result.stderr, result


def test_a_file_of_variables_is_below_those_of_the_command_line_and_read_again_at_a_reload(serve, directory):
    (directory / "app.env").write_text("# secrets\nexport TOKEN='a b'\nCOLOUR=red\n")
    server = serve(ENVIRONMENT, "--env-file", "app.env", "-e", "COLOUR=blue", "-p", "app.pid")
    variables = server.get()[1].decode()
    assert '"TOKEN": "a b"' in variables and '"COLOUR": "blue"' in variables
    (directory / "app.env").write_text("TOKEN=second\n")
    assert run("reload", "-p", "app.pid", cwd=directory, timeout=20).returncode == 0
    assert '"TOKEN": "second"' in server.get()[1].decode()
    (directory / "app.env").write_text("TOKEN second\n")
    result = run("reload", "-p", "app.pid", cwd=directory, timeout=20)
    assert result.returncode == 3 and "app.env:1: expected NAME=VALUE" in result.stderr + result.stdout, result
    assert '"TOKEN": "second"' in server.get()[1].decode()


def test_a_unix_socket_has_the_mode_and_the_group_of_its_own_settings(serve, directory):
    group = grp.getgrgid(os.getegid()).gr_name
    server = serve(HELLO, "-b", "unix:app.sock", "--socket-mode", "0606", "--socket-owner", f":{group}", "-p", "app.pid")
    found = (directory / "app.sock").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o606, os.getegid())
    server.wait_log(rf"app\.sock has mode 0606, user \S+, group {group}: each user can connect")
    result = run("-b", "unix:b.sock", "--socket-owner", "no-such-user", "app:app", cwd=directory)
    assert result.returncode == USAGE and 'there is no user "no-such-user"' in result.stderr, result
    result = run("-b", "unix:b.sock", "--socket-mode", "660", "app:app", cwd=directory)
    assert result.returncode == USAGE and "Write 0660" in result.stderr, result


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_unix_socket_belongs_to_the_owner_that_is_named(serve, directory):
    daemon = pwd.getpwnam("daemon")
    serve(HELLO, "-b", "unix:app.sock", "--socket-owner", "daemon")
    found = (directory / "app.sock").stat()
    assert (found.st_uid, found.st_gid) == (daemon.pw_uid, os.getegid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run workers as another user")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
@pytest.mark.parametrize("words", [[], ["--initgroups"], ["--preload"], ["-g", "bin"]])
def test_a_worker_has_the_groups_of_its_user_and_none_of_roots(serve, directory, words):
    user = pwd.getpwnam("daemon")
    gid = grp.getgrnam("bin").gr_gid if "-g" in words else user.pw_gid
    through = ("setpriv", "--groups", "0,4,27", "--")
    for name in (user.pw_name, str(user.pw_uid)):
        server = serve(IDENTITY, "-u", name, *words, through=through)
        assert ast.literal_eval(server.get()[1].decode()) == [user.pw_uid, gid, sorted(os.getgrouplist(user.pw_name, gid))]
        assert server.stop() == 0


def test_files_are_sent_with_and_without_sendfile(serve, directory):
    content = os.urandom(1 << 20)
    (directory / "large").write_bytes(content)
    (directory / "mcsup.toml").write_text("sendfile = false\n")
    for words, module in (([], "mcsup"), (["--no-sendfile"], "wsgiref.util"), (["-c", "mcsup.toml"], "wsgiref.util")):
        server = serve(FILE, *words)
        assert server.get() == (200, content)
        head = subprocess.run(
            ["curl", "-sI", "-X", "GET", f"http://127.0.0.1:{server.port}/"], capture_output=True, text=True, check=False
        ).stdout
        assert f"X-Wrapper: {module}" in head or not shutil.which("curl"), head
        assert server.stop() == 0


def test_a_daemon_keeps_its_standard_output_where_it_is_asked_to(directory):
    (directory / "app.py").write_text(f"print('loaded', flush=True)\n{HELLO}")
    for words, is_kept in ((["-R"], True), ([], False)):
        port = free_port()
        with (directory / "out").open("wb") as out:
            command = [str(MCSUP), *words, "-D", "-p", "app.pid", "-b", f"127.0.0.1:{port}", "app:app"]
            subprocess.run(command, cwd=directory, env=clean_environment(), stdout=out, stderr=out, timeout=20, check=True)
        try:
            assert ("loaded\n" in (directory / "out").read_text()) == is_kept
            assert ("loaded\n" in (directory / "app.log").read_text()) != is_kept
        finally:
            assert run("stop", "-p", "app.pid", cwd=directory, timeout=20).returncode == 0
        (directory / "app.log").unlink()


def test_options_that_ask_for_what_happens_anyway_are_accepted(serve):
    server = serve(HELLO, "--initgroups", "--worker-tmp-dir", "/dev/shm", "--spew", "-n", "shop")
    assert server.get()[0] == 200
    server.wait_log(r"\[WARNING\] worker_tmp_dir \(from the command line\) has no effect")
    server.wait_log(r"\[WARNING\] spew \(from the command line\) has no effect")
    assert "initgroups" not in server.log


def test_a_daemon_that_would_keep_a_terminal_reports_that_it_keeps_no_log(directory):
    (directory / "app.py").write_text(HELLO)
    other, terminal = os.openpty()
    try:
        words = ["-R", "-D", "--error-logfile", "-", "-p", "app.pid", "-b", f"127.0.0.1:{free_port()}", "app:app"]
        command = [str(MCSUP), *words]
        with (directory / "out").open("wb") as out:
            subprocess.run(command, cwd=directory, env=clean_environment(), stdout=out, stderr=terminal, timeout=60, check=True)
        assert "keeping no log: --error-logfile names a file for it" in (directory / "out").read_text()
    finally:
        run("stop", "-p", "app.pid", cwd=directory, timeout=60)
        os.close(terminal)
        os.close(other)
