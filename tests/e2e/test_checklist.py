"""The user's own checklist, on the real example: what Flask's development server could not do."""

import json
import os
import plistlib
import shutil
import subprocess
import threading

import pytest
import requests

from harness import (
    EXAMPLE,
    MCSUP,
    PATIENCE,
    answers,
    can_bind,
    children_of,
    clean_environment,
    free_port,
    get,
    is_gone,
    wait_for,
    zombies_of,
)


class MissionControl:
    """The example in a directory of its own, driven by its script."""

    def __init__(self, directory):
        self.home = directory / "mission_control"
        shutil.copytree(EXAMPLE, self.home, ignore=shutil.ignore_patterns("run", "__pycache__", ".venv"))
        self.port = free_port()
        self.env = clean_environment(PORT=str(self.port), HOST="127.0.0.1", MCSUP=str(MCSUP))

    def mc(self, *words, code=0):
        """Run the script."""
        result = subprocess.run(
            ["sh", "mc.sh", *words], cwd=self.home, env=self.env, capture_output=True, text=True, timeout=30, check=False
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout

    @property
    def pid(self):
        """The supervisor."""
        return int((self.home / "run" / "mission_control.pid").read_text())

    def processes(self):
        """All processes of the pool."""
        return [self.pid, *children_of(self.pid)]


@pytest.fixture
def control(directory):
    """A mission control that is stopped with the test."""
    control = MissionControl(directory)
    yield control
    control.mc("stop")


def test_every_endpoint_answers_as_flasks_test_client_does(control):
    control.mc("start")
    script = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import server; client = server.app.test_client(); "
        "print(json.dumps({path: [client.get(path).status_code, client.get(path).get_data(as_text=True), "
        "client.get(path).content_type] for path in sys.argv[2:]}))"
    )
    paths = ["/", "/api/portfolio", "/api/tasks", "/api/report?seconds=x", "/api/report?seconds=99", "/api/none"]
    python = MCSUP.with_name("python")
    output = subprocess.run(
        [python, "-c", script, str(control.home), *paths], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    expected = json.loads(output)
    for path in paths:
        if "seconds=x" in path:
            continue
        answer = requests.get(f"http://127.0.0.1:{control.port}{path}", timeout=PATIENCE)
        assert [answer.status_code, answer.text, answer.headers["Content-Type"]] == expected[path], path
    url = f"http://127.0.0.1:{control.port}"
    status = requests.get(f"{url}/api/status", timeout=PATIENCE).json()
    assert status["status"] == "ok" and status["pid"] in children_of(control.pid)
    assert status["server"].startswith("mcsup/")
    created = requests.post(f"{url}/api/tasks", json={"title": "Land"}, timeout=PATIENCE)
    assert (created.status_code, created.json()["title"]) == (201, "Land")
    assert requests.post(f"{url}/api/tasks", data="nonsense", timeout=PATIENCE).status_code == 400
    assert requests.get(f"{url}/api/report?seconds=0.1", timeout=PATIENCE).json()["report"] == "complete"
    stream = requests.get(f"{url}/api/events?count=3&interval=0.05", timeout=PATIENCE, stream=True)
    assert [line[:5] for line in stream.iter_lines() if line] == [b"data:"] * 3


def test_a_stop_leaves_no_process_and_a_free_port(control):
    control.mc("start")
    assert f"127.0.0.1:{control.port}" in control.mc("status")
    processes = control.processes()
    assert len(processes) == 3
    control.mc("stop")
    assert all(is_gone(pid) for pid in processes) and can_bind(control.port)
    assert "not running" in control.mc("status", code=6)


def test_three_cycles_of_start_and_stop(control):
    for _ in range(3):
        control.mc("start")
        assert get(control.port, "/api/status")[0] == 200
        assert not zombies_of(control.pid)
        processes = control.processes()
        control.mc("stop")
        assert all(is_gone(pid) for pid in processes) and can_bind(control.port)


def test_three_restarts_answer_before_and_after(control):
    control.mc("start")
    for _ in range(3):
        before = control.processes()
        assert answers(control.port)
        control.mc("restart")
        assert answers(control.port)
        assert not set(before) & set(control.processes())
        assert all(is_gone(pid) for pid in before) and not zombies_of(control.pid)


def test_a_reload_answers_all_the_time(control):
    control.mc("start")
    workers = set(children_of(control.pid))
    failures, stopping = [], threading.Event()

    def client():
        while not stopping.is_set():
            try:
                if get(control.port, "/api/status")[0] != 200:
                    failures.append("status")
            except OSError as error:
                failures.append(repr(error))

    thread = threading.Thread(target=client)
    thread.start()
    control.mc("reload")
    wait_for(lambda: len(new := set(children_of(control.pid))) == 2 and not new & workers, "new workers", 15)
    stopping.set()
    thread.join(PATIENCE)
    assert failures == []


def test_a_start_while_it_runs_is_refused_and_leaves_it_alone(control):
    control.mc("start")
    pid = control.pid
    control.mc("start", code=1)
    assert control.pid == pid and answers(control.port)


def test_a_killed_supervisor_needs_no_hands(control):
    control.mc("start")
    processes = control.processes()
    os.kill(control.pid, 9)
    wait_for(lambda: all(is_gone(pid) for pid in processes), "the pool to be gone")
    control.mc("start")
    assert get(control.port, "/api/status")[0] == 200


def test_the_logs_are_shown(control):
    control.mc("start")
    get(control.port, "/api/status")
    wait_for(lambda: "/api/status" in control.mc("logs"), "the request in the log")
    assert "Starting mcsup" in control.mc("logs", "100")


def test_the_plist_and_the_requirements_name_mcsup():
    with (EXAMPLE / "com.openclaw.missioncontrol.plist").open("rb") as file:
        service = plistlib.load(file)
    words = service["ProgramArguments"]
    assert words[0].endswith("/mcsup") and words[-1] == "server:app" and "-D" not in words
    graceful = int(words[words.index("--graceful-timeout") + 1])
    assert service["ExitTimeOut"] > graceful
    assert service["RunAtLoad"] is True and service["KeepAlive"]
    assert "StandardErrorPath" in service and "WorkingDirectory" in service
    requirements = (EXAMPLE / "requirements.txt").read_text()
    assert "mcsup" in requirements and "flask" in requirements
    script = (EXAMPLE / "mc.sh").read_text()
    assert "kill -9" not in script and "pkill" not in script and "lsof" not in script
