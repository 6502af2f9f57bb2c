"""Every gate of every rendered domain's U-Net, before and now, in one table.

The figures are those that `casl-bench train gates` wrote; nothing is measured here.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from casl_bench.domains.rendered import ASSETS, RENDERED
from casl_bench.domains.rendering.shipped import GATES, Gates
from casl_bench.report.markdown import table
from casl_bench.training.train_gates import SMALLER, GateRow, gate_rows, read_figures

COMMAND = "casl-bench study unet-gates"
PAGE = "gates.md"
NOT_YET = "not yet"

_TITLES = {
    "psnr of plain_inversion": "PSNR of plain inversion, dB",
    "attribute_agreement of plain_inversion": "attribute agreement of plain inversion",
    "psnr of inversion": "PSNR of extrapolated inversion, dB",
    "attribute_agreement of inversion": "attribute agreement of extrapolated inversion",
    "sample_entropy": "entropy of the classifiers on samples",
    "sample_kernel_distance": "kernel distance of samples to renders",
    "donor_h_transfer": "share of images that take over the attribute of a donor's h",
    "direction_flip_rate": "share of images that a mean-difference direction flips",
    "probe_on_h": "accuracy of a linear probe on h",
    "direction_kernel_distance": "kernel distance of these edits to perfect ones",
}


def gates_page(before: Path, assets: Path = ASSETS) -> str:
    """Markdown of the table.

    Args:
        before: folder of `before_DOMAIN.json`, figures of the models that were replaced.
        assets: of the models of now; a domain without figures is shown as not measured.

    Raises:
        UsageError: a file of `before` is absent or holds no such figures.
    """
    rows, marked = [], []
    for domain, rendered in RENDERED.items():
        old = read_figures(before / f"before_{domain}.json")
        path = assets / domain / "unet" / GATES
        new = read_figures(path) if path.is_file() else None
        known = tuple(old["donor_h_transfer"])
        ranked = tuple(c.attribute for c in rendered.drawing.concepts)
        was = _by_gate(gate_rows(old, known, None))
        now = _by_gate(gate_rows(new, ranked, old)) if new else {}
        for gate in {**was, **now}:
            wanted = (now.get(gate) or was[gate])[0][2] or _relative(gate)
            rows.append(
                [domain, _title(gate), wanted, _figures(was.get(gate, [])), _figures(now[gate])
                 if gate in now else NOT_YET]
            )  # fmt: skip
        if new:
            unranked = [a for a in Gates(**new).not_carried if a in ranked]
            marked.append(f"{domain}: {', '.join(unranked) or 'none'}")
    heads = ["domain", "gate", "wanted", "before", "now"]
    left_out = "; ".join(marked) or NOT_YET
    parts = (
        "# Gates of the U-Nets, before and now",
        f"Made by `{COMMAND}` of the figures that `casl-bench train gates` wrote. A missed gate is "
        "**bold**. Before: the models of 2026-11-26, on the drawings and attributes of then and "
        "with fewer images. What each gate asks: [backbone_trials.md](../backbone_trials.md).",
        table(heads, rows, text_columns=len(heads)),
        "Samples are drawn in the steps of suite `full`: before by DDIM, now by a solver of second "
        "order (DPM-Solver++ 2M). A suite on whose walk plain inversion misses its gates "
        "extrapolates.",
        f"Not carried by h, and so no concept for any method: {left_out}.",
    )
    return "\n\n".join(parts) + "\n"


def _by_gate(rows: list[GateRow]) -> dict[str, list[GateRow]]:
    """Gate → its row, or its rows, one an attribute."""
    return {k: list(own) for k, own in groupby(rows, lambda row: row[0].split(":")[0])}


def _title(gate: str) -> str:
    name, _, rest = gate.partition(", ")
    return _TITLES[name] + (f", {rest}" if rest else "")


def _relative(gate: str) -> str:
    return f"{SMALLER[gate.split(', ')[0]]:g} of before"


def _figures(rows: list[GateRow]) -> str:
    found = []
    for gate, measured, _, reached in rows:
        _, _, attribute = gate.partition(": ")
        text = f"{attribute} {measured}".strip()
        found.append(f"**{text}**" if reached is False else text)
    return ", ".join(found)
