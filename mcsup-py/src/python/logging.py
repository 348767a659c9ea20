"""Python's logging in a worker, as the option --log-config has it.

The loggers gunicorn.error and gunicorn.access get the records of the server, one after another, in a thread of its own.
"""

import json
import logging
import logging.config
import os
import sys

ERROR = "gunicorn.error"
ACCESS = "gunicorn.access"
STAMP = "[%Y-%m-%d %H:%M:%S %z]"

# The loggers that get the records of the server.
fed = set()


def _console(stream):
    return {"class": "logging.StreamHandler", "formatter": "generic", "stream": f"ext://sys.{stream}"}


def _logger(handler):
    return {"level": "INFO", "handlers": [handler], "propagate": True}


def defaults():
    """The configuration that a dictionary replaces key by key: its keys are gunicorn's."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "root": {"level": "INFO", "handlers": ["console"]},
        "loggers": {ERROR: _logger("error_console"), ACCESS: _logger("console")},
        "handlers": {"console": _console("stdout"), "error_console": _console("stderr")},
        "formatters": {
            "generic": {"format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "datefmt": STAMP}
        },
    }


def configure(ini, file, dictionary, level):
    """Configure the loggers by the first that is given: dictionary, JSON file, ini file. Return which are to be fed."""
    fed.clear()
    for name, lowest in ((ERROR, level), (ACCESS, logging.INFO)):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(lowest)
    if dictionary:
        logging.config.dictConfig({**defaults(), **dictionary})
    elif file:
        with open(file, encoding="utf-8") as text:
            content = json.load(text)
        if not isinstance(content, dict):
            raise ValueError(f"{file}: expected a JSON object")
        logging.config.dictConfig({**defaults(), **content})
    elif ini:
        if not os.path.exists(ini):
            raise FileNotFoundError(f"no such file: {ini}")
        place = {"__file__": ini, "here": os.path.dirname(ini)}
        logging.config.fileConfig(ini, defaults=place, disable_existing_loggers=False)
    fed.update(name for name in (ERROR, ACCESS) if logging.getLogger(name).hasHandlers())
    return ERROR in fed, ACCESS in fed


class Atoms(dict):
    """The atoms of a request, for the format of the access log."""

    def __getitem__(self, name):
        return self.get(name.lower() if name.startswith("{") else name, "-")


def _handle(name, level, created, message, args):
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        record = logger.makeRecord(name, level, "(mcsup)", 0, message, args, None)
        record.created = created
        record.msecs = int(created % 1 * 1000) + 0.0
        logger.handle(record)


def error(level, created, message):
    """Pass a record of the error log on."""
    _handle(ERROR, level, created, message, ())


def access(created, form, line, atoms):
    """Pass a request on: a line as it is, or a format and its atoms."""
    atoms = Atoms(atoms)
    if line is None:
        _handle(ACCESS, logging.INFO, created, form, (atoms,))
    else:
        _handle(ACCESS, logging.INFO, created, "%s", (line,))


def reopen():
    """Open the files of all loggers again."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    for handler in {id(h): h for logger in loggers for h in logger.handlers}.values():
        if isinstance(handler, logging.FileHandler):
            handler.acquire()
            try:
                if handler.stream:
                    handler.close()
                    handler.stream = handler._open()
            finally:
                handler.release()


def flush():
    """Flush the standard streams, which handlers may have written to."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
