"""What the application and its clients agree on: the kinds of requests, and bytes that both can make."""

import random

# Each client counts its own kind. The application counts what it is called with under the same name.
KINDS = (
    "kept", "pipelined", "small", "huge", "streamed", "slow-large", "slow-file", "slow-streamed", "close", "one-zero",
    "half-closed", "late", "before-garbage", "reset-head", "reset-body", "reset-answer", "stalled", "loris-idle",
    "loris-head", "loris-body", "garbage",
)  # fmt: skip

_BLOB = random.Random(9112).randbytes(1 << 20)


def content(start, length):
    """A part of an endless body that no two offsets have alike within a mebibyte."""
    start %= len(_BLOB)
    if start + length <= len(_BLOB):
        return _BLOB[start : start + length]
    whole = _BLOB[start:] + _BLOB * (length // len(_BLOB) + 1)
    return whole[:length]
