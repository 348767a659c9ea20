"""Clients that take all they can get leave the others their share, and the worker alive.

The short form of the cases "unfair" of tests/bench, with mcsup alone: ratios within one run, and for the longest wait a part of
the run's length.
"""

import importlib.util

import pytest
from harness import TOP

BENCH = TOP / "tests" / "bench"
SECONDS = 2.5


def load(name):
    """A module of the benchmark, which other tests have others of the same name of."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


clients, neighbours = load("clients"), load("neighbours")


@pytest.mark.parametrize("neighbour", ["chunk_floods", "uploads", "downloads", "pipelines"])
def test_eight_small_clients_are_served_beside(neighbour, serve, record_property):
    server = serve((BENCH / "apps.py").read_text(), "--timeout", "2", app="app:site")
    workers = server.worker_pids()
    alone = clients.paced(server.port, 0.5, new=4)
    with clients.beside(getattr(neighbours, neighbour), server.port):
        beside = clients.paced(server.port, SECONDS, new=4)
    record_property("p50, p99 and worst in ms", [round(beside[key], 1) for key in ("p50", "p99", "worst")])
    assert beside["rps"] > 0.8 * alone["rps"], (alone, beside)
    assert beside["errors"] == 0, beside
    # A client that had to wait catches up, so the number of answers alone does not show a long wait.
    assert beside["worst"] < SECONDS * 1000 / 5, beside
    assert server.worker_pids() == workers, server.log
