"""The main part of the end-to-end tests with each CPython from 3.10 on that this machine has.

The Python that runs this script has run all the tests; the others run those that depend on the interpreter: the start,
the WSGI call, threads, forks, signals, the end. Each gets a wheel and a virtual environment of its own below `target`.

Usage: run.py [NAME...], where NAME is like 3.12 or 3.14t; without any it is each one that is here.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from found import pythons

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target" / "pythons"
MAIN_PART = ("wsgi", "preload", "customised_start", "forks_in_views", "signal_handlers")
REQUIREMENTS = ("tests/e2e/requirements.txt", "examples/mission_control/requirements.txt")


def has_passed(name, executable):
    """Build, install and test with one Python; the output says which step has failed."""
    home = TARGET / name
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


def main(wanted):
    own = "{}.{}".format(*sys.version_info) + "t" * bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    others = {name: python for name, python in pythons().items() if name in wanted or not wanted and name != own}
    listed = ", ".join(version for _, version in others.values()) or "no other"
    print(f"All tests ran with CPython {sys.version.split()[0]}; their main part runs with: {listed}")
    failed = []
    for name, (executable, version) in others.items():
        print(f"== CPython {version} ==", flush=True)
        if not has_passed(name, executable):
            failed.append(version)
    if failed:
        sys.exit(f"failed with CPython {', '.join(failed)}")
    print(f"passed with CPython: {listed}")


main(sys.argv[1:])
