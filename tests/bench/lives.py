"""The lives: how long a server takes to start, to stop and to replace a worker, and the memory that it needs.

Each row of a table is a function that starts a server, measures it once, and ends it.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import clients
import processes
import servers
from cases import Case

FLASK = servers.HERE.parents[1] / "examples" / "mission_control"
PAUSE = 0.001  # between two looks
PATIENCE = 15.0


@dataclass(frozen=True)
class Life:
    """One table."""

    name: str
    what: str
    rows: Callable  # returns for each server a function that measures it once
    columns: tuple  # of the figures: key and title; rows are ordered by the first
    share: int = 1  # one in this number of the requested repetitions


def start(pool, folder, name):
    """Milliseconds from the command to its first answer."""
    port = processes.free_port()
    began = time.monotonic()
    with processes.running(pool(port)[name], folder) as server:
        processes.wait_until_it_answers(server, port, PAUSE)
        return {"start": (time.monotonic() - began) * 1000}


def run_through(command, folder):
    """Milliseconds of a command that ends by itself."""
    began = time.monotonic()
    subprocess.run([str(word) for word in command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return {"start": (time.monotonic() - began) * 1000}


def stop(pool, folder, name):
    """Milliseconds from TERM until all processes are gone and the port is free: idle, and with kept clients."""
    result = {}
    for key, count in [("stop", 0), ("kept", 100)]:
        port = processes.free_port()
        with processes.running(pool(port)[name], folder) as server:
            processes.wait_until_it_answers(server, port)
            with clients.idle(port, count):
                processes.wait_until_at_rest(server.pid)
                pids = processes.tree(server.pid)
                began = time.monotonic()
                server.send_signal(signal.SIGTERM)
                wait_for(lambda: server.poll() is not None and not any(map(processes.is_alive, pids)))  # noqa: B023
                wait_for(partial(can_bind, port))
                result[key] = (time.monotonic() - began) * 1000
    return result


def respawn(pool, folder, name):
    """Milliseconds from `kill -9` of the only worker until its successor has answered."""
    port = processes.free_port()
    with processes.running(pool(port)[name], folder) as server:
        processes.wait_until_it_answers(server, port)
        processes.wait_until_at_rest(server.pid)
        killed = int(processes.ask(port))
        began = time.monotonic()
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: int(processes.ask(port)) != killed)
        return {"respawn": (time.monotonic() - began) * 1000}


def memory(pool, folder, name, workers):
    """MiB of all processes after the first request to each worker, and after ten thousand requests."""
    port = processes.free_port()
    with (
        processes.running(pool(port)[name], folder) as server,
        concurrent.futures.ThreadPoolExecutor(2 * workers) as many,
    ):
        processes.wait_until_it_answers(server, port)
        seen = set()

        def is_seen():
            asked = many.map(lambda _: processes.ask(port, "/api/report?seconds=0.2"), range(2 * workers))
            seen.update(json.loads(answer)["pid"] for answer in asked)
            return len(seen) == workers

        wait_for(is_seen)
        processes.wait_until_at_rest(server.pid)
        idle = processes.memory(server.pid)
        for _ in many.map(lambda _: processes.ask(port, "/api/portfolio"), range(10_000)):
            pass
        processes.wait_until_at_rest(server.pid)
        return {"idle": idle, "later": processes.memory(server.pid)}


def wait_for(condition):
    """Look again and again whether it is so. What cannot be connected to is not."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if condition():
                return
        time.sleep(PAUSE)
    raise RuntimeError(f"not within {PATIENCE} s")


def can_bind(port):
    """Whether another server could start there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen()
    return True


def rows(measure, folder, module, names, workers, preload=()):
    """Functions by the server's name, of those that are installed."""
    case = Case("", "", "app", None, workers=workers, module=module)

    def pool(port):
        commands = servers.commands(case, port, None)
        for name in preload:
            if name in commands:
                commands[f"{name} --preload"] = [commands[name][0], "--preload", *commands[name][1:]]
        return commands

    found = pool(0)
    wanted = [*names, *(f"{name} --preload" for name in preload)]
    return {name: partial(measure, pool, folder, name) for name in wanted if name in found}


def starts(folder, module):
    """Starts, and what the application's import takes by itself."""
    names = ["mcsup", "bjoern", "uwsgi", "gunicorn sync", "granian"]
    alone = partial(run_through, [sys.executable, "-c", f"import {module}"], folder)
    return {**rows(start, folder, module, names, 2), "the import alone": alone}


LIVES = [
    Life(
        "memory",
        "Proportional set size of all processes: the example application, which is Flask's, with eight workers. uwsgi forks"
        " after the import, as the others do with --preload.",
        lambda: rows(
            partial(memory, workers=8),
            FLASK,
            "server",
            ["mcsup", "gunicorn sync", "uwsgi"],
            8,
            preload=["mcsup", "gunicorn sync"],
        ),
        (("idle", "MiB after the first request to each worker"), ("later", "MiB after 10 000")),
        share=5,
    ),
    Life(
        "start, hello",
        "From the command to the first answer, with two workers. Beside it an interpreter that imports the application"
        " and ends.",
        partial(starts, servers.HERE, "hello"),
        (("start", "ms to the first 200"),),
    ),
    Life(
        "start, Flask",
        "The same with the example application. bjoern and uwsgi import it once, before they fork; with the others two workers"
        " do, at the same time.",
        partial(starts, FLASK, "server"),
        (("start", "ms to the first 200"),),
    ),
    Life(
        "stop",
        "From TERM until the last of the processes is gone and the port is free, with two workers: idle, and with a hundred"
        " clients that have had an answer and stay. gunicorn's sync worker keeps none.",
        partial(rows, stop, servers.HERE, "hello", ["mcsup", "gunicorn sync", "gunicorn gthread", "granian"], 2),
        (("stop", "ms, idle"), ("kept", "ms, 100 kept connections")),
    ),
    Life(
        "a killed worker",
        "From `kill -9` of the only worker to an answer of its successor, which has imported the application again.",
        partial(rows, respawn, servers.HERE, "hello", ["mcsup", "gunicorn sync", "gunicorn gthread", "uwsgi"], 1),
        (("respawn", "ms to an answer"),),
    ),
]
