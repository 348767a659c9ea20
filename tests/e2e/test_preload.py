"""--preload: the application is loaded once, in a mold, and workers are copies of it."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from harness import Load, can_bind, connect, is_gone, state_of, wait_for, zombies_of

# Answers with what it was loaded with, what it draws now, and its process.
APP = """
import atexit, json, os, random, subprocess, sys, threading, time
LOADED = {"by": os.getpid(), "drawn": random.getrandbits(64)}
VERSION = 1

def daemon():
    shell = subprocess.run(["sh", "-c", "sleep 0.1 >/dev/null & echo $!"], capture_output=True, check=True)
    return int(shell.stdout)

def child():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return pid

def app(environ, start_response):
    path = environ["PATH_INFO"]
    answer = {"loaded": LOADED, "version": VERSION, "drawn": random.getrandbits(64), "pid": os.getpid(),
              "ppid": os.getppid(), "threads": sorted(thread.name for thread in threading.enumerate())}
    if path == "/daemon":
        answer["daemon"] = daemon()
    elif path == "/child":
        answer["child"] = child()
    elif path == "/hang":
        time.sleep(60)
    elif path == "/log":
        print("a line of", os.getpid(), file=environ["wsgi.errors"], flush=True)
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


def ask(server, path="/"):
    status, body = server.get(path)
    assert status == 200
    return json.loads(body)


def molds(server):
    return [int(pid) for pid in re.findall(r"Booting mold with pid: (\d+)", server.log)]


def workers(server):
    return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", server.log)]


def ask_all(server, count=2):
    """One answer of each worker, by pid."""
    answers = {}

    def asked():
        answer = ask(server)
        answers[answer["pid"]] = answer
        return len(answers) == count

    wait_for(asked, f"{count} workers to have answered")
    return answers


def test_workers_share_what_was_loaded_and_draw_their_own_numbers(serve):
    server = serve(APP, "--preload", workers=2)
    one, other = ask_all(server).values()
    (mold,) = molds(server)
    assert one["loaded"] == other["loaded"] and one["loaded"]["by"] == mold
    assert one["drawn"] != other["drawn"]
    assert {one["ppid"], other["ppid"]} == {server.pid}
    assert zombies_of(server.pid) == [] and zombies_of(mold) == []
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_reload_replaces_what_was_loaded(serve, directory):
    server = serve(APP, "--preload", workers=2)
    (old,) = molds(server)
    with Load(server.port) as load:
        (directory / "app.py").write_text(APP.replace("VERSION = 1", "VERSION = 2"))
        server.signal(signal.SIGHUP)
        server.wait_log("Reload done: generation 2 serves")
        load.wait_more(20)
    assert load.failures == []
    wait_for(lambda: is_gone(old), "the old mold to be gone")
    assert ask(server)["version"] == 2 and ask(server)["loaded"]["by"] == molds(server)[1]
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_broken_reload_keeps_what_was_loaded(serve, directory):
    server = serve(APP, "--preload", workers=2)
    (old,) = molds(server)
    with Load(server.port) as load:
        (directory / "app.py").write_text("raise RuntimeError('broken deploy')\n")
        server.signal(signal.SIGHUP)
        server.wait_log("Reload failed, the old generation goes on serving: generation 2: importing app failed: RuntimeError: broken deploy")
        load.wait_more(20)
        (directory / "app.py").write_text(APP.replace("VERSION = 1", "VERSION = 3"))
        # There is still a mold for those that serve.
        dead = ask(server)["pid"]
        os.kill(dead, signal.SIGKILL)
        server.wait_log(r"Worker \d+ is ready", 3)
        assert {answer["loaded"]["by"] for answer in ask_all(server).values()} == {old}
        server.signal(signal.SIGHUP)
        server.wait_log("Reload done: generation 3 serves")
    assert [failure for failure in load.failures if "status" in failure] == []
    assert 'File "' in server.log and ask(server)["version"] == 3
    assert server.stop() == 0


def test_what_does_not_load_ends_the_start(serve):
    server = serve("import nothing_of_that_name\n", "--preload", workers=2, wait=False)
    assert server.wait() == 4
    assert "nothing_of_that_name" in server.log and workers(server) == []


def test_a_killed_mold_is_replaced_and_no_client_notices(serve):
    server = serve(APP, "--preload", workers=2)
    with Load(server.port) as load:
        for count in range(2, 4):
            os.kill(molds(server)[-1], signal.SIGKILL)
            server.wait_log(r"Mold \d+ is ready", count, patience=10)
            load.wait_more(5)
    assert load.failures == []
    assert len(workers(server)) == 2 and zombies_of(server.pid) == []
    dead = ask(server)["pid"]
    os.kill(dead, signal.SIGKILL)
    server.wait_log(rf"Worker {dead} \(slot \d\) died, cause unknown: SIGKILL")
    server.wait_log(r"Worker \d+ is ready", 3)
    assert molds(server)[-1] in {answer["loaded"]["by"] for answer in ask_all(server).values()}
    assert server.stop() == 0
    server.assert_nothing_left()


def test_no_process_outlives_a_killed_supervisor(serve):
    server = serve(APP, "--preload", workers=2)
    processes = molds(server) + workers(server)
    server.kill()
    wait_for(lambda: all(is_gone(pid) for pid in processes), "all processes to be gone", patience=1)
    assert can_bind(server.port)


def test_a_process_forked_by_a_molds_worker_closes_the_listeners(serve):
    server = serve(APP, "--preload", workers=2)
    (mold,) = molds(server)
    assert len(list(Path(f"/proc/{mold}/task").iterdir())) == 1
    one, other = ask_all(server).values()
    assert one["loaded"] == other["loaded"] and one["drawn"] != other["drawn"]
    child = ask(server, "/child")
    assert ask(server)["version"] == 1
    dead = child["pid"]
    os.kill(dead, signal.SIGKILL)
    server.wait_log(rf"Worker {dead} \(slot \d\) died, cause unknown: SIGKILL")
    ask_all(server)
    assert server.stop() == 0
    wait_for(lambda: can_bind(server.port), "the port to be free")
    assert not is_gone(child["child"])
    os.kill(child["child"], signal.SIGKILL)
    server.assert_nothing_left()


def test_a_mold_forks_for_the_image_that_took_over(serve):
    server = serve(APP, "--preload", workers=2)
    (mold,) = molds(server)
    with Load(server.port) as load:
        server.signal(signal.SIGUSR2)
        server.wait_log("Upgraded: a new image supervises 2 workers", patience=20)
        load.wait_more(10)
    assert load.failures == []
    dead = ask(server)["pid"]
    os.kill(dead, signal.SIGKILL)
    server.wait_log(r"Worker \d+ is ready", 3)
    assert {answer["loaded"]["by"] for answer in ask_all(server).values()} == {mold}
    os.kill(mold, signal.SIGKILL)
    server.wait_log(r"Mold \d+ is ready", 2)
    wait_for(lambda: zombies_of(server.pid) == [], "all processes to be reaped")
    assert server.stop() == 0
    server.assert_nothing_left()


def test_orphans_are_reaped(serve):
    server = serve(APP, "--preload", workers=2)
    daemons = [ask(server, "/daemon")["daemon"] for _ in range(5)]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in daemons), "the daemons to be reaped")
    assert zombies_of(server.pid) == []
    # An orphan that runs is the supervisor's child, and not its business.
    child = ask(server, "/child")
    os.kill(child["pid"], signal.SIGKILL)
    wait_for(lambda: state_of(child["child"])[1] == server.pid, "the supervisor to adopt it")
    server.wait_log(r"Worker \d+ is ready", 3)
    os.kill(child["child"], signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{child['child']}").exists(), "it to be reaped")
    assert server.stop() == 0


STARTS_THREAD = APP + """
threading.Thread(target=time.sleep, args=(60,), name="background", daemon=True).start()
"""


def test_threads_that_were_started_while_loading_are_refused_by_name(serve):
    server = serve(STARTS_THREAD, "--preload", "--preload-threads", "refuse", workers=2, wait=False)
    assert server.wait() == 4
    assert "threads run in the mold (background)" in server.log


def test_threads_that_were_started_while_loading_are_left_behind(serve):
    server = serve(STARTS_THREAD, "--preload", workers=2)
    server.wait_log(r"threads run in the mold \(background\)")
    for answer in ask_all(server).values():
        assert "background" not in answer["threads"]
    assert server.stop() == 0


def test_threads_that_have_ended_are_nobodys_business(serve):
    code = APP + "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool: list(pool.map(str, range(9)))\n"
    server = serve(code, "--preload", "--preload-threads", "refuse", workers=2)
    assert "threads" not in server.log
    assert server.stop() == 0


def test_a_worker_that_hangs_shows_its_stacks(serve):
    server = serve(APP, "--preload", "--timeout", "1", "--request-timeout", "0", workers=1)
    with connect(server.port) as hanging:
        hanging.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_log("WORKER TIMEOUT", patience=10)
        server.wait_log(r'File ".*app.py", line \d+ in app')
        server.wait_log(r"Worker \d+ is ready", 2)
    assert ask(server)["version"] == 1


def test_workers_write_to_reopened_logs(serve, directory):
    server = serve(APP, "--preload", "--error-logfile", "error.log", workers=1, wait=False)
    log = directory / "error.log"
    wait_for(lambda: log.exists() and "is ready" in log.read_text() and "Worker" in log.read_text(), "the worker")
    wait_for(lambda: re.search(r"Worker \d+ is ready", log.read_text()), "the worker to be ready")
    log.rename(directory / "error.log.1")
    server.signal(signal.SIGUSR1)
    wait_for(log.exists, "a new log")
    first = ask(server)["pid"]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: re.search(r"Worker \d+ is ready", log.read_text()), "its successor")
    second = ask(server, "/log")["pid"]
    wait_for(lambda: f"a line of {second}" in log.read_text(), "its line in the new log")
    assert server.stop() == 0


def test_atexit_functions_run_in_workers_alone(serve, directory):
    code = APP + "atexit.register(lambda: open(f'ended-{os.getpid()}', 'w').close())\n"
    server = serve(code, "--preload", workers=2)
    expected = {f"ended-{pid}" for pid in workers(server)}
    assert server.stop() == 0
    assert {path.name for path in directory.glob("ended-*")} == expected


@pytest.mark.parametrize("options", [[], ["--reuse-port"]])
def test_workers_come_and_go_without_loss(serve, options):
    server = serve(APP, "--preload", *options, workers=2)
    with Load(server.port) as load:
        for count in (3, 4):
            server.signal(signal.SIGTTIN)
            server.wait_log(r"Worker \d+ is ready", count)
        for size in (3, 2):
            server.signal(signal.SIGTTOU)
            server.wait_log(f"Scaling from {size + 1} to {size} workers")
        load.wait_more(10)
    server.wait_log("has finished", 2)
    assert load.failures == []
    assert server.stop() == 0
    server.assert_nothing_left()


def test_memory_is_shared(serve, record_property):
    """Figures, and no judgement but a broad one."""
    code = APP + """
import gc
BALLAST = [{"key": str(number), "list": [number]} for number in range(150_000)]
inner = app
def app(environ, start_response):
    gc.collect()
    return inner(environ, start_response)
"""
    private = {}
    for name, extra in (("frozen", ""), ("not frozen", "gc.freeze = lambda: None\n")):
        server = serve(code + extra, "--preload", workers=2)
        for pid in ask_all(server):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            private[name] = int(re.search(r"Private_Dirty:\s+(\d+)", text)[1])
        assert server.stop() == 0
    record_property("private KiB of a worker after a collection", json.dumps(private))
    assert private["frozen"] < private["not frozen"] / 2
