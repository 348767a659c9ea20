"""Describes the variables of a configuration, for a process that does not execute it."""

import ast
import importlib
import inspect
import sys
from typing import Any, Dict, List, Optional

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def describe(namespace: Dict[str, Any], known: List[str], hooks: List[str]) -> Dict[str, Any]:
    """The variables with the names in `known`, and the names of the others that the file itself defines."""
    lines = lines_of(namespace.get("__file__"))
    namespace = {**namespace, **of_package()}
    variables = [
        {"name": name, "line": lines.get(name), "value": (hook_of if name in hooks else value_of)(namespace[name])}
        for name in known
        if name in namespace
    ]
    others = [[name, line] for name, line in lines.items() if name not in known and not name.startswith("_")]
    return {"variables": variables, "others": others}


def of_package() -> Dict[str, Any]:
    """The attribute of the package gunicorn that is a setting, if the file has changed it."""
    server = getattr(sys.modules.get("gunicorn"), "SERVER", "gunicorn")
    return {} if server == "gunicorn" else {"gunicorn.SERVER": server}


def lines_of(path: Optional[str]) -> Dict[str, int]:
    """The last line at which each name is defined. Definitions within a function are none of the file's."""
    try:
        with open(path or "", "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        # A compiled file, for example.
        return {}
    lines: Dict[str, int] = {}
    nodes: List[ast.AST] = list(ast.iter_child_nodes(tree))
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            lines[node.name] = node.lineno
        elif not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                lines[node.id] = max(node.lineno, lines.get(node.id, 0))
            nodes.extend(ast.iter_child_nodes(node))
    return lines


def hook_of(value: Any) -> Any:
    """The value of a hook. As with gunicorn a dotted name is that of a function, which is imported."""
    if not isinstance(value, str) or "." not in value:
        return value_of(value)
    module, _, attribute = value.rpartition(".")
    try:
        hook = getattr(importlib.import_module(module), attribute)
    except BaseException as error:
        return {"Broken": f"{ascii(value)} cannot be imported: {type(error).__name__}: {error}"}
    return value_of(hook) if callable(hook) else {"Broken": f"{ascii(value)} is no function"}


def value_of(value: Any) -> Any:
    """The value with its type, as JSON."""
    if value is None:
        return "None"
    if isinstance(value, bool):
        return {"Bool": value}
    if isinstance(value, int):
        number = int(value)
        return {"Int": number} if abs(number) < 1 << 63 else {"Other": "number of more than 64 bits"}
    if isinstance(value, float):
        return {"Float": value} if abs(value) < float("inf") else {"Other": "number that is not finite"}
    if isinstance(value, str):
        return {"Text": str(value)} if value.isprintable() or is_unicode(value) else {"Other": "text that is not Unicode"}
    if isinstance(value, (list, tuple, set, frozenset)):
        return {"List": [value_of(item) for item in value]}
    if isinstance(value, dict):
        return {"Map": [[str(key), value_of(item)] for key, item in value.items()]}
    if inspect.isclass(value):
        return {"Class": f"{value.__module__}.{value.__qualname__}"}
    if callable(value):
        return {"Function": arity_of(value)}
    return {"Other": type(value).__name__}


def is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def arity_of(function: Any) -> int:
    """The number of positional arguments, as gunicorn counts them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return -1
    return sum(parameter.kind in POSITIONAL for parameter in parameters)
