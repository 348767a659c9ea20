"""Control groups of a test's own: version 2 where the controller is there, version 1 otherwise."""

import os
from pathlib import Path

import pytest

from harness import wait_for

V1 = Path("/sys/fs/cgroup")
V2 = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]


class Cgroup:
    """A group with one controller. `path` is its directory; `v1`: of no use in version 2."""

    def __init__(self, controller, v1=False):
        self.is_v2, self.path = False, None
        name = f"mcsup-test-{os.getpid()}-{controller}"
        for root in [] if v1 else V2:
            controllers = root / "cgroup.controllers"
            if controllers.exists() and controller in controllers.read_text().split() and self._make(root / name):
                self.is_v2 = True
                return
        if not self._make(V1 / controller / name) or not (self.path / "cgroup.procs").exists():
            self.path = None
            pytest.skip(f"NOT TESTED: no control group with {controller} can be made here: it needs root, and version 1 of them"
                        if v1 else f"NOT TESTED: no control group with {controller} can be made here: it needs root")

    def _make(self, path):
        try:
            path.mkdir()
        except OSError:
            return False
        self.path = path
        return True

    def add(self, pid):
        """Put a process there; what it forks from now on is there as well."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def set(self, name, value):
        """Change a setting."""
        (self.path / name).write_text(str(value))

    def get(self, name):
        """Read a setting."""
        return (self.path / name).read_text().strip()

    def freeze(self, frozen):
        """Stop everything there (with version 1 not even SIGKILL ends it then), or let it go on."""
        state = "FROZEN" if frozen else "THAWED"
        self.set("freezer.state", state)
        wait_for(lambda: self.get("freezer.state") == state, f"the group to be {state}")

    def remove(self):
        """Remove it; its processes go where they came from first."""
        if self.path is None:
            return
        for pid in self.get("cgroup.procs").split():
            try:
                (self.path.parent / "cgroup.procs").write_text(pid)
            except OSError:
                pass
        wait_for(lambda: not self.get("cgroup.procs"), "the group to be empty")
        self.path.rmdir()

