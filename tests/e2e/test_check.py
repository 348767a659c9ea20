"""`mcsup check`: it loads the application as a worker would, in a process of its own and within the boot timeout."""

import os
import pwd
import signal
import subprocess

import pytest

from harness import HELLO, MCSUP, clean_environment, is_gone, run, wait_for

USAGE, REFUSED, BOOT, APPLICATION = 2, 1, 3, 4


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os\nos._exit(0)\n", "the process ended before it was done: exit code 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "the process ended before it was done: signal 9"),
    ],
)
def test_an_application_that_ends_its_process_while_it_is_loaded_is_refused(directory, code, words):
    (directory / "app.py").write_text(code)
    result = run("check", "app:app", cwd=directory)
    assert (result.returncode, result.stdout) == (BOOT, "")
    assert result.stderr == f"mcsup: cannot load app:app: {words}\n"


def test_an_application_that_hangs_is_refused_at_the_boot_timeout_with_its_stacks_and_leaves_no_process(directory):
    (directory / "app.py").write_text(
        "import pathlib, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "def hang():\n    time.sleep(60)\n"
        "hang()\n"
    )
    # Longer than the import of the modules takes on a busy machine.
    result = run("check", "--boot-timeout", "2", "app:app", cwd=directory, timeout=20)
    assert result.returncode == BOOT
    assert "mcsup: cannot load app:app: not done within 2s" in result.stderr
    assert "app.py\", line 5 in hang" in result.stderr
    wait_for(lambda: is_gone(int((directory / "child").read_text())), "the child of the application to be gone")


def test_a_process_that_the_application_has_forked_does_not_delay_the_answer_or_give_one(directory):
    (directory / "app.py").write_text("import os\nos.fork()\n" + HELLO)
    result = run("check", "app:app", cwd=directory)
    assert (result.returncode, result.stdout) == (0, "app:app can be served\n")


def test_what_the_application_prints_and_registers_for_its_end_is_not_lost(directory):
    (directory / "app.py").write_text("import atexit\nprint('loading')\natexit.register(print, 'ending')\n" + HELLO)
    result = run("check", "app:app", cwd=directory)
    assert (result.returncode, result.stdout) == (0, "loading\nending\napp:app can be served\n")


def test_a_whole_traceback_is_printed_however_long_it_is(directory):
    (directory / "app.py").write_text("raise RuntimeError('x' * 300_000 + ' is the end')\n")
    result = run("check", "app:app", cwd=directory)
    assert result.returncode == APPLICATION
    assert " is the end\n" in result.stderr
    assert result.stderr.count("x") > 300_000


def test_a_check_that_is_ended_takes_its_application_along(directory):
    (directory / "app.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    check = subprocess.Popen([MCSUP, "check", "app:app"], cwd=directory, env=clean_environment())
    pid = int(wait_for(lambda: (directory / "pid").exists() and (directory / "pid").read_text(), "the application"))
    check.send_signal(signal.SIGTERM)
    assert check.wait(5) == -signal.SIGTERM
    wait_for(lambda: is_gone(pid), "the application to be gone")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root loads as another user")
def test_the_application_is_loaded_as_the_user_of_the_workers(directory):
    user = pwd.getpwnam("nobody")
    (directory / "app.py").write_text(f"import os\nassert os.getuid() == {user.pw_uid}, os.getuid()\n" + HELLO)
    directory.chmod(0o755)
    assert run("check", "-u", "nobody", "app:app", cwd=directory).returncode == 0
    assert run("check", "app:app", cwd=directory).returncode == APPLICATION


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-u", "nosuch"], 'there is no user "nosuch"'),
        (["-g", "nosuch"], 'there is no group "nosuch"'),
        (["--chdir", "/nosuch"], "cannot change to the directory /nosuch"),
    ],
)
def test_a_user_group_or_directory_that_does_not_exist_is_a_wrong_setting(directory, command, arguments, words):
    (directory / "app.py").write_text(HELLO)
    result = run(command, *arguments, "app:app", cwd=directory)
    assert result.returncode == USAGE
    assert words in result.stderr


def test_an_application_is_loaded_where_a_parent_ignores_the_ends_of_its_children(directory):
    (directory / "app.py").write_text("import subprocess\nsubprocess.run(['true'], check=True)\n" + HELLO)

    def ignore():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    result = run("check", "app:app", cwd=directory, preexec_fn=ignore)
    assert (result.returncode, result.stdout) == (0, "app:app can be served\n"), result.stderr


def test_code_that_looks_for_gunicorn_in_the_command_line_is_named(directory):
    (directory / "app.py").write_text("import sys\nIS_SERVER = 'gunicorn' in sys.argv[0]\n" + HELLO)
    result = run("check", "app:app", cwd=directory)
    assert (result.returncode, result.stdout) == (0, "app:app can be served\n")
    assert "app.py:2 looks for gunicorn in sys.argv, which has mcsup" in result.stderr
