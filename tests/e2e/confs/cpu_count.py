# As deployments write it whose size follows the machine.
import multiprocessing
import os

bind = f"127.0.0.1:{os.environ['TEST_PORT']}"
workers = min(multiprocessing.cpu_count() * 2 + 1, int(os.getenv("GUNICORN_MAX_WORKERS", "3")))
worker_class = "gthread"
threads = int(os.getenv("PYTHON_MAX_THREADS", "2"))
worker_connections = 1000
max_requests = 1000
max_requests_jitter = 50
timeout = 120
graceful_timeout = 5
keepalive = 5
worker_tmp_dir = "/dev/shm"
accesslog = "-"
errorlog = "-"
loglevel = os.getenv("LOG_LEVEL", "info")
