"""A disk that stalls holds up its own clients, and no others."""

import shutil
import subprocess
import sys

import pytest
from harness import clean_environment, connect, read_all, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="puts a library before libc's functions")

# A write to a file without a name, or its truncation, hangs while there is a file of another name, which says which of the
# two; another one says that it does.
DISK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
static void stall(int fd, const char *stalling) {
    struct stat s;
    if (fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_nlink == 0 && access(stalling, F_OK) == 0) {
        close(open(getenv("STALLED"), O_CREAT | O_WRONLY, 0600));
        while (access(stalling, F_OK) == 0) usleep(1000);
    }
}
ssize_t write(int fd, const void *bytes, size_t count) {
    stall(fd, getenv("WRITES_STALL"));
    return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(fd, bytes, count);
}
int ftruncate64(int fd, off64_t length) {
    stall(fd, getenv("TRUNCATIONS_STALL"));
    return ((int (*)(int, off64_t))dlsym(RTLD_NEXT, "ftruncate64"))(fd, length);
}
"""

APPLICATION = """
def app(environ, start_response):
    body = str(len(environ["wsgi.input"].read())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


HEAD = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def environment(directory):
    """Of a server with such a disk."""
    if shutil.which("cc") is None:
        pytest.skip("NOT TESTED: needs a C compiler")
    (directory / "disk.c").write_text(DISK)
    library = directory / "disk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, directory / "disk.c", "-ldl"], check=True)
    files = {name: str(directory / name) for name in ("WRITES_STALL", "TRUNCATIONS_STALL", "STALLED")}
    return clean_environment(LD_PRELOAD=str(library), **files)


@pytest.mark.parametrize("threads", [1, 2])
def test_while_a_disk_stalls_other_clients_are_served(threads, serve, directory, environment):
    stalling, stalled = directory / "WRITES_STALL", directory / "STALLED"
    server = serve(APPLICATION, "--threads", str(threads), "--timeout", "5", env=environment)
    (worker,) = server.worker_pids()
    stalling.touch()
    upload = connect(server.port)
    upload.sendall(HEAD + b"19000\r\n" + b"x" * 0x19000 + b"\r\n0\r\n\r\n")
    wait_for(stalled.exists, "the disk to stall")
    for _ in range(50):
        assert server.get() == (200, b"0")
    assert stalling.exists()
    stalling.unlink()
    assert read_all(upload).endswith(b"\r\n\r\n102400")
    assert server.worker_pids() == [worker]


def test_while_a_refused_uploads_file_is_given_back_other_clients_are_served(serve, directory, environment):
    stalling, stalled = directory / "TRUNCATIONS_STALL", directory / "STALLED"
    server = serve(APPLICATION, env=environment)
    stalling.touch()
    upload = connect(server.port)
    # Longer than the part of a file that is given back at once, and then a chunk without a size.
    upload.sendall(HEAD + b"600000\r\n" + b"x" * 0x600000 + b"\r\nx\r\n")
    assert upload.recv(4096).startswith(b"HTTP/1.1 400")
    wait_for(stalled.exists, "the disk to stall")
    for _ in range(50):
        assert server.get() == (200, b"0")
    assert stalling.exists()
    stalling.unlink()
    upload.close()
