"""The Markdown of results/gis.md, from the record that bench_gis.py measures."""

from measure import duration, markdown
from scaling import LAYERS

TITLES = {"equal": "pyflow, as good"}


def times(value):
    """Write a ratio."""
    return "fails" if value is None else f"{value:.3g}x"


def plus_minus(pair):
    """Write a mean and its standard error."""
    return f"{pair[0]:.3f} ± {pair[1]:.3f}"


def table_section(name, records, rows):
    """Return the side-by-side table of one data set."""
    header = [name, "layers", "fit", "test log p", "lead", "evaluate", "sample"]
    lines = [estimator_row(who, record) for who, record in records.items()]
    for peer, record in records.items():
        for mine, r in record.get("ratios", {}).items():
            who = f"**{TITLES.get(mine, mine)} / {peer}**"
            lines.append(
                [who, "", times(r["fit"]), "", "", times(r["evaluate"]), times(r["sample"])]
            )
    notes = f"{rows} rows evaluated and sampled. Lead: pyflow's log p less theirs on the test rows."
    if "equal" in records:
        notes += " As good: stopped where its validation log p reaches the original's."
    for record in records.values():
        if "extrapolated_from" in record:
            notes += (
                f" (*) Extrapolated from {record['extrapolated_from']} layers to a recorded run "
                f"(original.json), whose log p is given; it {record['note']}."
            )
    return markdown(header, lines) + "\n\n" + notes


def estimator_row(name, record):
    """Return one estimator's line of the side-by-side table."""
    mark = "*" if "extrapolated_from" in record else ""
    lead = plus_minus(record["lead"]) if "lead" in record and name != "pyflow" else ""
    return [
        TITLES.get(name, name) + mark,
        record["layers"],
        duration(record["seconds"]) + mark,
        plus_minus(record["logp"]["test"]),
        lead,
        duration(record["evaluate_seconds"]) + mark,
        duration(record["sample_seconds"]) + mark,
    ]


def headline(record):
    """Return the table of figures that have a target."""
    lines = []
    for name, least in (("protein", 50), ("miniboone", 20)):
        original = record.get("tables", {}).get(name, {}).get("original", {})
        for mine, r in original.get("ratios", {}).items():
            for what, wanted in (("fit", least), ("evaluate", 30), ("sample", 30)):
                figure = f"{what}, {name}, {TITLES.get(mine, mine)}: times faster"
                lines.append([figure, times(r[what]), f">= {wanted}"])
    for what, by_threads in record.get("threads", {}).items():
        if len(by_threads) > 1:
            one, two = by_threads[1], by_threads[2]
            lines.append([f"{what}, two threads to one", times(one / two), ">= 1.8"])
    for what, exponent in record.get("size", {}).get("exponents", {}).items():
        lines.append([f"fit time, exponent of {what}", f"{exponent:.2f}", "1"])
    if "memory" in record:
        copies = f"{record['memory']['copies']:.2f}"
        lines.append(["peak memory, copies of the data", copies, "< 3"])
    if "import" in record:
        lines.append(["import after NumPy", duration(record["import"]["seconds"]), "< 0.15 s"])
    if "huge" in record:
        huge = record["huge"]
        what = f"{huge['n']} x {huge['d']}: {huge['layers']} layers in {duration(huge['seconds'])}"
        lines.append([what, f"{huge['peak_gib']:.1f} GiB", "< 24 GiB"])
    return markdown(["measured", "seen", "wanted"], lines)


def slice_section(costs):
    """Return the table of ns per row and slice."""
    lines = [
        [f"d = {c['d']}, K = {c['slices']}"]
        + [f"{c[key]:.2f}" for key in ("evaluate_ns", "sample_ns", "floor_ns")]
        for c in costs
    ]
    header = ["ns per row and slice, one thread", "evaluate", "sample", "matrix products alone"]
    return markdown(header, lines)


def size_section(size):
    """Return the table of fit times over n and over d."""
    lines = [
        [series, case["n"], case["d"], case["slices"], duration(case["seconds"]), f"{per:.1f}"]
        for series in ("rows", "dimensions")
        for case in size[series]
        for per in [1e9 * case["seconds"] / (case["n"] * case["d"] * case["slices"])]
    ]
    header = ["fit, one thread", "n", "d", "K", f"{LAYERS} layers", "ns / (n d K)"]
    return markdown(header, lines)


def report(record, rows):
    """Return the Markdown blocks of everything that was measured."""
    threads = f"{record['threads_used']} thread(s) unless said otherwise."
    sections = [threads, headline(record)]
    sections += [table_section(name, r, rows) for name, r in record.get("tables", {}).items()]
    if "slice" in record:
        sections.append(slice_section(record["slice"]))
    if "size" in record:
        sections.append(size_section(record["size"]))
    return sections
