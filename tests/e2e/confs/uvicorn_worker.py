# As projects write it whose application speaks ASGI.
import os

bind = "127.0.0.1:" + os.environ["TEST_PORT"]
worker_class = "uvicorn.workers.UvicornWorker"
workers = 2
