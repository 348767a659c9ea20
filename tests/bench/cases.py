"""The cases: what is served, what is asked, and which figure tells."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import clients
import neighbours

BROWSER = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Connection: keep-alive",
    "Cookie: session=0123456789abcdef0123456789abcdef",
    "Upgrade-Insecure-Requests: 1",
    "Cache-Control: max-age=0",
]


@dataclass(frozen=True)
class Case:
    """One table."""

    name: str
    what: str
    app: str
    load: Callable  # of the port and the seconds
    module: str = "apps"
    workers: int = 1
    threads: int = 1
    floor: tuple | None = None  # arguments of the floor, where there is one
    logged: bool = False  # once more with an access log
    figure: str = "cpu"  # what the rows are ordered by and compared in: cpu, rps or p99
    extra: tuple = ()  # further columns, each with key and title
    only: tuple = ()  # servers, where not all; those with threads have `peer_threads`
    peer_threads: int = 0


def wrk(connections, headers=(), script=None):
    """wrk, as a load."""
    return partial(clients.wrk, connections=connections, headers=headers, script=script)


def beside_idle(port, seconds):
    """Eight that ask beside a hundred that do not."""
    with clients.idle(port) as kept:
        result = clients.wrk(port, seconds, connections=8)
        return {**result, "kept": kept()}


def beside(work, keep, new=0):
    """Clients at their pace, a second alone and then beside those that hold the server up."""

    def load(port, seconds):
        alone = clients.paced(port, 1, keep=keep, new=new)
        with clients.beside(work, port):
            result = clients.paced(port, seconds, keep=keep, new=new)
        return {**result, "alone": alone["p99"], "also": alone["requests"]}

    return load


ALONE = (("alone", "p99 ms without"),)


def unfair(name, what, work):
    """Small clients beside clients that take all they can get, on one worker."""
    return Case(
        f"unfair: {name}",
        f"{what} Eight clients ask for six bytes 50 times a second each, four of them on new connections. One worker:"
        " mcsup with its default, granian and gunicorn gthread with four threads.",
        "site",
        beside(work, keep=True, new=4),
        figure="p99",
        extra=(("requests", "answers"), ("worst", "worst ms"), *ALONE),
        only=("mcsup", "granian", "gunicorn gthread"),
        peer_threads=4,
    )


CASES = [
    Case("hello", "Six bytes, 64 connections, wrk's own headers.", "hello", wrk(64), floor=(), logged=True),
    Case("hello, browser", "The same with the nine headers of a browser.", "hello", wrk(64, BROWSER), floor=()),
    Case("hello, 1 connection", "One client: each request costs a wake-up.", "hello", wrk(1, BROWSER), floor=()),
    Case(
        "hello, 16 threads",
        "Sixteen threads where one would do. A uwsgi thread serves one kept connection: 48 of the 64 starve.",
        "hello",
        wrk(64, BROWSER),
        threads=16,
        floor=(),
    ),
    Case(
        "hello, closing",
        "A connection for each request.",
        "hello",
        wrk(64, ["Connection: close"]),
        floor=("close",),
    ),
    Case("Flask JSON", "One kibibyte of Flask's JSON, two workers on both processors.", "json", wrk(64, BROWSER), workers=2),
    Case("1 MiB down", "A body of one mebibyte in one piece, 16 connections.", "large", wrk(16)),
    Case(
        "1 MiB up",
        "One mebibyte is sent, and read with one call. 16 connections.",
        "upload",
        wrk(16, script=Path(__file__).with_name("upload.lua")),
    ),
    *(
        Case(
            f"1 MiB up, {count}",
            f"The same on {count} connections and two workers: more than is received at once.",
            "upload",
            wrk(count, script=Path(__file__).with_name("upload.lua")),
            workers=2,
        )
        for count in (16, 64, 256)
    ),
    Case(
        "100 x 1 KiB",
        "A hundred pieces of one kibibyte, length unknown, 64 connections. uwsgi does not frame such a body.",
        "stream",
        wrk(64),
    ),
    Case(
        "10 ms of waiting",
        "The application sleeps. Two workers with 16 threads, 64 connections: 3200 requests/s are all there is.",
        "nap",
        wrk(64),
        workers=2,
        threads=16,
    ),
    Case(
        "100 idle",
        "A hundred kept connections that ask nothing, eight that do. gunicorn's sync worker keeps none; a uwsgi thread"
        " serves one kept connection, so that the eight have no answer.",
        "hello",
        beside_idle,
        extra=(("kept", "idle ones kept"),),
    ),
    Case(
        "a slow view",
        "Two workers with one thread. One client requests a view of one second repeatedly; eight clients ask for"
        " six bytes 50 times a second each, on new connections.",
        "site",
        beside(clients.ask_for_a_slow_view, keep=False),
        workers=2,
        figure="p99",
        extra=ALONE,
    ),
    Case(
        "100 slow readers",
        "Of one mebibyte each, ten kibibytes a second; eight clients ask for six bytes 50 times a second each,"
        " on kept connections, of which a uwsgi thread serves one.",
        "site",
        beside(clients.read_slowly, keep=True),
        figure="p99",
        extra=ALONE,
    ),
    Case(
        "a computing thread",
        "The application has a thread that never waits. 64 connections; the processor time is the thread's.",
        "spinning",
        wrk(64, BROWSER),
        figure="rps",
    ),
    unfair(
        "chunks",
        "Twenty bodies in chunks of one byte that never end, for an application that does not read them.",
        neighbours.chunk_floods,
    ),
    unfair(
        "uploads",
        "Four bodies of one gibibyte, again and again, for an application that does not read them.",
        neighbours.uploads,
    ),
    unfair("downloads", "Four files of one gibibyte by `wsgi.file_wrapper`, again and again.", neighbours.downloads),
    unfair("pipelines", "Four connections with requests that are sent ahead without end.", neighbours.pipelines),
    unfair("slow readers", "A hundred, of one mebibyte each, ten kibibytes a second.", clients.read_slowly),
    unfair("heads", "A hundred heads that never end, in fields of eight kilobytes.", neighbours.heads),
    unfair("drips", "Two hundred heads that come a byte at a time.", neighbours.drips),
    unfair(
        "comers", "Sixteen clients that ask on new connections as fast as they have their answers.", neighbours.comers
    ),
]
