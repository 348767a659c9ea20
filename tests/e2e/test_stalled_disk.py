"""A disk that stalls holds up its own clients, and no others."""

import shutil
import subprocess
import sys

import pytest
from harness import clean_environment, connect, read_all, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="puts a library before libc's functions")

# A write to a file without a name hangs for as long as there is a file of another name; another one says that it does.
DISK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
ssize_t write(int fd, const void *bytes, size_t count) {
    struct stat s;
    if (fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_nlink == 0 && access(getenv("STALLING"), F_OK) == 0) {
        close(open(getenv("STALLED"), O_CREAT | O_WRONLY, 0600));
        while (access(getenv("STALLING"), F_OK) == 0) usleep(1000);
    }
    return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(fd, bytes, count);
}
"""

APPLICATION = """
def app(environ, start_response):
    body = str(len(environ["wsgi.input"].read())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_while_a_disk_stalls_other_clients_are_served(threads, serve, directory):
    if shutil.which("cc") is None:
        pytest.skip("NOT TESTED: needs a C compiler")
    (directory / "disk.c").write_text(DISK)
    library, stalling, stalled = directory / "disk.so", directory / "stalling", directory / "stalled"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, directory / "disk.c", "-ldl"], check=True)
    environment = clean_environment(LD_PRELOAD=str(library), STALLING=str(stalling), STALLED=str(stalled))
    server = serve(APPLICATION, "--threads", str(threads), "--timeout", "5", env=environment)
    (worker,) = server.worker_pids()
    stalling.touch()
    upload = connect(server.port)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    upload.sendall(head + b"19000\r\n" + b"x" * 0x19000 + b"\r\n0\r\n\r\n")
    wait_for(stalled.exists, "the disk to stall")
    for _ in range(50):
        assert server.get() == (200, b"0")
    assert stalling.exists()
    stalling.unlink()
    assert read_all(upload).endswith(b"\r\n\r\n102400")
    assert server.worker_pids() == [worker]
