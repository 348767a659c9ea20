"""mcsup beside its peers, in interleaved rounds of one run.

The figure to trust is CPU per request: user and system time of the whole process tree, over the requests answered. The
server has one processor (or two, where it has two workers), wrk the other. Requests per second depend on what else the
machine does; a ratio of medians over interleaved rounds does not, as much.

`make bench`, or `python bench.py [--rounds N] [--seconds N] [--case NAME]...`. Needs wrk.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
FLOOR = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target")) / "release" / "examples" / "floor"
TICKS = os.sysconf("SC_CLK_TCK")

BROWSER = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Connection: keep-alive",
    "Cookie: session=0123456789abcdef0123456789abcdef",
    "Upgrade-Insecure-Requests: 1",
    "Cache-Control: max-age=0",
]

BJOERN = """
import bjoern, importlib, os, sys
app = getattr(importlib.import_module("apps"), sys.argv[1])
for _ in range(int(sys.argv[3]) - 1):
    if os.fork() == 0:
        break
bjoern.run(app, "127.0.0.1", int(sys.argv[2]), reuse_port=True)
"""
FASTPYSGI = """
import fastpysgi, importlib, sys
fastpysgi.run(getattr(importlib.import_module("apps"), sys.argv[1]), "127.0.0.1", int(sys.argv[2]), loglevel=0)
"""


def servers(app, port, workers, threads):
    """Command lines, by name. What cannot do a case is left out."""
    target, bind = f"apps:{app}", f"127.0.0.1:{port}"
    found = {
        "mcsup": [BIN / "mcsup", "-w", workers, "--threads", threads, "-b", bind, "--log-level", "error", target],
        "gunicorn gthread": [
            BIN / "gunicorn", "-w", workers, "-k", "gthread", "--threads", max(threads, 4), "-b", bind,
            "--log-level", "error", target,
        ],
        "granian": [
            BIN / "granian", "--interface", "wsgi", "--http", "1", "--workers", workers, "--blocking-threads", threads,
            "--host", "127.0.0.1", "--port", port, "--no-log", target,
        ],
    }  # fmt: skip
    if threads == 1:
        found["bjoern"] = [sys.executable, "-c", BJOERN, app, port, workers]
        if workers == 1:
            found["fastpysgi"] = [sys.executable, "-c", FASTPYSGI, app, port]
    if app == "hello" and threads == 1 and workers == 1:
        found["floor"] = [FLOOR, port]
    return {name: [str(word) for word in command] for name, command in found.items() if is_there(name, command)}


def is_there(name, command):
    """Whether a server is installed."""
    if name in ("bjoern", "fastpysgi"):
        return subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode == 0
    return Path(command[0]).exists()


# Name: application, workers, threads, connections, headers.
CASES = {
    "hello": ("hello", 1, 1, 64, BROWSER),
    "hello, 16 threads": ("hello", 1, 16, 64, BROWSER),
    "hello, 1 connection": ("hello", 1, 1, 1, BROWSER),
    "hello, closing": ("hello", 1, 1, 64, ["Connection: close"]),
    "Flask JSON, 2 workers": ("json", 2, 1, 64, BROWSER),
    "1 MiB": ("large", 1, 1, 16, []),
    "100 x 1 KiB": ("stream", 1, 1, 64, []),
    "10 ms, 2 x 16 threads": ("nap", 2, 16, 64, []),
}


def tree(pid):
    """A process and all that come of it."""
    children = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, pending = [], [pid]
    while pending:
        found.append(pending.pop())
        pending += children.get(found[-1], [])
    return found


def cpu(pids):
    """Seconds of processor time that processes have used."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(port):
    """Wait for a connection."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            if client.recv(100):
                return
        time.sleep(0.05)
    raise RuntimeError("it does not answer")


def load(port, connections, headers, seconds):
    """Run wrk: requests, requests a second, median and 99th percentile in milliseconds, errors."""
    words = [word for header in headers for word in ("-H", header)]
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", *words]
    text = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    unit = {"us": 0.001, "ms": 1, "s": 1000}

    def latency(percent):
        number, name = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", text).groups()
        return float(number) * unit[name]

    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    errors += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    return {
        "requests": int(re.search(r"(\d+) requests in", text)[1]),
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "p50": latency(50),
        "p99": latency(99),
        "errors": errors,
    }


def measure(command, port, workers, connections, headers, seconds):
    """One round of one server."""
    pinned = ["taskset", "-c", "0" if workers == 1 else "0,1"]
    server = subprocess.Popen(
        [*pinned, *command], cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until_it_answers(port)
        load(port, connections, headers, 1)
        pids = tree(server.pid)
        before = cpu(pids)
        result = load(port, connections, headers, seconds)
        result["cpu"] = (cpu(pids) - before) * 1e6 / max(result["requests"], 1)
        return result
    finally:
        pids = tree(server.pid)
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            pass
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()


def run(name, rounds, seconds):
    """All servers in turn, round by round; prints a table of medians."""
    app, workers, threads, connections, headers = CASES[name]
    results = {}
    for _ in range(rounds):
        for server in servers(app, 0, workers, threads):
            port = free_port()
            command = servers(app, port, workers, threads)[server]
            try:
                result = measure(command, port, workers, connections, headers, seconds)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                print(f"{server}: {error}", file=sys.stderr)
                continue
            results.setdefault(server, []).append(result)
    print(f"\n### {name}\n\n| server | CPU µs/request | of mcsup | requests/s | p50 ms | p99 ms | errors |")
    print("|---|---|---|---|---|---|---|")
    ours = statistics.median(result["cpu"] for result in results["mcsup"])
    for server, found in sorted(results.items(), key=lambda item: statistics.median(r["cpu"] for r in item[1])):
        median = {key: statistics.median(result[key] for result in found) for key in found[0]}
        print(
            f"| {server} | {median['cpu']:.1f} | {median['cpu'] / ours:.2f} | {median['rps']:.0f} "
            f"| {median['p50']:.2f} | {median['p99']:.2f} | {median['errors']:.0f} |",
            flush=True,
        )


def main():
    """Run the cases that were asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=list(CASES))
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: apt-get install wrk")
    for name in options.case or CASES:
        run(name, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
