"""The logger of hooks: gunicorn's methods, in front of the error log of mcsup."""

import logging
import sys
from typing import Any, Callable, Union


class ErrorLogHandler(logging.Handler):
    """Passes each record to the error log of mcsup, which adds time, pid and level."""

    def __init__(self, write: Callable[[int, str], None]) -> None:
        super().__init__()
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        try:
            self.write(record.levelno, self.format(record))
        except Exception:
            self.handleError(record)


class Logger:
    """The value of `server.log` and `worker.log`."""

    LOG_LEVELS = {
        "critical": logging.CRITICAL,
        "error": logging.ERROR,
        "warning": logging.WARNING,
        "info": logging.INFO,
        "debug": logging.DEBUG,
    }

    def __init__(self, cfg: Any, write: Callable[[int, str], None], level: int) -> None:
        self.cfg = cfg
        self.loglevel = level
        self.error_log = self._logger("gunicorn.error", write, level)
        self.access_log = self._logger("gunicorn.access", write, logging.INFO)

    @staticmethod
    def _logger(name: str, write: Callable[[int, str], None], level: int) -> logging.Logger:
        """The logger, as it is where a configuration of `logging` has given handlers to it or to its parents.

        Such a logger gets the records of the error log: a handler that writes there would make each record again.
        """
        logger = logging.getLogger(name)
        configured = getattr(sys.modules.get("mcsup_logging"), "fed", ())
        if name not in configured and not logger.handlers:
            logger.addHandler(ErrorLogHandler(write))
            logger.propagate = False
            logger.setLevel(level)
        return logger

    def critical(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.critical(msg, *args, **kwargs)

    def error(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.error(msg, *args, **kwargs)

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("exc_info", True)
        self.error_log.error(msg, *args, **kwargs)

    def log(self, lvl: Union[int, str], msg: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(lvl, str):
            lvl = self.LOG_LEVELS.get(lvl.lower(), logging.INFO)
        self.error_log.log(lvl, msg, *args, **kwargs)

    def reopen_files(self) -> None:
        """Does nothing: mcsup reopens its logs itself."""

    def close_on_exec(self) -> None:
        """Does nothing: mcsup opens its logs so."""
