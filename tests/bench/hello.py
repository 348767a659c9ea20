"""An application that imports nothing of its own: what is left of a start is the server's."""

import os


def app(environ, start_response):
    """Which process answers."""
    body = b"%d\n" % os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
