"""The user's own checklist, on the real example: what Flask's development server could not do."""

import json
import os
import plistlib
import re
import shutil
import subprocess
import threading
import time

import pytest
import requests
from packaging.requirements import Requirement

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
            ["sh", "mc.sh", *words],
            cwd=self.home,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        assert result.returncode == code, result.stdout
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


# Method, path and JSON body: every endpoint, and what it refuses.
REQUESTS = [
    ("GET", "/", None),
    ("GET", "/api/portfolio", None),
    ("GET", "/api/status", None),
    ("GET", "/api/tasks", None),
    ("POST", "/api/tasks", {"title": "Land"}),
    ("POST", "/api/tasks", {"title": " "}),
    ("POST", "/api/tasks", ["not an object"]),
    ("GET", "/api/report?seconds=0.1", None),
    ("GET", "/api/report?seconds=99", None),
    ("GET", "/api/events?count=3&interval=0.05", None),
    ("GET", "/api/none", None),
    ("DELETE", "/api/tasks", None),
]

# Prints what Flask's own test client answers, as a JSON list. It has a database of its own.
ASK_FLASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import server
client = server.app.test_client()
answers = [client.open(path, method=method, json=body) for method, path, body in json.loads(sys.argv[2])]
print(json.dumps([[answer.status_code, answer.content_type, answer.get_data(as_text=True)] for answer in answers]))
"""


def without_the_process(status, content_type, text):
    """An answer without the two things that depend on the process that gave it."""
    text = re.sub(r'("pid": ?)\d+', r"\1PID", text)
    return status, content_type, re.sub(r'("server": ?)"[^"]*"', r"\1SERVER", text)


def test_every_endpoint_answers_as_flasks_test_client_does(control):
    control.mc("start")
    command = [MCSUP.with_name("python"), "-c", ASK_FLASK, str(control.home), json.dumps(REQUESTS)]
    env = {**control.env, "MC_RUN": str(control.home / "flask")}
    output = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=30).stdout
    for (method, path, body), expected in zip(REQUESTS, json.loads(output), strict=True):
        url = f"http://127.0.0.1:{control.port}{path}"
        answer = requests.request(method, url, json=body, timeout=PATIENCE)
        got = answer.status_code, answer.headers["Content-Type"], answer.text
        assert without_the_process(*got) == without_the_process(*expected), f"{method} {path}"


def test_the_status_names_mcsup_and_the_worker(control):
    control.mc("start")
    status = requests.get(f"http://127.0.0.1:{control.port}/api/status", timeout=PATIENCE).json()
    assert status["server"].startswith("mcsup/") and status["pid"] in children_of(control.pid)


def test_a_task_is_seen_by_every_worker_and_outlives_a_restart(control):
    control.mc("start")
    wait_for(lambda: control.mc("logs", "100").count("is ready after") == 2, "both workers")
    url = f"http://127.0.0.1:{control.port}"
    assert requests.post(f"{url}/api/tasks", json={"title": "Land"}, timeout=PATIENCE).status_code == 201

    def assert_all_have_it():
        answered = set()

        def all_have_answered():
            # One connection has one worker, and the next connection mostly the other.
            with requests.Session() as session:
                answered.add(session.get(f"{url}/api/status", timeout=PATIENCE).json()["pid"])
                tasks = session.get(f"{url}/api/tasks", timeout=PATIENCE).json()["tasks"]
            assert [task["title"] for task in tasks][1:] == ["Land"]
            return len(answered) == 2

        wait_for(all_have_answered, "an answer of each worker")

    assert_all_have_it()
    control.mc("restart")
    wait_for(lambda: control.mc("logs", "100").count("is ready after") == 4, "both workers")
    assert_all_have_it()


def test_an_event_is_sent_before_the_next_is_made(control):
    control.mc("start")
    url = f"http://127.0.0.1:{control.port}/api/events?count=2&interval=2"
    with requests.get(url, timeout=PATIENCE, stream=True) as answer:
        lines = answer.iter_lines(chunk_size=1)
        start = time.monotonic()
        assert json.loads(next(lines)[len("data: ") :])["event"] == 0
        assert time.monotonic() - start < 1, "the first event waited for the second"


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


def test_a_restart_with_broken_code_stops_nothing(control):
    control.mc("start")
    pid = control.pid
    with (control.home / "server.py").open("a") as file:
        file.write("import no_such_module\n")
    assert "no_such_module" in control.mc("restart", code=4)
    assert control.pid == pid and answers(control.port)


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


def test_a_reload_of_broken_code_ends_with_its_traceback_and_the_old_code_serves_on(control):
    control.mc("start")
    (control.home / "server.py").write_text("import nothing_of_this_name\n")
    shown = control.mc("reload", code=3)
    assert "ModuleNotFoundError: No module named 'nothing_of_this_name'" in shown
    assert get(control.port, "/api/status")[0] == 200


def test_a_start_while_it_runs_is_refused_and_leaves_it_alone(control):
    control.mc("start")
    pid = control.pid
    control.mc("start", code=1)
    assert control.pid == pid and answers(control.port)


def test_a_reload_of_nothing_leaves_a_stranger_alone(control):
    (control.home / "run").mkdir()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        # What a killed server leaves behind, and what its pid may have become since.
        (control.home / "run" / "mission_control.pid").write_text(f"{stranger.pid}\n")
        control.mc("reload", code=6)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


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
    lines = (EXAMPLE / "requirements.txt").read_text().splitlines()
    names = {Requirement(line).name for line in lines if line and not line.startswith("#")}
    assert names == {"mcsup", "flask"}
    script = (EXAMPLE / "mc.sh").read_text()
    assert "kill -9" not in script and "pkill" not in script and "lsof" not in script
