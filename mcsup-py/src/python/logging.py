"""Python's logging in a process of mcsup: the loggers gunicorn.error and gunicorn.access, as gunicorn's users know them.

Both have a handler that writes to a log of mcsup. The server's own records take this way only if a logger is not as it was
made: then they pass through it, one after another, in a thread of their own.
"""

import logging
import os
import sys

ERROR = "gunicorn.error"
ACCESS = "gunicorn.access"
STAMP = "[%Y-%m-%d %H:%M:%S %z]"
LINE = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"

# The place of the server's own records: formatters would show a further attribute.
OWN = "(mcsup)"

# The lowest level of each logger, and its handler, if it has one.
made = {}
MESSAGE = logging.Formatter()


class LogHandler(logging.StreamHandler):
    """Writes to a log of mcsup, which itself adds time, process and level to a message.

    gunicorn's handlers have a stream and a formatter, and applications use and replace both.
    """

    def __init__(self, write, reopen, stream, formatter):
        super().__init__(stream)
        self.write, self.reopen, self.usual = write, reopen, (self.stream, formatter)
        self.setFormatter(formatter)

    def emit(self, record):
        stream, formatter = self.usual
        if self.stream is not stream:
            super().emit(record)
            return
        try:
            is_line = self.formatter is not formatter
            text = (self if is_line else MESSAGE).format(record)
            self.write(record.levelno, text, is_line, record.pathname == OWN)
        except Exception:
            self.handleError(record)

    def is_changed(self, lowest):
        """Whether a record of that level would not simply be written."""
        return bool(self.filters or self.level > lowest or (self.stream, self.formatter) != self.usual)


def prepare(errors, access, level):
    """Give both loggers their handlers. `errors` writes a record; `access`: how to write one, and to open the file again."""
    plain = logging.Formatter("%(message)s")
    for name, lowest, handler in (
        (ERROR, level, LogHandler(errors, None, sys.stderr, logging.Formatter(LINE, STAMP))),
        (ACCESS, logging.INFO, access and LogHandler(*access, sys.stdout, plain)),
    ):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(lowest)
        for earlier in logger.handlers[:]:
            if isinstance(earlier, LogHandler):
                logger.removeHandler(earlier)
        if handler:
            logger.addHandler(handler)
        made[name] = (lowest, handler)


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
        "formatters": {"generic": {"format": LINE, "datefmt": STAMP}},
    }


def configure(ini, file, dictionary):
    """Configure the loggers by the first that is given: dictionary, JSON file, ini file."""
    # Here, as it needs many other modules.
    import logging.config

    if dictionary:
        logging.config.dictConfig({**defaults(), **dictionary})
    elif file:
        import json

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


def is_changed(name):
    """Whether a record of the server has to pass through the logger, as it is not as it was made."""
    logger = logging.getLogger(name)
    lowest, handler = made[name]
    return bool(
        logger.disabled
        or logger.propagate
        or logger.filters
        or logger.handlers != ([handler] if handler else [])
        or max(logger.getEffectiveLevel(), logger.manager.disable + 1) > lowest
        or (handler and handler.is_changed(lowest))
    )


def states():
    """The state of both loggers, for a comparison with a later one."""
    loggers = map(logging.getLogger, (ERROR, ACCESS))
    return {logger.name: (logger.disabled, logger.propagate, *_state(logger)) for logger in loggers}


def _state(part):
    inner = [_state(handler) for handler in getattr(part, "handlers", ())]
    return id(part), part.level, list(map(id, part.filters)), id(getattr(part, "formatter", None)), inner


def warn(text):
    """Log a warning, whatever the logger does with it."""
    made[ERROR][1].write(logging.WARNING, text, False, False)


def changed():
    """Which of both loggers are changed, and which are disabled."""
    loggers = (ERROR, ACCESS)
    return [is_changed(name) for name in loggers], [bool(logging.getLogger(name).disabled) for name in loggers]


class Atoms(dict):
    """The atoms of a request, for the format of the access log."""

    def __getitem__(self, name):
        return self.get(name.lower() if name.startswith("{") else name, "-")


def _handle(name, level, created, message, args):
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        record = logger.makeRecord(name, level, OWN, 0, message, args, None)
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
        if isinstance(handler, LogHandler) and handler.reopen:
            handler.reopen()
        elif isinstance(handler, logging.FileHandler):
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
