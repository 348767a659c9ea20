"""The packages of the crates, as `cargo publish` would send them, below `target/packages`.

Each has its README, licences, examples and tests, and is described for its readers. All of them build together in
a workspace that has nothing else of the repository, with the oldest Rust that Cargo.toml declares where this machine
has it.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "target" / "packages"
OLDEST_RUST = ["sh", str(ROOT / "tests" / "packages" / "oldest_rust.sh")]
CARGO = os.environ.get("CARGO", "cargo")
# The first cargo that packages crates which depend on each other before any of them is published.
WORKSPACES = (1, 90)
FILES = ("README.md", "LICENSE-MIT", "LICENSE-APACHE", "Cargo.lock")
FIELDS = ("description", "license", "repository", "documentation", "readme", "rust_version", "keywords", "categories")
# This test reads the whole repository. No package has that.
NOT_PACKAGED = {"architecture"}


def output(*command):
    """The standard output of a command that has to succeed."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def crates():
    """The packages of the workspace as cargo describes them."""
    metadata = json.loads(output(CARGO, "metadata", "--no-deps", "--locked", "--format-version", "1"))
    return metadata["packages"]


def unpacked(crate):
    """The folder of a package, which is unpacked there. Its files get the current time: cargo compares times."""
    name = f"{crate['name']}-{crate['version']}"
    archive = HOME / "build" / "package" / f"{name}.crate"
    with tarfile.open(archive) as files:
        for member in files:
            path = HOME / "workspace" / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files.extractfile(member).read())
    return HOME / "workspace" / name


def faults(crate, folder):
    """Sentences about what a package lacks."""
    name, source = crate["name"], Path(crate["manifest_path"]).parent
    yield from (f"{name} has no {field}" for field in FIELDS if not crate[field])
    yield from (f"{name} has no {file}" for file in FILES if not (folder / file).is_file())
    for target in crate["targets"]:
        path = Path(target["src_path"])
        is_inside = path.is_relative_to(source) and (folder / path.relative_to(source)).is_file()
        if not is_inside and target["name"] not in NOT_PACKAGED:
            yield f"{name} lacks its {target['kind'][0]} {target['name']}: {path}"


def write_workspace(folders):
    """A workspace of the unpacked crates, with the versions of the dependencies that the repository uses."""
    members = json.dumps([folder.name for folder in folders.values()])
    patches = "".join(f'{name} = {{ path = "{folder.name}" }}\n' for name, folder in folders.items())
    manifest = f'[workspace]\nresolver = "3"\nmembers = {members}\n\n[patch.crates-io]\n{patches}'
    (HOME / "workspace" / "Cargo.toml").write_text(manifest, encoding="utf-8")
    shutil.copy(ROOT / "Cargo.lock", HOME / "workspace")


def main():
    """Package, look, build; return the exit code's reason, if any."""
    version = output(CARGO, "--version").split()[1]
    if tuple(map(int, version.split(".")[:2])) < WORKSPACES:
        print(f"skipped: cargo {version} cannot package crates that depend on unpublished ones; 1.90 and newer can")
        return None
    shutil.rmtree(HOME / "workspace", ignore_errors=True)
    package = [CARGO, "package", "--workspace", "--no-verify", "--locked", "--allow-dirty", "--quiet"]
    subprocess.run([*package, "--target-dir", HOME / "build"], cwd=ROOT, check=True)
    found = crates()
    folders = {crate["name"]: unpacked(crate) for crate in found}
    lacking = [fault for crate in found for fault in faults(crate, folders[crate["name"]])]
    if lacking:
        return "\n".join(lacking)
    write_workspace(folders)
    can = subprocess.run([*OLDEST_RUST, "--can"], capture_output=True, text=True)
    cargo = [*OLDEST_RUST, "cargo"] if can.returncode == 0 else [CARGO]
    with_which = can.stdout.strip() or f"the current Rust ({can.stderr.strip()})"
    print(f"building {', '.join(folders)} with {with_which}", flush=True)
    check = [*cargo, "check", "--workspace", "--all-targets", "--all-features", "--locked"]
    built = subprocess.run([*check, "--target-dir", HOME / "build"], cwd=HOME / "workspace")
    return "a package does not build alone" if built.returncode else None


sys.exit(main())
