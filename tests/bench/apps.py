"""The applications of the benchmark: plain WSGI, and Flask."""

import os
import threading
import time
from wsgiref.util import FileWrapper

HELLO = b"hello\n"
LARGE = b"x" * (1 << 20)
PIECE = b"y" * 1024


def hello(environ, start_response):
    """Six bytes."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [HELLO]


def large(environ, start_response):
    """One mebibyte."""
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(LARGE)))])
    return [LARGE]


def stream(environ, start_response):
    """A hundred pieces of one kibibyte."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (PIECE for _ in range(100))


def upload(environ, start_response):
    """Reads the body as Flask and Django do, answers six bytes."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if len(environ["wsgi.input"].read(length)) != length:
        raise ValueError("the body is not whole")
    return hello(environ, start_response)


def nap(environ, start_response):
    """Ten milliseconds of waiting."""
    time.sleep(0.01)
    return hello(environ, start_response)


# Zeros without pages of their own. On a disk the kernel would fill pages ahead of a reader, megabytes in one system call.
FILE = open(os.memfd_create("zeros"), "wb")
FILE.truncate(1 << 30)


def file(environ, start_response):
    """A file of one gibibyte."""
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(1 << 30))])
    wrap = environ.get("wsgi.file_wrapper", FileWrapper)
    return wrap(open(f"/proc/self/fd/{FILE.fileno()}", "rb"), 1 << 16)


def site(environ, start_response):
    """Fast answers, and by path a slow one and large ones."""
    path = environ["PATH_INFO"]
    if path == "/file":
        return file(environ, start_response)
    if path == "/slow":
        time.sleep(1)
    if path == "/large":
        return large(environ, start_response)
    return hello(environ, start_response)


def spin():
    """What a thread does that never waits."""
    while True:
        sum(range(1000))


SPINNING = threading.Lock()


def spinning(environ, start_response):
    """Six bytes, beside a thread that computes. It starts with the first request, so that no fork loses it."""
    if SPINNING.acquire(blocking=False):
        threading.Thread(target=spin, daemon=True).start()
    return hello(environ, start_response)


try:
    from flask import Flask, jsonify
except ImportError:  # Not every server's environment has it.
    pass
else:
    json = Flask(__name__)

    @json.get("/")
    def index():
        """About one kibibyte of JSON."""
        return jsonify(items=[{"id": n, "name": f"item {n}", "price": n * 1.25} for n in range(20)])
