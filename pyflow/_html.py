"""How notebooks show flows and posteriors: small tables, in the colours of the page around them."""

from __future__ import annotations

from html import escape

import numpy as np

MASS = 0.68  # of a posterior's intervals
MOST = 12  # names that a cell lists
LEFT = ' style="text-align: left"'


def of_flow(flow):
    """Return the table of a `Flow`."""
    kinds = ", ".join(f"{flow.layers.count(k)} {k}" for k in dict.fromkeys(flow.layers))
    rows = [*_points(flow), ("layers", f"{len(flow)}: {kinds}" if kinds else len(flow))]
    rows.append(("parameters", f"{flow.n_parameters:,}"))
    rows += _fit(flow)
    reached = [(name, flow._reached(key)) for name, key in _log_likelihoods(flow)]
    rows += [(name, f"{value:.4g}") for name, value in reached if value is not None]
    return _titled("pyflow.Flow", _table(rows))


def of_mixture(mixture):
    """Return the tables of a `Mixture`: of the whole, and of its members."""
    rows = [*_points(mixture), ("parameters", f"{mixture.n_parameters:,}"), *_fit(mixture)]
    logs = _log_likelihoods(mixture)
    head = ["member", "weight", "layers", "parameters", *(name for name, _ in logs)]
    members = []
    for k, (flow, weight) in enumerate(zip(mixture.members, mixture.weights, strict=True)):
        reached = [flow._reached(key) for _, key in logs]
        reached = ["" if value is None else f"{value:.4g}" for value in reached]
        members.append((k, f"{weight:.3g}", len(flow), f"{flow.n_parameters:,}", *reached))
    title = f"pyflow.Mixture of {len(mixture)} flows"
    return _titled(title, _table(rows), _table(members, head))


def of_posterior(posterior):
    """Return the table of a `Posterior`: mean, standard deviation and interval of each name."""
    rows = []
    for j, (name, mean) in enumerate(zip(posterior.names, posterior.mean, strict=True)):
        sigma = np.sqrt(posterior.cov[j, j])
        digits = _digits(mean, sigma)
        low, high = (f"{value:.{digits}g}" for value in interval(posterior, j))
        rows.append((name, f"{mean:.{digits}g}", f"{sigma:.2g}", f"{low} to {high}"))
    head = ["parameter", "mean", "std", f"central {100 * MASS:.0f} %"]
    evidence = f"{posterior.log_evidence:.6g}"
    if posterior.log_evidence_error:
        evidence += f" ± {posterior.log_evidence_error:.1g}"
    more = [("method", posterior.method), ("log evidence", evidence)]
    return _titled("pyflow.Posterior", _table(rows, head), _table(more))


def interval(posterior, j, mass=MASS):
    """Return the ends of what lies between the (1 -+ mass) / 2 quantiles of parameter j."""
    (nodes,), density = posterior.marginal(j)
    below = np.cumsum(density)
    middle = (below - density / 2) / below[-1]  # at the nodes, half of whose cell lies below
    return np.interp([(1 - mass) / 2, (1 + mass) / 2], middle, nodes)


def _points(flow):
    """Return rows that say what the points of a flow are."""
    rows = [("shape", flow.shape)]
    if flow.columns is not None:
        rows.append(("columns", _listed(flow.columns)))
    if flow.box_size is not None:
        rows.append(("box size", " x ".join(f"{length:.6g}" for length in flow.box_size)))
    if flow.mask is not None:
        rows.append(("observed", f"{100 * flow.mask.mean():.3g} % of the pixels"))
    return rows


def _fit(flow):
    """Return rows that say what a flow is conditioned on, and how it was made."""
    rows = []
    if flow.names:
        rows.append(("given y", _listed(flow.names)))
    if flow.condition_field:
        rows.append(("given", "a second field"))
    if flow.labels is not None:
        rows.append(("classes", _listed(map(str, flow.labels.tolist()))))
    rows.append(("dtype", flow.dtype))
    if flow.temperature != 1:
        rows.append(("temperature", f"{flow.temperature:.3g}"))
    if flow.calibration:
        gain = "{before:.3f} to {after:.3f} nats, {points} points"
        rows.append(("calibration", gain.format(**flow.calibration)))
    if flow.unfinished:
        rows.append(("unfinished", "yes"))
    return rows


def _log_likelihoods(flow):
    """Return what the history's log-likelihoods are called here, and there."""
    image = "pixel" if flow.box_size is not None else "image"
    each = "row" if len(flow.shape) == 1 else image
    kinds = {"training": "logp_train", "validation": "logp_validate"}
    return [(f"log p per {each}, {kind}", key) for kind, key in kinds.items()]


def _listed(names):
    names = list(names)
    more = f", and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def _digits(mean, sigma):
    """Return how many digits of a mean its standard deviation leaves: to a hundredth of it."""
    if not (np.isfinite([mean, sigma]).all() and mean and sigma > 0):
        return 4
    return int(np.clip(np.ceil(np.log10(abs(mean) / sigma)) + 2, 2, 15))


def _table(rows, head=None):
    """Return rows, whose first cell is a heading, as a table; all text is escaped."""
    lines = []
    if head is not None:
        cells = "".join(f'<th scope="col"{LEFT}>{escape(name)}</th>' for name in head)
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    for name, *values in rows:
        cells = "".join(f"<td{LEFT}>{escape(str(value))}</td>" for value in values)
        lines.append(f'<tr><th scope="row"{LEFT}>{escape(str(name))}</th>{cells}</tr>')
    return "\n".join(["<table>", *lines, "</tbody>", "</table>"])


def _titled(title, *tables):
    return "\n".join(["<div>", f"<strong>{escape(title)}</strong>", *tables, "</div>"])
