"""Scores of a whole run in one small file: what others need to analyse it, and rank beside it.

Test scores at every strength that was run are kept as steps away from the reconstruction, small
enough that numbers computed from them agree to 1e-3; validation curves are kept as means.
Pictures and per-image validation scores stay in the run folder.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import (
    bounded_lines,
    hash_bytes,
    hash_json,
    parse_json,
    read_whole,
    write_bytes,
)
from casl_bench.metrics.edit_scores import PER_IMAGE, Array
from casl_bench.results.record import CellRecord, CurvePoint
from casl_bench.results.score_table import READ_ERRORS, ScoreTable, read_arrays
from casl_bench.results.stored_cells import StoredCell

ENDING = ".scores.npz"

LOGIT_STEP = 3e-5
"""Of a change of a logit, in its standard deviations over the data set."""

IMAGE_STEP = 2e-6
"""Of what other scorers say of an image."""


def write_published(path: Path, cells: Sequence[StoredCell]) -> None:
    """Write the cells of a run, with curves to be kept; the same cells give the same bytes."""
    spreads = _spreads([cell.record for cell in cells])
    arrays: dict[str, Any] = {}
    stored = []
    for place, cell in enumerate(cells):
        record = cell.record.model_copy(
            update={"scores": None, "validation_scores": None, "images": None}
        )
        curve = [point.model_dump(mode="json") for point in cell.curve]
        entry: dict[str, Any] = {"record": record.to_json(), "curve": curve}
        if cell.scores is not None:
            step = LOGIT_STEP * _of(spreads, cell.record, cell.scores.classifiers)
            entry["images"] = _keep_images(arrays, cell.scores)
            own = _quantised(cell.scores, step)
            arrays |= {f"{place}/{name}": values for name, values in own.items()}
            entry["sha256"] = _hash(arrays, str(place), entry["images"])
        stored.append(entry)
    lines = [json.dumps(entry, sort_keys=True, allow_nan=False) + "\n" for entry in stored]
    packed = gzip.compress("".join(lines).encode(), mtime=0)
    arrays["cells"] = np.frombuffer(packed, dtype=np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_bytes(path, file.getvalue())


def read_published(path: Path) -> list[StoredCell]:
    """Read what `write_published` wrote. Raises InvalidBenchmarkError on anything else."""
    try:
        arrays = read_arrays(read_whole(path))
        with gzip.open(io.BytesIO(arrays["cells"].tobytes())) as file:
            stored = [parse_json(line.decode()) for line in bounded_lines(file)]
        records = [CellRecord.from_json(entry["record"], where=str(path)) for entry in stored]
        spreads = _spreads(records)
        return [
            StoredCell(
                record,
                _table(arrays, str(place), entry["images"], entry["sha256"], record, spreads)
                if "images" in entry
                else None,
                curve=tuple(CurvePoint.model_validate(point) for point in entry["curve"]),
            )
            for place, (entry, record) in enumerate(zip(stored, records, strict=True))
        ]
    except (EOFError, zlib.error, *READ_ERRORS) as error:
        raise InvalidBenchmarkError(
            f"not a file of published scores: {error}", where=str(path)
        ) from error


Spreads = dict[tuple[str, str], Array]
"""(data set, classifier) → [A]."""


def _spreads(records: Sequence[CellRecord]) -> Spreads:
    return {
        (r.dataset, name): np.array(spread)
        for r in records
        if r.scales is not None
        for name, spread in r.scales.spreads.items()
    }


def _of(spreads: Spreads, record: CellRecord, classifiers: Sequence[str]) -> Array:
    """[K, 1, 1, A]."""
    own = [spreads[record.dataset, name] for name in classifiers]
    return np.stack(own)[:, None, None, :]


def _keep_images(arrays: dict[str, Any], table: ScoreTable) -> str:
    """Scores of unedited images, once for all cells of the same images."""
    own = {
        "ids": np.array(table.image_ids),
        "attributes": np.array(table.attributes),
        "classifiers": np.array(table.classifiers),
        "source": table.source_logits.astype(np.float32),
        "reconstruction": table.reconstruction_logits.astype(np.float32),
    }
    name = "images-" + hash_bytes(b"".join(v.tobytes() for v in own.values()))[:12]
    arrays.update({f"{name}/{key}": values for key, values in own.items()})
    return name


def _quantised(table: ScoreTable, step: Array) -> dict[str, NDArray[np.signedinteger[Any]]]:
    base = table.reconstruction_logits[:, None]
    steps = np.rint((table.edit_logits - base) / step)
    # Which side of 0 a logit lies on is a decision: no rounding may turn it.
    off = (base + steps * step > 0).astype(int) - (table.edit_logits > 0)
    steps -= off
    found = {"edits": _small(steps)}
    for name in PER_IMAGE:
        if (values := getattr(table, name)) is not None:
            found[name] = _small(np.rint(values / IMAGE_STEP))
    return found


def _hash(arrays: dict[str, Any], cell: str, images: str) -> str:
    """SHA-256 of all arrays of a cell and of its images, in order of name."""
    names = sorted(n for n in arrays if n.startswith((f"{cell}/", f"{images}/")))
    return hash_json([[n, str(arrays[n].dtype), hash_bytes(arrays[n].tobytes())] for n in names])


def _small(steps: Array) -> NDArray[np.signedinteger[Any]]:
    fits = np.abs(steps).max(initial=0) < 2**15
    return steps.astype(np.int16 if fits else np.int32)


def _table(
    arrays: dict[str, Any], cell: str, images: str, sha256: str, record: CellRecord,
    spreads: Spreads,
) -> ScoreTable:  # fmt: skip
    if _hash(arrays, cell, images) != sha256:
        where = f"{record.method}/{record.concept}"
        raise ValueError(f"scores of {where} are not those of its record")
    ids, attributes, classifiers = (
        tuple(arrays[f"{images}/{key}"].tolist()) for key in ("ids", "attributes", "classifiers")
    )
    base = arrays[f"{images}/reconstruction"].astype(np.float64)
    step = LOGIT_STEP * _of(spreads, record, classifiers)
    extra: dict[str, Any] = {
        name: arrays[f"{cell}/{name}"] * IMAGE_STEP
        for name in PER_IMAGE
        if f"{cell}/{name}" in arrays
    }
    return ScoreTable(
        ids,
        record.strengths,
        attributes,
        classifiers,
        arrays[f"{images}/source"],
        base,
        base[:, None] + arrays[f"{cell}/edits"] * step,
        **extra,
    )
