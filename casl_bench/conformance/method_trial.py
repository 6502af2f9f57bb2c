"""One method put through its paces; the checks then look at what happened."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from casl_bench.conformance import NotRun, first_line, require
from casl_bench.conformance.toy_domain import NUM_TEST, ToyTasks, UndeclaredUse
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import EditingMethod, Editor, EditTask, FitCost, MethodInfo
from casl_bench.models.backbone import Backbone, CallCounter, EncoderState
from casl_bench.models.model_files import hash_tensors

# What a well-behaved method leaves as it was: weights, hooks, global state, the user's folders.

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


def weights_of(**owners: Any) -> dict[str, Any]:
    """Content, gradient flags and mode of every network that the owners hold as attributes."""
    found: dict[str, Any] = {}
    for owner, thing in owners.items():
        for attribute, value in vars(thing).items():
            if not isinstance(value, nn.Module):
                continue
            name = f"{owner}.{attribute}"
            found[f"values of {name}"] = hash_tensors(value.state_dict())
            found[f"requires_grad of {name}"] = [p.requires_grad for p in value.parameters()]
            found[f"training mode of {name}"] = [m.training for m in value.modules()]
    return found


def hooks_of(backbone: Backbone) -> dict[str, Any]:
    """Hooks, replaced modules and overridden functions of a backbone."""
    found: dict[str, Any] = {"attributes of the backbone": sorted(vars(backbone))}
    for name, module in backbone.unet.named_modules():
        hooks = [len(getattr(module, kind, ())) for kind in _HOOKS]
        place = f"unet.{name}" if name else "unet"
        found[f"hooks of {place}"] = hooks
        found[f"identity of {place}"] = (id(module), "forward" in vars(module))
    return found


def global_state() -> dict[str, Any]:
    """State shared by the whole process that a method must neither use up nor switch."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global state is what is watched
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": (kind, np.asarray(keys).tobytes(), *rest),
        "python's random state": random.getstate(),
        "gradient mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "number of threads": torch.get_num_threads(),
    }


@contextmanager
def count_passes() -> Iterator[CallCounter]:
    """Count the passes through every `Backbone`, copies that a method makes for itself included."""
    total = CallCounter()
    encode, decode, whole = Backbone.encode, Backbone.decode, Backbone.eps_with_grad

    def counted_encode(self: Backbone, x_t: Tensor, t: int) -> EncoderState:
        state = encode(self, x_t, t)
        total.encoder += len(x_t)
        return state

    def counted_decode(
        self: Backbone, state: EncoderState, delta_h: Tensor | None = None
    ) -> Tensor:
        eps = decode(self, state, delta_h)
        total.decoder += len(state)
        return eps

    def counted_whole(self: Backbone, x_t: Tensor, t: int) -> Tensor:
        eps = whole(self, x_t, t)
        total.encoder += len(x_t)
        total.decoder += len(x_t)
        return eps

    with (
        patch.object(Backbone, "encode", counted_encode),
        patch.object(Backbone, "eps_with_grad", counted_whole),
        patch.object(Backbone, "decode", counted_decode),
    ):
        yield total


@contextmanager
def elsewhere(folder: Path) -> Iterator[None]:
    """Make a folder the working, home and temporary folder, so that stray files land in it."""
    folder.mkdir(parents=True, exist_ok=True)
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(folder))
    with (
        chdir(folder),
        patch.dict(os.environ, places),
        patch.object(tempfile, "tempdir", str(folder)),
    ):
        yield


class PlannedFailure(Exception):
    """Thrown by `failing_decoder`."""


@contextmanager
def failing_decoder(backbone: Backbone, at_pass: int) -> Iterator[Callable[[], bool]]:
    """Let the given pass (1 = the first) through the U-Net's output layer fail.

    Yields whether that pass has been reached.
    """
    passes = 0

    def fail(module: nn.Module, inputs: Any) -> None:
        nonlocal passes
        passes += 1
        if passes == at_pass:
            raise PlannedFailure("planned failure in the middle of an edit")

    with backbone.unet.conv_out.register_forward_pre_hook(fail):
        yield lambda: passes >= at_pass


STRENGTHS = (0.0, 0.5, 1.0)
FIT_STEPS = 2
"""Given to methods whose settings have a `fit_steps`, as a suite would."""

T = TypeVar("T")
MethodClass = Callable[..., EditingMethod]


@dataclass(frozen=True)
class Observed:
    """What a stretch of work gave and left behind.

    Attributes:
        result: what it returned.
        unet_calls: U-Net passes in images, on any `Backbone`.
        changed: of the frozen "weights", the backbone's "hooks" and the process's "globals", what
            changed first; "" is nothing.
    """

    result: Any
    unet_calls: float
    changed: dict[str, str]


class MethodTrial:
    """Fits and edits, each done at most once, on first demand, in an empty scratch folder."""

    def __init__(self, method_class: MethodClass, folder: Path) -> None:
        self.method_class = method_class
        self.info: MethodInfo = method_class.info  # type: ignore[attr-defined]
        self._folder, self._outside = folder, folder / "outside"
        self._outcomes: dict[str, tuple[Any, Exception | None]] = {}
        self._workspaces: list[Path] = []
        self._given: dict[str, tuple[Inversions, Inversions]] = {}
        self._labels: list[tuple[str, Tensor, Tensor]] = []  # as given, and as they were
        self.took_random_numbers = False  # whether the second fit did, once it was made

    @cached_property
    def tasks(self) -> ToyTasks:
        """A toy domain of this trial's own."""
        return ToyTasks()

    @cached_property
    def method(self) -> EditingMethod:
        """The method that is fitted."""
        return self.make_method()

    def make_method(self) -> EditingMethod:
        """The method with settings small enough for the toy: `toy_config()`, or few fit steps."""
        toy_config = getattr(self.method_class, "toy_config", None)
        if toy_config is not None:
            return self.method_class(**toy_config().model_dump())
        method = self.method_class()
        if "fit_steps" in type(method.config).model_fields:
            return self.method_class(fit_steps=FIT_STEPS)
        return method

    def fit_outcome(self) -> Observed:
        """The first fit, on a guarded task. Raises what the fit raised."""
        return self._once("first fit", lambda: self.observe(self._guarded_fit))

    def edit_outcome(self) -> Observed:
        """All test images at `STRENGTHS`. Raises what the edit raised, or CheckFailed."""
        return self._once("edit", self._checked_edit)

    def second_fit_outcome(self) -> Observed:
        """A fit on an equal task, in another workspace. Raises what the fit raised."""
        return self._once("second fit", lambda: self.observe(self._second_fit))

    def second_edit_outcome(self) -> Tensor:
        """What the editor of the second fit makes of the test images."""
        return self._once("second edit", lambda: self.edit(self.second_fit_outcome().result))

    @property
    def editor(self) -> Editor:
        """The editor of the first fit. Raises NotRun where that failed."""
        return self.needed(self.fit_outcome).result  # type: ignore[no-any-return]

    @property
    def edited(self) -> Tensor:
        """[S, n, 3, H, W] of `edit_outcome`. Raises NotRun where that failed."""
        return self.needed(self.edit_outcome).result  # type: ignore[no-any-return]

    def needed(self, outcome: Callable[[], T]) -> T:
        """An outcome that a check builds upon; NotRun in place of the error that it raises."""
        try:
            return outcome()
        except NotRun:
            raise
        except Exception as error:
            raise NotRun(f"an earlier check fails ({first_line(error)})") from error

    def task(self, workspace: str) -> EditTask:
        """A task as the runner gives it."""
        return self.tasks.task(self.info, self._workspace(workspace))

    def edit(
        self,
        editor: Editor,
        strengths: Sequence[float] = STRENGTHS,
        places: Sequence[int] | None = None,
        *,
        renamed: bool = False,
    ) -> Tensor:
        """Edit a fresh copy of the test images, or of those at these places, or by other names."""
        images = self.tasks.test_images(places)
        if renamed:
            images = replace(images, image_ids=tuple(f"{i:032x}" for i in range(len(images))))
        with elsewhere(self._outside):
            return editor.edit(images, strengths)

    def observe(self, work: Callable[[], Any]) -> Observed:
        """Do something, and see what it changed."""
        domain, sae = self.tasks.domain, self.tasks.sae

        def look() -> dict[str, dict[str, Any]]:
            owners = {"backbone": domain.backbone, "guide_clip": domain.guide_clip, "sae": sae}
            return {"weights": weights_of(**owners), "hooks": hooks_of(domain.backbone),
                    "globals": global_state()}  # fmt: skip

        before = look()
        with elsewhere(self._outside), count_passes() as passes:
            result = work()
        changed = {  # the first thing of each part that is not as before; "" where all is
            part: next((k for k in {**was, **now} if was.get(k) != now.get(k)), "")
            for (part, was), now in zip(before.items(), look().values(), strict=True)
        }
        return Observed(result, passes.unet_calls, changed)

    def stray_files(self) -> list[str]:
        """What was made outside the workspaces up to now."""
        own = {self._outside, self._folder / "workspaces"}
        strays = [
            path.relative_to(self._folder)
            for path in sorted(self._folder.rglob("*"))
            if path not in own and not any(path.is_relative_to(w) for w in self._workspaces)
        ]
        return [str(Path(*path.parts[1:])) for path in strays]

    def changed_inputs(self) -> str:
        """What the first fit or edit changed in place of what it was given; "" is nothing."""
        for name, (given, kept) in self._given.items():
            for field in fields(kept):
                old, new = getattr(kept, field.name), getattr(given, field.name)
                same = torch.equal(old, new) if isinstance(old, Tensor) else old == new
                if not same:
                    return f"{field.name} of {name}"
        return next((f"task's {n}" for n, own, was in self._labels if not own.equal(was)), "")

    def _workspace(self, name: str) -> Path:
        path = self._folder / "workspaces" / name
        self._workspaces.append(path)
        return path

    def _guarded_fit(self) -> Editor:
        uses: list[str] = []
        task = self.tasks.guarded_task(self.info, self._workspace("first"), uses)
        self._given["task.train"] = (task.train, self.tasks.train)
        if self.info.supervision == "labels" and task.labels is not None:
            labels = {"labels": task.labels}
            if self.info.uses_all_labels and task.all_labels is not None:
                labels |= task.all_labels
            self._labels = [(name, own, own.clone()) for name, own in labels.items()]
        try:
            editor = self.method.fit(task)
        finally:
            # Also where the method has caught the error, or met another one because of it.
            if uses:
                raise UndeclaredUse(uses[0]) from None
        kind = type(editor).__name__
        require(isinstance(editor, Editor), f"fit returns a {kind} that lacks cost, edit or state")
        kind = type(editor.cost).__name__
        require(isinstance(editor.cost, FitCost), f"cost is a {kind}, not a FitCost")
        return editor

    def _second_fit(self) -> Editor:
        task = self.task("second")
        before = task.generator.get_state()
        editor = self.method.fit(task)
        self.took_random_numbers = not torch.equal(before, task.generator.get_state())
        return editor

    def _checked_edit(self) -> Observed:
        editor, images = self.editor, self.tasks.test_images()
        self._given["the images to edit"] = (images, self.tasks.test)
        observed = self.observe(lambda: editor.edit(images, STRENGTHS))
        edited = observed.result
        require(isinstance(edited, Tensor), f"edit returns a {type(edited).__name__}, not a tensor")
        size = self.tasks.domain.backbone.image_size
        expected = (len(STRENGTHS), NUM_TEST, 3, size, size)
        shape = tuple(edited.shape)
        require(shape == expected, f"edit returns shape {shape}, not {expected}")
        require(edited.dtype == torch.float32, f"edit returns {edited.dtype}, not float32")
        require(not edited.requires_grad, "edit returns a tensor that carries a gradient")
        require(bool(torch.isfinite(edited).all()), "edit returns NaN or infinity")
        return observed

    def _once(self, name: str, work: Callable[[], T]) -> T:
        if name not in self._outcomes:
            try:
                self._outcomes[name] = (work(), None)
            except Exception as error:  # noqa: BLE001 - kept, and raised below
                self._outcomes[name] = (None, error)
        value, failure = self._outcomes[name]
        if failure is not None:
            raise failure
        return value  # type: ignore[no-any-return]
