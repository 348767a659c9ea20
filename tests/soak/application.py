"""The application of the soak. A path is /WHAT/KIND/NUMBER[/SIZE[/CHUNK]].

Each worker counts its calls in a file of its own, mapped, so that the tests can read it whenever they like: the
counters are of the application alone and owe nothing to the server.
"""

import ctypes
import gc
import hashlib
import json
import mmap
import os
import struct
import sys
import tempfile
import threading

from content import KINDS, content


class Counts:
    """Calls by kind."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.values = [0] * len(KINDS)
        with open(path, "w+b") as file:
            file.truncate(8 * len(KINDS))
            self.map = mmap.mmap(file.fileno(), 0)

    def add(self, kind):
        index = KINDS.index(kind)
        with self.lock:
            self.values[index] += 1
            struct.pack_into("<Q", self.map, 8 * index, self.values[index])


COUNTS = Counts(f"calls-{os.getpid()}")


def app(environ, start_response):
    if environ["PATH_INFO"] == "/live":
        return answer_live(start_response)
    what, kind, number, *sizes = environ["PATH_INFO"].strip("/").split("/")
    COUNTS.add(kind)
    return globals()[f"answer_{what}"](environ, start_response, f"{kind}/{number}", *map(int, sizes))


class Mallinfo2(ctypes.Structure):
    """mallinfo(3): all arenas together."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def answer_live(start_response):
    """For the tests themselves, not counted: how much memory is in use, by the books of malloc and of Python."""
    gc.collect()
    body = {"pid": os.getpid(), "blocks": sys.getallocatedblocks(), "malloc": None}
    # glibc from 2.33 on. What is not its allocator's has no books that are open to us.
    if mallinfo2 := getattr(ctypes.CDLL(None), "mallinfo2", None):
        mallinfo2.restype = Mallinfo2
        info = mallinfo2()
        body["malloc"] = info.uordblks + info.hblkhd
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]


def answer_hello(environ, start_response, name):
    body = f"hello {name}\n".encode()
    start_response("200 OK", [("X-Request", name), ("Content-Length", str(len(body)))])
    return [body]


def answer_echo(environ, start_response, name):
    length, digest, read = 0, hashlib.sha1(), environ["wsgi.input"].read
    while piece := read(65536):
        length += len(piece)
        digest.update(piece)
    start_response("200 OK", [("X-Request", name)])
    return [f"{length} {digest.hexdigest()}".encode()]


def answer_large(environ, start_response, name, size):
    start_response("200 OK", [("X-Request", name)])
    return [content(int(name.rpartition("/")[2]), size)]


def answer_stream(environ, start_response, name, size, chunk):
    start_response("200 OK", [("X-Request", name)])
    return chunks(int(name.rpartition("/")[2]), size, chunk)


def chunks(start, size, chunk):
    for at in range(0, size, chunk):
        yield content(start + at, min(chunk, size - at))


def answer_file(environ, start_response, name, size):
    file = tempfile.TemporaryFile()
    file.write(content(int(name.rpartition("/")[2]), size))
    file.seek(0)
    start_response("200 OK", [("X-Request", name), ("Content-Length", str(size))])
    return environ["wsgi.file_wrapper"](file, 65536)
