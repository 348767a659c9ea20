"""Applications from PyPI under mcsup and under gunicorn, one after the other: the same sessions, the same answers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import scripts  # noqa: E402
from exchange import Client  # noqa: E402
from harness import TOP, Server, clean_environment, wait_for  # noqa: E402

APPS = Path(__file__).parent / "apps"
VENV = Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "applications-venv"
# Imports on a busy machine.
PATIENT = 60
SERVERS = {"mcsup": ["-w", "2", "--threads", "2"], "gunicorn": ["-w", "1", "-k", "gthread", "--threads", "2"]}
APPLICATIONS = {
    "checked": "checked:app",
    "httpbin": "httpbin:app",
    "django": "django_site:app",
    "radicale": "radicale:application",
    "dav": "dav:app",
    "packages": "packages:app",
    "dashboard": "dashboard:app",
    "bottled": "bottled:app",
}
ALL = {**APPLICATIONS, "environ_app": "environ_app:app"}


@pytest.fixture(scope="session")
def python():
    """The interpreter with the applications."""
    path = VENV / "bin" / "python"
    if subprocess.run([path, "-c", "import mcsup, gunicorn"], capture_output=True, check=False).returncode:
        pytest.skip(f"no applications in {VENV}: `make {VENV.parent.name}/{VENV.name}/.ready` says why")
    return path


def start(server, name, folder, python, *arguments):
    """Serves the application with a fresh store."""
    store = folder / f"{server}-store"
    store.mkdir()
    code = folder / "code"
    if not code.exists():
        shutil.copytree(APPS, code)
    environment = clean_environment(STORE=str(store), DJANGO_SETTINGS_MODULE="settings")
    environment |= {"RADICALE_CONFIG": str(radicale_settings(store)), "PYTHONHASHSEED": "0"}
    if name == "django":
        prepare_django(python, code, environment)
    command = [python.with_name(server), *SERVERS[server], *arguments]
    pattern = r"Worker (\d+) is ready" if server == "mcsup" else r"Booting worker"
    running = Server(code, app=ALL[name], command=command, env=environment, wait=False, workers=1)
    wait_for(lambda: re.search(pattern, running.log) or running.process.poll() is not None, server, PATIENT)
    assert running.process.poll() is None, running.log
    return running


def radicale_settings(store):
    """Radicale without users, over a folder."""
    path = store / "radicale.ini"
    path.write_text(f"[auth]\ntype = none\n[storage]\nfilesystem_folder = {store}/collections\n[rights]\ntype = authenticated\n")
    return path


def prepare_django(python, code, environment):
    """Tables, static files and a user."""
    user = "from django.contrib.auth.models import User; User.objects.create_superuser('root', 'a@app.test', 'secret')"
    calls = ("call_command('migrate', verbosity=0)", "call_command('collectstatic', '--no-input', verbosity=0)", user)
    lines = ["import django", "django.setup()", "from django.core.management import call_command", *calls]
    subprocess.run([python, "-c", "\n".join(lines)], cwd=code, env=environment, check=True)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_answers_as_under_gunicorn(name, directory, python):
    """Each answer of a session is the same, but for what each server writes itself."""
    answers = {}
    for server in SERVERS:
        running = start(server, name, directory, python)
        try:
            client = Client(running.port)
            getattr(scripts, name)(client)
            answers[server] = [answer.comparable() for answer in client.answers]
        finally:
            running.clean_up()
        assert "Traceback" not in running.log, running.log
    assert len(answers["mcsup"]) == len(answers["gunicorn"])
    for ours, theirs in zip(answers["mcsup"], answers["gunicorn"], strict=True):
        assert ours == theirs


def test_a_session_asks_each_rule_of_httpbin(python):
    """No endpoint of httpbin is left out."""

    class Recorder:
        def __init__(self):
            self.sent = []

        def send(self, method, path, *_, **__):
            self.sent.append((method, path))

        def get(self, path, **_):
            self.send("GET", path)

        def form(self, path, *_):
            self.send("POST", path)

    recorder = Recorder()
    scripts.httpbin(recorder)
    code = (
        "import sys, json, httpbin\n"
        "adapter = httpbin.app.url_map.bind('app.test')\n"
        "matched = set()\n"
        "for method, path in json.load(sys.stdin):\n"
        "    try: matched.add(adapter.match(path.partition('?')[0], method, return_rule=True)[0].rule)\n"
        "    except Exception: pass\n"
        "print(*sorted({rule.rule for rule in httpbin.app.url_map.iter_rules()} - matched))\n"
    )
    done = subprocess.run([python, "-c", code], input=json.dumps(recorder.sent), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
