"""How the benchmarks measure and report: interleaved repeats, medians, JSON and Markdown."""

import datetime
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"


def cores():
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine():
    """Name the machine: every figure in a report was seen on it."""
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "date": datetime.date.today().isoformat(),
    }


def _cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def seconds(function, *args, **kwargs):
    """Return the wall-clock seconds that one call takes, and what it returned."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result


def interleaved(tasks, repeats):
    """Run competing tasks in turn, so that a slow spell of the machine hits all of them alike.

    Parameters
    ----------
    tasks : dict of name -> callable without arguments
    repeats : int, or dict of name -> int
        How often each task runs.

    Returns
    -------
    dict of name -> list of what the task returned
    """
    counts = {name: repeats[name] if isinstance(repeats, dict) else repeats for name in tasks}
    results = {name: [] for name in tasks}
    for round_ in range(max(counts.values(), default=0)):
        for name, task in tasks.items():
            if round_ < counts[name]:
                results[name].append(task())
    return results


def mean_se(values):
    """Return the mean of `values` and its standard error."""
    values = np.asarray(values, dtype=np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(error)


def slope(x, y):
    """Return the exponent b of the power law y = a x^b that fits best in log-log."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def markdown(header, rows):
    """Return a Markdown table; the first column is left-aligned, the others right-aligned."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def duration(value):
    """Write a number of seconds with three digits and a fitting unit."""
    if value is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 else f"{value:.0f} s"
    return f"{value / 1e-9:.3g} ns"


def write(name, record, sections):
    """Write `results/name.json` and `results/name.md`, and print the latter.

    `sections` is a list of Markdown blocks; the machine's name is put on top of them.
    """
    RESULTS.mkdir(exist_ok=True)
    here = machine()
    title = f"Seen on {here['cpu']}, {here['cores']} cores, {here['system']}, {here['date']}."
    text = "\n\n".join([title, *sections]) + "\n"
    record = {"machine": here, **record}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
    print(f"\n{text}\nwritten: {RESULTS / name}.json, .md")
