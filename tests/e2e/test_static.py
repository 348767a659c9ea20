"""Files that the server answers with itself."""

import http.client
import os
import signal

import pytest
from harness import PATIENCE, SLEEPY, connect, read_all, run

SCRIPT = b"console.log('1');\n" * 1000


@pytest.fixture
def folder(directory):
    """A folder with a script, its compressed forms, and links."""
    folder = directory / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "app.js").write_bytes(SCRIPT)
    (folder / "app.js.br").write_bytes(b"br of it")
    (folder / "app.js.gz").write_bytes(b"gz of it")
    (folder / "sub" / "large.bin").write_bytes(bytes(range(256)) * 16384)
    (folder / ".env").write_text("SECRET=1")
    (directory / "secret.txt").write_text("secret")
    (folder / "out.txt").symlink_to("../secret.txt")
    (folder / "in.js").symlink_to("app.js")
    return folder


def ask(port, path, method="GET", **fields):
    """One request: the response, and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_files_are_served_with_ranges_conditions_and_compressed_forms(serve, folder):
    server = serve(SLEEPY, "--static", "/static=files")
    response, body = ask(server.port, "/static/app.js")
    assert (response.status, body) == (200, SCRIPT)
    assert response.getheader("Content-Type") == "text/javascript; charset=utf-8"
    assert (response.getheader("Vary"), response.getheader("Server")) == ("Accept-Encoding", "mcsup")
    tag, date = response.getheader("ETag"), response.getheader("Last-Modified")
    for condition in ({"If_None_Match": tag}, {"If_Modified_Since": date}):
        response, body = ask(server.port, "/static/app.js", **condition)
        assert (response.status, body, response.getheader("ETag")) == (304, b"", tag)
    for accepts, coding, expected in (("gzip, br", "br", b"br of it"), ("gzip", "gzip", b"gz of it")):
        response, body = ask(server.port, "/static/app.js", Accept_Encoding=accepts)
        assert (response.getheader("Content-Encoding"), body) == (coding, expected)
    response, body = ask(server.port, "/static/sub/large.bin", Range="bytes=4194300-")
    assert (response.status, body) == (206, bytes([252, 253, 254, 255]))
    assert response.getheader("Content-Range") == "bytes 4194300-4194303/4194304"
    response, body = ask(server.port, "/static/sub/large.bin", "HEAD")
    assert (response.status, body, response.getheader("Content-Length")) == (200, b"", "4194304")
    assert ask(server.port, "/static/in.js")[1] == SCRIPT


def test_forms_with_one_time_and_size_are_not_taken_for_each_other(serve, folder):
    forms = [folder / name for name in ("app.js", "app.js.br", "app.js.gz")]
    for form, text in zip(forms, (b"plain", b"br br", b"gz gz"), strict=True):
        form.write_bytes(text)
        os.utime(form, (1, 1))
    (folder / "empty").write_bytes(b"")
    server = serve(SLEEPY, "--static", "/static=files")
    response, body = ask(server.port, "/static/app.js")
    # A constant of a build tells nothing of a change.
    assert (body, response.getheader("Last-Modified")) == (b"plain", None)
    tag = response.getheader("ETag")
    for condition in ({"If_None_Match": tag}, {"If_Range": tag, "Range": "bytes=3-"}):
        response, body = ask(server.port, "/static/app.js", Accept_Encoding="gzip", **condition)
        assert (response.status, body) == (200, b"gz gz"), condition
    assert ask(server.port, "/static/app.js", Accept_Encoding="identity;q=1, gzip;q=0.5")[1] == b"plain"
    assert ask(server.port, "/static/empty", Range="bytes=0-")[0].status == 200
    date = ask(server.port, "/static/sub/large.bin")[0].getheader("Last-Modified")
    response, _ = ask(server.port, "/static/sub/large.bin", Range="bytes=5-6", If_Range=date)
    assert response.status == 200


def test_nothing_outside_of_the_folder_is_served_and_no_list_of_it(serve, folder):
    server = serve(SLEEPY, "--static", "/static=files")
    (worker,) = server.worker_pids()
    # All of these are the application's, which answers with its pid.
    for path in ("/static/out.txt", "/static/.env", "/static/sub", "/static/sub/", "/static/none.js", "/staticapp.js"):
        assert ask(server.port, path)[1] == str(worker).encode(), path
    for target in (b"/static/../secret.txt", b"/static/%2e%2e/secret.txt", b"/static/..%2fsecret.txt", b"/static//etc/passwd"):
        with connect(server.port) as connection:
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % target)
            assert b"secret" not in (answer := connection.makefile("rb").read()) and b"root:" not in answer, target
    assert ask(server.port, "/static/app.js", "POST")[1] == str(worker).encode()


def test_a_file_needs_no_thread_of_the_application(serve, folder):
    server = serve(SLEEPY, "--static", "/static=files")
    with connect(server.port) as busy:
        busy.sendall(b"GET /?sleep=60 HTTP/1.1\r\nHost: h\r\n\r\n")
        server.wait_log("sleeping 60")
        assert ask(server.port, "/static/app.js")[1] == SCRIPT
        assert ask(server.port, "/static/sub/large.bin")[1] == bytes(range(256)) * 16384
    server.signal(signal.SIGQUIT)
    server.wait()


def test_a_folder_that_is_missing_is_an_error_at_the_start_and_at_a_reload(serve, folder, directory):
    (directory / "app.py").write_text(SLEEPY)
    result = run("--static", "/static=nowhere", "app:app", cwd=directory)
    assert result.returncode == 2
    assert "static = /static=nowhere (from the command line): the folder " in result.stderr
    assert "nowhere cannot be used: No such file or directory" in result.stderr
    server = serve(SLEEPY, "--static", "/static=files")
    folder.rename(directory / "moved")
    server.signal(signal.SIGHUP)
    server.wait_log("Reload failed, .*files cannot be used")
    (directory / "moved").rename(folder)
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done")
    assert ask(server.port, "/static/app.js")[1] == SCRIPT


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("gevent", "use -k gthread with --threads N"),
        ("uvicorn.workers.UvicornWorker", "--ready tcp -- uvicorn --fd 3"),
        ("mine.Worker", "mcsup has a worker of its own"),
        ("gthred", "is gthread meant?"),
    ],
)
def test_a_kind_of_workers_that_is_not_here_names_the_equivalent(directory, word, hint):
    (directory / "app.py").write_text(SLEEPY)
    (directory / "mcsup.toml").write_text(f"worker_class = '{word}'\n")
    for arguments in (["-k", word, "app:app"], ["-c", "mcsup.toml", "app:app"]):
        result = run(*arguments, cwd=directory)
        assert (result.returncode, hint in result.stderr) == (2, True), result.stderr


def test_gunicorns_words_for_threads_are_accepted(serve):
    server = serve(SLEEPY, "-k", "gthread", "--threads", "2")
    assert server.get()[0] == 200


@pytest.mark.parametrize("is_field", [False, True])
def test_a_route_begins_below_the_mount_point(serve, folder, is_field):
    # A peer on loopback may name the mount point.
    server = serve(SLEEPY, "--static", "/static=files", *([] if is_field else ["-e", "SCRIPT_NAME=/shop/"]))
    fields = {"SCRIPT_NAME": "/shop"} if is_field else {}
    with connect(server.port) as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        client.sendall(f"GET /shop/static/app.js HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{lines}\r\n".encode())
        assert read_all(client).endswith(SCRIPT)
    if not is_field:
        assert ask(server.port, "/static/app.js")[1] == SCRIPT, "a proxy may have taken the mount point off"
        assert ask(server.port, "/shopping/static/app.js")[1] != SCRIPT
