"""The control socket, and what the commands that use it print and end with."""

import json
import os
import stat
import subprocess

import pytest
from harness import HELLO, MCSUP, PATIENCE, SLEEPY, clean_environment, connect, read_all, run, wait_for
from lifecycle import Operator

BROKEN = "raise RuntimeError('no database')\n"
# It is loaded once the test allows it.
WAITS = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n" + HELLO
# It fails as often as the file says.
FAILS = """
import pathlib
failures = int(pathlib.Path("failures").read_text())
if failures:
    pathlib.Path("failures").write_text(str(failures - 1))
    raise RuntimeError("not yet")
""" + HELLO


def ask(directory, *words, **options):
    """A command, as an operator says it."""
    return run(*words, cwd=directory, timeout=20, **options)


def test_the_socket_is_beside_the_pid_file_and_for_its_owner_alone(serve, directory):
    server = serve(HELLO, "-p", "app.pid", "-m", "0")
    found = (directory / "app.ctl").stat()
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600
    ended = ask(directory, "status", "-p", "app.pid")
    assert ended.returncode == 0 and f"pid {server.pid} " in ended.stdout, ended
    assert server.stop() == 0
    assert not (directory / "app.ctl").exists()
    assert ask(directory, "status", "-p", "app.pid").returncode == 6


def test_the_socket_is_where_it_was_asked_for_and_the_environment_may_name_it(serve, directory):
    server = serve(HELLO, "-p", "app.pid", "--control-socket", "other.sock")
    assert stat.S_IMODE((directory / "other.sock").stat().st_mode) == 0o600
    assert not (directory / "app.ctl").exists()
    named = clean_environment(MCSUP_CONTROL_SOCKET="other.sock")
    for ended in (ask(directory, "status", "-s", "other.sock"), ask(directory, "status", env=named)):
        assert ended.returncode == 0 and f"pid {server.pid} " in ended.stdout, ended
    without_socket = {name: value for name, value in clean_environment().items() if name != "MCSUP_CONTROL_SOCKET"}
    assert ask(directory, "status", env=without_socket).returncode == 2


def test_a_server_without_a_socket_serves_and_commands_say_that_it_has_none(serve, directory):
    server = serve(HELLO, "-p", "app.pid", "--no-control-socket")
    assert not (directory / "app.ctl").exists() and "ontrol socket" not in server.log
    ended = ask(directory, "reload", "-p", "app.pid")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "has no control socket" in ended.stderr and str(server.pid) in ended.stderr
    assert server.get()[0] == 200


def test_a_directory_that_is_missing_is_a_warning(serve, directory):
    server = serve(HELLO, "--control-socket", "nowhere/app.ctl")
    server.wait_log(r"\[WARNING\].*cannot open the control socket .*nowhere/app.ctl: there is no directory .*going on without")
    assert server.get()[0] == 200
    assert server.stop() == 0


def test_a_second_server_with_the_same_path_goes_without_and_names_the_first(serve, directory):
    first = serve(HELLO, "--control-socket", "app.ctl")
    before = (directory / "app.ctl").stat()
    second = serve(HELLO, "--control-socket", "app.ctl")
    second.wait_log(rf"\[WARNING\].*cannot open the control socket .*app.ctl: .*pid {first.pid} .*going on without")
    assert second.get()[0] == 200
    assert second.stop() == 0
    after = (directory / "app.ctl").stat()
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)
    ended = ask(directory, "status", "-s", "app.ctl")
    assert ended.returncode == 0 and f"pid {first.pid} " in ended.stdout, ended


def test_a_command_that_does_not_wait_reports_that_it_has_begun(serve, directory):
    server = serve(HELLO, "-p", "app.pid", "--soak", "0")
    for words, line in [(["reload"], "Reload done: generation 2 serves"), (["scale", 2], "Scaling from 1 to 2 workers")]:
        ended = ask(directory, *words, "-p", "app.pid", "--no-wait")
        assert (ended.returncode, ended.stderr) == (0, "") and "begun" in ended.stdout, ended
        server.wait_log(line)


def test_a_reload_outlives_the_wait_of_its_client_until_a_newer_one_replaces_it(serve, directory):
    (directory / "go").touch()
    server = serve(WAITS, "-p", "app.pid", "--soak", "0")
    (directory / "go").unlink()
    command = [str(MCSUP), "reload", "-p", "app.pid"]
    with subprocess.Popen(
        command, cwd=directory, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as first:
        server.wait_log("booting generation 2")
        second = ask(directory, "reload", "-p", "app.pid", "--timeout", 0.3)
        assert (second.returncode, second.stdout) == (9, "")
        assert "not finished within 0.3 seconds; it goes on" in second.stderr
        output, errors = first.communicate(timeout=PATIENCE)
    assert (first.returncode, output) == (8, "")
    assert "a newer request took its place" in errors
    assert "Reload superseded by a newer one: generation 2 is given up" in server.log
    assert server.get()[0] == 200
    (directory / "go").touch()
    server.wait_log("Reload done: generation 3 serves")
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_status_for_programs_has_all_that_is_promised(serve, directory):
    server = serve(HELLO, "-p", "app.pid", workers=2)
    assert server.get()[0] == 200
    ended = ask(directory, "status", "-p", "app.pid", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    reply = json.loads(ended.stdout)
    assert (reply["version"], reply["outcome"]) == (1, "done")
    status = reply["status"]
    assert {
        "mcsup", "pid", "phase", "uptime_seconds", "generation", "new_generation", "target", "listeners", "reloads",
        "upgrades", "mold", "workers", "slots",
    } <= status.keys()  # fmt: skip
    shown = (status["pid"], status["phase"], status["target"], status["listeners"], status["generation"])
    assert shown == (server.pid, "serving", 2, [f"127.0.0.1:{server.port}"], 1)
    for worker in status["workers"]:
        assert {
            "slot", "generation", "pid", "state", "age_seconds", "requests", "in_flight", "oldest_request_seconds",
            "waiting", "connections", "rss_bytes", "pss_bytes", "cpu_seconds", "cpu_percent",
        } <= worker.keys()  # fmt: skip
        assert worker["rss_bytes"] > 0 and worker["state"] == "ready"
    assert sorted(worker["pid"] for worker in status["workers"]) == server.worker_pids()
    assert sum(worker["requests"] for worker in status["workers"]) == 1
    assert [slot["slot"] for slot in status["slots"]] == [0, 1]
    assert all({"slot", "restarts", "last_death"} <= slot.keys() for slot in status["slots"])


def test_a_quick_stop_breaks_off_what_the_server_is_at_and_an_ordinary_one_does_not(serve, directory):
    for words, is_answered in [([], True), (["--quick"], False)]:
        server = serve(SLEEPY, "-p", "app.pid")
        client = connect(server.port)
        client.sendall(f"GET /?sleep={1 if is_answered else 60} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        server.wait_log("sleeping")
        ended = ask(directory, "stop", "-p", "app.pid", *words)
        assert ended.returncode == 0, f"{ended}; the log:\n{server.log}"
        assert (b" 200 OK" in read_all(client)) is is_answered
        assert ("Stopping at once" in server.log) is not is_answered
        server.wait()
        server.assert_nothing_left()


def test_a_reload_may_boot_the_whole_new_pool_at_once(serve, directory):
    (directory / "go").touch()
    server = serve(WAITS, "-p", "app.pid", "--soak", "0", "--surge", "all", workers=3)
    (directory / "go").unlink()
    assert ask(directory, "reload", "-p", "app.pid", "--no-wait").returncode == 0
    with Operator(directory / "app.ctl") as operator:
        operator.wait_status(
            lambda status: [worker["state"] for worker in status["workers"]].count("booting") == 3, "a second pool"
        )
        assert server.get()[0] == 200
        (directory / "go").touch()
        assert operator.wait_at_rest()["generation"] == 2
    assert server.stop() == 0
    server.assert_nothing_left()


def test_an_application_is_checked_without_a_server(directory):
    (directory / "app.py").write_text(HELLO)
    assert ask(directory, "check", "app:app").returncode == 0
    (directory / "app.py").write_text(BROKEN)
    ended = ask(directory, "check", "app:app")
    assert ended.returncode == 4
    assert "RuntimeError: no database" in ended.stdout + ended.stderr


def test_a_reload_of_a_broken_deploy_prints_why_and_changes_nothing(serve, directory):
    server = serve(HELLO, "-p", "app.pid")
    before = server.worker_pids()
    (directory / "app.py").write_text(BROKEN)
    ended = ask(directory, "reload", "-p", "app.pid")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "Traceback (most recent call last)" in ended.stderr and "RuntimeError: no database" in ended.stderr
    assert server.get()[0] == 200
    wait_for(lambda: server.worker_pids() == before, "the old worker alone")


@pytest.mark.parametrize(("failures", "code"), [(1, 0), (2, 3)])
def test_a_reload_tolerates_as_many_failures_as_the_option_permits(serve, directory, failures, code):
    (directory / "failures").write_text("0")
    server = serve(FAILS, "-p", "app.pid", "--soak", "0", "--reload-retries", 1)
    (directory / "failures").write_text(str(failures))
    ended = ask(directory, "reload", "-p", "app.pid")
    assert ended.returncode == code, f"{ended}; the log:\n{server.log}"
    server.wait_log("A worker of generation 2 failed; 0 more may: .*not yet")
    with Operator(directory / "app.ctl") as operator:
        assert operator.wait_at_rest()["generation"] == (1 if code else 2)
    assert (directory / "failures").read_text() == "0"
    assert os.path.exists(directory / "app.ctl") and server.get()[0] == 200
