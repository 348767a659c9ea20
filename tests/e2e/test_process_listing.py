"""What an application and an operator see of the processes of the server."""

import signal
from pathlib import Path

from beside_gunicorn import Gunicorn
from harness import HELLO, get, wait_for, zombies_of

SOFTWARE = """
import os
SEEN = os.environ.get("SERVER_SOFTWARE")
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [SEEN.encode()]
"""


def words_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")


def children(server):
    return {words[0] for words in map(words_of, server.worker_pids())}


def test_an_application_finds_gunicorn_in_its_environment_as_with_gunicorn(serve, directory):
    (directory / "app.py").write_text(SOFTWARE)
    theirs = Gunicorn(directory, "app:app", SERVER_SOFTWARE="inherited")
    try:
        expected = get(theirs.port)[1]
    finally:
        theirs.end()
    assert expected.startswith(b"gunicorn/")
    for arguments in ([], ["--preload"]):
        server = serve(SOFTWARE, *arguments)
        assert server.get()[1] == expected
        assert server.stop() == 0
    assert serve(SOFTWARE, "-e", "SERVER_SOFTWARE=mine").get()[1] == b"mine"


def test_a_configuration_finds_gunicorn_in_its_environment(serve, directory):
    text = 'import os\nassert "gunicorn" in os.environ["SERVER_SOFTWARE"]\ndef on_starting(server): pass\n'
    (directory / "gunicorn.conf.py").write_text(text)
    server = serve(HELLO)
    assert server.get()[0] == 200
    assert "AssertionError" not in server.log


def test_titles_tell_the_kind_of_each_process_and_the_name_of_the_service(serve):
    server = serve(HELLO, "--preload", "-n", "shop")
    assert children(server) == {"mcsup: mold [shop]", "mcsup: worker [shop]"}
    title, *command = words_of(server.pid)
    assert title == "mcsup: supervisor [shop]"
    assert command[-3:] == ["-n", "shop", "app:app"], "its command line is behind it"
    server.signal(signal.SIGHUP)
    server.wait_ready(2)
    wait_for(lambda: children(server) == {"mcsup: mold [shop]", "mcsup: worker [shop]"}, "titles of the new processes")


def test_a_service_without_a_name_has_that_of_its_application(serve):
    server = serve(HELLO)
    assert children(server) == {"mcsup: worker [app:app]"}
    assert words_of(server.pid)[0] == "mcsup: supervisor [app:app]"


def test_the_processes_of_a_program_have_titles_too(serve, directory):
    server = serve(None, "exec", "--ready", "timer:0.1", "--no-listener", "-n", "jobs", "sleep", "60", bare=True)
    assert words_of(server.pid)[0] == "mcsup: supervisor [jobs]"
    assert "mcsup: worker [jobs]" in children(server)


def test_an_upgrade_keeps_the_command_line_and_the_title(serve):
    server = serve(HELLO)
    before = words_of(server.pid)
    server.signal(signal.SIGUSR2)
    server.wait_log("Upgraded: a new image supervises", patience=20)
    wait_for(lambda: words_of(server.pid) == before, "the title of the new image")
    assert server.get()[0] == 200


def test_the_process_that_executes_a_configuration_is_reaped(serve, directory):
    # The end of a large process takes longer than the start of the next one.
    (directory / "gunicorn.conf.py").write_text("memory = bytearray(100 << 20)\ndef when_ready(server): pass\n")
    server = serve(HELLO)
    wait_for(lambda: not zombies_of(server.pid), "no zombie after the start")
    server.signal(signal.SIGHUP)
    server.wait_ready(2)
    wait_for(lambda: not zombies_of(server.pid), "no zombie after the reload")
    assert server.get()[0] == 200
