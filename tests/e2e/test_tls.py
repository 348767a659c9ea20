"""TLS: clients of OpenSSL, curl and Python at the installed command, and certificates that are replaced under load.

The certificates are those of tests/engine: `first` for 127.0.0.1, localhost and first.test, `second` for second.test.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading

import pytest

from harness import PATIENCE, TOP, clean_environment, free_port, run, wait_for

CERTIFICATES = TOP / "tests" / "engine" / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
ENVIRON = """
import json
def app(environ, start_response):
    keys = ("wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "SERVER_PROTOCOL", "HTTP_HOST")
    found = {key: value for key, value in environ.items() if key in keys or key.startswith("SSL_")}
    body = json.dumps(found).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def pair(name):
    """The options for a certificate."""
    return ["--certfile", CERTIFICATES / f"{name}.pem", "--keyfile", CERTIFICATES / f"{name}.key"]


def context(client=None, version=None):
    """A client's settings."""
    made = ssl.create_default_context(cafile=AUTHORITY)
    if client:
        made.load_cert_chain(CERTIFICATES / f"{client}.pem", CERTIFICATES / f"{client}.key")
    if version:
        made.minimum_version = made.maximum_version = version
    return made


def get(port, tls=None, path="/"):
    """The status and body of one request."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=tls or context())
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def served_name(port, server_name="first.test"):
    """The common name of the certificate that a client gets."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
        tls = context()
        tls.check_hostname = False
        with tls.wrap_socket(plain, server_hostname=server_name) as secured:
            return dict(pairs[0] for pairs in secured.getpeercert()["subject"])["commonName"]


@pytest.fixture
def environ(serve):
    """Starts a server of an application that returns its environ."""

    def started(*arguments, **options):
        return serve(ENVIRON, *arguments, **options)

    return started


def s_client(port, *arguments):
    """What openssl s_client says of a handshake."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", AUTHORITY, *arguments]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=PATIENCE * 2, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def test_clients_of_both_versions_are_served_and_older_ones_are_refused(environ):
    server = environ(*pair("first"))
    assert f"Listening at: https://127.0.0.1:{server.port} " in server.log
    for version, name in [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]:
        status, body = get(server.port, context(version=version))
        found = json.loads(body)
        assert status == 200
        assert (found["wsgi.url_scheme"], found["SSL_PROTOCOL"]) == ("https", name)
        assert found["SSL_CLIENT_VERIFY"] == "NONE"
    if shutil.which("curl"):
        command = ["curl", "-sS", "--cacert", AUTHORITY, f"https://localhost:{server.port}/", "-w", "%{http_version}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2, check=True)
        assert done.stdout.endswith('}1.1') and '"https"' in done.stdout
    said = s_client(server.port, "-tls1_2", "-alpn", "h2,http/1.1")
    assert "ALPN protocol: http/1.1" in said and "Verify return code: 0 (ok)" in said
    said = s_client(server.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said and " alert " in said, said
    assert "protocol version" in said, said
    server.wait_log(r"WARNING\W.*Refused a TLS handshake from 127\.0\.0\.1:\d+: the client speaks TLS 1.1 or older")


def test_the_oldest_version_and_the_suites_can_be_selected(environ):
    server = environ(*pair("first"), "--tls-min-version", "1.3")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(server.port, context(version=ssl.TLSVersion.TLSv1_2))
    assert get(server.port)[0] == 200
    server = environ(*pair("first"), "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305")
    found = json.loads(get(server.port, context(version=ssl.TLSVersion.TLSv1_2))[1])
    assert found["SSL_CIPHER"] == "ECDHE-ECDSA-CHACHA20-POLY1305"


def test_certificates_of_clients_are_required_or_optional_or_not_asked_for(environ):
    for words, with_one, without in [
        (["--cert-reqs", "2"], "SUCCESS", None),
        (["--cert-reqs", "optional"], "SUCCESS", "NONE"),
        (["--cert-reqs", "0"], "NONE", "NONE"),
    ]:
        server = environ(*pair("first"), "--ca-certs", AUTHORITY, *words)
        found = json.loads(get(server.port, context("client"))[1])
        assert found["SSL_CLIENT_VERIFY"] == with_one
        assert ("SSL_CLIENT_CERT" in found) == (with_one == "SUCCESS")
        if with_one == "SUCCESS":
            assert found["SSL_CLIENT_S_DN"].encode("latin-1").decode() == "CN=A Client,O=Grüne\\, Wiese,C=AT"
            assert found["SSL_CLIENT_SERIAL"] == "0A1B2C3D"
        if without:
            assert json.loads(get(server.port)[1])["SSL_CLIENT_VERIFY"] == without
        else:
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                get(server.port)
        server.stop()


def test_a_client_gets_the_certificate_for_the_name_that_it_asks_for(environ):
    server = environ(*pair("first"), *pair("second"))
    names = {name: served_name(server.port, name) for name in ("first.test", "a.second.test", "else.test")}
    assert names == {"first.test": "first", "a.second.test": "second", "else.test": "first"}


class Clients:
    """Clients in threads, by new and by kept connections, which count answers and remember failures."""

    def __init__(self, port):
        self.port, self.failures, self.counts = port, [], [0] * 4
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(index,), daemon=True) for index in range(4)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE)

    def wait_more(self):
        """Wait until each has had some more answers."""
        before = list(self.counts)
        more = lambda: self.failures or all(now > then + 3 for now, then in zip(self.counts, before))
        wait_for(more, "more answers", patience=20)
        assert not self.failures, self.failures

    def ask(self, index):
        """Ask until the end."""
        connection, tls = None, context()
        tls.check_hostname = False
        while not self.over.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=tls)
                connection.request("GET", "/", headers={} if index % 2 else {"Connection": "close"})
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(response.status)
                if response.will_close:
                    connection.close()
                    connection = None
                self.counts[index] += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection = None


def install(directory, name):
    """Put a pair where the server reads it, each file at once."""
    for kind in ("pem", "key"):
        new = directory / f"new.{kind}"
        shutil.copy(CERTIFICATES / f"{name}.{kind}", new)
        new.rename(directory / f"served.{kind}")


def test_certificates_are_swapped_under_load_without_a_failed_request(environ, directory):
    install(directory, "first")
    server = environ(
        *["--certfile", directory / "served.pem", "--keyfile", directory / "served.key"],
        *["-p", "app.pid", "--soak", "0"],
        workers=2,
    )
    with Clients(server.port) as clients:
        for count, name in enumerate(["second", "first", "second"], start=1):
            clients.wait_more()
            install(directory, name)
            server.signal(signal.SIGHUP)
            server.wait_log("Reload done", count, patience=20)
            wait_for(lambda name=name: served_name(server.port) == name, f"the certificate {name}")
            clients.wait_more()
    assert not clients.failures, clients.failures


def test_a_wrong_pair_fails_the_reload_and_the_old_one_stays(environ, directory):
    install(directory, "first")
    pid = ["-p", "app.pid"]
    server = environ("--certfile", directory / "served.pem", "--keyfile", directory / "served.key", *pid)
    shutil.copy(CERTIFICATES / "second.key", directory / "served.key")
    refused = run("reload", *pid, cwd=server.directory)
    assert refused.returncode == 3
    assert "served.key does not belong to the first certificate in" in refused.stderr
    assert served_name(server.port) == "first"
    assert get(server.port)[0] == 200


def test_only_the_supervisor_reads_the_files(environ, directory):
    install(directory, "first")
    server = environ("--certfile", directory / "served.pem", "--keyfile", directory / "served.key")
    (directory / "served.key").unlink()
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait_ready(2)
    assert get(server.port)[0] == 200


def test_http_without_tls_gets_the_reason_and_a_slow_handshake_ends_at_its_deadline(environ):
    server = environ(*pair("first"), "--header-timeout", "1")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.status == 400
    assert b"the URL must begin with https://" in response.read()
    server.wait_log(r"Refused a request from .*: 400 plain HTTP request on a port for HTTPS")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as slow:
        slow.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        assert slow.recv(1) == b""
    server.wait_log(r"Refused a TLS handshake from .*: it did not end in time")
    assert get(server.port)[0] == 200


def test_settings_that_cannot_be_served_are_one_clear_error(directory):
    (directory / "app.py").write_text(ENVIRON)
    first, other = pair("first"), CERTIFICATES / "second.key"
    for words, code, text in [
        (["--certfile", "none.pem"], 1, "cannot read the certificate none.pem: No such file"),
        ([*first[:2], "--keyfile", other], 1, "does not belong to the first certificate"),
        ([*first[:2], "--keyfile", CERTIFICATES / "encrypted.key"], 1, "is encrypted: decrypt it first"),
        ([*first, "--ciphers", "HIGH"], 2, "the cipher suite HIGH is not one of"),
        ([*first, "--cert-reqs", "2"], 2, "needs ca_certs"),
    ]:
        for check in ([], ["--check-config"]):
            done = run(*words, *check, "-b", f"127.0.0.1:{free_port()}", "app:app", cwd=directory)
            assert (done.returncode, text in done.stderr) == (code, True), done.stderr
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_configuration_in_python_has_the_same_settings_and_no_context_of_openssl(environ, directory):
    lines = [f"{option[2:]} = {str(value)!r}" for option, value in zip(pair("first")[::2], pair("first")[1::2])]
    lines += ["import ssl", "cert_reqs = ssl.CERT_REQUIRED", f"ca_certs = {str(AUTHORITY)!r}", "ciphers = None"]
    conf = directory / "gunicorn.conf.py"
    conf.write_text("\n".join(lines))
    server = environ()
    assert json.loads(get(server.port, context("client"))[1])["SSL_CLIENT_VERIFY"] == "SUCCESS"
    server.stop()
    conf.write_text("\n".join([*lines, "def ssl_context(config, default_factory):", "    return default_factory()"]))
    refused = run("-b", f"127.0.0.1:{free_port()}", "app:app", cwd=directory)
    assert refused.returncode == 2
    assert "ssl_context" in refused.stderr and "rustls" in refused.stderr


def test_options_of_openssl_are_accepted_with_a_warning(environ):
    words = ["--ssl-version", "TLSv1_2", "--suppress-ragged-eofs", "--do-handshake-on-connect"]
    server = environ(*pair("first"), *words)
    # The third is the default of gunicorn, and how it is here.
    for name in ("ssl_version", "do_handshake_on_connect"):
        server.wait_log(rf"{name} \(from the command line\) has no effect")
    assert "suppress_ragged_eofs" not in server.log
    assert get(server.port)[0] == 200


def openssl(*words, **options):
    """The output of the command openssl."""
    command = ["openssl", *map(str, words)]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE * 2, check=True, **options)
    return done.stdout.decode()


@pytest.fixture
def gunicorn(directory):
    """Starts gunicorn beside with the same application; returns its port."""
    started = []

    def start(*arguments):
        port = free_port()
        command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-k", "gthread", *map(str, arguments)]
        with (directory / "gunicorn.log").open("ab") as log:
            started.append(
                subprocess.Popen([*command, "app:app"], cwd=directory, env=clean_environment(), stdout=log, stderr=log)
            )
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(PATIENCE)


def test_certificates_that_openssl_makes_without_options_are_taken_as_by_gunicorn(environ, gunicorn, directory):
    for name in ("server", "client"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", directory / f"{name}.key")
    made = openssl("req", "-new", "-key", directory / "server.key", "-subj", "/CN=first.test")
    # Without extensions it is of version 1.
    signed = ["-req", "-signkey", directory / "server.key", "-days", "9", "-out", directory / "server.pem"]
    openssl("x509", *signed, input=made.encode())
    subject = "/C=AT/O=Grüne, Wiese/emailAddress=a@b.c/serialNumber=7/CN=A Client"
    words = ["-utf8", "-subj", subject, "-set_serial", "0x80FF112233445566", "-days", "9"]
    openssl("req", "-x509", "-new", "-key", directory / "client.key", *words, "-out", directory / "client.pem")
    options = ["--certfile", directory / "server.pem", "--keyfile", directory / "server.key"]
    options += ["--ca-certs", directory / "client.pem", "--cert-reqs", "2"]
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    tls.load_cert_chain(directory / "client.pem", directory / "client.key")
    server = environ(*options)

    def asked(port):
        try:
            return get(port, tls)
        except OSError:
            return None

    beside = gunicorn(*options)
    assert wait_for(lambda: asked(beside), "gunicorn", patience=20)[0] == 200
    status, body = get(server.port, tls)
    found = json.loads(body)
    assert (status, found["SSL_CLIENT_VERIFY"]) == (200, "SUCCESS")
    shape = ["-noout", "-nameopt", "RFC2253,-esc_msb", "-subject", "-serial"]
    shown = openssl("x509", "-in", directory / "client.pem", *shape)
    name, serial = (line.partition("=")[2] for line in shown.splitlines())
    for variable in ("SSL_CLIENT_S_DN", "SSL_CLIENT_I_DN"):
        assert found[variable].encode("latin-1").decode() == name
    assert found["SSL_CLIENT_SERIAL"] == serial == "80FF112233445566"


def test_a_client_of_openssl_may_pad_its_records_as_with_gunicorn(environ, gunicorn):
    server = environ(*pair("first"), "--threads", "2")
    beside = gunicorn(*pair("first"))

    def asked(port):
        try:
            return get(port)
        except OSError:
            return None

    wait_for(lambda: asked(beside), "gunicorn", patience=20)
    for port in (beside, server.port):
        command = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", "-CAfile", AUTHORITY, "-tls1_3"]
        client = subprocess.Popen(
            [*command, "-record_padding", "16384"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(30):
                client.stdin.write(b"GET / HTTP/1.1\r\nHost: first.test\r\n\r\n")
                client.stdin.flush()
                assert client.stdout.readline() == b"HTTP/1.1 200 OK\r\n"
                length = 0
                while (line := client.stdout.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                assert len(client.stdout.read(length)) == length > 0
        finally:
            client.kill()
            client.communicate()


def test_the_environ_is_that_of_gunicorn_beside_the_variables_of_tls(environ, gunicorn):
    server = environ(*pair("first"), "--threads", "2")
    port = gunicorn(*pair("first"))

    def asked(port):
        try:
            return json.loads(get(port)[1])
        except OSError:
            return None

    theirs = wait_for(lambda: asked(port), "gunicorn", patience=20)
    ours = asked(server.port)
    added = {"SSL_PROTOCOL", "SSL_CIPHER", "SSL_CLIENT_VERIFY"}
    assert set(ours) - set(theirs) == added
    for found, own in ((ours, server.port), (theirs, port)):
        found["HTTP_HOST"] = found["HTTP_HOST"].replace(str(own), "PORT")
        found["SERVER_PORT"] = found["SERVER_PORT"].replace(str(own), "PORT")
    assert {key: ours[key] for key in theirs} == theirs
