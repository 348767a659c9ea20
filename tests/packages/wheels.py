"""Builds and checks what PyPI gets: an sdist, and wheels of each CPython from 3.10 on that this machine has.

Usage: wheels.py [NAME...], where NAME is like 3.12 or 3.14t; without any it is each one that is here. The files are in
`target/dist`. On Linux there is a wheel for glibc and one for musl, the latter where the standard library of Rust for
that target is installed (`rustup target add`); zig links both. Checked are the platform tags (auditwheel), the
metadata (twine), and that each wheel that fits this machine, and one built from the sdist, serves a request.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "pythons"))
from found import pythons  # noqa: E402

TARGET = ROOT / "target"
DIST = TARGET / "dist"
SMOKE = ROOT / "tests" / "packages" / "smoke.py"
# The oldest libraries that the wheels are for. Rust's own standard library asks for glibc 2.17 and musl 1.2.
GLIBC, MUSL = "manylinux_2_17", "musllinux_1_2"


def run(*command, **options):
    """Run a command, which is to succeed."""
    print("$", *command, flush=True)
    return subprocess.run(command, check=True, cwd=options.pop("cwd", ROOT), text=True, **options)


def tool(name, *arguments, **options):
    """Run a tool of this virtual environment. It finds the others, such as zig, by PATH."""
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    environment["CARGO_TARGET_DIR"] = str(TARGET / "wheels-build")
    return run(folder / name, *arguments, env=environment, **options)


def has_standard_library(target):
    """Whether rustc can build for a target."""
    rustc = [os.environ.get("RUSTC", "rustc"), "--print", "target-libdir", "--target", target]
    folder = subprocess.run(rustc, capture_output=True, text=True, check=True).stdout.strip()
    return any(Path(folder).glob("libstd-*.rlib"))


def kinds():
    """Arguments of maturin for each kind of wheel, by the platform tag; the first kind fits this machine."""
    if sys.platform == "darwin":
        return {"macosx": []}
    machine = platform.machine()
    targets = {GLIBC: f"{machine}-unknown-linux-gnu", MUSL: f"{machine}-unknown-linux-musl"}
    found = {}
    for tag, target in targets.items():
        if has_standard_library(target):
            found[tag] = ["--zig", "--compatibility", tag, "--target", target]
        else:
            print(f"NO WHEEL for {tag}: rustc has no standard library for {target}", flush=True)
    return found


def build(tag, arguments, executable):
    """The file of one wheel."""
    before = set(DIST.glob("*.whl"))
    tool("maturin", "build", "--release", "--interpreter", executable, "--out", DIST, *arguments)
    (wheel,) = set(DIST.glob("*.whl")) - before
    if tag not in wheel.name:
        sys.exit(f"{wheel.name} is not for {tag}")
    if tag != "macosx":
        shown = tool("auditwheel", "show", wheel, capture_output=True).stdout
        if f'"{tag}_{platform.machine()}"' not in " ".join(shown.split()):
            sys.exit(f"auditwheel does not confirm {tag} of {wheel.name}:\n{shown}")
    return wheel


def serve(executable, package):
    """Install a package into a new virtual environment, and have it serve a request from there."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        run(executable, "-m", "venv", home / "venv")
        python = home / "venv" / "bin" / "python"
        run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", package, cwd=home)
        run(python, SMOKE, cwd=home)


def check_sdist(executable):
    """Build the sdist, and from it, outside of the repository, a wheel that serves."""
    tool("maturin", "sdist", "--out", DIST)
    (sdist,) = DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        pip = [executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--wheel-dir", folder]
        environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET / "wheels-build")}
        # A quick build: only whether the sdist is whole is asked.
        run(*pip, "--config-settings=build-args=--profile dev", sdist, cwd=folder, env=environment)
        (wheel,) = Path(folder).glob("*.whl")
        serve(executable, wheel)


def main(wanted):
    """Build all, check all."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir(parents=True)
    chosen = {name: executable for name, (executable, _) in pythons().items() if name in wanted or not wanted}
    if not chosen:
        sys.exit("no CPython from 3.10 on is here, with its headers and venv")
    found = kinds()
    for name, executable in chosen.items():
        for tag, arguments in found.items():
            print(f"== CPython {name}, {tag} ==", flush=True)
            wheel = build(tag, arguments, executable)
            if tag == GLIBC or tag == "macosx":
                serve(executable, wheel)
    print("== sdist ==", flush=True)
    check_sdist(next(iter(chosen.values())))
    tool("twine", "check", "--strict", *sorted(DIST.iterdir()))
    print("built and checked:", *(path.name for path in sorted(DIST.iterdir())), sep="\n  ")


main(sys.argv[1:])
