"""Finds each CPython from 3.10 on that this machine has and that the wheel is made for."""

import json
import os
import subprocess
from pathlib import Path

OLDEST = (3, 10)

# What a candidate says of itself: nothing where it is no CPython that the wheel is made for, or lacks a part.
PROBE = """
import json, os, sys, sysconfig
import ensurepip, venv
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))
assert sys.implementation.name == "cpython" and sys.version_info.releaselevel == "final"
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
print(json.dumps([sys.version_info[:3], free_threaded, sys.executable]))
"""


def candidates():
    """Files that may be a Python 3: on PATH, and pyenv's own."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [Path(folder) for folder in os.get_exec_path()] + sorted(pyenv.glob("versions/*/bin"))
    for folder in folders:
        yield from sorted(folder.glob("python3.[0-9]*"))


def probed(candidate):
    """Version, whether it is free-threaded, and executable of a candidate, or None."""
    try:
        command = [candidate, "-IS", "-c", PROBE]
        probe = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version, free_threaded, executable = json.loads(probe.stdout)
    return tuple(version), free_threaded, executable


def pythons():
    """Executable and whole version of each, by names like 3.13 and 3.14t: the first that is found and works."""
    found = {}
    for candidate in candidates():
        if not candidate.name.removeprefix("python3.").removesuffix("t").isdigit():
            continue
        python = probed(candidate)
        if python and python[0] >= OLDEST:
            version, free_threaded, executable = python
            mark, text = "t" * free_threaded, ".".join(map(str, version))
            found.setdefault((version[:2], mark), (executable, text + mark))
    return {"{}.{}".format(*number) + mark: found[number, mark] for number, mark in sorted(found)}
