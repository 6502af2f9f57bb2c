"""What a tuning sweep leaves: `trials.jsonl`, `chosen.json` and a README that says both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pydantic import JsonValue
from tabulate import tabulate

from casl_bench.core.files import write_json, write_text
from casl_bench.records.provenance import collect_provenance
from casl_bench.runs.tuning.search_space import Trial, search_space
from casl_bench.runs.tuning.sweep import Attempt, Sweep, TrialResult

Results = Sequence[tuple[Attempt, TrialResult]]


@dataclass(frozen=True)
class Tried:
    """One trial over all data sets and concepts.

    Attributes:
        trial: its number and settings.
        results: one a data set and concept.
    """

    trial: Trial
    results: tuple[TrialResult, ...]

    @property
    def by_dataset(self) -> dict[str, float]:
        """Data set → mean score over its concepts."""
        names = dict.fromkeys(r.dataset for r in self.results)
        return {d: fmean(r.score for r in self.results if r.dataset == d) for d in names}

    @property
    def score(self) -> float:
        """Mean over data sets of the mean over concepts: data sets weigh the same."""
        return fmean(self.by_dataset.values())

    @property
    def failures(self) -> int:
        """Concepts on which it failed."""
        return sum(r.error is not None for r in self.results)


def by_method(results: Results) -> dict[str, list[Tried]]:
    """Method → its trials in order."""
    found: dict[str, dict[int, tuple[Trial, list[TrialResult]]]] = {}
    for attempt, result in results:
        trial = attempt.trial
        _, own = found.setdefault(attempt.method, {}).setdefault(trial.number, (trial, []))
        own.append(result)
    return {
        name: [Tried(trial, tuple(own)) for _, (trial, own) in sorted(trials.items())]
        for name, trials in found.items()
    }


def best(trials: Sequence[Tried]) -> Tried:
    """The trial with the highest score, the earlier one of equals."""
    return max(trials, key=lambda t: (t.score, -t.trial.number))


def write_outputs(sweep: Sweep, results: Results) -> None:
    """Write the three files into the sweep's folder."""
    out, tried = sweep.config.out, by_method(results)
    lines = [json.dumps({"trial": a.trial.number, **r.model_dump(mode="json")}) for a, r in results]
    write_text(out / "trials.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(out / "chosen.json", {name: best(t).trial.settings for name, t in tried.items()})
    write_text(out / "README.md", readme(sweep, tried))


def readme(sweep: Sweep, tried: dict[str, list[Tried]]) -> str:
    """The sweep in words and tables, as markdown."""
    config, suite = sweep.config, sweep.config.suite
    made = collect_provenance(device=config.device)
    concepts = "all" if config.concepts is None else ", ".join(config.concepts)
    count = max(len(trials) for trials in tried.values())
    command = (
        f"casl-bench tune --methods {','.join(tried)} --datasets {','.join(config.datasets)} "
        f"--concepts {concepts.replace(', ', ',')} --trials {count} --images {sweep.images} "
        f"--suite {suite.name} --seed {config.seed} --device {config.device} "
        + "".join(f"--plugin {path.name} " for path in config.plugins)
        + f"--out {config.out.name}"
    )
    dirty = " with local changes" if made.git_dirty else ""
    commit = f", commit {made.git_commit[:12]}{dirty}" if made.git_commit else ""
    parts = [
        "# Tuning sweep",
        f"```bash\n{command}\n```",
        f"Suite {suite.name} v{suite.version}, seed {config.seed}, data sets "
        f"{', '.join(config.datasets)}, concepts {concepts}, {sweep.images} validation images a "
        f"concept, no test image. Made with casl_bench {made.package_version}{commit}, "
        f"torch {made.packages.get('torch', '?')} on {made.device} ({made.platform}).",
        "Score, in [0, 1]: the mean over data sets, then concepts, of flip rate · T / (T + C) at "
        "the strength which the suite's rule chooses; T is the target's change as asked (≥ 0), C "
        "the mean change of the other attributes, both in standard deviations of the primary "
        "classifier's logits. A trial that fails on a concept scores 0 there. Trial 0 is the "
        "default; equal scores go to the earlier trial.",
        _table([_summary(name, trials) for name, trials in tried.items()]),
        "U-Net calls are in images. A fit that several trials share is made once; its calls are "
        "counted once. Seconds are those of this machine, fits and edits.",
        *(_fold(name, trials) for name, trials in tried.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(name: str, trials: Sequence[Tried]) -> dict[str, str]:
    results = [r for t in trials for r in t.results]
    made = [r for r in results if not r.fit_reused and r.error is None]
    chosen = best(trials)
    return {
        "method": name,
        "trials": str(len(trials)) if search_space(name) else f"{len(trials)} (no search space)",
        "fits": f"{len(made):,}",
        "U-Net calls, fits": f"{sum(r.fit_unet_calls for r in made):,.0f}",
        "U-Net calls, edits": f"{sum(r.edit_unet_calls for r in results):,.0f}",
        "seconds": f"{sum(r.fit_seconds + r.edit_seconds for r in results):,.0f}",
        "failed": str(sum(t.failures for t in trials)),
        "default": f"{trials[0].score:.3f}",
        "best": f"{chosen.score:.3f}",
        "best trial": str(chosen.trial.number),
        "its settings": _words(chosen.trial.settings),
    }


def _fold(name: str, trials: Sequence[Tried]) -> str:
    rows = []
    for tried in trials:
        row = {
            "trial": str(tried.trial.number),
            "score": f"{tried.score:.3f}",
            **{d: f"{s:.3f}" for d, s in tried.by_dataset.items() if len(tried.by_dataset) > 1},
            "flip rate": _mean([r.flip_rate for r in tried.results], 2),
            "T": _mean([r.target_change for r in tried.results], 2),
            "C": _mean([r.collateral for r in tried.results], 2),
            "strength": _mean([r.strength for r in tried.results], 2),
            "fit (s)": _mean([r.fit_seconds for r in tried.results], 1),
            "failed": str(tried.failures),
            "settings": _words(tried.trial.settings),
        }
        rows.append(row)
    faults = sorted({r.error for t in trials for r in t.results if r.error is not None})
    said = "".join(f"\n- {fault}" for fault in faults)
    table = _table(rows) + (f"\n\nFaults:\n{said}" if said else "")
    return f"<details>\n<summary>{name}: all trials</summary>\n\n{table}\n\n</details>"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    text: str = tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)
    return text


def _words(settings: dict[str, JsonValue]) -> str:
    return ", ".join(f"{k} = {json.dumps(v)}" for k, v in settings.items()) or "the default"


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [v for v in values if v is not None]
    return f"{fmean(known):.{digits}f}" if known else "—"
