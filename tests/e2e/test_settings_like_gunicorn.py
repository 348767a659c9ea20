"""Command lines and files of settings beside gunicorn itself: the same service, or the same refusal."""

import re
import subprocess
import urllib.request

import pytest

from beside_gunicorn import GUNICORN, Gunicorn
from harness import HELLO, PATIENCE, clean_environment, get, run

# Its answer names the modules that were found.
APP = """
import {module}
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [{module}.__file__.encode()]
"""


@pytest.fixture
def beside(serve, directory):
    """Starts both servers with the same arguments, and returns their answers."""

    def start(*arguments):
        theirs = Gunicorn(directory, *arguments)
        try:
            answer = get(theirs.port)
        finally:
            theirs.end()
        server = serve(None, "-b", f"127.0.0.1:{theirs.port}", *arguments, bare=True, port=theirs.port)
        ours = server.get()
        assert server.stop() == 0
        return answer, ours

    return start


@pytest.mark.parametrize("conf", [False, True])
@pytest.mark.parametrize("options", [[], ["--preload"]])
def test_modules_in_the_directory_of_the_start_are_found_after_chdir(beside, directory, conf, options):
    (directory / "sub").mkdir()
    (directory / "sub" / "app.py").write_text(APP.format(module="beside_start"))
    (directory / "beside_start.py").write_text("")
    # The directory of `chdir` comes first.
    (directory / "app.py").write_text("raise RuntimeError('the wrong file')")
    if conf:
        (directory / "gunicorn.conf.py").write_text("")
    theirs, ours = beside("--chdir", "sub", *options, "app:app")
    assert ours == theirs == (200, str(directory / "beside_start.py").encode())


def test_a_check_finds_modules_in_the_directory_of_the_start_after_chdir(directory):
    (directory / "sub").mkdir()
    (directory / "sub" / "app.py").write_text(APP.format(module="beside_start"))
    (directory / "beside_start.py").write_text("")
    checked = run("check", "--chdir", directory / "sub", "app:app", cwd=directory, timeout=30)
    assert (checked.returncode, checked.stdout) == (0, "app:app can be served\n"), checked.stderr


@pytest.mark.parametrize("source", ["option", "file"])
def test_the_last_directory_of_pythonpath_is_searched_first(beside, directory, source):
    for name in ("first", "last"):
        (directory / name).mkdir()
        (directory / name / "found.py").write_text("")
    (directory / "app.py").write_text(APP.format(module="found"))
    if source == "file":
        (directory / "gunicorn.conf.py").write_text("pythonpath = 'first,last'\n")
    theirs, ours = beside(*(["--pythonpath", "first,last"] if source == "option" else []), "app:app")
    assert ours == theirs == (200, str(directory / "last" / "found.py").encode())


@pytest.mark.parametrize("name", ["gunicorn.conf", "gunicorn.cfg", "conf", "settings.ini"])
def test_a_configuration_with_any_name_is_python(beside, directory, name):
    (directory / "app.py").write_text(
        "import os\ndef app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [os.environ['FROM'].encode()]\n"
    )
    (directory / name).write_text(
        "import os\ndebug = False\nfor word in ('of', 'the', 'file'):\n    raw_env = [f'FROM={word}']\n"
        "secure_scheme_headers = {\n    'X-FORWARDED-PROTO': 'https',\n}\ndef when_ready(server):\n    pass\n"
    )
    theirs, ours = beside("-c", name, "app:app")
    assert ours == theirs == (200, b"file")


def test_an_empty_device_keeps_the_file_of_the_directory_out(beside, directory):
    (directory / "app.py").write_text(APP.format(module="os"))
    (directory / "gunicorn.conf.py").write_text("raise RuntimeError('it is read')")
    theirs, ours = beside("-c", "/dev/null", "app:app")
    assert ours == theirs and ours[0] == 200


def test_values_that_gunicorn_cuts_or_takes_are_served(beside, directory):
    (directory / "app.py").write_text(APP.format(module="os"))
    words = "--threads 0 --backlog 0 --timeout 9999999999 --limit-request-fields 40000 --limit-request-field_size 99999999"
    theirs, ours = beside(*words.split(), "app:app")
    assert ours == theirs and ours[0] == 200


def test_ciphers_without_a_certificate_are_a_warning(beside, directory):
    (directory / "app.py").write_text(APP.format(module="os"))
    (directory / "gunicorn.conf.py").write_text("ciphers = 'TLSv1'\n")
    theirs, ours = beside("app:app")
    assert ours == theirs and ours[0] == 200


@pytest.mark.parametrize("text", ["Python", "", "None"])
def test_the_server_field_is_what_the_file_makes_of_it(serve, directory, text):
    (directory / "app.py").write_text(HELLO)
    (directory / "gunicorn.conf.py").write_text(f"import gunicorn\ngunicorn.SERVER = {text!r}\n")

    def field(port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
            return answer.headers["Server"]

    theirs = Gunicorn(directory, "app:app")
    try:
        expected = field(theirs.port)
    finally:
        theirs.end()
    server = serve(HELLO)
    # Without a text gunicorn sends an empty field.
    assert field(server.port) == (expected or None)
    assert server.stop() == 0
    option = serve(HELLO, "--server-header", "mine")
    assert field(option.port) == "mine"
    assert option.stop() == 0


@pytest.mark.parametrize(
    ("words", "files", "expected"),
    [
        ([], {"gunicorn.conf.py": "post_fork = 'hooks.nope'\n"}, "gunicorn.conf.py:1: post_fork = 'hooks.nope' cannot be imported: "),
        ([], {"gunicorn.conf.py": "\nwhen_ready = 'hooks.nope'\n"}, "gunicorn.conf.py:2: when_ready = 'hooks.nope' cannot be imported: "),
        ([], {"gunicorn.conf.py": "on_exit = 'nowhere.f'\n"}, "gunicorn.conf.py:1: on_exit = 'nowhere.f' cannot be imported: "),
        ([], {"gunicorn.conf.py": "post_fork = 'hooks.one'\n"}, "gunicorn.conf.py:1: post_fork takes 1 arguments: expected 2"),
        (["--log-config", "nope.ini"], {}, "logconfig: there is no file nope.ini"),
    ],
)
def test_a_name_behind_which_there_is_nothing_ends_the_start_before_it_listens(directory, words, files, expected):
    files = {"app.py": HELLO, "hooks.py": "def one(server): pass\n", **files}
    for name, text in files.items():
        (directory / name).write_text(text)
    theirs = subprocess.run(
        [GUNICORN, "-b", "127.0.0.1:0", *words, "app:app"],
        cwd=directory, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert theirs.returncode == 1 and "Listening at" not in theirs.stderr
    for command in ([], ["check"]):
        ours = run(*command, "-b", "127.0.0.1:0", *words, "app:app", cwd=directory, timeout=30)
        assert ours.returncode == 2 and expected in ours.stderr, ours.stderr
        assert "Listening at" not in ours.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--paste", "nope#main"],
        # gunicorn serves without a configuration of logging then.
        ["--log-config-json", "nope", "app:app"],
    ],
)
def test_a_file_that_only_workers_read_is_missed_before_the_server_listens(directory, words):
    (directory / "app.py").write_text(HELLO)
    ours = run("-b", "127.0.0.1:0", *words, cwd=directory, timeout=30)
    assert ours.returncode == 2 and re.search("there is no file (/.*)?nope$", ours.stderr, re.MULTILINE), ours.stderr
    assert "Listening at" not in ours.stderr


def test_a_dotted_name_of_a_hook_is_called(serve, directory):
    (directory / "hooks.py").write_text("def two(server, worker):\n    worker.log.info('the hook of %s', worker.pid)\n")
    (directory / "gunicorn.conf.py").write_text("post_fork = 'hooks.two'\n")
    server = serve(HELLO)
    server.wait_log(r"the hook of \d+")
    assert server.stop() == 0


def test_a_file_to_watch_that_is_not_there_is_named(serve):
    server = serve(HELLO, "--reload", "--reload-extra-file", "nope.txt", "--reload-extra-file", "*.html")
    server.wait_log(r'\[WARNING\] reload_extra_file = "nope.txt" \(from the command line\): there is no such file')
    assert "*.html" not in server.log
    assert server.stop() == 0


def test_the_settings_that_are_printed_name_the_file_and_its_hooks(directory):
    (directory / "app.py").write_text(HELLO)
    (directory / "gunicorn.conf.py").write_text("raw_env = ['A=b']\ndef post_fork(server, worker): pass\n")
    printed = run("--print-config", "app:app", cwd=directory, timeout=30)
    lines = [" ".join(line.split()) for line in printed.stdout.splitlines()]
    for line in (
        'config = "gunicorn.conf.py" (from the defaults)',
        "post_fork = a function (from gunicorn.conf.py)",
        'env (raw_env) = ["A=b"] (from gunicorn.conf.py)',
    ):
        assert line in lines, printed.stdout
    assert not any(line.startswith("pre_fork") for line in lines)


def test_the_answer_for_asgi_workers_repeats_the_command_line(directory):
    refused = run(*"-k uvicorn.workers.UvicornWorker -w 4 -b 0.0.0.0:4000 main:app".split(), cwd=directory)
    assert refused.returncode == 2
    assert "mcsup exec -w 4 -b 0.0.0.0:4000 --ready tcp -- uvicorn --fd 3 main:app" in refused.stderr, refused.stderr
