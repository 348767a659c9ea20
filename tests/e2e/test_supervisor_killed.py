"""`kill -9` of the supervisor at each state of its life: a second later nothing is left, and the next start works.

MCSUP_SOAK=1 asks for each state with and without a mold, ten times over; otherwise each is tried once each way.
"""

import os
import resource
import signal
import sys
import threading
import time

import pytest
from harness import can_bind, clean_environment, get, is_gone, marked, wait_for
from lifecycle import WHOLE, Operator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

TIMES = 10 if WHOLE else 1
# What an import does stands in a file; a request to /wait is answered when there is a file `go`.
APPLICATION = """
import os, time
mode = open("mode").read()
if mode == "raise":
    # The next one, which a rollback boots, hangs.
    with open("mode", "w") as file:
        file.write("hang")
    raise RuntimeError("broken deploy")
while mode == "hang":
    time.sleep(3600)
def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        environ["wsgi.errors"].write("one waits\\n")
        while not os.path.exists("go"):
            time.sleep(0.005)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


class Scene:
    """A server on its way into a state in which it is killed."""

    def __init__(self, serve, directory, preload):
        self.serve, self.directory, self.preload, self.client = serve, directory, preload, None
        self.undo = lambda: None
        self.mode("good")

    def mode(self, mode):
        # At once: no reader sees half of it.
        (self.directory / "mode.new").write_text(mode)
        (self.directory / "mode.new").rename(self.directory / "mode")

    def start(self, *options, **others):
        options = ["--pid", "app.pid", "--soak", "0", "--surge", "1", *options, *["--preload"] * self.preload]
        self.server = self.serve(APPLICATION, *options, workers=2, **others)
        return self.server

    def ask(self, command, **fields):
        """Have it done, and wait for nothing."""
        with Operator(self.directory / "app.ctl") as operator:
            assert operator.ask(command, wait=False, **fields)["outcome"] == "begun"

    def wait_phase(self, phase):
        with Operator(self.directory / "app.ctl") as operator:
            operator.wait_status(lambda status: status["phase"] == phase, f"the phase {phase}")

    def begin_request(self):
        """A request that goes on until it may end."""
        self.client = threading.Thread(target=lambda: self.answer(), daemon=True)
        self.client.start()
        self.server.wait_log("one waits")

    def answer(self):
        self.answered = get(self.server.port, "/wait", timeout=10)[0]

    def end_request(self):
        """Only now may those that are at a request go."""
        if self.client:
            (self.directory / "go").write_text("")
            self.client.join(10)
            (self.directory / "go").unlink()
            assert self.answered == 200


def starting(scene):
    scene.mode("hang")
    scene.start(wait=False).wait_log("Booting (worker|mold)")


def serving(scene):
    assert scene.start().get()[0] == 200


def newcomer_booting(scene):
    scene.start()
    scene.mode("hang")
    scene.ask("reload")
    scene.server.wait_log("Booting .*generation 2")


def newcomer_soaking(scene):
    scene.start("--soak", "60")
    scene.ask("reload")
    scene.server.wait_log(r"Worker \d+ is ready", 3)


def old_draining(scene):
    scene.start()
    scene.begin_request()
    scene.ask("reload")
    scene.server.wait_log("Reload done")


def recycling(scene):
    scene.start()
    scene.mode("hang")
    scene.ask("recycle", slot=0)
    scene.server.wait_log("Recycling worker")


def scaling(scene):
    scene.start()
    scene.mode("hang")
    scene.ask("scale", workers=4)
    scene.server.wait_log("Scaling from 2 to 4")


def rolling_back(scene):
    # The first newcomer takes a slot over, the second one fails, and the old version's return hangs.
    scene.start("--soak", "0.3")
    scene.ask("reload")
    scene.server.wait_log(r"Worker \d+ is ready", 3)
    scene.mode("raise")
    scene.wait_phase("rolling back")


def stopping(scene):
    scene.start()
    scene.begin_request()
    scene.server.signal(signal.SIGTERM)
    scene.server.wait_log("Stopping")


def upgrading(scene):
    # The dry run of the new image hangs before it is any of our code.
    site = scene.directory / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text("import os, time\nwhile os.path.exists('hang'):\n    time.sleep(0.1)\n")
    scene.start(env=clean_environment(PYTHONPATH=str(site)))
    (scene.directory / "hang").write_text("")
    scene.ask("upgrade")
    scene.wait_phase("upgrading")
    scene.undo = (scene.directory / "hang").unlink


STATES = [
    starting, serving, newcomer_booting, newcomer_soaking, old_draining, recycling, scaling, rolling_back, upgrading,
    stopping,
]  # fmt: skip


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_nothing_is_left_of_a_killed_supervisor_and_the_next_start_works(
    serve, directory, record_property, state, preload
):
    if preload and state is rolling_back:
        pytest.skip("workers of one mold do not differ: its boot is all that can fail")
    slowest = 0.0
    for _ in range(TIMES):
        scene = Scene(serve, directory, preload)
        state(scene)
        server = scene.server
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(5)
        scene.end_request()
        begun = time.monotonic()

        def is_over():
            return not marked(directory) and can_bind(server.port)

        wait_for(is_over, f"the end of {marked(directory)}", patience=1)
        slowest = max(slowest, time.monotonic() - begun)
        assert (directory / "app.pid").exists() and (directory / "app.ctl").exists()
        scene.mode("good")
        scene.undo()
        new = serve(None, *["--pid", "app.pid", "--soak", "0", *["--preload"] * preload], port=server.port, workers=2)
        assert new.get()[0] == 200
        with Operator(directory / "app.ctl") as operator:
            assert operator.status()["pid"] == new.pid
            operator.done("reload")
        assert new.stop() == 0
        new.assert_nothing_left()
        assert not (directory / "app.pid").exists() and not (directory / "app.ctl").exists()
    record_property("gone after", f"{slowest * 1000:.0f} ms")


GREEDY = """
import os, time
def app(environ, start_response):
    held = []
    try:
        while True:
            held.append(open("/dev/zero"))
    except OSError:
        os.write(2, b"no descriptor is left\\n")
    while not os.path.exists("go"):
        time.sleep(0.005)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_the_port_is_free_though_a_worker_in_a_request_has_no_descriptor_left(serve, directory):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        server = serve(GREEDY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (worker,) = server.worker_pids()
    answers = []
    client = threading.Thread(target=lambda: answers.append(get(server.port, timeout=10)), daemon=True)
    client.start()
    server.wait_log("no descriptor is left")
    server.kill()
    wait_for(lambda: can_bind(server.port), "a free port", patience=1)
    assert not is_gone(worker) and not answers, "its request has ended already"
    (directory / "go").write_text("")
    client.join(10)
    assert answers == [(200, b"ok")]
    wait_for(lambda: is_gone(worker), "the worker to go")


def test_workers_of_a_killed_supervisor_say_that_it_is_gone_and_complain_of_nothing_else(serve, directory):
    scene = Scene(serve, directory, preload=False)
    server = scene.start()
    workers = server.worker_pids()
    scene.begin_request()
    server.kill()
    server.wait_log("the supervisor is gone", len(workers))
    # The listeners are closed at once. An idle worker ends after its last look at them.
    wait_for(lambda: any(is_gone(worker) for worker in workers), "the idle worker to go")
    scene.end_request()
    wait_for(lambda: all(is_gone(worker) for worker in workers), "the other worker to go")
    said = [line for line in server.log.splitlines() if "[WARNING]" in line or "[ERROR]" in line]
    assert said and all("the supervisor is gone" in line for line in said), server.log
