"""Behind nginx as its users configure it: by TCP and by a Unix socket, with TLS, forwarded fields and PROXY protocol."""

import json
import os
import ssl
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scripts  # noqa: E402
from exchange import HOST, Client  # noqa: E402
from nginx import PROGRAM, STREAM_MODULE, Nginx  # noqa: E402
from test_applications import SERVERS, python, start  # noqa: E402, F401

if not os.path.exists(PROGRAM):
    pytest.skip("needs nginx (Debian: nginx-light)", allow_module_level=True)

UPSTREAMS = ("tcp", "unix")


def proxied(name, server, kind, folder, python, *arguments):
    """The server and an nginx before it."""
    path = folder / f"{server}.sock"
    bind = ["-b", f"unix:{path}"] if kind == "unix" else []
    running = start(server, name, folder, python, *bind, *arguments)
    address = f"unix:{path}" if kind == "unix" else f"127.0.0.1:{running.port}"
    stream = address if STREAM_MODULE.exists() and name == "environ_app" else None
    return running, Nginx(folder / f"{server}-nginx", f"http://{address}", stream)


def unverified():
    """TLS without a look at the certificate, which the test has made."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("kind", UPSTREAMS)
@pytest.mark.parametrize("name", ["httpbin", "django"])
def test_an_application_behind_nginx_answers_as_under_gunicorn(name, kind, directory, python):  # noqa: F811
    """Whole sessions over TLS, with uploads, give the same answers: also the log-in to Django's admin."""
    found = {}
    for server in SERVERS:
        running, nginx = proxied(name, server, kind, directory, python)
        try:
            with nginx:
                client = Client(nginx.tls, unverified())
                getattr(scripts, name)(client)
                found[server] = [answer.comparable() for answer in client.answers]
        finally:
            running.clean_up()
    for ours, theirs in zip(found["mcsup"], found["gunicorn"], strict=True):
        assert ours == theirs


@pytest.mark.parametrize("kind", UPSTREAMS)
def test_the_environ_behind_nginx_is_that_of_gunicorn(kind, directory, python):  # noqa: F811
    """Scheme, client and forwarded fields reach the application as under gunicorn, without a setting."""
    found = {}
    for server in SERVERS:
        running, nginx = proxied("environ_app", server, kind, directory, python)
        try:
            with nginx:
                clients = {"plain": Client(nginx.plain), "tls": Client(nginx.tls, unverified())}
                found[server] = {name: shown(client) for name, client in clients.items()}
        finally:
            running.clean_up()
    assert found["mcsup"] == found["gunicorn"]
    assert found["mcsup"]["tls"]["wsgi.url_scheme"] == "https"


def shown(client):
    """The keys of environ that depend on the proxy."""
    environ = json.loads(client.get("/a?b=c", X_Forwarded_For="203.0.113.7").body)
    assert environ["HTTP_HOST"] == HOST
    keys = ("wsgi.url_scheme", "REMOTE_ADDR", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "SCRIPT_NAME", "PATH_INFO")
    return {key: environ.get(key) for key in keys}


@pytest.mark.skipif(not STREAM_MODULE.exists(), reason="needs nginx's stream module (Debian: libnginx-mod-stream)")
@pytest.mark.parametrize("kind", UPSTREAMS)
def test_nginx_names_its_client_by_the_proxy_protocol(kind, directory, python):  # noqa: F811
    """The client's own address and port are in environ, as under gunicorn."""
    found = {}
    for server in SERVERS:
        running, nginx = proxied("environ_app", server, kind, directory, python, "--proxy-protocol", "v1")
        try:
            with nginx:
                client = Client(nginx.stream)
                client.connection.connect()
                host, port = client.connection.sock.getsockname()
                environ = json.loads(client.get("/").body)
                assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (host, str(port))
                found[server] = {key: environ.get(key) for key in ("PROXY_PROTOCOL", "PROXY_ADDR", "SERVER_NAME")}
        finally:
            running.clean_up()
    assert found["mcsup"] == found["gunicorn"]
