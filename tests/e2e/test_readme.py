"""The commands of the README work as they stand there."""

import shlex

from harness import HELLO, TOP, clean_environment, free_port, get, run


def test_the_command_for_the_background_works_in_a_fresh_directory(directory):
    (directory / "server.py").write_text(HELLO)
    line = next(line for line in (TOP / "README.md").read_text().splitlines() if line.startswith("mcsup -D "))
    words = shlex.split(line, comments=True)[1:]
    port = free_port()
    environment = clean_environment(PORT=str(port))
    result = run(*words, cwd=directory, env=environment, timeout=20)
    assert result.returncode == 0, result.stderr
    pid_file = words[words.index("-p") + 1]
    try:
        assert get(port)[0] == 200
    finally:
        assert run("stop", "-p", pid_file, cwd=directory, timeout=20).returncode == 0
