# As projects write it that give gunicorn's loggers handlers of their own.
import os

bind = "127.0.0.1:" + os.environ["TEST_PORT"]
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "WARNING", "handlers": ["console"]},
    "formatters": {
        "error": {"format": "%(levelname)s %(name)s: %(message)s"},
        "access": {"format": "access: %(message)s"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "error", "stream": "ext://sys.stderr"},
        "error": {"class": "logging.FileHandler", "filename": "error.log", "formatter": "error"},
        "access": {"class": "logging.FileHandler", "filename": "access.log", "formatter": "access"},
    },
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["error"], "propagate": False, "qualname": "gunicorn.error"},
        "gunicorn.access": {"level": "INFO", "handlers": ["access"], "propagate": False, "qualname": "gunicorn.access"},
    },
}
access_log_format = '%(m)s %(U)s %(s)s'


def post_worker_init(worker):
    worker.log.info("worker %s has its application", worker.pid)
