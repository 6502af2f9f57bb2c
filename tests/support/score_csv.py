"""The tables of records of schemas 1 and 2: as they were written, for what still reads them."""

from __future__ import annotations

import csv
import io

from casl_bench.metrics.edit_scores import PER_IMAGE
from casl_bench.results.score_table import ScoreTable


def to_csv(table: ScoreTable) -> str:
    """One row a picture: the source, the reconstruction, and the edit at each strength."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    logits = [f"{c}/{a}" for c in table.classifiers for a in table.attributes]
    kept = [name for name in PER_IMAGE if getattr(table, name) is not None]
    writer.writerow(["image_id", "picture", "strength", *kept, *logits])
    blank = [""] * len(kept)
    for i, image in enumerate(table.image_ids):
        pictures = [
            ("source", "", blank, table.source_logits),
            ("reconstruction", "0.0", blank, table.reconstruction_logits),
        ]
        for s, strength in enumerate(table.strengths):
            extra = [f"{getattr(table, name)[s, i]:.9g}" for name in kept]
            pictures.append(("edit", repr(strength), extra, table.edit_logits[:, s]))
        for picture, strength_text, extra, values in pictures:
            cells = [f"{v:.9g}" for v in values[:, i].ravel()]
            writer.writerow([image, picture, strength_text, *extra, *cells])
    return out.getvalue()
