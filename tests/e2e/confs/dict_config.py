# As projects write it that configure logging themselves: the same handlers for the server and the application.
import logging.config
import os

bind = "127.0.0.1:" + os.environ["TEST_PORT"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"app": {"format": "%(levelname)s|%(name)s|%(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "app.log", "formatter": "app"}},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["file"], "propagate": False},
        "project": {"level": "INFO", "handlers": ["file"], "propagate": False},
    },
}


def post_fork(server, worker):
    logging.config.dictConfig(LOGGING)
    worker.log.info("worker %s logs to a file", worker.age)


def post_request(worker, req, environ, resp):
    worker.log.info("%s %s -> %s, %s bytes", req.method, req.path, resp.status, resp.sent)
