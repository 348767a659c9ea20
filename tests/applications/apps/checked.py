"""An application under the checker of the standard library: any breach of PEP 3333 is an error 500."""

from wsgiref.validate import validator


def echo(environ, start_response):
    """Answers with the request."""
    # A chunked body ends by itself (wsgi.input_terminated).
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or -1))
    lines = [f"{name}={environ[name]}" for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SCRIPT_NAME")]
    answer = "\n".join(lines).encode() + b"\n" + body
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


app = validator(echo)
