"""gunicorn's corpus of HTTP requests, read from its source distribution, which is fetched and never committed.

Each case is NAME.http, the bytes in a readable form, beside NAME.py, which says what a parser should make of them.
"""

import importlib.machinery
import subprocess
import sys
import tarfile
import tempfile
import types
from dataclasses import dataclass, field
from pathlib import Path

VERSION = "27.0.1"
CACHE = Path(__file__).resolve().parents[2] / "target" / "conformance"
HOME = CACHE / f"gunicorn-{VERSION}"


@dataclass
class Case:
    """One file of the corpus."""

    name: str
    data: bytes
    settings: dict = field(default_factory=dict)
    # What should be parsed, one after the other; empty where the bytes should be refused.
    requests: list = field(default_factory=list)
    # The name of the exception with which gunicorn refuses them.
    refusal: str = ""


def fetch():
    """Make sure that the source distribution is there."""
    if HOME.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(CACHE)]
    subprocess.run([*command, f"gunicorn=={VERSION}"], check=True)
    with (
        tarfile.open(CACHE / f"gunicorn-{VERSION}.tar.gz") as archive,
        tempfile.TemporaryDirectory(dir=CACHE) as unpacked,
    ):
        # An attribute and no argument: Python 3.11.2, which is Debian 12's, knows no filters and looks at none.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(unpacked)
        # In one step, so that half a corpus is never taken for a whole one.
        (Path(unpacked) / HOME.name).rename(HOME)


def uri(raw):
    """What the corpus calls a URI: here only its text counts."""
    return raw


class Settings:
    """Stands for gunicorn's configuration: remembers what a case sets."""

    def __init__(self):
        self.values = {}

    def set(self, name, value):
        """Remember a setting."""
        self.values[name] = value


def unreadable(text):
    """The bytes that a .http file stands for: its own line breaks count for nothing, its escapes do."""
    text = text.replace(b"\n", b"")
    result, at = bytearray(), 0
    plain = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}
    while at < len(text):
        if text[at : at + 1] != b"\\":
            result += text[at : at + 1]
            at += 1
        elif text[at + 1 : at + 2] == b"x":
            result.append(int(text[at + 2 : at + 4], 16))
            at += 4
        else:
            result += plain[text[at + 1 : at + 2]]
            at += 2
    return bytes(result)


def load(path):
    """Read one case."""
    module = types.ModuleType("__config__")
    module.uri, module.cfg = uri, Settings()
    config = types.ModuleType("gunicorn.config")
    config.Config = Settings
    known = sys.modules.get("gunicorn.config")
    sys.modules["gunicorn.config"] = config
    try:
        importlib.machinery.SourceFileLoader("__config__", str(path)).exec_module(module)
    finally:
        if known is None:
            del sys.modules["gunicorn.config"]
        else:
            sys.modules["gunicorn.config"] = known
    case = Case(path.stem, unreadable(path.with_suffix(".http").read_bytes()), module.cfg.values)
    expected = module.request
    if isinstance(expected, type):
        case.refusal = expected.__name__
    else:
        case.requests = expected if isinstance(expected, list) else [expected]
    return case


def cases(kind):
    """All cases of a kind: `valid` or `invalid`."""
    fetch()
    source = str(next(path for path in (HOME / "src", HOME) if (path / "gunicorn").is_dir()))
    sys.path.insert(0, source)
    try:
        return [load(path) for path in sorted((HOME / "tests" / "requests" / kind).glob("*.py"))]
    finally:
        sys.path.remove(source)
