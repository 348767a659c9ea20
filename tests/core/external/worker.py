"""A worker in another language: it answers one line for each connection, and stops at TERM."""

import os
import select
import signal
import socket
import subprocess
import sys
import time

STOP = []
signal.signal(signal.SIGTERM, lambda *_: STOP.append(True))
LISTENER = socket.socket(fileno=3)


def descendant():
    """A grandchild that has left its group and session and has no living parent; it ignores TERM."""
    command = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 600' & exit 0"
    process = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
    return process.stdout.readline().strip()


def answer(question):
    """The answer to a question about this process."""
    if question.startswith("/"):
        return open(question, encoding="utf-8", errors="replace").read()
    if question.startswith("say "):
        print(question[4:], flush=True)
        print(question[4:], file=sys.stderr, flush=True)
    if question.startswith("flood "):
        line = b"x" * 99 + b"\n"
        for _ in range(int(question[6:]) // 100):
            os.write(1, line)
    if question.startswith("sleep "):
        print("the request has begun", flush=True)
        time.sleep(float(question[6:]))
    if question == "exit":
        os._exit(7)
    return {
        "pid": lambda: str(os.getpid()),
        "parent": lambda: str(os.getppid()),
        "environment": lambda: "\n".join(f"{name}={value}" for name, value in os.environ.items()),
        "arguments": lambda: "\n".join(sys.argv[1:]),
        "descriptors": lambda: " ".join(str(fd) for fd in range(256) if is_open(fd)),
        "umask": lambda: oct(os.umask(0)),
        "nice": lambda: str(os.nice(0)),
        "cpus": lambda: " ".join(map(str, sorted(os.sched_getaffinity(0)))),
        "blocking": lambda: str(os.get_blocking(3)),
        "directory": os.getcwd,
        "descendant": descendant,
    }.get(question, lambda: "done")()


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def main():
    if "silent" not in sys.argv:
        os.write(int(os.environ["MCSUP_READY_FD"]), b"ready\n")
    while not STOP:
        if not select.select([LISTENER], [], [], 0.05)[0]:
            continue
        try:
            connection = LISTENER.accept()[0]
        except BlockingIOError:
            continue
        with connection, connection.makefile("rw") as stream:
            stream.write(answer(stream.readline().strip()))


main()
