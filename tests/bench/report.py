"""The tables, and what they were measured on."""

import datetime
import importlib.metadata
import math
import platform
import statistics
import subprocess
from pathlib import Path

import servers

FIGURES = {"cpu": "CPU µs/request", "rps": "requests/s", "p99": "p99 ms"}


def first_line(*command):
    """What a command says first, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=servers.HERE)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def machine():
    """Where and with what, in Markdown."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = cpus[0].partition(":")[2].strip() if cpus else platform.machine()
    commit = first_line("git", "describe", "--always", "--dirty")
    version = {name: f"{name} {number}" for name, number in servers.versions().items()}
    version["mcsup"] = version.get("mcsup", "mcsup") + (f" ({commit})" if commit else "")
    rows = {
        "Date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "Processor": f"{model}, {len(cpus)} of them",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Servers": ", ".join(version.values()),
        "Flask": importlib.metadata.version("flask"),
        "Client": " ".join(first_line("wrk", "-v").split()[:2]),
    }
    lines = ["| | |", "|---|---|", *(f"| {title} | {text} |" for title, text in rows.items())]
    lines += ["", *(f"{name} is left out: {reason}." for name, reason in servers.missing().items())]
    return "\n".join(lines).rstrip() + "\n"


def number(value, digits=None):
    """A figure, with as many digits as tell something."""
    if not math.isfinite(value):
        return "never"
    if digits is None:
        digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def table(case, results):
    """One case, in Markdown. `results`: for each server, one result for each round."""
    medians = {
        name: {key: statistics.median(result[key] for result in found) for key in found[0]}
        for name, found in results.items()
    }
    best_first = sorted(medians, key=lambda name: medians[name][case.figure], reverse=case.figure == "rps")
    ours = medians.get("mcsup", {}).get(case.figure, math.nan)
    columns = ["server", FIGURES[case.figure], "of mcsup", "least to most"]
    columns += [title for key, title in FIGURES.items() if key not in (case.figure, "p99")] + ["p50 ms"]
    columns += [] if case.figure == "p99" else ["p99 ms"]
    columns += ["errors"] + [title for _, title in case.extra]
    lines = [f"### {case.name}", "", case.what, "", row(columns), row(["---"] * len(columns))]
    for name in best_first:
        median, each = medians[name], [result[case.figure] for result in results[name]]
        ratio = median[case.figure] / ours
        cells = [name, number(median[case.figure]), number(ratio, 2) if math.isfinite(ratio) else "-"]
        cells.append(f"{number(min(each))} to {number(max(each))}")
        cells += [number(median[key]) for key in FIGURES if key not in (case.figure, "p99")] + [number(median["p50"])]
        cells += [] if case.figure == "p99" else [number(median["p99"])]
        cells += [f"{median['errors']:.0f}"] + [number(median[key]) for key, _ in case.extra]
        lines.append(row(cells))
    others = [result["others"] for found in results.values() for result in found]
    lines += ["", f"Others used {statistics.median(others):.2f} processors meanwhile, at most {max(others):.2f}."]
    return "\n".join(lines) + "\n"


def table_of_lives(life, results, times, others):
    """One of the lives, in Markdown."""
    first = life.columns[0][0]
    median = {
        name: {key: statistics.median(result[key] for result in found) for key, _ in life.columns}
        for name, found in results.items()
    }
    ours = median.get("mcsup", {}).get(first, math.nan)
    columns = ["server"]
    for _, title in life.columns:
        columns += [title, "least to most"]
    columns.insert(2, "of mcsup")
    lines = [f"### {life.name}", "", life.what, "", row(columns), row(["---"] * len(columns))]
    for name in sorted(median, key=lambda name: median[name][first]):
        cells = [name]
        for key, _ in life.columns:
            each = [result[key] for result in results[name]]
            cells += [number(median[name][key]), f"{number(min(each))} to {number(max(each))}"]
        ratio = median[name][first] / ours
        cells.insert(2, number(ratio, 2) if math.isfinite(ratio) else "-")
        lines.append(row(cells))
    lines += ["", f"Medians of {times}, in turn. Others used {others:.2f} processors meanwhile."]
    return "\n".join(lines) + "\n"


def row(cells):
    """One line of a table."""
    return f"| {' | '.join(cells)} |"
