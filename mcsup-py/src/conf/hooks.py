"""The hooks of a worker: found in a configuration, and called."""

import importlib
import inspect
import signal
import sys
import threading
from typing import Any, Callable, Dict, Tuple

# The numbers of positional arguments that gunicorn accepts.
ARITIES: Dict[str, Tuple[int, ...]] = {
    "post_fork": (2,),
    "post_worker_init": (1,),
    "worker_int": (1,),
    "worker_abort": (1,),
    "worker_exit": (2,),
    "pre_request": (2,),
    "post_request": (2, 3, 4),
}
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def collect(namespace: Dict[str, Any]) -> Dict[str, Tuple[Callable[..., Any], int]]:
    """The hooks that are defined, with the number of arguments of each."""
    return {name: checked(name, namespace[name]) for name in ARITIES if namespace.get(name) is not None}


def checked(name: str, hook: Any) -> Tuple[Callable[..., Any], int]:
    """The hook, or the TypeError that explains why it is none. A dotted name is imported, as gunicorn does."""
    if isinstance(hook, str):
        module, _, attribute = hook.rpartition(".")
        if not module:
            raise TypeError(f"{name} is {hook!r}: expected a function, or its name as MODULE.NAME")
        hook = getattr(importlib.import_module(module), attribute)
    if not callable(hook):
        raise TypeError(f"{name} is a {type(hook).__name__}: expected a function")
    count = sum(parameter.kind in POSITIONAL for parameter in inspect.signature(hook).parameters.values())
    if count not in ARITIES[name]:
        code = getattr(hook, "__code__", None)
        place = f" (line {code.co_firstlineno})" if code else ""
        expected = " or ".join(map(str, ARITIES[name]))
        raise TypeError(f"{name}{place} takes {count} positional arguments: expected {expected}")
    return hook, count


class Hooks:
    """The hooks with the objects that they are called with."""

    def __init__(self, found: Dict[str, Tuple[Callable[..., Any], int]], server: Any, worker: Any) -> None:
        self.found = found
        self.server = server
        self.worker = worker

    def call(self, name: str) -> None:
        """Calls a hook that belongs to no request. An exception of it is logged; SystemExit is the caller's."""
        if name not in self.found:
            return
        hook, count = self.found[name]
        try:
            hook(*(self.server, self.worker)[2 - count :])
        except Exception:
            self.worker.log.exception("Exception in the hook %s", name)

    def end(self, name: str) -> None:
        """Calls a hook of a worker that ends anyway."""
        try:
            self.call(name)
        except BaseException:
            self.worker.log.exception("Exception in the hook %s", name)

    def catch_abort(self, dump_to: int) -> None:
        """From now on SIGABRT calls the hooks, after the stacks have been written to the descriptor `dump_to`."""
        if not {"worker_abort", "worker_exit"} & self.found.keys():
            return
        if threading.current_thread() is not threading.main_thread():
            # A worker that a test runs on a thread gets no signals.
            return
        import faulthandler

        # `faulthandler` calls the handler that it finds here after its own.
        faulthandler.disable()
        signal.signal(signal.SIGABRT, self.abort)
        faulthandler.enable(file=dump_to, all_threads=True)

    def abort(self, *_: Any) -> None:
        """The end of a worker that gets SIGABRT."""
        self.worker.stop(aborted=True)
        self.end("worker_abort")
        self.end("worker_exit")
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        # The supervisor sees the same end as without hooks.
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGABRT)
