"""mcsup beside its peers, in interleaved rounds of one run.

The figure to trust is CPU per request: user and system time of the whole process tree, over the requests answered.
The server has one processor (or two, where it has two workers), the client the other. Requests per second depend on
what else the machine does; a ratio of medians over interleaved rounds does not, as much.

The lives are times and memory: of a start, a stop, a worker that is killed.

`make bench`, or `python bench.py [--rounds N] [--seconds N] [--lives N] [--case NAME]... [--server NAME]...
[--markdown FILE]`; `--rounds 0` leaves out the requests, `--lives 0` the lives.
"""

import argparse
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import processes
import report
import servers
from cases import CASES
from lives import LIVES


def measure(case, command, port, seconds):
    """One round of one server."""
    with processes.running(command, servers.HERE, "0" if case.workers == 1 else "0,1") as server:
        processes.wait_until_it_answers(server, port)
        processes.warm_up(port)
        before = processes.used_by(server.pid), processes.used_by_us(), processes.used_by_all(), time.monotonic()
        result = case.load(port, seconds)
        after = processes.used_by(server.pid), processes.used_by_us(), processes.used_by_all(), time.monotonic()
        its, ours, all_of_it, elapsed = (end - start for start, end in zip(before, after))
    requests = result["requests"] + result.get("also", 0)
    result["cpu"] = its * 1e6 / requests if requests else float("inf")
    result["others"] = max(all_of_it - its - ours, 0) / elapsed
    return result


def run(case, only, rounds, seconds):
    """All servers in turn, round by round: the results of each."""
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(rounds):
            for name in servers.commands(case, 0, scratch):
                if only and name not in only:
                    continue
                port = processes.free_port()
                command = servers.commands(case, port, scratch)[name]
                try:
                    result = measure(case, command, port, seconds)
                except (RuntimeError, OSError, http.client.HTTPException, subprocess.CalledProcessError) as error:
                    print(f"{case.name}: {name}: {error!r}", file=sys.stderr)
                    continue
                results.setdefault(name, []).append(result)
    return results


def live(life, only, times):
    """All servers in turn, time after time: the results of each, and what others used of the processors meanwhile."""
    results = {}
    before = processes.used_by_us(), processes.used_by_all(), time.monotonic()
    for _ in range(times):
        for name, measure_once in life.rows().items():
            if only and name not in only:
                continue
            try:
                results.setdefault(name, []).append(measure_once())
            except (RuntimeError, OSError, http.client.HTTPException, subprocess.CalledProcessError) as error:
                print(f"{life.name}: {name}: {error!r}", file=sys.stderr)
    after = processes.used_by_us(), processes.used_by_all(), time.monotonic()
    ours, all_of_it, elapsed = (end - start for start, end in zip(before, after))
    return {name: found for name, found in results.items() if found}, max(all_of_it - ours, 0) / elapsed


def main():
    """Run the cases that were asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each server in each round")
    parser.add_argument("--lives", type=int, default=15, metavar="N", help="how often a start, a stop, ... is measured")
    names = ["unfair", *(case.name for case in [*CASES, *LIVES])]
    parser.add_argument("--case", action="append", choices=names, help="only this one, or these; repeatable")
    parser.add_argument("--server", action="append", help="only this one; repeatable")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the machine and the tables there too")
    options = parser.parse_args()
    if not sys.platform.startswith("linux") or not {0, 1} <= os.sched_getaffinity(0):
        sys.exit("it needs Linux and two processors: one for the server, one for the client")
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: apt-get install wrk")

    def say(text):
        print(text, flush=True)
        if options.markdown:
            with options.markdown.open("a") as file:
                file.write(text + "\n")

    if options.markdown:
        options.markdown.write_text("")
    say(report.machine())
    for life in LIVES if options.lives else []:
        if not options.case or life.name in options.case:
            times = max(options.lives // life.share, 1)
            results, others = live(life, options.server, times)
            if results:
                say(report.table_of_lives(life, results, times, others))
    os.sched_setaffinity(0, {1})  # The clients have it from here.
    if options.rounds:
        say(f"{options.rounds} rounds, {options.seconds} s each; medians, and the least and most of the first figure.\n")
    for case in CASES if options.rounds else []:
        if not options.case or {case.name, case.name.partition(":")[0]} & set(options.case):
            results = run(case, options.server, options.rounds, options.seconds)
            if results:
                say(report.table(case, results))


if __name__ == "__main__":
    main()
