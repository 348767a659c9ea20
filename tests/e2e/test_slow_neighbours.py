"""What may take its time is not done on the supervisor's loop: names of a directory service, the pages of a process."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from harness import HELLO, clean_environment, run, wait_for
from lifecycle import Operator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="puts a library before libc's functions")

# Every look-up of a name hangs for as long as there is a file.
DIRECTORY_SERVICE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>
static void ask(void) { while (access(getenv("HANGING_FILE"), F_OK) == 0) usleep(1000); }
#define BEFORE(kind, name, parameters, arguments) \\
    kind name parameters { ask(); return ((kind (*) parameters)dlsym(RTLD_NEXT, #name)) arguments; }
BEFORE(int, getpwuid_r, (uid_t u, struct passwd *p, char *b, size_t n, struct passwd **r), (u, p, b, n, r))
BEFORE(int, getpwnam_r, (const char *u, struct passwd *p, char *b, size_t n, struct passwd **r), (u, p, b, n, r))
BEFORE(int, getgrnam_r, (const char *u, struct group *g, char *b, size_t n, struct group **r), (u, g, b, n, r))
BEFORE(int, getgrouplist, (const char *u, gid_t g, gid_t *l, int *n), (u, g, l, n))
"""


@pytest.fixture
def hanging(directory):
    """An environment with a directory service, and the file that makes it hang."""
    if shutil.which("cc") is None:
        pytest.skip("NOT TESTED: needs a C compiler")
    (directory / "names.c").write_text(DIRECTORY_SERVICE)
    library = directory / "names.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, directory / "names.c", "-ldl"], check=True)
    file = directory / "hanging"
    yield clean_environment(LD_PRELOAD=str(library), HANGING_FILE=str(file)), file
    file.unlink(missing_ok=True)


def test_a_directory_service_that_hangs_holds_up_no_supervisor(serve, directory, hanging):
    environment, file = hanging
    user = ["-u", "nobody", "-g", "nogroup"] if os.geteuid() == 0 else []
    server = serve(HELLO, "--pid", "app.pid", *user, env=environment)
    file.touch()
    # The look-ups hang indeed.
    code = "import pwd; pwd.getpwuid(0)"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", code], env=environment, timeout=0.5, check=False)
    server.signal(signal.SIGWINCH)
    server.wait_log(rf"Handling signal: WINCH from pid {os.getpid()} \(\S+\) of user \w+|Signal WINCH has no meaning")
    server.signal(signal.SIGUSR1)
    server.wait_log(rf"Handling signal: USR1 from pid {os.getpid()} \(.+\) of user \w+")
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGTERM)
    server.wait_log(r"Worker \d+ is ready", 2)
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done", patience=15)
    with Operator(directory / "app.ctl") as operator:
        assert operator.status()["phase"] == "serving"
    assert server.get()[0] == 200
    assert server.stop() == 0
    server.assert_nothing_left()


def test_the_pages_of_a_worker_are_counted_by_the_command_that_asks(serve, directory):
    server = serve(HELLO, "--pid", "app.pid")
    with Operator(directory / "app.ctl") as operator:
        (worker,) = operator.status()["workers"]
    assert worker["rss_bytes"] > 0 and worker.get("pss_bytes") is None
    (worker,) = json.loads(run("status", "-p", "app.pid", "--json", cwd=directory).stdout)["status"]["workers"]
    assert 0 < worker["pss_bytes"] <= worker["rss_bytes"]
    shown = run("status", "-p", "app.pid", cwd=directory).stdout.splitlines()
    (heads,) = [line.split() for line in shown if "PSS" in line]
    (row,) = [line.split() for line in shown if line.split()[1:2] == [str(worker["pid"])]]
    assert row[heads.index("PSS")].endswith(("K", "M")), shown
    wait_for(lambda: server.stop() == 0, "its end")
