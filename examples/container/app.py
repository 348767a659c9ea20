"""An application for a container: it names the process that has answered."""

import os


def app(environ, start_response):
    """Answer with the host and the process."""
    body = f"{os.uname().nodename} {os.getpid()} {environ['PATH_INFO']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
