"""The applications of the benchmark: plain WSGI, and Flask."""

import time

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


def nap(environ, start_response):
    """Ten milliseconds of waiting."""
    time.sleep(0.01)
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
