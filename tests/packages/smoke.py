"""Starts the installed mcsup in the current folder, gets an answer, reloads, gets another one, and stops it."""

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def mcsup(*arguments):
    """Run the command, which is to succeed."""
    result = subprocess.run([sys.executable, "-m", "mcsup", *arguments], capture_output=True, text=True, timeout=60)
    if result.returncode:
        sys.exit(f"mcsup {' '.join(arguments)} exited with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


def answer(port):
    """The body of an answer, past any proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(f"http://127.0.0.1:{port}/", timeout=10).read()


def main():
    Path("smoke_application.py").write_text(APPLICATION, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mcsup("-D", "-p", "smoke.pid", "-w", "2", "-b", f"127.0.0.1:{port}", "smoke_application:app")
    try:
        assert answer(port) == b"hello"
        mcsup("reload", "-p", "smoke.pid")
        assert answer(port) == b"hello"
    finally:
        mcsup("stop", "-p", "smoke.pid")
    print(f"{mcsup('--version').strip()} serves, reloads and stops with Python {sys.version.split()[0]}")


main()
