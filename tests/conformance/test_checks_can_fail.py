"""Each check is turned red by a method with exactly that fault, and only that check is."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from casl_bench.conformance import NotRun
from casl_bench.conformance.check_method import METHOD_RULES, method_checks
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.h_space_editor import EditWindow, HSpaceEditor
from casl_bench.methods.method import EditTask, FitCost, MethodConfig, MethodInfo
from casl_bench.methods.weight_editor import WeightEditor


class GoodEditor(HSpaceEditor):
    def __init__(self, task: EditTask, direction: Tensor, cost: FitCost) -> None:
        super().__init__(task.backbone, EditWindow(t_edit=400), noise_seed=0, cost=cost)
        self.task, self.direction = task, direction

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        return self.direction.expand_as(h)

    def state(self) -> dict[str, Tensor]:
        return {"direction": self.direction}

    def latent_ranking(self) -> Tensor:
        return torch.arange(self.task_places())

    def unit_ranking(self) -> Tensor:
        _, height, width = self.backbone.h_shape
        return torch.arange(self.task_places() * height * width)

    def task_places(self) -> int:
        return 2 * self.backbone.h_shape[0]


class Good:
    """Keeps every rule: one random direction, after one look at the training images."""

    editor_class: ClassVar[type[GoodEditor]] = GoodEditor
    info: ClassVar[MethodInfo] = MethodInfo(
        "good", title="good", source="a test", version=1, space="h_space"
    )

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = config or MethodConfig()

    def fit(self, task: EditTask) -> Any:
        with task.backbone.count_calls() as calls:
            task.backbone.eps(task.train.x_T[:2], task.train.timesteps[-1])
        direction = torch.randn(task.backbone.h_shape, generator=task.generator)
        cost = FitCost(parameters=direction.numel(), unet_calls=calls.unet_calls)
        return self.editor_class(task, direction, cost)

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Any:
        return self.editor_class(task, state["direction"], FitCost())


FAULTY: list[tuple[str, type[Good]]] = []


def breaks(rule: str) -> Any:
    """Class decorator: this method, or the good method with this editor, breaks the rule."""

    def add(cls: type) -> type:
        if issubclass(cls, GoodEditor):
            cls = type(cls.__name__, (Good,), {"editor_class": cls})
        FAULTY.append((rule, cls))
        return cls

    return add


@breaks("its info is complete")
class NoVersion(Good):
    info = replace(Good.info, version=0)


@breaks("its info is complete")
class ShoutedName(Good):
    info = replace(Good.info, name="Good-Method")


@breaks("its info is complete")
class EntrantWithAnOracle(Good):
    info = replace(Good.info, needs_oracle=True)


@breaks("a fit declared deterministic takes no random number")
class ChanceUnsaid(Good):
    info = replace(Good.info, deterministic=True)


@breaks("its settings survive JSON")
class InfiniteSetting(Good):
    class Config(MethodConfig):
        limit: float = float("inf")

    def __init__(self, **settings: object) -> None:
        self.config = self.Config.model_validate(settings)


@breaks("its settings survive JSON")
class SettingsIgnored(Good):
    class Config(MethodConfig):
        t_edit: int = 400

    def __init__(self, **settings: object) -> None:
        self.config = self.Config(t_edit=400 + len(settings))


@breaks("it uses only what it declares")
class SecretLabels(Good):
    def fit(self, task: EditTask) -> Any:
        if task.labels is not None:
            task.labels.float().mean()
        return super().fit(task)


@breaks("it uses only what it declares")
class SecretGuide(Good):
    def fit(self, task: EditTask) -> Any:
        assert task.guide_clip is not None
        with contextlib.suppress(Exception):
            task.guide_clip.encode_text(["a square"])
        return super().fit(task)


@breaks("it uses only what it declares")
class SecretOracle(Good):
    def fit(self, task: EditTask) -> Any:
        editor = super().fit(task)
        if task.oracle:
            editor.direction += 1
        return editor


@breaks("it fits the toy task")
class CannotFit(Good):
    def fit(self, task: EditTask) -> Any:
        raise ZeroDivisionError("no images of this kind")


@breaks("it fits the toy task")
class NoEditor(Good):
    def fit(self, task: EditTask) -> Any:
        return self


@breaks("edits have the right shape and type and are finite")
class DoublePrecision(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        return super().edit(inversions, strengths).double()


@breaks("edits have the right shape and type and are finite")
class Swapped(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        return super().edit(inversions, strengths).transpose(0, 1)


@breaks("edits have the right shape and type and are finite")
class NotFinite(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        return super().edit(inversions, strengths) / 0.0


@breaks("zero strength is the reconstruction")
class AlwaysEdits(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        return super().edit(inversions, strengths) * (1 + 1e-6)


@breaks("same seed, same pixels")
class OwnRandomness(Good):
    def fit(self, task: EditTask) -> Any:
        task.generator.seed()
        return super().fit(task)


@breaks("a repeated fit in the same workspace gives the same pixels")
class KeepsAdding(Good):
    def fit(self, task: EditTask) -> Any:
        editor = super().fit(task)
        store = task.workspace / "times"
        times = int(store.read_text()) if store.exists() else 0
        store.write_text(str(times + 1))
        editor.direction += times
        return editor


@breaks("what images are called changes nothing: the runner gives them random names")
class ReadsTheIds(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        images = super().edit(inversions, strengths)
        known = torch.tensor([float(name.startswith("toy_")) for name in inversions.image_ids])
        factors = torch.tensor(strengths)[:, None, None, None, None]
        return images + 0.1 * factors * known[:, None, None, None]


@breaks("a batch of 4 is four batches of 1")
class LooksAtTheBatch(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        edited = super().edit(inversions, strengths)
        factors = torch.tensor(strengths)[:, None, None, None, None]
        return edited - factors * edited.mean(1, keepdim=True)


@breaks("strengths together are strengths one at a time")
class LooksAtTheStrengths(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        return super().edit(inversions, [s * len(strengths) for s in strengths])


@breaks("a negative strength edits the other way, where declared")
class OneWay(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        return super().edit(inversions, [abs(s) for s in strengths])


@breaks("a stored and restored state gives the same pixels")
class ForgetsItsDirection(Good):
    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Any:
        return super().restore(task, {"direction": torch.zeros_like(state["direction"])})


@breaks("a stored and restored state gives the same pixels")
class StateInTheWorkspace(Good):
    def fit(self, task: EditTask) -> Any:
        editor = super().fit(task)
        torch.save(editor.direction, task.workspace / "direction.pt")
        return editor

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Any:
        stored = torch.load(task.workspace / "direction.pt")
        return super().restore(task, {"direction": stored})


@breaks("frozen weights stay as they are")
class FineTunesInPlace(Good):
    def fit(self, task: EditTask) -> Any:
        task.backbone.unet.conv_in.weight[0].zero_()
        return super().fit(task)


@breaks("frozen weights stay as they are")
class Unfreezes(Good):
    def fit(self, task: EditTask) -> Any:
        task.backbone.unet.requires_grad_(True)
        return super().fit(task)


@breaks("hooks are gone")
class LeavesAHook(Good):
    def fit(self, task: EditTask) -> Any:
        task.backbone.unet.conv_in.register_forward_hook(lambda *args: None)
        return super().fit(task)


@breaks("hooks are gone")
class ReplacesAFunction(Good):
    def fit(self, task: EditTask) -> Any:
        task.backbone.time_embedding = task.backbone.time_embedding  # type: ignore[method-assign]
        return super().fit(task)


@breaks("an edit that fails half way leaves nothing behind")
class HookWithoutFinally(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        hook = self.backbone.unet.conv_in.register_forward_hook(lambda *args: None)
        edited = super().edit(inversions, strengths)
        hook.remove()
        return edited


@breaks("an edit that fails half way leaves nothing behind")
class SwallowsErrors(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        try:
            return super().edit(inversions, strengths)
        except Exception:  # noqa: BLE001 - this is the fault
            return inversions.reconstruction[None].repeat(len(strengths), 1, 1, 1, 1)


@breaks("global state is untouched")
class SeedsEverything(Good):
    def fit(self, task: EditTask) -> Any:
        torch.manual_seed(7)
        return super().fit(task)


@breaks("global state is untouched")
class DrawsFromNumpy(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        import numpy as np

        np.random.rand()  # noqa: NPY002 - this is the fault
        return super().edit(inversions, strengths)


@breaks("the images and labels given stay as they are")
class WritesOnItsInput(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        edited = super().edit(inversions, strengths)
        inversions.x_0.clamp_(-0.1, 0.1)
        return edited


@breaks("the images and labels given stay as they are")
class WritesOnItsTrainingImages(Good):
    def fit(self, task: EditTask) -> Any:
        editor = super().fit(task)
        task.train.reconstruction.zero_()
        return editor


@breaks("the images and labels given stay as they are")
class WritesOnItsLabels(Good):
    info = replace(Good.info, supervision="labels")

    def fit(self, task: EditTask) -> Any:
        editor = super().fit(task)
        assert task.labels is not None
        task.labels.logical_not_()
        return editor


@breaks("U-Net calls are reported as made")
class HidesItsCost(Good):
    def fit(self, task: EditTask) -> Any:
        editor = super().fit(task)
        editor.cost = replace(editor.cost, unet_calls=0.0)
        return editor


@breaks("U-Net calls are reported as made")
class CheaperTheSecondTime(Good):
    def __init__(self, config: MethodConfig | None = None) -> None:
        super().__init__(config)
        self.fits = 0

    def fit(self, task: EditTask) -> Any:
        editor, extra = super().fit(task), 1 if self.fits else 2
        self.fits += 1
        task.backbone.eps(task.train.x_T[:extra], 0)
        editor.cost = replace(editor.cost, unet_calls=editor.cost.unet_calls + extra)
        return editor


@breaks("parameters are counted")
class NegativeParameters(Good):
    def fit(self, task: EditTask) -> Any:
        editor = super().fit(task)
        editor.cost = replace(editor.cost, parameters=-1)
        return editor


@breaks("parameters are counted")
class MoreParametersThanState(Good):
    def fit(self, task: EditTask) -> Any:
        editor = super().fit(task)
        editor.cost = replace(editor.cost, parameters=10**6)
        return editor


@breaks("nothing is written outside the workspace")
class WritesInTheWorkingFolder(Good):
    def fit(self, task: EditTask) -> Any:
        Path("cache.txt").write_text("left behind")
        return super().fit(task)


@breaks("nothing is written outside the workspace")
class WritesBesideItsWorkspace(GoodEditor):
    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        (self.task.workspace.parent / "cache.txt").write_text("left behind")
        return super().edit(inversions, strengths)


@breaks("a delta_h, where offered, has the shape of h")
class FlatDelta(GoodEditor):
    def delta_h(self, h: Tensor, t: int, strength: float) -> Tensor:
        return super().delta_h(h, t, strength).flatten(1)


@breaks("the declared edit space is the one that the editor shows")
class UndeclaredSpace(Good):
    info = replace(Good.info, space="other")


@breaks("a weight_delta, where offered, fits the U-Net")
class WeightsOfAnotherNetwork(Good):
    class Editor(WeightEditor):
        def weight_delta(self) -> dict[str, Tensor]:
            return {"elsewhere.weight": torch.ones(2)}

        def edit(self, inversions: Any, strengths: Any) -> Tensor:
            factors = torch.tensor(list(strengths))[:, None, None, None, None]
            return inversions.reconstruction[None] + 0.1 * factors

        def state(self) -> dict[str, Tensor]:
            return {"shift": torch.tensor(0.1)}

    info = replace(Good.info, space="weights")

    def fit(self, task: EditTask) -> Any:
        return self.Editor(task.backbone, 999, FitCost())

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Any:
        return self.Editor(task.backbone, 999, FitCost())


@breaks("rankings, where offered, are permutations")
class EverythingIsFirst(GoodEditor):
    def latent_ranking(self) -> Tensor:
        return torch.zeros(self.task_places(), dtype=torch.int64)


def failing_rules(method_class: type[Good]) -> dict[str, Exception]:
    failing = {}
    for rule, check in method_checks(method_class):
        try:
            check()
        except NotRun:
            continue
        except Exception as error:  # noqa: BLE001 - whatever a faulty method raises
            failing[rule] = error
    return failing


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the faults writes into the working folder, which is not to be the checkout."""
    monkeypatch.chdir(tmp_path)


def test_a_good_method_passes_every_check():
    for _, check in method_checks(Good):
        check()


@pytest.mark.parametrize(
    ("rule", "method_class"), [pytest.param(r, c, id=c.__name__) for r, c in FAULTY]
)
def test_a_fault_turns_exactly_its_own_check_red(rule, method_class):
    assert list(failing_rules(method_class)) == [rule]


def test_every_check_has_a_fault():
    assert {rule for rule, _ in FAULTY} == set(METHOD_RULES.rules)


def test_the_message_names_what_is_used_and_what_to_declare():
    (error,) = failing_rules(SecretLabels).values()
    assert str(error) == (
        'the method uses task.labels, but its info does not declare supervision="labels"'
    )


def test_checks_after_a_failed_fit_are_not_run_and_say_why():
    checks = dict(method_checks(CannotFit))
    with pytest.raises(NotRun, match="no images of this kind"):
        checks["same seed, same pixels"]()


class OnlyInItsWindow(GoodEditor):
    def delta_h(self, h: Tensor, t: int, strength: float) -> Tensor:
        if t < 400:
            raise KeyError(t)
        return super().delta_h(h, t, strength)


class ImportsWithinFit(Good):
    def fit(self, task: EditTask) -> Any:
        torch.rand(1)  # as an import of some libraries does
        return super().fit(task)


def test_messages_say_what_to_do():
    windowed = type("Windowed", (Good,), {"editor_class": OnlyInItsWindow})
    (error,) = failing_rules(windowed).values()
    assert "at timestep" in str(error) and "return zeros where your editor does nothing" in str(
        error
    )
    said = [str(e) for e in failing_rules(ImportsWithinFit).values()]
    assert any("draw from task.generator; where an import draws them" in text for text in said)
