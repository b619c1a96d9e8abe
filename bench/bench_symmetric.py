"""Symmetric flows side by side with their Fourier transforms alone and with a PyTorch flow.

    python bench/bench_symmetric.py --quick     # 3 minutes
    python bench/bench_symmetric.py             # 7 minutes

Writes results/symmetric.json and results/symmetric.md. See README.md for what is measured and how.
"""

import argparse
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from field_worker import LAYERS
from measure import cores, duration, markdown, slope, write
from peers import PYTHON, Process, field_peer_is_here

WORKER = Path(__file__).resolve().parent / "field_worker.py"
SECTIONS = ("side", "axial", "size", "memory", "second_field", "window")
BESIDE_PLAIN = {"second_field": ["second field"], "window": ["window", "white window", "noise map"]}
MESH = (128, 128)
BATCH = 16  # pyflow's default, and so are these:
PSI_KNOTS, FILTER_KNOTS = 8, 128
AIMS = {"density": 3, "step": 5}  # most times the transforms alone that is aimed at
AXIAL_AIM = 1.2  # most times the isotropic flow
OPERATIONS = ("density", "forward", "inverse", "sample", "step")
MAPS, EPOCHS = 1000, 60  # of a full training


class Plan(NamedTuple):
    """How much to measure."""

    rounds: int  # in which competitors take turns
    repeats: int  # of an operation in a round
    fields: int
    squares: tuple  # sides of meshes
    cubes: tuple


FULL = Plan(5, 2, 64, (64, 128, 256, 512, 1024), (32, 64, 128, 256))
QUICK = Plan(3, 1, 32, (64, 128, 256, 512), (32, 64))


def worker(kind, threads, simd=None):
    """Start a process of field_worker.py."""
    python = sys.executable if kind == "pyflow" else PYTHON
    environment = {} if simd is None else {"PYFLOW_SIMD": str(simd)}
    arguments = [WORKER, kind, str(threads)]
    return Process(f"field-{kind}-{threads}-{simd}", python, arguments, threads, environment)


def simd_levels():
    """Return {name: PYFLOW_SIMD} of the instruction sets to measure."""
    flags = Path("/proc/cpuinfo")
    has_512 = flags.exists() and "avx512bw" in flags.read_text()
    return {"AVX-512": 5, "AVX2": 2} if has_512 else {"AVX2": 2}


def medians(pairs):
    """Return the medians of [wall, processor] over a list of such pairs."""
    return [statistics.median(column) for column in zip(*pairs, strict=True)]


def summary(answers):
    """Summarise a worker's answers: seconds per field, and ratios to the transforms alone."""
    flow = [[s / a["fields"] for s in pair] for a in answers for pair in a["flow"]]
    record = {"seconds": medians(flow), "runs": flow}
    if "fft" in answers[0]:
        fft = [[s / a["fields"] for s in pair] for a in answers for pair in a["fft"]]
        ratios = [np.divide(f, t).tolist() for f, t in zip(flow, fft, strict=True)]
        record |= {"fft_seconds": medians(fft), "over_fft": medians(ratios)}
    return record


def side_by_side(plan, with_original):
    """Measure every operation on 128^2 maps, competitors in turn.

    Returns a list of {"threads", "flow", operation: summary}; those of pyflow have "times_faster"
    in a summary, [wall, processor], where the original can do the operation too.
    """
    threads = [1, 2] if cores() > 1 else [1]
    records = []
    with ExitStack() as stack:
        crew = []
        for n in threads:
            for name, simd in simd_levels().items():
                crew.append((n, name, stack.enter_context(worker("pyflow", n, simd))))
            if with_original:
                peer = stack.enter_context(worker("original", n))
                peer.ask("setup", mesh=MESH, n=BATCH, batch=BATCH, psi_knots=PSI_KNOTS,
                         filter_knots=FILTER_KNOTS)  # fmt: skip
                crew.append((n, "original", peer))
        answers = {}
        for _ in range(plan.rounds):
            for operation in sorted(OPERATIONS, key="step".__ne__):  # the step fits the flow
                for n, name, process in crew:
                    if name == "original" and operation in ("forward", "inverse"):
                        continue  # its density gives z too, and it samples from a given z
                    size = {"mesh": MESH, "n": plan.fields, "batch": BATCH}
                    arguments = size if operation == "step" and name != "original" else {}
                    answer = process.ask(operation, repeats=plan.repeats, **arguments)
                    answers.setdefault((n, name), {}).setdefault(operation, []).append(answer)
    for (n, name), of in answers.items():
        records.append({"threads": n, "flow": name} | {o: summary(a) for o, a in of.items()})
    for record in records:
        peers = [
            r for r in records if r["flow"] == "original" and r["threads"] == record["threads"]
        ]
        for operation in OPERATIONS if record["flow"] != "original" and peers else ():
            theirs = peers[0].get(
                {"forward": "density", "inverse": "sample"}.get(operation, operation)
            )
            pairs = zip(theirs["seconds"], record[operation]["seconds"], strict=True)
            record[operation]["times_faster"] = [a / b for a, b in pairs]
    return records


def axial(plan):
    """Return ratios [wall, processor] of an axial to an isotropic flow, in turn, on one thread."""
    records = []
    for mesh in (MESH, (64, 64, 64)):
        n = plan.fields if len(mesh) == 2 else 4
        with worker("pyflow", 1) as process:
            batch, repeats = min(n, BATCH), plan.rounds * plan.repeats
            answer = process.ask("axial", mesh=mesh, n=n, batch=batch, repeats=repeats)
        ratios = {
            operation: medians(np.divide(seconds, answer["isotropic"][operation]).tolist())
            for operation, seconds in answer["axial"].items()
        }
        records.append({"mesh": mesh, "ratios": ratios})
    return records


def meshes(plan):
    return [(n,) * 2 for n in plan.squares] + [(n,) * 3 for n in plan.cubes]


def size_scaling(plan):
    """Measure density and training step against the number of pixels, on one thread.

    Returns {"meshes": [{"mesh", "density", "step"}], "exponents": {"2-D density": b, ...}}:
    processor time per field goes as (N log N)^b.
    """
    records = []
    for mesh in meshes(plan):
        pixels = int(np.prod(mesh))
        n = int(np.clip(2**20 // pixels, 2, plan.fields))
        repeats = plan.rounds if pixels < 2**22 else 2
        with worker("pyflow", 1) as process:
            step = process.ask("step", mesh=mesh, n=n, batch=min(n, BATCH), repeats=repeats)
            density = process.ask("density", repeats=repeats)
        records.append({"mesh": mesh, "step": summary([step]), "density": summary([density])})
    exponents = {}
    for dimension in (2, 3):
        chosen = [r for r in records if len(r["mesh"]) == dimension]
        for operation in ("density", "step"):
            for what in ("seconds", "fft_seconds"):
                pixels = np.array([np.prod(r["mesh"]) for r in chosen], dtype=float)
                times = [r[operation][what][1] for r in chosen]
                name = f"{dimension}-D {operation}" + (" transforms" if what != "seconds" else "")
                exponents[name] = slope(pixels * np.log(pixels), times)
    return {"meshes": records, "exponents": exponents}


def memory(plan):
    """Return peaks in bytes above the data held, of a fit and of a density, on one thread."""
    records = []
    for mesh in meshes(plan):
        record = {"mesh": mesh, "field": 4 * int(np.prod(mesh))}
        with worker("pyflow", 1) as process:
            path = os.path.join(process.scratch.name, "flow")
            record["fit"] = process.ask("fit_memory", mesh=mesh, n=2, path=path)
            with worker("pyflow", 1) as fresh:
                record["density"] = fresh.ask("density_memory", mesh=mesh, n=2, path=path)
        records.append(record)
    return records


# ---- the report ----------------------------------------------------------------------------------


def both(pair, write_one):
    return f"{write_one(pair[0])} ({write_one(pair[1])})"


def times(value):
    return f"{value:.3g}x"


def side_section(records):
    header = ["128^2, time per map", "flow", "transforms alone", "flow / transforms", "aim"]
    header += ["original / flow"]
    lines = []
    for record in records:
        for operation in OPERATIONS:
            if operation not in record:
                continue
            of = record[operation]
            fft = "fft_seconds" in of
            aim = AIMS.get(operation) if fft else None
            lines.append(
                [
                    f"{record['flow']}, threads {record['threads']}: {operation}",
                    both(of["seconds"], duration),
                    both(of["fft_seconds"], duration) if fft else "",
                    both(of["over_fft"], times) if fft else "",
                    f"at most {aim}" if aim else "",
                    both(of["times_faster"], times) if "times_faster" in of else "",
                ]
            )
    notes = (
        f"Wall clock, processor time in brackets. {LAYERS} layers: a density, forward, inverse or "
        f"sample is compared with {LAYERS} transforms and inverses, a step with {2 * LAYERS}."
    )
    return markdown(header, lines) + "\n\n" + notes


def threads_section(records):
    lines = []
    for name in dict.fromkeys(r["flow"] for r in records):
        one, *more = [r for r in records if r["flow"] == name]
        for record in more:
            for operation in ("density", "step"):
                gain = one[operation]["seconds"][0] / record[operation]["seconds"][0]
                lines.append([f"{name}: {operation}, {record['threads']} threads", times(gain)])
    for record in records:
        total = MAPS * EPOCHS * record["step"]["seconds"][0]
        processor = MAPS * EPOCHS * record["step"]["seconds"][1]
        lines.append(
            [
                f"{record['flow']}, threads {record['threads']}: {MAPS} maps x {EPOCHS} epochs",
                both([total, processor], duration),
            ]
        )
    return markdown(["threads: wall-clock gain; a full training", ""], lines)


def axial_section(records):
    lines = [
        [f"{' x '.join(map(str, r['mesh']))}: {o}", both(pair, times), f"at most {AXIAL_AIM}"]
        for r in records
        for o, pair in r["ratios"].items()
    ]
    return markdown(["one thread, axial / isotropic flow", "", "aim"], lines)


def size_section(record):
    header = ["one thread, ns of processor per pixel", "density", "its transforms", "ratio"]
    header += ["step", "its transforms", "ratio"]
    lines = []
    for r in record["meshes"]:
        pixels = np.prod(r["mesh"])
        line = [" x ".join(map(str, r["mesh"]))]
        for operation in ("density", "step"):
            of = r[operation]
            per = [of[k][1] / pixels * 1e9 for k in ("seconds", "fft_seconds")]
            line += [f"{per[0]:.1f}", f"{per[1]:.1f}", times(of["over_fft"][1])]
        lines.append(line)
    exponents = ", ".join(f"{name} {b:.2f}" for name, b in record["exponents"].items())
    return markdown(header, lines) + f"\n\nTime goes as (N log N)^b for N pixels; b: {exponents}."


def memory_section(records):
    lines = []
    for r in records:
        line = [" x ".join(map(str, r["mesh"])), f"{r['field'] / 2**20:.2f}"]
        for what in ("density", "fit"):
            above = r[what]["peak"] - r[what]["held"]
            line += [f"{above / 2**20:.1f}", f"{above / r['field']:.1f}"]
        lines.append(line)
    header = ["one thread, 2 fields, MiB", "a field", "density", "in fields", "fit", "in fields"]
    return (
        markdown(header, lines) + "\n\nPeak resident memory above what the process and data held."
    )


def beside_plain(plan, kinds):
    """Measure what a second field of each point, or a window, costs, on one thread."""
    records = []
    for kind in kinds:
        for mesh in ((64, 64), MESH, (32, 32, 32)):
            with worker("pyflow", 1) as process:
                size = {"mesh": mesh, "n": plan.fields, "batch": BATCH, "kind": kind}
                answer = process.ask("beside_plain", repeats=2 * plan.rounds, **size)
            ratio = {o: statistics.median(b / a for a, b in pairs) for o, pairs in answer.items()}
            records.append({"kind": kind, "mesh": mesh, "ratio": ratio})
    return records


def beside_plain_section(records):
    operations = ("density", "sample", "step")
    lines = [
        [
            f"{r['kind']}, {' x '.join(map(str, r['mesh']))}",
            *(times(r["ratio"][o]) for o in operations),
        ]
        for r in records
    ]
    return markdown(["one thread: over a plain flow, processor time", *operations], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller meshes")
    parser.add_argument("--sections", nargs="*", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--trenf", help="checkout of the original (default: $PYFLOW_BENCH_TRENF)")
    options = parser.parse_args()
    if options.trenf:
        os.environ["PYFLOW_BENCH_TRENF"] = options.trenf
    plan = QUICK if options.quick else FULL
    record, report = {"quick": options.quick}, []
    if "side" in options.sections:
        record["side"] = side_by_side(plan, field_peer_is_here())
        report += [side_section(record["side"]), threads_section(record["side"])]
    if "axial" in options.sections:
        record["axial"] = axial(plan)
        report.append(axial_section(record["axial"]))
    if "size" in options.sections:
        record["size"] = size_scaling(plan)
        report.append(size_section(record["size"]))
    if "memory" in options.sections:
        record["memory"] = memory(plan)
        report.append(memory_section(record["memory"]))
    for section, kinds in BESIDE_PLAIN.items():
        if section in options.sections:
            record[section] = beside_plain(plan, kinds)
            report.append(beside_plain_section(record[section]))
    write("symmetric", record, report)


if __name__ == "__main__":
    main()
