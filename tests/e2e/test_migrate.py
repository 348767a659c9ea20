"""`mcsup migrate`: the printed command and file serve as the command line of gunicorn did."""

import shlex

from harness import HELLO, clean_environment, free_port, run

USAGE = 2


def migrated(directory, *words):
    """The printed text, with the command and the file in it."""
    result = run("migrate", "--", *words, cwd=directory)
    assert result.stderr == "", result.stderr
    parts = result.stdout.split("\n\n")
    file = next((after for before, after in zip(parts, parts[1:]) if before.startswith("The same as a file")), "")
    return result, shlex.split(parts[1]), "".join(line.strip() + "\n" for line in file.splitlines())


def test_the_printed_command_and_the_printed_file_serve(serve, directory):
    port = free_port()
    words = ["-w", "2", "-k", "gthread", "--threads", "3", "-b", f"127.0.0.1:{port}", "--worker-tmp-dir", "/dev/shm"]
    result, command, file = migrated(directory, "gunicorn", *words, "-e", "A=it's", "app:app")
    assert result.returncode == 0
    assert "- worker_tmp_dir has no effect" in result.stdout and "A request body may have 1 GiB" in result.stdout
    server = serve(HELLO, *command[1:], bare=True, port=port)
    assert server.get()[0] == 200 and "[WARNING]" not in server.log
    assert server.stop() == 0
    (directory / "mcsup.toml").write_text(file)
    server = serve(None, "-c", "mcsup.toml", bare=True, port=port)
    server.wait_ready(2)
    assert server.get()[0] == 200


def test_a_command_line_with_a_refused_setting_names_its_equivalent(directory):
    result, command, _ = migrated(directory, "python", "-m", "gunicorn", "-k", "gevent", "app:app")
    assert (result.returncode, command) == (USAGE, ["mcsup", "app:app"])
    assert "Refused, and left out above:" in result.stdout and "--threads" in result.stdout, result.stdout


def test_words_that_are_no_command_line_of_gunicorn_are_a_usage_error(directory):
    result = run("migrate", "uwsgi", "--http", ":80", cwd=directory)
    assert result.returncode == USAGE and "mcsup migrate -- gunicorn -w 4 app:app" in result.stderr


def test_a_settings_file_of_gunicorn_is_read_as_at_a_start(directory):
    (directory / "gev.py").write_text('import os\n\nworker_class = "gevent"\n')
    result, command, _ = migrated(directory, "gunicorn", "-c", "gev.py", "app:app")
    assert (result.returncode, command) == (USAGE, ["mcsup", "--config", "gev.py", "app:app"])
    assert 'Refused in gev.py:\n\n- worker_class = "gevent" (from gev.py:3): ' in result.stdout, result.stdout
    text = 'wsgi_app = "app:app"\nworker_class = "gthread"\nthreads = 8\nbind = "unix:a.sock"\n'
    (directory / "gunicorn.conf.py").write_text(text)
    result, command, file = migrated(directory, "poetry", "run", "gunicorn")
    assert (result.returncode, command, file) == (0, ["poetry", "run", "mcsup"], "")
    assert "The settings file gunicorn.conf.py stays" in result.stdout
    assert "The Unix socket has mode 0660" in result.stdout and "sync workers" not in result.stdout, result.stdout


def test_a_settings_file_that_fails_is_an_error_of_the_migration(directory):
    (directory / "bad.py").write_text("workers = undefined\n")
    for name, part in (("nope.py", "nope.py"), ("bad.py", "bad.py, line 1: NameError")):
        result = run("migrate", "--", "gunicorn", "-c", name, "app:app", cwd=directory)
        assert result.returncode == USAGE and part in result.stderr, result.stderr


def test_the_variable_of_gunicorn_in_the_environment_counts(directory):
    environment = clean_environment(GUNICORN_CMD_ARGS="-k gevent")
    result = run("migrate", "--", "gunicorn", "app:app", cwd=directory, env=environment)
    assert result.returncode == USAGE and '- worker_class = "gevent": ' in result.stdout
