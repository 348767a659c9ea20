# As Django projects with prometheus_client write it: a multiprocess directory, cleaned up by hooks.
import os
import shutil

from prometheus_client import multiprocess

bind = ["127.0.0.1:" + os.environ["TEST_PORT"]]
wsgi_app = "project.wsgi:application"
workers = 2
preload_app = os.environ.get("PRELOAD") == "yes"
raw_env = ["DJANGO_SETTINGS_MODULE=project.settings.production"]
metrics = os.environ["PROMETHEUS_MULTIPROC_DIR"]


def on_starting(server):
    shutil.rmtree(metrics, ignore_errors=True)
    os.makedirs(metrics)
    server.log.info("metrics of %d workers are in %s", server.num_workers, metrics)


def when_ready(server):
    server.log.info("Server is ready. Spawning workers")


def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)


def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
    server.log.info("metrics of %s are marked", worker.pid)
