# After the shape of the example that comes with gunicorn: each hook logs.
import os
import sys
import threading
import traceback

bind = "127.0.0.1:" + os.environ["TEST_PORT"]
backlog = 2048
workers = 1
worker_class = "sync"
timeout = 30
keepalive = 2
spew = False
daemon = False
raw_env = ["STAGE=test"]
pidfile = None
umask = 0
user = None
group = None
tmp_upload_dir = None
errorlog = "-"
loglevel = "info"
proc_name = None


def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)


def pre_fork(server, worker):
    pass


def pre_exec(server):
    server.log.info("Forked child, re-executing.")


def when_ready(server):
    server.log.info("Server is ready. Spawning workers")


def worker_int(worker):
    worker.log.info("worker received INT or QUIT signal")
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    code = []
    for ident, stack in sys._current_frames().items():
        code.append(f"\n# Thread: {names.get(ident, '')}({ident})")
        for filename, lineno, name, _ in traceback.extract_stack(stack):
            code.append(f'File: "{filename}", line {lineno}, in {name}')
    worker.log.info("\n".join(code))


def worker_abort(worker):
    worker.log.info("worker received SIGABRT signal")

