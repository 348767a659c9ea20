"""Workers of several languages, for the tests that take all of them through the same life.

Each has a pool of two with its control socket at `pool.ctl`, and code in the test's directory that can be broken.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import HELLO, MCSUP, TOP, free_port

NODE = TOP / "examples" / "node" / "server.js"
SHELL = TOP / "examples" / "shell" / "worker.sh"
# The workers in Rust boot with the text of this file, unless it is "broken".
VERSION = "version"


@dataclass(frozen=True)
class Language:
    """A kind of worker: its code, its command, its clients."""

    name: str
    # The file in the directory, its code, and code that cannot boot.
    file: str
    code: str
    broken: str
    # What is said about the broken code.
    reason: str
    # The arguments of `mcsup`; for a program of its own the role of it.
    command: tuple
    # Closed-loop clients: how many open a connection for each request, how many keep theirs, and their kind.
    fresh: int = 4
    kept: int = 4
    clients: tuple = ("plain",)
    # The commands that it needs.
    needs: tuple = field(default=())
    # Whether the serving process is a child of the worker.
    has_program: bool = False
    # Whether it is a program in Rust with the library in it.
    is_rust: bool = False

    def require(self):
        """Skip the test where the language is missing."""
        for command in self.needs:
            if shutil.which(command) is None:
                pytest.skip(f"{command} is not installed")
        if self.is_rust:
            rust_workers()

    def write(self, directory):
        """The good version."""
        (directory / self.file).write_text(self.code)

    def break_it(self, directory):
        """A version that cannot boot."""
        (directory / self.file).write_text(self.broken)

    def kind(self, directory):
        """The arguments of the clients."""
        return (*self.clients, directory) if self.clients == ("jobs",) else self.clients

    def start(self, directory):
        """How its server is started."""
        port = free_port()
        command = [word.format(port=port, directory=directory) for word in self.command]
        program = [rust_workers()] if self.is_rust else [MCSUP]
        return {"port": port, "command": (*program, *command)}


def rust_workers():
    """The program with the workers in Rust."""
    build = ["cargo", "build", "-q", "--locked", "-p", "mcsup-core", "--features", "hyper", "--example", "workers"]
    subprocess.run(build, cwd=TOP, check=True, timeout=600)
    return Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "debug" / "examples" / "workers"


POOL = ("-w", "2", "-p", "pool.pid")
LISTENING = (*POOL, "-b", "127.0.0.1:{port}")
LANGUAGES = (
    Language(
        name="python", file="app.py", code=HELLO, broken="raise RuntimeError('broken')\n", reason="RuntimeError: broken",
        command=(*LISTENING, "app:app"),
    ),
    Language(
        name="node", file="server.js", code=NODE.read_text(), broken="throw new Error('broken');\n",
        reason="exited with code 1 before it was ready", command=("exec", *LISTENING, "--", "node", "server.js"),
        needs=("node",), has_program=True,
    ),
    Language(
        name="shell", file="worker.sh", code=SHELL.read_text(), broken="exit 9\n",
        reason="exited with code 9 before it was ready",
        command=("exec", *POOL, "--no-listener", "--", "sh", "worker.sh", "{directory}"),
        clients=("jobs",), fresh=4, kept=0, has_program=True,
    ),
    Language(
        name="axum", file=VERSION, code="good", broken="broken", reason="the version is broken",
        command=("axum", "127.0.0.1:{port}"), is_rust=True,
    ),
    Language(
        name="udp", file=VERSION, code="good", broken="broken", reason="the version is broken",
        command=("udp", "127.0.0.1:{port}"), clients=("datagrams",), fresh=4, kept=0, is_rust=True,
    ),
)  # fmt: skip
