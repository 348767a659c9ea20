"""The main part of the end-to-end tests with each CPython from 3.10 on that this machine has.

The Python that runs this script has run all the tests; the others run those that depend on the interpreter: the start,
the WSGI call, threads, forks, signals, the end. Each gets a wheel and a virtual environment of its own below `target`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target" / "pythons"
OLDEST = (3, 10)
MAIN_PART = ("wsgi", "preload", "customised_start", "forks_in_views", "signal_handlers")
REQUIREMENTS = ("tests/e2e/requirements.txt", "examples/mission_control/requirements.txt")

# What a candidate says of itself: nothing where it is no CPython that the wheel is made for, or lacks a part.
PROBE = """
import json, os, sys, sysconfig
import ensurepip, venv
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))
assert sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
assert sys.version_info.releaselevel == "final"
print(json.dumps([sys.version_info[:3], sys.executable]))
"""


def candidates():
    """Files that may be a Python 3: on PATH, and pyenv's own."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [Path(folder) for folder in os.get_exec_path()] + sorted(pyenv.glob("versions/*/bin"))
    for folder in folders:
        yield from sorted(folder.glob("python3.[0-9]*"))


def pythons():
    """One executable for each version, by its version: the first that is found and works."""
    found = {}
    for candidate in candidates():
        if not candidate.name.removeprefix("python3.").isdigit():
            continue
        try:
            probe = subprocess.run(
                [candidate, "-IS", "-c", PROBE], capture_output=True, text=True, timeout=60, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        version, executable = json.loads(probe.stdout)
        found.setdefault(tuple(version[:2]), (tuple(version), executable))
    return {number: entry for number, entry in sorted(found.items()) if number >= OLDEST}


def has_passed(number, executable):
    """Build, install and test with one Python; the output says which step has failed."""
    home = TARGET / "{}.{}".format(*number)
    python, wheels = home / "bin" / "python", home / "wheels"
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Optimised for a quick build: these tests ask about behaviour.
    build = ["wheel", "--no-deps", "--wheel-dir", wheels, "--config-settings=build-args=--profile dev", ROOT]
    files = [argument for name in REQUIREMENTS for argument in ("-r", ROOT / name)]
    tests = [f"tests/e2e/test_{name}.py" for name in MAIN_PART]
    for wheel in wheels.glob("*.whl"):
        wheel.unlink()
    steps = (
        lambda: [executable, "-m", "venv", home],
        lambda: [*pip, *build],
        lambda: [*pip, "install", "--force-reinstall", "--no-deps", *wheels.glob("*.whl")],
        lambda: [*pip, "install", *files],
        lambda: [python, "-m", "pytest", "-q", *tests],
    )
    # All of these Pythons share what does not depend on them; what does is not to replace the main one's.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET / "build")}
    return all(subprocess.run(step(), cwd=ROOT, env=environment).returncode == 0 for step in steps)


def main():
    found, own = pythons(), sys.version_info[:2]
    others = {number: entry for number, entry in found.items() if number != own}
    names = {number: ".".join(map(str, version)) for number, (version, _) in others.items()}
    listed = ", ".join(names.values()) or "no other"
    print(f"All tests ran with CPython {sys.version.split()[0]}; their main part runs with: {listed}")
    failed = []
    for number, (_, executable) in others.items():
        print(f"== CPython {names[number]} ==", flush=True)
        if not has_passed(number, executable):
            failed.append(names[number])
    if failed:
        sys.exit(f"failed with CPython {', '.join(failed)}")
    print(f"passed with CPython: {listed}")


main()
