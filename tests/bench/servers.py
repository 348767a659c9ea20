"""The servers: command lines, each with what suits it best, and which cases each can do."""

import contextlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
FLOOR = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target")) / "release" / "examples" / "floor"

# Those without a command of their own. Two workers are two sockets with SO_REUSEPORT: a shared one goes to one worker.
BJOERN = """
import bjoern, importlib, os, sys
app = getattr(importlib.import_module(sys.argv[4]), sys.argv[1])
for _ in range(int(sys.argv[3]) - 1):
    if os.fork() == 0:
        break
bjoern.run(app, "127.0.0.1", int(sys.argv[2]), reuse_port=True)
"""
FAST = """
import importlib, sys
fast = importlib.import_module(sys.argv[4])
fast.server.tcp_nodelay = 1
app = getattr(importlib.import_module(sys.argv[5]), sys.argv[1])
fast.run(app, "127.0.0.1", int(sys.argv[2]), loglevel=0, workers=int(sys.argv[3]))
"""

# What a server comes from, by its name in the tables.
DISTRIBUTIONS = {
    "mcsup": "mcsup",
    "gunicorn sync": "gunicorn",
    "gunicorn gthread": "gunicorn",
    "granian": "granian",
    "uwsgi": "pyuwsgi",
    "bjoern": "bjoern",
    "fastpysgi": "fastpysgi",
    "fastwsgi": "fastwsgi",
}


def commands(case, port, scratch):
    """Command lines by name, for whatever is installed and can do the case. `scratch` is a folder for logs."""
    app, workers, threads = case.app, case.workers, case.threads
    target, bind = f"{case.module}:{app}", f"127.0.0.1:{port}"
    mcsup = [BIN / "mcsup", "-w", workers, "--threads", threads, "-b", bind, "--keep-alive", 60, "--log-level", "error"]
    gunicorn = [
        BIN / "gunicorn", "-w", workers, "-b", bind, "--keep-alive", 60, "--backlog", 1024, "--log-level", "error",
        "--no-control-socket",
    ]  # fmt: skip
    found = {"mcsup": [*mcsup, target]}
    if case.logged:
        found["mcsup, access log"] = [*mcsup, "--access-logfile", Path(scratch) / "access.log", target]
    peer_threads = case.peer_threads or threads
    if threads == 1:
        found["gunicorn sync"] = [*gunicorn, target]
    found["gunicorn gthread"] = [*gunicorn, "-k", "gthread", "--threads", max(threads, 4), target]
    found["granian"] = [
        BIN / "granian", "--interface", "wsgi", "--http", 1, "--no-ws", "--workers", workers, "--blocking-threads",
        peer_threads, "--host", "127.0.0.1", "--port", port, "--no-log", target,
    ]  # fmt: skip
    if app != "stream":  # It frames no body of unknown length on a connection that it keeps.
        found["uwsgi"] = [
            BIN / "uwsgi", "--http11-socket", bind, "--module", target, "--master", "--processes", workers,
            "--threads", threads, "--enable-threads", "--listen", 1024, "--need-app", "--die-on-term",
            "--disable-logging",
        ]  # fmt: skip
    if threads == 1:
        found["bjoern"] = [sys.executable, "-c", BJOERN, app, port, workers, case.module]
        found["fastpysgi"] = [sys.executable, "-c", FAST, app, port, workers, "fastpysgi", case.module]
        found["fastwsgi"] = [sys.executable, "-c", FAST, app, port, workers, "fastwsgi", case.module]
    if case.floor is not None:
        found["floor"] = [FLOOR, port, *case.floor]
    gone = missing().keys() | (found.keys() - set(case.only or found))
    return {name: [str(word) for word in command] for name, command in found.items() if name not in gone}


def versions():
    """Versions of what is installed, by distribution."""
    found = {}
    for distribution in DISTRIBUTIONS.values():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[distribution] = importlib.metadata.version(distribution)
    return found


def missing():
    """Servers that are left out, each with the reason."""
    return {**_UNUSABLE, **({} if FLOOR.exists() else {"floor": "it is not built"})}


def _unusable():
    """Modules that are not installed, or do not load: those without a command of their own."""
    there = versions()
    found = {name: f"{package} is not installed" for name, package in DISTRIBUTIONS.items() if package not in there}
    for name in {"bjoern", "fastpysgi", "fastwsgi"} - set(found):
        tried = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, check=False)
        if tried.returncode:
            found[name] = tried.stderr.strip().splitlines()[-1]
    return found


_UNUSABLE = _unusable()
