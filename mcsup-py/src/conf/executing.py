"""Executes a configuration in Python as gunicorn does."""

import importlib
import importlib.machinery
import importlib.util
import linecache
import os
import sys
import traceback
from types import ModuleType, TracebackType
from typing import Any, Dict, Optional, Tuple


class _Kept:
    """Loads a file by the bytes that were read earlier."""

    path: str
    content: bytes

    def get_data(self, path: str) -> bytes:
        """The bytes of a file."""
        if path == self.path:
            return self.content
        with open(path, "rb") as file:
            return file.read()


class _KeptSource(_Kept, importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.content, self.path)


class _KeptBytecode(_Kept, importlib.machinery.SourcelessFileLoader):
    pass


def _run(name: str, path: str, content: bytes) -> ModuleType:
    loader = (_KeptBytecode if path.endswith(".pyc") else _KeptSource)(name, path)
    loader.content = content
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ImportError(f"{path} cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if isinstance(loader, _KeptSource):
        # A traceback shows these lines, and not those of a newer file. An entry without a time is never checked.
        text = content.decode("utf-8", "replace")
        linecache.cache[path] = (len(text), None, text.splitlines(True), path)
    loader.exec_module(module)
    return module


def execute_file(path: str, content: bytes) -> Dict[str, Any]:
    """Runs the file as the module `__config__`, and returns its variables."""
    return vars(_run("__config__", path, content))


def read_module(name: str) -> Optional[Tuple[str, bytes]]:
    """The file of a module and its bytes; None: it has no file of Python."""
    spec = importlib.util.find_spec(name)
    kinds = (importlib.machinery.SourceFileLoader, importlib.machinery.SourcelessFileLoader)
    if spec is None or spec.origin is None or not isinstance(spec.loader, kinds):
        return None
    return spec.origin, spec.loader.get_data(spec.origin)


def execute_module(name: str, path: Optional[str], content: bytes) -> Dict[str, Any]:
    """Executes the module again, and returns its variables. After an error the earlier module stays.

    Without a path it is imported.
    """
    earlier = sys.modules.pop(name, None)
    try:
        if path is None:
            return vars(importlib.import_module(name))
        folder, _, last = name.rpartition(".")
        package = importlib.import_module(folder) if folder else None
        module = _run(name, path, content)
        if package is not None:
            setattr(package, last, module)
        return vars(module)
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
