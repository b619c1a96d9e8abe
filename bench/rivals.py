"""Test log p of GIS beside neural flows, vine copulas, mixtures, kernel densities, its original.

    python bench/rivals.py [--quick] [--seeds 3] [--tables concrete wine]
    python bench/rivals.py --fit [--limit 300] [--tables ...] [--rivals nsf maf]

The tables of tables.py and parts of `protein`, n = 100 to 10,000 rows. What rivals reach depends on
no code of pyflow: `--fit` runs those that are not stored yet, one at a time, and adds them to
rivals.json and rivals.npz (log p of every test row); a fit stops after `--limit` seconds of
processor time (worker.py says how each is tuned). Without it, pyflow fits with default settings and
of autoregressive layers, one thread, and is reported beside what is stored, row by row.
Writes results/rivals.{json,md,png}.
"""

import argparse
import json
import os
import threading
import time
from pathlib import Path

import data
import learning_curves
import numpy as np
import tables
from measure import RESULTS, machine, markdown, mean_se, write
from peers import PeerError, Worker, installed_peers

STORED = Path(__file__).resolve().parent / "rivals.json"
ROWS = STORED.with_suffix(".npz")
SAMPLES = 5000
OURS = {"pyflow": {}, "pyflow autoregressive": {"autoregressive": True}}
IN_PROCESS = {"Gaussian": tables.gaussian, "kde": learning_curves.kde}
IN_PROCESS |= {"mixture": learning_curves.mixture}
RIVALS = "Gaussian", "kde", "mixture", "vine", "maf", "nsf", "original", "sinflow"
TITLES = {
    "kde": "kernel density",
    "mixture": "Gaussian mixture",
    "vine": "vine copula",
    "maf": "MAF",
    "nsf": "NSF",
    "original": "original GIS",
}
# Cross-validation of a kernel density takes the square of the rows, and it is far behind by then.
MOST_ROWS = {"kde": 5000}
# One colour-blind-safe colour (Okabe and Ito) and one marker for each estimator.
MARKS = {  # of pyflow.plots.style(), and greys
    "pyflow": ("C0", "D"),
    "pyflow autoregressive": ("C5", "D"),
    "nsf": ("C1", "o"),
    "maf": ("C3", "s"),
    "vine": ("C4", "^"),
    "mixture": ("C2", "v"),
    "kde": ("0.35", "P"),
    "original": ("0.45", "X"),
    "sinflow": ("0.6", "*"),
    "Gaussian": ("0.7", "."),
}


def protein(n):
    """Return n training rows of protein, a fifth as many for validation (20 at least)."""
    table = data.load("protein").subset(n, max(n // 5, 20), seed=0)
    test = table.test[: learning_curves.TEST_ROWS]
    return table._replace(name=f"protein, {n:,} rows", test=test)


def makers():
    """Return {name: function without arguments that makes the table}, small ones first."""
    named = {name: (tables.shared, name) for name in tables.NAMED}
    named |= {"miniboone": (data.load, "miniboone")}
    named |= {f"friedman{n}": (tables.friedman, n) for n in tables.FRIEDMAN}
    named |= {f"protein{n}": (protein, n) for n in learning_curves.SIZES}
    return {name: lambda make=make, what=what: make(what) for name, (make, what) in named.items()}


def fingerprint(table):
    """Return what tells that stored results are of these rows."""
    parts = table.train, table.val, table.test
    return [[len(part) for part in parts], [float(np.abs(part).mean()) for part in parts]]


def same(one, other):
    return one[0] == other[0] and np.allclose(one[1], other[1], rtol=1e-5)


def standardised(table):
    """Return the table in units of the training rows, and the log-Jacobian."""
    mean, std = (f(table.train.astype(np.float64), axis=0) for f in (np.mean, np.std))
    parts = ((part - mean) / std for part in (table.train, table.val, table.test))
    parts = [part.astype(np.float32) for part in parts]
    return data.Table(table.name, *parts), -np.log(std).sum()


def fit_in_process(table, estimator):
    start = time.process_time()
    logp = IN_PROCESS[estimator](table, 0)
    return {"seconds": time.process_time() - start}, logp


def fit_peer(table, estimator, limit):
    """Fit in a process of its own; return the record and log p of the test rows.

    The process is ended when the whole takes 5 times as long as the limit.
    """
    limits = {} if estimator == "sinflow" else {"limit": limit}
    with Worker(estimator, threads=1) as worker:
        timer = threading.Timer(5 * limit, worker.process.kill)
        timer.start()
        try:
            record = worker.fit(table.train, table.val, **limits)
            logp = worker.logp(table.test)
            try:
                record |= quality(worker.samples(SAMPLES), table)
            except (PeerError, ValueError) as error:
                print(f"no samples: {error}")
        finally:
            timer.cancel()
    record.pop("layer_seconds", None)
    record["seconds"] = record.pop("processor_seconds")
    return record, logp


def quality(x, table):
    """Return how wide samples are, and how well forests tell them from held-out rows."""
    if not np.isfinite(x).all():
        raise ValueError("some are not finite")
    held_out = np.concatenate([table.val, table.test])
    return {"wide": float(tables.wide(x, held_out)), "auc": float(tables.auc(x, held_out))}


def stored():
    """Return {table: {"rows": fingerprint, "fits": {rival: record}}}, and test rows' log p."""
    records = json.loads(STORED.read_text())["tables"] if STORED.exists() else {}
    rows = dict(np.load(ROWS)) if ROWS.exists() else {}
    return records, rows


def there(names):
    """Yield the names of tables that are there, and the tables."""
    for name in names:
        try:
            yield name, makers()[name]()
        except data.MissingTableError as error:
            print(f"{name} skipped: {error}")


def fit_rivals(names, rivals, limit):
    """Run and store what is not stored."""
    records, rows = stored()
    here = {*IN_PROCESS, "vine", "maf", "nsf", *installed_peers()}
    for name, table in there(names):
        of = records.setdefault(name, {"rows": fingerprint(table), "fits": {}})
        if not same(of["rows"], fingerprint(table)):
            raise SystemExit(f"{name} has other rows than those stored: delete {STORED} and {ROWS}")
        scaled, jacobian = standardised(table)
        for rival in rivals:
            if is_done(of["fits"].get(rival), limit) or rival not in here:
                continue
            if len(table.train) > MOST_ROWS.get(rival, np.inf):
                continue
            try:
                if rival in IN_PROCESS:
                    record, logp = fit_in_process(scaled, rival)
                else:
                    record, logp = fit_peer(scaled, rival, limit)
                logp = np.asarray(logp + jacobian, dtype=np.float32)
                with np.errstate(invalid="ignore"):  # rows of density zero
                    record |= {"logp": mean_se(logp)}
                rows[f"{name}/{rival}"] = logp
            except PeerError as error:
                record = {"failed": str(error).split(" (see ")[0]}
            of["fits"][rival] = {**record, "limit": limit}
            print(name, rival, of["fits"][rival], flush=True)
            write_stored(records, rows)


def is_done(record, limit):
    """Tell whether a fit is stored that more time would not change."""
    if record is None:
        return False
    cut = record.get("stopped") or "failed" in record
    return not cut or record["limit"] >= limit


def write_stored(records, rows):
    text = json.dumps({"machine": machine(), "tables": records}, indent=1)
    for path, save in (
        (STORED, lambda file: file.write(text.encode() + b"\n")),
        (ROWS, lambda file: np.savez_compressed(file, **rows)),
    ):
        part = path.with_suffix(".part")
        with open(part, "wb") as file:
            save(file)
        os.replace(part, path)


def fit_ours(table, seeds, options):
    """Fit pyflow; return the record and log p of the test rows, the mean over seeds."""
    import pyflow

    logp, seconds, qualities = [], [], []
    for seed in range(seeds):
        start = time.process_time()
        flow = pyflow.GIS(table.train, table.val, seed=seed, verbose=False, **options)
        seconds.append(time.process_time() - start)
        logp.append(flow.evaluate_density(table.test))
        qualities.append(quality(flow.sample(SAMPLES, seed=seed)[0], table))
    means = {key: float(np.mean([q[key] for q in qualities])) for key in ("wide", "auc")}
    rows = np.mean(logp, axis=0)
    seeds = [float(np.mean(of_seed)) for of_seed in logp]
    return {
        "seconds": float(np.median(seconds)),
        "logp": mean_se(rows),
        "seeds": seeds,
        **means,
    }, rows


def behind(rows):
    """Return {estimator: (mean, paired standard error) of best log p - its own} for one table.

    `rows` holds log p of the same test rows under each estimator.
    """
    rows = {name: np.asarray(logp, dtype=float) for name, logp in rows.items()}
    means = {name: logp.mean() for name, logp in rows.items()}
    best = max((name for name in rows if np.isfinite(means[name])), key=means.get)
    with np.errstate(invalid="ignore"):  # a row of density zero has no standard error
        return {name: mean_se(rows[best] - logp) for name, logp in rows.items()}


def report(results):
    """Return the Markdown blocks of {table: {estimator: (record, rows)}}."""
    found = {name for of in results.values() for name in of}
    names = [name for name in MARKS if name in found]
    header = ["table", *(TITLES.get(name, name) for name in names)]
    logps, leads, costs = [], [], []
    for table, of in results.items():
        gaps = behind({name: rows for name, (_, rows) in of.items() if rows is not None})
        lines = {"logp": [], "gap": [], "cost": []}
        for name in names:
            record, rows = of.get(name, ({}, None))
            if rows is None:
                for cells in lines.values():
                    cells.append("failed" if "failed" in record else "")
                continue
            gap, error = gaps[name]
            mean, mark = f"{record['logp'][0]:.2f}", "†" if record.get("stopped") else ""
            lines["logp"].append((f"**{mean}**" if gap == 0 or gap <= error else mean) + mark)
            lines["gap"].append("best" if gap == 0 else f"{gap:.2f} ± {error:.2f}")
            shape = f", {record['wide']:.2f}, {record['auc']:.2f}" if "wide" in record else ""
            lines["cost"].append(f"{record['seconds']:.1f} s{shape}")
        for block, cells in zip((logps, leads, costs), lines.values(), strict=True):
            block.append([table, *cells])
    return [
        "Mean test log p, nats. Bold: the best, and what is within one paired standard error of it."
        " Dagger: stopped by the limit of time.",
        markdown(header, logps),
        "Nats behind the best of its row, mean of the row-by-row difference ± standard error.",
        markdown(header, leads),
        "Processor seconds to fit, one thread, with what was tried to tune it; range of samples "
        "over that of held-out rows (1 is right); how well random forests tell samples from them "
        "(0.5: not at all).",
        markdown(header, costs),
    ]


def plot(results):
    """Draw how far each estimator is behind the best, a line a table, into results/rivals.png."""
    from matplotlib.figure import Figure

    import pyflow

    with pyflow.plots.style() as colours:
        figure = Figure(figsize=(8, 1.6 + 0.42 * len(results)), layout="constrained")
        axis = figure.subplots()
        for y, of in enumerate(results.values()):
            gaps = behind({name: rows for name, (_, rows) in of.items() if rows is not None})
            if not y % 2:
                axis.axhspan(y - 0.5, y + 0.5, color=colours["band"], lw=0, alpha=0.5, zorder=0)
            drawn = [name for name in MARKS if name in gaps and np.isfinite(gaps[name]).all()]
            for k, name in enumerate(drawn):
                (gap, error), (colour, marker) = gaps[name], MARKS[name]
                ours = name in OURS
                axis.errorbar(
                    gap,
                    y + 0.08 * (k - (len(drawn) - 1) / 2),
                    xerr=error,
                    color=colour,
                    marker=marker,
                    ms=7 if ours else 5,
                    lw=1,
                    zorder=3 if ours else 2,
                    label=TITLES.get(name, name),
                )
        handles, labels = axis.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        order = [TITLES.get(name, name) for name in MARKS if TITLES.get(name, name) in unique]
        marks = [unique[label] for label in order]
        figure.legend(marks, order, loc="outside upper center", ncols=5)
        axis.set_xscale("symlog", linthresh=0.1, linscale=0.6)
        axis.set(xlabel="test log p behind the best of the table, nats")
        axis.set(ylim=(len(results) - 0.5, -0.5))
        axis.set_yticks(range(len(results)), results)
        axis.xaxis.set_major_formatter("{x:g}")
        RESULTS.mkdir(exist_ok=True)
        figure.savefig(RESULTS / "rivals.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", action="store_true", help="fit the rivals that are not stored")
    parser.add_argument(
        "--limit", type=float, default=300, help="processor seconds for one of them"
    )
    parser.add_argument("--rivals", nargs="+", default=RIVALS, choices=RIVALS)
    parser.add_argument("--sinf", help="checkout of the original (default: $PYFLOW_BENCH_SINF)")
    parser.add_argument("--quick", action="store_true", help="concrete and housing, one seed")
    parser.add_argument("--seeds", type=int, default=3, help="of pyflow's fits")
    parser.add_argument("--tables", nargs="+", choices=list(makers()))
    options = parser.parse_args()
    if options.sinf:
        os.environ["PYFLOW_BENCH_SINF"] = options.sinf
    names = options.tables or (["housing", "concrete"] if options.quick else list(makers()))
    if options.fit:
        fit_rivals(names, options.rivals, options.limit)
        return
    import pyflow

    pyflow.set_num_threads(1)
    records, rows = stored()
    results, seeds = {}, 1 if options.quick else options.seeds
    for name, table in there(names):
        of = records.get(name, {"rows": fingerprint(table), "fits": {}})
        if not same(of["rows"], fingerprint(table)):
            print(f"{name}: the stored rivals saw other rows, and are left out")
            of = {"fits": {}}
        results[table.name] = {
            rival: (record, rows.get(f"{name}/{rival}")) for rival, record in of["fits"].items()
        }
        for ours, arguments in OURS.items():
            results[table.name][ours] = fit_ours(table, seeds, arguments)
            print(name, ours, results[table.name][ours][0], flush=True)
    plot(results)
    record = {name: {k: r for k, (r, _) in of.items()} for name, of in results.items()}
    write("rivals", {"seeds": seeds, "tables": record}, report(results))


if __name__ == "__main__":
    main()
