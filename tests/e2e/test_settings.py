"""The table of settings as a user meets it: an answer to each setting of gunicorn, the listing, hints for typing errors."""

import json
import shutil
import subprocess
import sys

import pytest

from harness import HELLO, MCSUP, clean_environment, run

USAGE = 2

# Gunicorn's own table, from the package that requirements.txt pins.
TABLE = """
import json
from gunicorn import __version__, config
assert __version__ == "27.0.1", __version__
print(json.dumps([
    {
        "name": s.name,
        "flags": s.cli or [],
        "action": s.action,
        "is_hook": "Hooks" in s.section,
        "default": s.default if isinstance(s.default, (str, int)) else None,
    }
    for s in config.KNOWN_SETTINGS
]))
"""


@pytest.fixture(scope="module")
def table():
    found = json.loads(subprocess.run([sys.executable, "-c", TABLE], check=True, capture_output=True).stdout)
    assert len(found) == 120
    return found


def test_every_option_of_gunicorn_is_known(directory, table):
    words = []
    for setting in table:
        takes_value = setting["action"] in (None, "append")
        # There is no settings file.
        for flag in setting["flags"] if setting["name"] != "config" else []:
            words += [flag, "x"] if takes_value else [flag]
    assert len(words) > 150
    result = run(*words, "app:app", cwd=directory)
    # All words are parsed before one of them is refused.
    assert result.returncode == USAGE
    assert "(from the command line)" in result.stderr
    assert "unknown option" not in result.stderr


def test_every_setting_of_gunicorn_is_known_as_a_key_of_the_settings_file(directory, table):
    lines = []
    for setting in table:
        is_flag = setting["action"] in ("store_true", "store_const")
        if setting["name"] != "config" and not setting["is_hook"]:
            lines.append(f"{setting['name']} = {'false' if is_flag else repr('x')}\n")
    assert len(lines) > 90
    (directory / "a.toml").write_text("".join(lines))
    result = run("-c", "a.toml", "app:app", cwd=directory)
    # All keys are known before a value is refused.
    assert result.returncode == USAGE
    assert "(from a.toml): " in result.stderr
    for hook in [setting["name"] for setting in table if setting["is_hook"]]:
        (directory / "a.toml").write_text(f"{hook} = 'x'\n")
        result = run("-c", "a.toml", "app:app", cwd=directory)
        assert result.stderr == f"mcsup: a.toml:1: {hook} is a function of gunicorn.conf.py\n"


def test_gunicorns_own_defaults_are_accepted_without_a_warning(directory, table):
    (directory / "app.py").write_text(HELLO)
    # Paths of this host; numbers of an enumeration; and a default that stands for no value.
    others = {"config", "chdir", "user", "group", "control_socket", "ssl_version", "cert_reqs", "umask"}
    lines = []
    for setting in table:
        default, name = setting["default"], setting["name"]
        if default not in (None, "") and name not in others:
            lines.append(f"{name} = {json.dumps(default)}\n")
    assert len(lines) > 60
    (directory / "a.toml").write_text("".join(lines))
    result = run("check", "-c", "a.toml", "app:app", cwd=directory)
    assert (result.returncode, result.stdout) == (0, "app:app can be served\n"), result.stderr
    assert result.stderr == ""


def test_a_setting_without_an_effect_is_a_warning_in_the_log(directory):
    (directory / "app.py").write_text(HELLO)
    result = run("check", "--worker-tmp-dir", "/dev/shm", "app:app", cwd=directory)
    assert (result.returncode, result.stdout) == (0, "app:app can be served\n")
    assert "[WARNING] worker_tmp_dir (from the command line) has no effect: " in result.stderr


def test_the_configuration_is_printed_with_the_sources_and_the_application_is_loaded(directory):
    (directory / "app.py").write_text(HELLO)
    (directory / "a.toml").write_text("keepalive = 7\n")
    environment = clean_environment(GUNICORN_CMD_ARGS="-w 3")
    result = run("--print-config", "-c", "a.toml", "app:app", cwd=directory, env=environment)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "app:app can be served")
    lines = {line.split()[0]: line.split(" = ", 1)[1] for line in result.stdout.splitlines()[:-1]}
    assert lines["workers"] == '"3"  (from GUNICORN_CMD_ARGS)'
    assert lines["keep_alive"] == '"7"  (from a.toml)'
    assert lines["threads"] == '"1"  (from the defaults)'
    # An application that fails is named after the listing.
    result = run("--print-config", "absent:app", cwd=directory)
    assert result.returncode == 4 and "there is no module" in result.stderr
    assert result.stdout.startswith("app ")
    result = run("exec", "--print-config", "-w", "2", "true", cwd=directory)
    assert result.returncode == 0 and "threads" not in result.stdout
    assert '"2"  (from the command line)' in result.stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["relaod", "-p", "a.pid"], "unknown command 'relaod'; is 'reload' meant?"),
        (["restart"], "unknown command 'restart'; is 'reload' meant?"),
        (["--wrokers", "2", "app:app"], "unknown option '--wrokers'; is '--workers' meant?"),
        (["exec", "--reload", "x"], "`mcsup reload` starts its new version (try 'mcsup exec --help')"),
        (["service", "systemd", "app:app", "--service-name", "x"], "--service-name is an option of mcsup service"),
        (["doctor", "-w", "2", "--json"], "--json is an option of mcsup doctor"),
        (["service", "systemd", "--systemd", "new", "app:app"], "not a whole number"),
    ],
)
def test_a_typing_error_is_answered_with_what_is_meant(directory, words, hint):
    result = run(*words, cwd=directory)
    assert result.returncode == USAGE
    assert hint in result.stderr and result.stderr.count("\n") == 1


def test_a_module_that_is_named_almost_like_a_command_is_served(directory):
    (directory / "shop.py").write_text(HELLO.replace("def app", "def application"))
    result = run("shop", "--check-config", cwd=directory)
    assert (result.returncode, result.stdout) == (0, "shop can be served\n")


@pytest.mark.parametrize("source", ["environment", "file"])
def test_a_program_has_no_settings_of_python_applications(directory, source):
    (directory / "a.toml").write_text("preload = true\n")
    words = ["-c", "a.toml"] if source == "file" else []
    environment = clean_environment(**({} if source == "file" else {"MCSUP_CMD_ARGS": "--preload"}))
    result = run("exec", *words, "true", cwd=directory, env=environment)
    where = "a.toml:1: preload" if source == "file" else "MCSUP_CMD_ARGS: --preload"
    assert result.returncode == USAGE
    assert f"mcsup: {where} has no meaning for a program\n" == result.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_options_and_commands(directory):
    script = """
    source <("$1" completions bash)
    complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _mcsup mcsup "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[@]}"; }
    complete_words mcsup --gracef
    complete_words mcsup relo
    complete_words mcsup exec --stop-s
    """
    result = subprocess.run(["bash", "-c", script, "bash", str(MCSUP)], cwd=directory, capture_output=True, text=True)
    assert result.stdout.split() == ["--graceful-timeout", "reload", "--stop-signal"], result


@pytest.mark.skipif(shutil.which("man") is None, reason="no man")
def test_the_man_page_is_formatted_without_a_complaint(directory):
    (directory / "mcsup.1").write_text(run("man", cwd=directory).stdout)
    result = subprocess.run(["man", "--warnings", "-l", "mcsup.1"], cwd=directory, capture_output=True, text=True)
    assert result.returncode == 0 and "graceful-timeout" in result.stdout
    assert result.stderr == ""
