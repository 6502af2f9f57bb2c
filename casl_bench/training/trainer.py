"""What every training shares: budget, learning rate, average weights, checkpoint, curve, card.

A run may be killed anywhere; the same command goes on from the last checkpoint. Batches are keyed
by the step, so no random state has to be saved.
"""

from __future__ import annotations

import copy
import functools
import math
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from click.core import ParameterSource
from torch import Tensor, nn

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import clear_partial, new_file, write_bytes, write_text
from casl_bench.core.option_types import SEED, BoundedFloat, BoundedInt, LocalPath
from casl_bench.core.seeding import derive_seed
from casl_bench.domains.rendering.renderer import Drawing
from casl_bench.models.backbone import Backbone
from casl_bench.models.model_files import WEIGHTS, read_model, write_model
from casl_bench.models.weights import CANNOT_BUILD, read_content
from casl_bench.training.pools import (
    Pictures,
    Pool,
    RenderedPool,
    chosen_pictures,
    dataset_options,
    domain_option,
    pool_options,
    with_regenerated,
)

CHECKPOINT_SECONDS = 45.0
PAUSE_STEPS, PAUSE_SECONDS = 20, 2.0
WARMUP = 0.03
DECAY_SHARE = 0.35
EMA_DECAY = 0.995
HELD_OUT = 4096
"""Pictures that calibrate, and as many others that are measured."""

N = TypeVar("N", bound=nn.Module)


def cosine(progress: float) -> float:
    """Factor of the learning rate: warm-up, then a half cosine to zero; progress in [0, 1]."""
    return min(1.0, progress / WARMUP + 0.02) * (0.5 + 0.5 * math.cos(math.pi * progress))


def plateau(progress: float) -> float:
    """Factor of the learning rate: warm-up, plateau, then a square-root decay to zero.

    Unlike a cosine, the plateau does not depend on the length of the run, so a run can be made
    shorter or longer after it has started.
    """
    start = 1 - DECAY_SHARE
    decay = 1 - math.sqrt(max(0.0, progress - start) / DECAY_SHARE)
    return min(1.0, progress / WARMUP + 0.02) * decay


class TrainingRun:
    """One training, resumable.

    Args:
        out: folder of checkpoint, curve, weights and card.
        model: what is trained.
        learning_rate: at its peak.
        config: everything that determines the result; a checkpoint of another one is refused.
        steps: length in steps, or None.
        minutes: length in minutes of training, used where `steps` is None.
        weight_decay: of AdamW.
        schedule: progress in [0, 1] → factor of the learning rate.
        ema_decay: of the average weights, with a short memory at the start.
        pause_file: while this file exists no step is taken, so that others may measure speed.
    """

    def __init__(
        self,
        out: Path,
        model: nn.Module,
        *,
        learning_rate: float,
        config: Mapping[str, Any],
        steps: int | None,
        minutes: float | None,
        weight_decay: float = 1e-3,
        schedule: Callable[[float], float] = cosine,
        ema_decay: float = EMA_DECAY,
        pause_file: Path | None = None,
    ) -> None:
        if (steps is None) == (minutes is None):
            raise UsageError("give either --steps or --minutes")
        self.out, self.model, self.config = out, model, dict(config)
        self.peak, self.num_steps, self.minutes = learning_rate, steps, minutes
        self.optimiser = torch.optim.AdamW(
            model.parameters(), learning_rate, weight_decay=weight_decay, fused=True
        )
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.schedule, self.ema_decay, self.pause_file = schedule, ema_decay, pause_file
        self.step, self.seconds = 0, 0.0
        self._sums: dict[str, float] = {}
        self._curve: list[str] = []
        self._checkpoint = out / "checkpoint.pt"
        out.mkdir(parents=True, exist_ok=True)
        clear_partial(out)
        self._resume()

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        if self.num_steps is not None:
            return min(1.0, self.step / self.num_steps)
        return min(1.0, self.seconds / (60 * float(self.minutes or 0)))

    def steps(self, log_every: int = 25) -> Iterator[int]:
        """Step numbers until the budget is spent; the body calls `update` once a step."""
        last, saved = time.monotonic(), time.monotonic()
        while self.progress < 1:
            for group in self.optimiser.param_groups:
                group["lr"] = self.peak * self.schedule(self.progress)
            yield self.step
            self.step += 1
            now = time.monotonic()
            self.seconds += now - last
            last = now
            if self.step % log_every == 0:
                self._log(log_every)
            if now - saved > CHECKPOINT_SECONDS:
                self._save()
                saved = now
            if self.pause_file is not None and self.step % PAUSE_STEPS == 0:
                while self.pause_file.exists():
                    time.sleep(PAUSE_SECONDS)
                last = time.monotonic()
        self._save()

    def update(self, loss: Tensor, **terms: float) -> None:
        """One optimiser step on a loss; `terms` go into the curve."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        new, mean = self.model.state_dict(), self.average.state_dict()
        for name, value in new.items():
            if value.is_floating_point():
                mean[name].lerp_(value, 1 - decay)
            else:
                mean[name].copy_(value)
        for name, number in {"loss": float(loss.detach()), **terms}.items():
            self._sums[name] = self._sums.get(name, 0.0) + number

    def _log(self, count: int) -> None:
        means = {k: v / count for k, v in self._sums.items()}
        if not self._curve:
            self._curve.append(",".join(["step", "seconds", *means]))
        row = [str(self.step), f"{self.seconds:.1f}", *(f"{v:.5f}" for v in means.values())]
        self._curve.append(",".join(row))
        self._sums = {}
        click.echo(
            " ".join(f"{k}={v}" for k, v in zip(self._curve[0].split(","), row, strict=True))
        )

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "step": self.step, "seconds": self.seconds,
            "curve": self._curve, "sums": self._sums, "config": self.config,
        }  # fmt: skip
        with new_file(self._checkpoint) as file:
            torch.save(state, file)
        write_text(self.out / "curve.csv", "\n".join(self._curve) + "\n")

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        where, hint = str(self._checkpoint), "give another --out or delete it"
        saved = read_content(self._checkpoint)
        try:
            if saved["config"] != self.config:
                raise UsageError(
                    "the checkpoint is of another configuration", where=where, hint=hint
                )
            self.model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.step, self.seconds = saved["step"], saved["seconds"]
            self._curve, self._sums = saved["curve"], saved["sums"]
        except CANNOT_BUILD as error:
            told = f"the checkpoint is of another network: {' '.join(str(error).split())[:200]}"
            raise InvalidBenchmarkError(told, where=where, hint=hint) from error
        click.echo(f"resuming at step {self.step}, {self.seconds:.0f} s")


def rounded_to_half(model: N) -> N:
    """A copy with the numbers that will be shipped: rounded to float16, kept in float32."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    twin.to(memory_format=torch.contiguous_format)
    for value in twin.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())
    return twin


def bf16_pays(repeats: int = 3) -> bool:
    """Whether bf16 autocast makes a convolution faster on this very CPU.

    With AVX512-BF16 or AMX it does; without, it was seen to be several times slower than fp32.
    """
    layer = nn.Conv2d(64, 64, 3, padding=1)
    x = torch.randn(32, 64, 16, 16, generator=torch.Generator().manual_seed(0))
    seconds = {}
    for enabled in (False, True):
        times = []
        for _ in range(repeats + 1):  # the first one pays for choosing kernels
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = layer(x).float().pow(2).mean()
            loss.backward()
            times.append(time.perf_counter() - start)
        seconds[enabled] = min(times[1:])
    return seconds[True] < seconds[False]


def training_config(name: str, pictures: Pictures, **settings: Any) -> dict[str, Any]:
    """The settings with what else determines the result."""
    return {"name": name, "domain": pictures.name, **settings, **pictures.settings}


def start_from(model: nn.Module, folder: Path | None) -> str | None:
    """Copy what fits of a shipped model of the same architecture, such as another domain's.

    Layers whose shape depends on the domain (words, attributes) stay as they are. Returns the hash
    of the weights that are copied from, for the card; without a folder nothing is done.

    Raises:
        UsageError: less than half of the model's numbers fit.
    """
    if folder is None:
        return None
    files = read_model(folder)
    own, given = model.state_dict(), files.part("network")
    fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    copied = sum(v.numel() for v in fitting.values())
    if copied < sum(v.numel() for v in own.values()) / 2:
        raise UsageError(
            "a model of another architecture cannot be started from", where=str(folder)
        )
    model.load_state_dict(fitting, strict=False)
    return files.weights_hash


def training_part(run: TrainingRun, note: str, device: str = "CPU") -> dict[str, Any]:
    """What a card says of the training: from within its command."""
    return {
        "config": run.config,
        "steps": run.step,
        "seconds": round(run.seconds),
        "note": note,
        "command": command_line(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": f"{device}, {torch.get_num_threads()} threads, {platform.machine()}",
        "torch": torch.__version__.split("+")[0],
    }


@dataclass(frozen=True)
class ScorerTraining:
    """Training of a scorer: the options, and the steps that all of them share.

    Attributes:
        pictures: where they come from.
        ship: folder of weights and card; `out` where None.
        start: folder of a shipped model of the same architecture to start from.
        unet: folder of the domain's U-Net, which draws some of the pictures; None: none.
        steps: length in steps, or `minutes` in minutes.
        images: pictures to train on.
        bf16: whether passes run under autocast to bfloat16.
        note: what a reader of the card should know.
        pause_file: while it exists no step is taken.
    """

    pictures: Pictures
    out: Path
    ship: Path | None
    cache: Path | None
    start: Path | None
    unet: Path | None
    steps: int | None
    minutes: float | None
    images: int
    seed: int
    bf16: bool
    note: str
    pause_file: Path | None

    @property
    def name(self) -> str:
        """Of the domain or data set."""
        return self.pictures.name

    @property
    def drawing(self) -> Drawing:
        """The renderer."""
        # No command of what needs one has an option for photographs.
        assert self.pictures.drawing is not None
        return self.pictures.drawing

    def rendered_pool(self, split: str = "train", seed: int = 0) -> RenderedPool:
        """Rendered pictures with their flips: to train on, or `HELD_OUT` of another stream."""
        pool = self.pool(split, seed)
        assert isinstance(pool, RenderedPool)
        return pool

    def pool(self, split: str = "train", seed: int = 0) -> Pool:
        """Pictures to train on, or up to `HELD_OUT` others; rendered ones with their flips."""
        count = self.images if split == "train" else self._held_out
        pool = self.pictures.load(split, count, seed, self.cache, True)
        if self.unet is None or split != "train":
            return pool
        return with_regenerated(pool, Backbone.from_folder(self.unet), seed, self.cache)

    @property
    def _held_out(self) -> int:
        return min(HELD_OUT, self.pictures.most_held_out)

    def _described(self, split: str, count: int) -> str:
        own = f"{count} {self.pictures.subject}"
        if self.pictures.drawing is not None:
            return f"{own} and as many flips, stream (0, {split})"
        turned = self.pictures.settings["mirrored"] and split == "train"
        return f"{own}{' and their mirror images' if turned else ''}"

    def begin(
        self,
        name: str,
        build: Callable[[], N],
        *,
        learning_rate: float,
        weight_decay: float = 1e-3,
        shipped_part: Callable[[N], nn.Module] = lambda model: model,
        **settings: Any,
    ) -> tuple[TrainingRun, N]:
        """A run, new or resumed, and the model that it trains.

        Args:
            name: of the model.
            build: makes it, from random numbers that are keyed by name and seed.
            learning_rate: at its peak.
            weight_decay: of AdamW.
            shipped_part: the part of the model that may start from another domain's.
            settings: what else determines the result.
        """
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(self.seed, name, "init"))
            model = build()
        model.to(memory_format=torch.channels_last)
        started = start_from(shipped_part(model), self.start)
        config = training_config(
            name, self.pictures, start=started, images=self.images, seed=self.seed, bf16=self.bf16,
            unet=None if self.unet is None else Backbone.from_folder(self.unet).weights_hash,
            learning_rate=learning_rate, **settings,
        )  # fmt: skip
        run = TrainingRun(
            self.out, model, learning_rate=learning_rate, config=config, steps=self.steps,
            minutes=self.minutes, weight_decay=weight_decay, pause_file=self.pause_file,
        )  # fmt: skip
        model.train()
        return run, model

    def autocast(self) -> torch.autocast:
        """Of the passes of a training."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bf16)

    def publish(
        self,
        run: TrainingRun,
        network: nn.Module,
        config: Mapping[str, Any],
        calibration: tuple[Tensor, Tensor] | None = None,
        **card: Any,
    ) -> None:
        """Write weights, card, its readable form and the curve.

        The config builds the network again; calibration is scale and bias of its outputs; `card`
        holds title, description, measured, and what differs from the defaults.
        """
        folder = self.ship or self.out
        whole = {
            "name": run.config["name"],
            "config": config,
            "parameters": sum(p.numel() for p in network.parameters()),
            "data": self._described("train", self.images)
            + ("" if self.unet is None else "; every eighth as the U-Net draws it"),
            "held_out": self._described("heldout", self._held_out),
            "training": training_part(run, self.note),
            **card,
        }
        tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
        if calibration is not None:
            tensors |= dict(
                zip(("calibration.scale", "calibration.bias"), calibration, strict=True)
            )
        write_model(folder, tensors, whole)
        if folder != self.out:
            write_bytes(folder / "curve.csv", (self.out / "curve.csv").read_bytes())
        write_text(folder / "README.md", card_text(whole))
        click.echo(f"wrote {folder / WEIGHTS}")


def pause_option(function: Callable[..., None]) -> Callable[..., None]:
    """Decorator: `--pause-file`, so that others may measure speed."""
    text = "While this file exists no step is taken."
    return click.option("--pause-file", type=LocalPath(), help=text)(function)


def training_options(
    seed: int, photographs: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: the options of `ScorerTraining`, which the function is given first.

    `photographs` says whether they may be trained on.
    """
    folder = LocalPath()
    options: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
        domain_option,
        *([dataset_options] if photographs else []),
        click.option("--out", type=folder, required=True, help="Training folder."),
        click.option("--ship", type=folder, help="Folder of weights and card."),
        pool_options,
        click.option("--start", type=LocalPath(exists=True), help="Folder of a "
                     "shipped model of the same architecture to start from."),
        click.option("--unet", type=LocalPath(exists=True), help="Folder of the domain's U-Net: "
                     "every eighth picture is as it draws it."),
        click.option("--steps", type=BoundedInt(), help="Length in steps."),
        click.option("--minutes", type=BoundedFloat(0.01, 1e7), help="Length in minutes, instead."),
        click.option("--seed", type=SEED, default=seed, show_default=True),
        click.option("--bf16/--fp32", default=None, help="[default: whichever is faster here]"),
        pause_option,
        click.option("--note", default="", help="What a reader of the card should know."),
    )  # fmt: skip

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(bf16: bool | None, images: int | None, **given: Any) -> None:
            named = ("domain", "dataset", "data_root", "unmirrored")
            pictures = chosen_pictures(**{k: given.pop(k) for k in named if k in given})
            common = {f.name: given.pop(f.name) for f in fields(ScorerTraining) if f.name in given}
            common |= {"pictures": pictures, "images": images or pictures.images}
            common["bf16"] = bf16_pays() if bf16 is None else bf16
            function(ScorerTraining(**common), **given)

        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def command_line() -> str:
    """The options given to this command, paths shortened to their names, the note left out."""
    context = click.get_current_context()
    words = ["casl-bench", "train", str(context.command.name)]
    for option in context.command.params:
        name = str(option.name)
        given = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        if given and name != "note":
            value = context.params[name]
            flag = option.opts if value is not False else option.secondary_opts
            words += [flag[0]]
            if not isinstance(value, bool):
                words += [value.name if isinstance(value, Path) else str(value)]
    return shlex.join(words)


def card_text(card: Mapping[str, Any]) -> str:
    """The card for people: markdown made from the JSON alone."""
    lines = [f"# {card['title']}", "", str(card["description"]), ""]
    training = card["training"]
    lines += [
        f"- weights: {WEIGHTS}, float16, {card['parameters']:,} parameters",
        f"- trained: {training['date']}, {training['steps']} steps, {training['seconds']} s, "
        f"{training['device']}, torch {training['torch']}",
        f"- command: `{training['command']}`",
        *([f"- note: {training['note']}"] if training["note"] else []),
        f"- data: {card['data']}",
        f"- held-out pictures: {card['held_out']}",
        "",
        "## Measured",
        "",
    ]
    gates: Mapping[str, Any] = card["measured"]
    tables = {k: v for k, v in sorted(gates.items()) if isinstance(v, Mapping)}
    if tables:
        names = training["config"]["attributes"]
        lines.append("| | " + " | ".join(names) + " |")
        lines.append("|---" * (len(names) + 1) + "|")
        for key, values in tables.items():
            cells = " | ".join(f"{values[n]:.3f}" if n in values else "—" for n in names)
            lines.append(f"| {key.replace('_', ' ')} | {cells} |")
        lines.append("")
    scalars = sorted(gates.keys() - tables.keys())
    lines += [f"- {key.replace('_', ' ')}: {gates[key]}" for key in scalars]
    return "\n".join(lines) + "\n"


def per_attribute(attributes: Sequence[str], values: Tensor) -> dict[str, float]:
    """Attribute → number, rounded for a card."""
    pairs = zip(attributes, values.tolist(), strict=True)
    return {name: round(float(v), 4) for name, v in pairs}


def accuracy(attributes: Sequence[str], logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Attribute → share of the pictures in which its logit is on the right side of 0."""
    return per_attribute(attributes, ((logits > 0) == labels).float().mean(0))


def means_of_flips(values: Tensor, column: Tensor) -> Tensor:
    """[A, ...] means of the values [n, ...] over the pictures with each attribute flipped."""
    return torch.stack([values[column == k].mean(0) for k in range(int(column.max()) + 1)])
