"""The hooks of gunicorn's master, in a process of their own: what they get and when, beside gunicorn."""

import os
import signal
import subprocess
import sys
import time

import pytest

from harness import HELLO, answers, clean_environment, free_port, is_gone, run, wait_for

# Each call of a hook is a line of the record.
CONF = """
import os
bind = "127.0.0.1:PORT"
workers = 2
wsgi_app = "app:app"
graceful_timeout = 5
pidfile = "pid"
def note(*words):
    with open("record", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")
def on_starting(server):
    note("on_starting", server.num_workers, len(server.WORKERS), server.cfg.workers, server.address, server.LISTENERS)
def when_ready(server):
    note("when_ready", [str(listener) for listener in server.LISTENERS], server.pid == int(open("pid").read()))
def on_reload(server):
    note("on_reload", server.cfg.workers, [str(listener) for listener in server.LISTENERS])
def pre_fork(server, worker):
    note("pre_fork", worker.age, worker.ppid == server.pid)
def child_exit(server, worker):
    note("child_exit", worker.age, worker.pid in server.WORKERS, worker.pid > 1, worker.alive)
def nworkers_changed(server, new, old):
    note("nworkers_changed", new, old)
def on_exit(server):
    note("on_exit", len(server.WORKERS))
    server.log.info("on_exit writes to the error log")
"""


class Recorded:
    """A server in a directory of its own, with the record of its hooks."""

    def __init__(self, directory, command, port, text=CONF):
        directory.mkdir(exist_ok=True)
        self.directory, self.port = directory, port
        (directory / "app.py").write_text(HELLO)
        (directory / "gunicorn.conf.py").write_text(text.replace("PORT", str(port)))
        environment = clean_environment(MCSUP_CMD_ARGS="--soak 0")
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)

    def lines(self):
        path = self.directory / "record"
        return path.read_text().splitlines() if path.exists() else []

    def wait_lines(self, count):
        """The record, once it has `count` lines."""
        found = lambda: len(self.lines()) >= count
        try:
            wait_for(found, f"{count} calls of hooks", patience=20)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.lines()}\n{(self.directory / 'log').read_text()}") from None
        return self.lines()

    def workers(self):
        from harness import children_of

        return children_of(self.process.pid)


def life_of(server):
    """The calls of a whole life, in the phases of that life."""
    phases = []

    def phase(count):
        lines = server.wait_lines(sum(map(len, phases)) + count)
        phases.append(lines[sum(map(len, phases)) :])

    phase(5)
    wait_for(lambda: answers(server.port), "an answer", patience=20)
    victim = int(get_pid(server.port))
    os.kill(victim, signal.SIGKILL)
    phase(2)
    server.process.send_signal(signal.SIGTTIN)
    phase(2)
    server.process.send_signal(signal.SIGTTOU)
    phase(2)
    server.process.send_signal(signal.SIGHUP)
    phase(6)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    phase(3)
    return phases


def get_pid(port):
    from harness import get

    return get(port)[1].split()[0]


def test_a_whole_life_calls_the_hooks_that_gunicorn_calls_with_the_same_facts(directory):
    from harness import MCSUP

    lives = []
    for name, command in [
        ("theirs", [sys.executable, "-m", "gunicorn", "-k", "gthread"]),
        ("ours", [str(MCSUP)]),
    ]:
        server = Recorded(directory / name, command, free_port())
        try:
            port = str(server.port)
            lives.append([[line.replace(port, "PORT") for line in phase] for phase in life_of(server)])
        finally:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
    theirs, ours = lives
    # The start in the same order.
    assert ours[0] == theirs[0]
    # gunicorn forks all new workers before it ends the old ones; mcsup goes slot by slot. Either one ends any worker first.
    ages = lambda line: line.replace(line.split()[1], "AGE") if line.startswith("child_exit") else line
    for mine, other in zip(ours, theirs):
        assert sorted(map(ages, mine)) == sorted(map(ages, other))
    assert ours[-1][-1] == theirs[-1][-1] == "on_exit 0"
    assert ours[4][:2] == theirs[4][:2] == ["nworkers_changed 2 2", "on_reload 2 ['http://127.0.0.1:PORT']"]
    assert "on_exit writes to the error log" in (directory / "ours" / "log").read_text()


@pytest.fixture
def hooked(serve, directory):
    """Starts a server whose configuration has these hooks beside the usual settings."""

    def start(hooks, *arguments, **options):
        port = free_port()
        (directory / "app.py").write_text(HELLO)
        usual = f"bind = '127.0.0.1:{port}'\nworkers = 2\nwsgi_app = 'app:app'\npidfile = 'pid'\nimport os, time\n"
        (directory / "gunicorn.conf.py").write_text(usual + hooks)
        return serve(HELLO, *arguments, bare=True, port=port, **{"workers": 2, **options})

    return start


NOTE_PID = "def when_ready(server):\n    with open('hooks.pid', 'w') as file: file.write(str(os.getpid()) + '\\n')\n"


def hooks_pid(directory):
    """The process of the hooks."""
    path = directory / "hooks.pid"
    return int(wait_for(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text(), "the hooks"))


def test_without_a_hook_of_the_master_there_is_no_process_for_them(hooked, directory):
    server = hooked("def post_fork(server, worker): open('forked', 'a').close()\n")
    assert len(server.worker_pids()) == 2
    assert (directory / "forked").exists()
    assert server.stop() == 0


def test_workers_are_forked_after_on_starting_has_returned(hooked, directory):
    text = "def on_starting(server):\n    time.sleep(0.5)\n    open('prepared', 'w').close()\n"
    server = hooked(text + "def post_fork(server, worker): server.log.info('prepared: %s', os.path.exists('prepared'))\n")
    server.wait_log("prepared: True", 2)
    assert "prepared: False" not in server.log
    assert server.stop() == 0
    server.assert_nothing_left()


@pytest.mark.parametrize("options", [[], ["--preload"]])
def test_a_worker_has_the_same_age_in_the_hooks_of_the_master_and_in_its_own(hooked, options):
    server = hooked(
        "def pre_fork(server, worker): server.log.info('master: %d is %d', worker.pid, worker.age)\n"
        "def post_fork(server, worker): server.log.info('worker: %d is %d', worker.pid, worker.age)\n",
        *options,
    )
    theirs = server.wait_log(r"master: (\d+ is \d+)", 2)
    assert sorted(theirs) == sorted(server.wait_log(r"worker: (\d+ is \d+)", 2))
    assert server.stop() == 0


def test_a_hook_that_raises_is_named_and_the_pool_serves(hooked):
    server = hooked(
        "def on_starting(server): raise ValueError('first')\n"
        "def pre_fork(server, worker): import sys; sys.exit(3)\n"
        "def on_exit(server): raise ValueError('last')\n"
    )
    assert server.get()[0] == 200
    server.wait_log(r"\[ERROR\] Exception in the hook pre_fork", 2)
    assert "[ERROR] Exception in the hook on_starting" in server.log and "ValueError: first" in server.log
    assert server.stop() == 0
    assert "[ERROR] Exception in the hook on_exit" in server.log and "ValueError: last" in server.log
    server.assert_nothing_left()


def test_the_process_of_the_hooks_ends_with_a_killed_supervisor_and_holds_no_listener(hooked, directory):
    server = hooked(NOTE_PID)
    pid = hooks_pid(directory)
    sockets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    listeners = [line.split()[9] for line in open("/proc/net/tcp") if line.split()[1].endswith(f":{server.port:04X}") and line.split()[3] == "0A"]
    assert listeners and not any(f"socket:[{inode}]" in sockets for inode in listeners)
    server.kill()
    wait_for(lambda: is_gone(pid), "the end of the hooks' process")
    server.assert_nothing_left()


def test_a_process_of_hooks_that_has_ended_is_named_and_a_reload_starts_another(hooked, directory):
    server = hooked(NOTE_PID + "def on_reload(server): when_ready(server)\ndef child_exit(server, worker): pass\n")
    pid = hooks_pid(directory)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid), "the end of the hooks' process")
    os.kill(int(server.get()[1].split()[0]), signal.SIGKILL)
    server.wait_log("The process of the hooks has ended: signal 9")
    server.wait_ready(3)
    (directory / "hooks.pid").unlink()
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done", patience=20)
    assert hooks_pid(directory) != pid
    assert "Left behind" not in server.log
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_failed_reload_leaves_the_hooks_of_the_serving_file(hooked, directory):
    server = hooked("mark = 'old'\ndef child_exit(server, worker): server.log.info('%s: %d', mark, len(server.WORKERS))\n")
    path = directory / "gunicorn.conf.py"
    path.write_text(path.read_text().replace("mark = 'old'", "mark = 'new'"))
    (directory / "app.py").write_text("raise RuntimeError('broken')")
    server.signal(signal.SIGHUP)
    server.wait_log("Reload failed", patience=20)
    (directory / "app.py").write_text(HELLO)
    os.kill(int(server.get()[1].split()[0]), signal.SIGKILL)
    # Beside the killed worker, the one that could not boot may have been noted.
    server.wait_log(r"\] old: \d")
    assert server.stop() == 0
    server.assert_nothing_left()


def test_the_hooks_of_an_upgraded_pool_know_its_workers(hooked, directory):
    names = "len(server.WORKERS), list(map(str, server.LISTENERS))"
    server = hooked(NOTE_PID + f"def child_exit(server, worker): server.log.info('left: %d, %s', {names})\n")
    pid = hooks_pid(directory)
    (directory / "hooks.pid").unlink()
    assert run("upgrade", "-p", directory / "pid", cwd=directory, timeout=20).returncode == 0
    assert hooks_pid(directory) != pid
    wait_for(lambda: is_gone(pid), "the end of the old process")
    os.kill(int(server.get()[1].split()[0]), signal.SIGKILL)
    server.wait_log(rf"left: 1, \['http://127.0.0.1:{server.port}'\]")
    assert server.stop() == 0
    server.assert_nothing_left()


# Each line names the listeners as a hook sees them.
LISTENERS = """
import os
bind = open("bind").read()
wsgi_app = "app:app"
certfile, keyfile = "first.pem", "first.key"
def note(hook, server):
    if not os.path.exists("ends"):
        with open("record", "a") as file:
            file.write(hook + " " + " ".join(map(str, server.LISTENERS)) + "\\n")
def on_starting(server): note("on_starting", server)
def when_ready(server): note("when_ready", server)
def on_reload(server): note("on_reload", server)
def post_fork(server, worker): note("post_fork", server)
def child_exit(server, worker): note("child_exit", server)
"""


def test_hooks_see_the_listeners_of_the_moment_as_under_gunicorn(directory):
    from harness import MCSUP, TOP

    records = []
    for name, command in [("theirs", [sys.executable, "-m", "gunicorn"]), ("ours", [str(MCSUP)])]:
        first, second = free_port(), free_port()
        place = directory / name
        place.mkdir()
        for kind in ("pem", "key"):
            (place / f"first.{kind}").symlink_to(TOP / "tests" / "engine" / "certificates" / f"first.{kind}")
        (place / "bind").write_text(f"127.0.0.1:{first}")
        server = Recorded(place, command, first, LISTENERS)
        try:
            server.wait_lines(3)
            (place / "bind").write_text(f"127.0.0.1:{second}")
            server.process.send_signal(signal.SIGHUP)
            lines = server.wait_lines(6)
            (place / "ends").touch()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(20) == 0
        finally:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
        records.append(sorted(line.replace(str(first), "FIRST").replace(str(second), "SECOND") for line in lines))
    theirs, ours = records
    assert "post_fork https://127.0.0.1:FIRST" in ours and "child_exit https://127.0.0.1:SECOND" in ours
    assert ours == theirs


def test_a_reload_that_fails_leaves_hooks_the_listeners_that_serve(hooked, directory):
    names = "def child_exit(server, worker): server.log.info('gone, %s', list(map(str, server.LISTENERS)))\n"
    server = hooked(names)
    conf = directory / "gunicorn.conf.py"
    conf.write_text(conf.read_text().replace(f":{server.port}'", f":{free_port()}'"))
    (directory / "app.py").write_text("raise ValueError('of the new version')\n")
    server.signal(signal.SIGHUP)
    server.wait_log("of the new version")
    server.wait_log("Reload failed, the old generation goes on serving")
    os.kill(int(server.get()[1].split()[0]), signal.SIGKILL)
    server.wait_log(rf"gone, \['http://127.0.0.1:{server.port}'\]")


# A thread that answers on a socket with the pid of its process, and with a word that each execution of the file has.
THREAD = """
mark = 'first'
def when_ready(server):
    import socket, threading
    listener = socket.create_server(('127.0.0.1', 0))
    def answer():
        while True:
            with listener.accept()[0] as connection:
                connection.sendall(str(os.getpid()).encode())
    threading.Thread(target=answer, daemon=True).start()
    server.own = 'mine'
    with open('thread', 'w') as file: file.write(f'{listener.getsockname()[1]}\\n')
def child_exit(server, worker): server.log.info('mark: %s %s', mark, server.own)
"""


def answer_of_thread(directory):
    import socket

    path = directory / "thread"
    port = int(wait_for(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text(), "the thread"))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        return int(connection.recv(100))


@pytest.mark.parametrize("configuration", ["file", "module"])
def test_threads_of_when_ready_go_on_over_reloads_and_the_new_file_has_its_hooks_called(serve, directory, configuration):
    port, name = free_port(), "gunicorn.conf.py" if configuration == "file" else "own_conf.py"
    options = [] if configuration == "file" else ["-c", "python:own_conf"]
    path = directory / name
    usual = f"bind = '127.0.0.1:{port}'\nwsgi_app = 'app:app'\nimport os\n"
    path.write_text(usual + THREAD)
    server = serve(HELLO, *options, bare=True, port=port)
    pid = answer_of_thread(directory)
    for index, mark in enumerate(["second", "third"], 1):
        path.write_text(usual + THREAD.replace("first", mark))
        server.signal(signal.SIGHUP)
        server.wait_log("Reload done", index, patience=20)
        server.wait_log(f"mark: {mark} mine", patience=20)
        assert answer_of_thread(directory) == pid
    assert server.stop(20) == 0
    server.assert_nothing_left()


def test_hooks_of_a_file_that_fails_in_their_process_stay(hooked, directory):
    # In each other process this execution is the first one.
    once = "import sys\nif mark == 'new' and hasattr(sys, 'executed'): raise ValueError('again')\nsys.executed = True\n"
    server = hooked("mark = 'old'\n" + once + "def child_exit(server, worker): server.log.info('mark: %s', mark)\n")
    path = directory / "gunicorn.conf.py"
    path.write_text(path.read_text().replace("mark = 'old'", "mark = 'new'"))
    server.signal(signal.SIGHUP)
    server.wait_log(r"\[ERROR\] The earlier hooks of the master stay: gunicorn.conf.py, line \d+: ValueError: again", patience=20)
    server.wait_log("Reload done", patience=20)
    server.wait_log("mark: old", patience=20)
    assert "mark: new" not in server.log
    assert server.stop(20) == 0
    server.assert_nothing_left()


def test_a_reload_to_other_hooks_starts_and_ends_their_process(hooked, directory):
    server = hooked("")
    path = directory / "gunicorn.conf.py"
    plain, text = path.read_text(), "def on_reload(server): server.log.info('hooks: %d, %d', os.getpid(), len(server.WORKERS))\n"
    (directory / "app.py").write_text("raise RuntimeError('broken')")
    for count, outcome in enumerate(["Reload failed", "Reload done"], 1):
        path.write_text(plain + text)
        server.signal(signal.SIGHUP)
        server.wait_log(outcome, patience=20)
        pid, workers = server.wait_log(r"hooks: (\d+), (\d+)", count, patience=20)[-1]
        assert workers == "2"
        if outcome == "Reload failed":
            wait_for(lambda: is_gone(int(pid)), "the end of the hooks' process", patience=20)
            (directory / "app.py").write_text(HELLO)
    path.write_text(plain)
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done", 2, patience=20)
    wait_for(lambda: is_gone(int(pid)), "the end of the hooks' process", patience=20)
    assert server.stop(20) == 0
    server.assert_nothing_left()


def test_on_reload_is_not_called_for_settings_that_are_refused(hooked, directory):
    import socket

    server = hooked("def on_reload(server): server.log.info('on_reload of %s', server.address)\n")
    path = directory / "gunicorn.conf.py"
    text = path.read_text()
    with socket.create_server(("127.0.0.1", 0)) as other:
        path.write_text(text + f"bind = ['127.0.0.1:{server.port}', '127.0.0.1:{other.getsockname()[1]}']\n")
        server.signal(signal.SIGHUP)
        server.wait_log("Reload failed", patience=20)
    path.write_text(text)
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done", patience=20)
    server.wait_log("on_reload of", patience=20)
    assert server.stop(20) == 0
    assert server.log.count("on_reload of") == 1


def test_a_second_start_with_the_pid_file_of_a_running_server_calls_no_hook(hooked, directory):
    server = hooked("def on_starting(server):\n    with open('starts', 'a') as file: file.write('x')\n")
    second = run(cwd=directory, timeout=30)
    assert second.returncode != 0 and "pid" in second.stderr, second.stderr
    assert (directory / "starts").read_text() == "x"
    assert server.stop(20) == 0
    server.assert_nothing_left()


# A hook goes on once there is a file.
AWAIT = """
def until(name):
    while not os.path.exists(name): time.sleep(0.01)
"""


def test_an_upgraded_pool_is_supervised_while_on_starting_runs(hooked, directory):
    server = hooked(AWAIT + "def on_starting(server):\n    if os.path.exists('slow'): open('begun', 'w').close(); until('go')\n")
    try:
        (directory / "slow").touch()
        assert run("upgrade", "-p", directory / "pid", cwd=directory, timeout=25).returncode == 0
        wait_for((directory / "begun").exists, "on_starting", patience=20)
        os.kill(int(server.get()[1].split()[0]), signal.SIGKILL)
        server.wait_log(r"Worker \d+ is ready", 3, patience=20)
    finally:
        (directory / "go").touch()
    assert server.stop(20) == 0
    server.assert_nothing_left()


def test_a_supervisor_beats_its_watchdog_while_it_waits_for_hooks(directory):
    from service_manager import ServiceManager

    (directory / "app.py").write_text(HELLO)
    hooks = "".join(f"def {name}(server): open('{name}', 'w').close(); until('go')\n" for name in ("on_starting", "on_exit"))
    usual = f"bind = '127.0.0.1:{free_port()}'\nwsgi_app = 'app:app'\nimport os, time\n"
    (directory / "gunicorn.conf.py").write_text(usual + AWAIT + hooks)
    manager = ServiceManager(directory)
    try:
        server = manager.start(env={"WATCHDOG_USEC": "400000"})
        for hook in ("on_starting", "on_exit"):
            wait_for((directory / hook).exists, hook, patience=20)
            since = len(manager.messages)
            first = manager.wait_field("WATCHDOG", since=since, patience=20)
            manager.wait_field("WATCHDOG", since=first + 1, patience=20)
            (directory / "go").touch()
            if hook == "on_starting":
                manager.wait_field("READY", patience=20)
                (directory / "go").unlink()
                server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    finally:
        (directory / "go").touch()
        manager.close()


ENDLESS = """
def never_end():
    import concurrent.futures
    concurrent.futures.ThreadPoolExecutor(1).submit(lambda: [time.sleep(1) for _ in iter(int, 1)])
"""


def test_exit_functions_that_never_return_do_not_outlive_a_killed_supervisor(hooked, directory):
    server = hooked(NOTE_PID + "    never_end()\n" + ENDLESS)
    pid = hooks_pid(directory)
    server.kill()
    wait_for(lambda: is_gone(pid), "the end of the hooks' process", patience=20)
    server.assert_nothing_left()


def test_a_process_of_hooks_that_has_closed_its_socket_is_ended(hooked, directory):
    close = "    os.closerange(3, 1024)\n    open('closed', 'w').close()\n    while True: time.sleep(1)\n"
    server = hooked(NOTE_PID + "def child_exit(server, worker):\n" + close)
    pid = hooks_pid(directory)
    for ready in (3, 4):
        os.kill(int(server.get()[1].split()[0]), signal.SIGKILL)
        wait_for((directory / "closed").exists, "the closed socket", patience=20)
        server.wait_log(r"Worker \d+ is ready", ready, patience=20)
    server.wait_log("The process of the hooks has ended", patience=20)
    wait_for(lambda: is_gone(pid), "the end of the hooks' process", patience=20)
    assert server.stop(20) == 0
    server.assert_nothing_left()


def test_events_behind_a_hook_that_hangs_go_to_the_next_process(hooked, directory):
    hang = "    if os.path.exists('hang'):\n        os.rename('hang', 'hanging')\n        while True: time.sleep(1)\n"
    server = hooked(
        NOTE_PID + "def child_exit(server, worker):\n" + hang + "    server.log.info('exit of %d', worker.age)\n", workers=2
    )
    begun, pid = time.monotonic(), hooks_pid(directory)
    # A process that ends sooner is not started again.
    wait_for(lambda: time.monotonic() > begun + 6, "the age of the process", patience=20)
    (directory / "hang").touch()
    for ready in (3, 4, 5):
        os.kill(int(server.get()[1].split()[0]), signal.SIGKILL)
        server.wait_log(r"Worker \d+ is ready", ready, patience=20)
        wait_for((directory / "hanging").exists, "the hook that hangs", patience=20)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid), "the end of the hooks' process", patience=20)
    # No further event of the pool is necessary.
    server.wait_log(r"exit of \d+", 2, patience=20)
    os.kill(int(server.get()[1].split()[0]), signal.SIGKILL)
    ages = server.wait_log(r"exit of (\d+)", 3, patience=20)
    assert len(set(ages)) == 3 and "0" not in ages
    server.wait_log("The process of the hooks has ended: signal 9; it is started again")
    server.wait_log("Threads and objects that on_starting and when_ready have made are gone until the next start")
    assert server.stop(20) == 0
    server.assert_nothing_left()


def test_on_exit_has_the_time_of_any_hook(hooked, directory):
    # Longer than a hook may take after the end of its supervisor.
    server = hooked("def on_exit(server):\n    time.sleep(6)\n    server.log.info('on_exit is over')\n")
    assert server.stop(40) == 0
    assert "on_exit is over" in server.log
    server.assert_nothing_left()
