"""Executes a configuration in Python as gunicorn does."""

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from types import TracebackType
from typing import Any, Dict, Optional


def execute_file(path: str) -> Dict[str, Any]:
    """Runs the file as the module `__config__`, and returns its variables."""
    name = "__config__"
    is_usual = os.path.splitext(path)[1] in (".py", ".pyc")
    loader = None if is_usual else importlib.machinery.SourceFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return vars(module)


def execute_module(name: str) -> Dict[str, Any]:
    """Imports the module again, and returns its variables. After an error the earlier module stays."""
    earlier = sys.modules.pop(name, None)
    try:
        return vars(importlib.import_module(name))
    except BaseException:
        if earlier is not None:
            sys.modules[name] = earlier
        raise


def without_callers(trace: Optional[TracebackType]) -> Optional[TracebackType]:
    """The traceback from the first frame of the configuration on: this file and the import system have called it."""
    ours = (execute_file.__code__.co_filename, importlib.__file__)
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name not in ours and not name.startswith("<frozen importlib"):
            break
        trace = trace.tb_next
    return trace


def line_of(error: BaseException, trace: Optional[TracebackType], path: str) -> Optional[int]:
    """The line of the file at `path` at which `error` was raised, or which is no Python."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    lines = [line for frame, line in traceback.walk_tb(trace) if frame.f_code.co_filename == path]
    return lines[-1] if lines else None
