# As projects write it that initialise a client with threads or sockets after the fork.
import os

bind = f"127.0.0.1:{os.environ['TEST_PORT']}"
preload_app = True
workers = 2


def post_fork(server, worker):
    import error_client

    error_client.init(dsn="https://key@errors.invalid/1", server_name=f"worker-{worker.pid}")
    worker.log.info("client initialised in worker %s of %s", worker.pid, server.pid)


def worker_exit(server, worker):
    import error_client

    error_client.flush(timeout=2)
