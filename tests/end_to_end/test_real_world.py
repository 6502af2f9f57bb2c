"""Photographs from files to tables, on tiny data sets in every published layout."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from casl_bench.cli.main import main
from casl_bench.conformance.toy_domain import seeded
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.domain import Domain
from casl_bench.domains.options import DataSource
from casl_bench.methods.delta_block import build_delta_block
from casl_bench.models.clip import build_clip
from casl_bench.models.embedder import EmbedderNet
from casl_bench.models.model_files import write_model
from casl_bench.photos import domains, published_weights
from casl_bench.photos.celeba import Celeba
from casl_bench.photos.celeba_hq import CelebaHq
from casl_bench.photos.published_weights import ALEXNET_FILE, WEIGHTS
from casl_bench.runs import suites as config_module
from tests.support import layouts, real_files
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

pytest.importorskip("lmdb", reason="the extra `real` is not installed")
pytest.importorskip("lpips", reason="the extra `real` is not installed")
facenet = pytest.importorskip("facenet_pytorch", reason="the extra `real` is not installed")

ROOT = Path(__file__).parents[2]
GOLDEN = [base / "shared" / "golden" / "ddpm" / "unet.pt" for base in (ROOT, ROOT.parent)]
SIZE = 32
TINY = tiny_suite(
    timestep_power=1.0,
    train_images=12,
    validation_images=1,
    test_pool_images=5,
    probe_train_images=12,
    probe_test_images=5,
)


@pytest.fixture(scope="module", autouse=True)
def tiny_suites() -> Iterator[None]:
    """`paper`, too, is small here: the documented commands are run as they stand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config_module.SUITES, "tiny", TINY)
        paper = TINY.model_copy(update={"name": "paper"})
        patch.setitem(config_module.SUITES, "paper", paper)
        # Two images are scored at once: the rest of a batch would be padding.
        patch.setattr("casl_bench.photos.scorers.similarity.MICRO_BATCH", 2)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data` with all three sets and `weights` with everything they need."""
    root = tmp_path_factory.mktemp("real")
    data, weights = root / "data", root / "weights"
    layouts.write_celeba_hq(data / "celeba_hq", images=130)
    layouts.write_afhq(data / "afhq_dog", images=50)
    layouts.write_lsun_lmdb(data / "lsun_church", images=50)
    for name in ("celeba_hq", "afhq_dog", "lsun_church"):
        real_files.write_backbone(weights / "backbones" / name, real_files.tiny_unet(SIZE))
    architecture = real_files.register_tiny_clip(root)
    for use in ("guide", "score", "judge"):
        real_files.write_clip(root / f"{use}.safetensors", architecture, use)
    real_files.write_alexnet(weights / "lpips" / "alexnet-owt-7be5be79.pth")
    real_files.write_vggface2(weights / "faces" / "20180402-114759-vggface2.pt")
    faces = CelebaHq(DataSource(data / "celeba_hq"), SIZE)
    parts = [faces.load("train", 12), faces.load("validation", 12), faces.load("test", 5)]
    labels = [part.attributes for part in parts]
    real_files.write_classifier(
        weights / "classifiers" / "celeba_hq" / "linear.pt",
        faces.card.attributes,
        torch.cat([part.pixels for part in parts]),
        torch.cat([part for part in labels if part is not None]),
    )
    return root


def arguments(files: Path, *given: str) -> list[str]:
    clips = {
        f"--{use}-clip": f"{real_files.TINY_CLIP}:{files / name}.safetensors"
        for use, name in (("guide", "guide"), ("score", "score"), ("zero-shot", "judge"))
    }
    roots = ["--data-root", str(files / "data"), "--weights-root", str(files / "weights")]
    return [*given, *roots, *(word for pair in clips.items() for word in pair)]


def write_delta_block(folder: Path, concept: str, channels: int, temb_dim: int) -> None:
    """As Asyrp's authors publish one."""
    generator = torch.Generator().manual_seed(0)
    block = build_delta_block("ddpm", channels, temb_dim, generator)
    block.last_layer.weight.data.normal_(0, 0.01, generator=generator)
    name = f"{concept}_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
    torch.save({"0": block.state_dict(), "optimizer": {}, "scheduler": {}}, folder / name)


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "numbers.jsonl").read_text().splitlines()]


def editable(files: Path) -> str:
    """A concept that enough of the few portraits lack."""
    faces = CelebaHq(DataSource(files / "data" / "celeba_hq"), SIZE)
    test, validation = (faces.load(*part).attributes for part in (("test", 5), ("validation", 4)))
    assert test is not None and validation is not None
    for concept in faces.card.concepts:
        column = faces.card.attributes.index(concept.attribute)
        if (~test[:, column]).sum() >= 2 and (~validation[:, column]).sum() >= 1:
            return concept.name
    raise AssertionError("no concept can be edited")


def test_labelled_portraits_end_in_a_table(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, concept = tmp_path / "faces", editable(files)
    code = main(arguments(files, "--datasets", "celeba_hq", "--methods", "casl,asyrp,h_linear",
                          "--concepts", concept, "--suite", "tiny", "--out", str(out)))  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "(photographs, " in printed.out and "zero-shot" not in printed.out
    found = records(out)
    (edit,) = [r for r in found if r["method"] == "asyrp" and r["kind"] == "edit"]
    assert edit["world"] == "real" and len(edit["attributes"]) == 40
    assert edit["measurements"]["identity"]["status"] == "ok"
    (oracle,) = [r for r in found if r["method"] == "oracle"]
    assert oracle["status"] == "skipped"
    (back,) = [r for r in found if r["kind"] == "reconstruction"]
    assert back["measurements"]["faces_missed"]["value"] == 5  # blobs of colour have none
    (scorer,) = [r for r in found if r["kind"] == "scorer"]
    assert scorer["measurements"]["linear.accuracy"]["value"] > 0.9


@pytest.mark.parametrize(("dataset", "concept"), [("afhq_dog", "happy"), ("lsun_church", "gothic")])
def test_unlabelled_photographs_are_judged_zero_shot_and_say_so(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str, concept: str
) -> None:
    out = tmp_path / dataset
    given = ["--datasets", dataset, "--methods", "casl,h_linear", "--concepts", concept,
             "--suite", "tiny", "--out", str(out)]  # fmt: skip
    code = main(arguments(files, *given))
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "judged zero-shot" in printed.out
    found = records(out)
    (casl,) = [r for r in found if r["method"] == "casl" and r["kind"] == "edit"]
    assert casl["measurements"]["identity"]["status"] != "ok"
    assert all(name.startswith(("zero_shot:", "open_clip:", "lpips")) for name in casl["scorers"])
    (linear,) = [r for r in found if r["method"] == "h_linear" and r["kind"] == "edit"]
    assert linear["status"] == "skipped" and "labels" in linear["error"]["message"]


@pytest.mark.parametrize(
    ("dataset", "concept", "write"),
    [
        ("celeba_hq", "smiling", layouts.write_celeba_hq_folder),
        ("afhq_dog", "happy", layouts.write_afhq_v2),
        ("lsun_church", "gothic", layouts.write_lsun_folder),
    ],
    ids=["stargan", "afhq_v2", "lsun_exported"],
)
def test_the_other_published_layouts(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, concept: str,
    write: Callable[..., Path],
) -> None:  # fmt: skip
    root, out = write(tmp_path / "data", images=50), tmp_path / "out"
    # What an unfit classifier sees in five images must not decide whether there are two to edit.
    monkeypatch.setattr(Domain, "presence", lambda self, batch: torch.zeros(
        len(batch), len(self.dataset.card.attributes), dtype=torch.bool))  # fmt: skip
    others = [a for a in arguments(files) if str(files / "data") not in a and a != "--data-root"]
    given = ["--datasets", dataset, "--methods", "asyrp", "--concepts", concept,
             "--suite", "tiny", "--out", str(out), "--data-root", str(root)]  # fmt: skip
    assert main([*given, *others]) == 0
    (edit,) = [r for r in records(out) if r["method"] == "asyrp" and r["kind"] == "edit"]
    assert edit["status"] == "done"
    (scorer,) = [r for r in records(out) if r["kind"] == "scorer"]
    marks = [name for name in scorer["measurements"] if ".spread/" not in name]
    assert all(".agreement" in name or ".worst" in name for name in marks)


def test_published_delta_blocks_run_without_training(files: Path, tmp_path: Path) -> None:
    concept, folder = editable(files), tmp_path / "asyrp"
    folder.mkdir()
    write_delta_block(folder, concept, 32, 32)
    out = tmp_path / "out"
    given = ["--datasets", "celeba_hq", "--methods", "asyrp", "--concepts", concept,
             "--suite", "tiny", "--method-weights", f"asyrp={folder}",
             "--out", str(out)]  # fmt: skip
    assert main(arguments(files, *given)) == 0
    (edit,) = [r for r in records(out) if r["method"] == "asyrp" and r["kind"] == "edit"]
    assert edit["cost"]["unet_calls"] == 0 and "pretrained weights" in edit["flags"]
    assert edit["artefacts"]["pretrained"]


def test_bad_images_stop_a_run_or_are_counted(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layouts.write_afhq(tmp_path / "dogs", images=50)
    victim = sorted((root / "train" / "dog").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:100])
    given = ["--datasets", "afhq_dog", "--methods", "casl", "--concepts", "happy",
             "--suite", "tiny", "--out", str(tmp_path / "out"),
             "--data-root", str(root)]  # fmt: skip
    clips = [a for a in arguments(files) if str(files / "data") not in a and a != "--data-root"]
    assert main([*given, *clips]) == 5
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(victim) in error and "--on-bad-image skip" in error
    assert main([*given, *clips, "--on-bad-image", "skip"]) == 0
    (record,) = [r for r in records(tmp_path / "out") if r["kind"] == "reconstruction"]
    assert record["measurements"]["images_left_out"]["value"] == 1


class Program(nn.Module):
    """TorchScript that leaves a file behind as soon as it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.weight = path, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.path, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.path, self.training = state[0], state[2]
        self.weight = state[1] + torch.from_file(self.path, True, 1)


PLACES = {
    "backbone": ["--backbone", "{program}"],
    "guide": ["--guide-clip", "tiny-test-clip:{program}"],
    "score": ["--score-clip", "tiny-test-clip:{program}"],
    "classifier": ["--classifier", "{program}"],
    "alexnet": [],
    "faces": [],
    "method": ["--method-weights", "asyrp={folder}"],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", [[], ["--dry-run"]], ids=["run", "dry"])
def test_no_program_in_a_weights_file_is_run(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, command: list[str]
) -> None:
    folder, left = tmp_path / "asyrp", tmp_path / "left"
    folder.mkdir()
    program = folder / f"{editable(files)}.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Program(str(left))), str(program))
        torch.jit.load(str(program))
    assert left.exists()  # it does what it is for
    left.unlink()
    program.with_suffix(".json").write_bytes(
        (files / "weights/classifiers/celeba_hq/linear.json").read_bytes()
    )
    weights = tmp_path / "weights"
    shutil.copytree(files / "weights", weights)
    if place in ("alexnet", "faces"):
        (old,) = (weights / ("lpips" if place == "alexnet" else "faces")).iterdir()
        shutil.copy(program, old)
    given = [*arguments(files), "--weights-root", str(weights)]
    given += [word.format(program=program, folder=folder) for word in PLACES[place]]
    given += ["--datasets", "celeba_hq", "--methods", "asyrp", "--concepts", program.stem]
    given += ["--suite", "tiny", "--out", str(tmp_path / "out")]
    code = main([*command, *given])
    printed = capsys.readouterr()
    assert not left.exists()
    if place == "method" and command:  # an estimate reads none
        assert code == 0
    else:
        assert code == (0 if "--dry-run" in command else 5), printed.err
        assert "a TorchScript file is a program, and none is run" in printed.out + printed.err


@pytest.mark.parametrize("command", ["convert", "train"])
def test_no_program_is_run_where_weights_are_converted_or_trained_on(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    left, program = tmp_path / "left", tmp_path / "program.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Program(str(left))), str(program))
    given = {
        "convert": ["convert", str(program), "--out", str(tmp_path / "out")],
        "train": ["train", "attributes", "--data-root", str(files / "data" / "celeba_hq"),
                  "--weights", str(program), "--out", str(tmp_path / "out"), "--image-size", "32",
                  "--images", "16", "--held-out", "4"],
    }  # fmt: skip
    assert main(given[command]) == 5
    assert "a TorchScript file is a program, and none is run" in capsys.readouterr().err
    assert not left.exists()


def test_a_suite_that_asks_for_more_images_than_there_are_ends_before_it_begins(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layouts.write_afhq(tmp_path / "dogs", images=10)
    given = ["--datasets", "afhq_dog", "--methods", "casl", "--suite", "tiny",
             "--out", str(tmp_path / "out")]  # fmt: skip
    others = [a for a in arguments(files) if str(files / "data") not in a and a != "--data-root"]
    assert main([*given, *others, "--data-root", str(root)]) == 2
    line = said(capsys)
    assert "train images: 9 there, 12 asked for" in line and "validation images: 1 there" in line
    assert not (tmp_path / "out").exists()


def documented() -> list[list[str]]:
    """Commands of the page, in its order, as argument lists of `casl-bench`."""
    text = (ROOT / "docs" / "real_data.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines()
    assert all(line.startswith(("pip ", "export ", "casl-bench ", "python ")) for line in lines)
    calls = [line for line in lines if line.startswith(("casl-bench ", "python benchmark.py "))]
    return [shlex.split(line.removeprefix("python "))[1:] for line in calls]


def test_the_documented_way_leads_to_a_table(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Every command as it stands, but for paths, small models and short trainings."""
    golden = next((p for p in GOLDEN if p.is_file()), None)
    if golden is None:
        pytest.skip("shared/golden/ddpm/unet.pt is not here: there is no checkpoint to convert")
    weights = tmp_path / "weights"
    shutil.copytree(files / "weights", weights)
    shutil.rmtree(weights / "backbones" / "celeba_hq")
    shutil.rmtree(weights / "classifiers")
    (weights / "asyrp").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CASL_BENCH_DATA", str(files / "data"))
    monkeypatch.setenv("CASL_BENCH_WEIGHTS", str(weights))
    shutil.copy(golden, tmp_path / "celeba_hq.ckpt")
    concept, ran = editable(files), []
    small = {
        "weights": [],
        "convert": ["--image-size", "32"],
        "train": ["--steps", "2", "--images", "16", "--held-out", "4", "--batch-size", "8",
                  "--image-size", "32"],
    }  # fmt: skip
    swapped = {"/data": str(files / "data"), "/weights": str(weights), "smiling": concept,
               "cuda": "cpu"}  # fmt: skip
    for call in documented():
        name = call[0] if call[0] in small else "run"
        words = [word for word in call if word not in ("--config", "celeba_hq_256_ddpm")]
        for before, after in swapped.items():
            words = [re.sub(f"(?<![\\w.]){before}(?=$|/)", after, word) for word in words]
        if name == "run":
            words = [*words, *arguments(files)[4:]]
            words += [] if "--concepts" in words else ["--concepts", concept]
        if "google/ddpm-ema-celebahq-256" in words:  # the Hub is not asked by a test
            words[words.index("google/ddpm-ema-celebahq-256")] = str(
                files / "weights" / "backbones" / "celeba_hq"
            )
            words += ["--weights-root", str(files / "weights"), "--out", "whole"]
        if "--method-weights" in words:
            write_delta_block(weights / "asyrp", concept, 64, 128)
            words += ["--out", "pretrained"]
        assert main([*words, *small.get(name, [])]) == 0, (words, capsys.readouterr().err)
        ran.append(name)
        if name == "train":  # two steps pass no floor; what the page is about is the way
            assert list((weights / "classifiers" / "celeba_hq").glob("*.safetensors"))
            shutil.rmtree(weights / "classifiers")
            shutil.copytree(files / "weights" / "classifiers", weights / "classifiers")
    assert ran == ["run", "weights", "convert", "train", "run", "run", "run"]
    printed = capsys.readouterr().out
    assert printed.count("asyrp: 1 of 1 concept done") >= 2 and "suite paper" in printed


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--datasets", "celeba_hq"], "--data-root"),
        (["--datasets", "celeba_hq", "--data-root", "{tmp}/none"], "none"),
        (["--datasets", "celeba-hq"], "did you mean 'celeba_hq'"),
        (["--datasets", "celeba_hq", "--data-root", "{tmp}"], "CelebA-HQ-img"),
        (["--backbone", "x=y"], "unknown dataset 'x'"),
        (["--backbone", "somewhere"], "would change nothing"),
        (["--method-weights", "asyrpp=x", "--methods", "asyrp"], "did you mean 'asyrp'"),
        (["--method-weights", "asyrp={tmp}/none", "--methods", "asyrp"], "no such folder"),
        (["--method-weights", "casl={tmp}", "--methods", "casl"], "no pretrained weights"),
        (["--method-weights", "asyrp={tmp}", "--methods", "asyrp"], "Δ-block"),
        (["--method-weights", "asyrp="], "no value"),
    ],
)
def test_a_fault_is_one_line(
    given: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("CASL_BENCH_DATA", raising=False)
    monkeypatch.setenv("CASL_BENCH_WEIGHTS", str(tmp_path / "weights"))
    given = [word.replace("{tmp}", str(tmp_path)) for word in given]
    out = tmp_path / "out"
    assert main([*given, "--suite", "tiny", "--out", str(out)]) == 2
    assert words in said(capsys)
    assert not out.exists()


def test_everything_missing_is_named_at_once(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--datasets", "lsun_church", "--data-root", str(files / "data"), "--suite", "tiny"]
    empty = ["--weights-root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*given, *empty]) == 2
    line = said(capsys)
    for weight in WEIGHTS:
        needed = "lsun_church" in weight.datasets
        in_cache = weight.place.startswith("clip/") and weight.place not in line
        assert (weight.place in line) is needed or in_cache


def test_a_dry_run_needs_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--datasets", "celeba_hq,afhq_dog,lsun_church", "--methods", "casl", "--suite", "tiny"]
    assert main([*given, "--dry-run", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "U-Net calls" in printed and printed.count("not ready to run") == 3
    assert not (tmp_path / "out").exists()


@pytest.fixture
def without_some(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a user who has no scorers yet: two have an address, one can be trained."""
    weights = tmp_path / "weights"
    shutil.copytree(files / "weights", weights)
    shutil.rmtree(weights / "classifiers")
    table = real_files.publish(weights, tmp_path / "published")
    monkeypatch.setattr(published_weights, "WEIGHTS", table)
    small = ("--architecture", "torchvision:shufflenet_v2_x0_5", "--image-size", "32",
             "--batch-size", "8", "--steps", "2")  # fmt: skip
    monkeypatch.setattr(domains, "TRAINED", small)
    monkeypatch.setattr(domains, "MOST_TRAINED_ON", 16)
    monkeypatch.setattr(domains, "MOST_HELD_OUT", 8)

    def trained(name: str) -> Any:
        """The training itself; two steps pass no floor, so a better one takes its place."""
        train = import_module(name).main.main

        def main(given: list[str], *rest: str, **settings: Any) -> None:
            train(given, *rest, **settings)
            folder = weights / "classifiers" / "celeba_hq"
            (made,) = folder.glob("*.safetensors")
            assert made.stem == "classifier_torchvision_shufflenet_v2_x0_5_celeba_hq"
            made.unlink()
            for path in (files / "weights" / "classifiers" / "celeba_hq").iterdir():
                shutil.copy(path, folder)

        return SimpleNamespace(main=SimpleNamespace(main=main))

    monkeypatch.setattr(domains, "import_module", trained)
    given = arguments(files, "--datasets", "celeba_hq", "--methods", "asyrp", "--suite", "paper")
    return [word.replace(str(files / "weights"), str(weights)) for word in given]


def test_one_command_leads_from_the_images_to_the_table(
    files: Path, without_some: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = ["--concepts", editable(files), "--out", str(tmp_path / "out")]
    assert main([*without_some, *out]) == 2  # without permission
    line = said(capsys)
    assert "lpips/" in line and "faces/" in line and "--allow-download" in line
    assert "classifiers" not in line and not (tmp_path / "weights" / "classifiers").exists()

    assert main([*without_some, *out, "--allow-download", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    told = "made first, and not counted above: celeba_hq: attribute classifier, torchvision:"
    assert told in printed and "on 16 images" in printed
    assert not (tmp_path / "weights" / "lpips" / ALEXNET_FILE).exists()

    assert main([*without_some, *out, "--allow-download"]) == 0
    printed = capsys.readouterr()
    assert "suite paper" in printed.out and "asyrp: 1 of 1" in printed.out
    assert "step " not in printed.out and "mean accuracy" not in printed.out
    assert printed.err.count("fetching file://") == 2
    assert "celeba_hq: attribute classifier" in printed.err
    (scorer,) = [r for r in records(tmp_path / "out") if r["kind"] == "scorer"]
    assert "linear" in scorer["scorers"]

    monkeypatch.setattr(domains, "import_module", None)  # nothing is trained or fetched again
    assert main([*without_some, *out]) == 0
    assert "fetching" not in capsys.readouterr().err


def test_a_dry_run_for_a_gpu_that_is_not_here_tells_hours_by_device(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = arguments(files, "--datasets", "celeba_hq", "--methods", "asyrp", "--suite", "tiny")
    given += ["--out", str(tmp_path / "out")]
    for device in (["--device", "cuda"], ["--devices", "0,1,2,3"]):
        assert main([*given, *device, "--dry-run"]) == 0
        printed = capsys.readouterr().out
        assert "device cuda:0" in printed and "not ready to run" not in printed
        assert "cuda:0 is not here: which cells are done is not known" in printed
        assert re.search(
            r"A100 [\d.]+ h, .*H200 [\d.]+ h \(arithmetic: [\d.]+ GFLOP a pass", printed
        )
        assert main([*given, *device]) == 2
        assert re.search("device 'cuda(:0)?' is not available here", said(capsys))
        assert not (tmp_path / "out").exists()
    assert main([*given, "--dry-run"]) == 0
    assert "h on one thread of a CPU (measured:" in capsys.readouterr().out
    assert main([*given, "--device", "cuda", "--devices", "0"]) == 2
    assert "give one of them" in said(capsys)


def own_models(root: Path) -> tuple[Path, list[str]]:
    """CelebA with a U-Net, CLIPs, a classifier and an embedder that somebody has trained."""
    data = layouts.write_celeba(root / "celeba", images=130)
    (data / "list_eval_partition.txt").unlink()
    (data / "splits.txt").write_text("train 1-80\nvalidation 81-100\ntest 101-130\n")
    weights, words = root / "weights", set[str]()
    real_files.write_backbone(weights / "backbones" / "celeba", real_files.tiny_unet(SIZE))
    portraits = Celeba(DataSource(data), SIZE)
    for concept in portraits.card.concepts:
        words |= {*concept.source_prompt.split(), *concept.target_prompt.split()}
    tower = {"layers": 1, "width": 32}
    config = {
        "embed_dim": 16,
        "vision": {**tower, "image_size": SIZE, "patch_size": 8, "head_width": 16},
        "text": {**tower, "context_length": 10, "heads": 2},
        "words": sorted(words),
    }
    for name in ("guide", "score"):
        clip = seeded("own", name, lambda: build_clip(config))
        state = {f"network.{k}": v for k, v in clip.state_dict().items()}
        write_model(root / name, state, {"name": f"own_{name}", "config": config})
    net = seeded("own", "embedder", lambda: EmbedderNet((8, 8), 8))
    state = {f"network.{k}": v for k, v in net.state_dict().items()}
    described = {"widths": [8, 8], "embed_dim": 8, "image_size": SIZE}
    write_model(weights / "embedders" / "celeba", state, {"name": "own", "config": described})
    parts = [portraits.load("train", 60), portraits.load("test", 30)]
    real_files.write_classifier(
        weights / "classifiers" / "celeba" / "linear.pt",
        portraits.card.attributes,
        torch.cat([part.pixels for part in parts]),
        torch.cat([part.attributes for part in parts if part.attributes is not None]),
    )
    clips = ["--guide-clip", str(root / "guide"), "--score-clip", str(root / "score")]
    return weights, ["--data-root", str(data), "--weights-root", str(weights), *clips]


def test_celeba_runs_on_models_of_ones_own_once_its_gate_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, given = own_models(tmp_path)
    out = tmp_path / "gate"
    gate = ["study", "photographs-gate", *given, "--images", "4", "--out", str(out)]
    assert main(gate) == 1  # a U-Net that was never trained flips nothing
    printed = capsys.readouterr().out
    assert "The gate is missed." in printed and "mean difference flips male" in printed
    found = json.loads((out / "photographs_gate.json").read_text())
    assert found["images"] == 4 and found["classifier"] == "linear" and not found["holds"]
    assert set(found["flips"]) == {"blond_hair", "male", "smiling"}
    # Of weights at random, whose eps no line foretells.
    assert found["plain_db"] > 10 and math.isfinite(found["extrapolated_db"])
    run = ["--datasets", "celeba", "--methods", "h_linear", "--concepts", "smiling", "--suite",
           "tiny", "--out", str(tmp_path / "out")]  # fmt: skip
    # An embedder that was never trained sees the same person in everything.
    assert main([*run, *given]) == 5
    assert "a control is out of its bounds: 'destroy'" in capsys.readouterr().err
    cells = [json.loads(p.read_text()) for p in (tmp_path / "out").rglob("record.json")]
    (edit,) = [r for r in cells if r["method"] == "h_linear" and r["kind"] == "edit"]
    assert edit["status"] == "done" and "own" in edit["scorers"]
    assert any(name.startswith("own_score") for name in edit["scorers"])


def test_the_weights_table_says_what_is_here(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "--weights-root", str(files / "weights")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    here = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in rows}
    assert here["backbones/afhq_dog"] == "found"
    assert here["lpips/alexnet-owt-7be5be79.pth"] == "not the published file"
    assert all(here[w.place] == "missing" for w in WEIGHTS if w.place.startswith("clip/"))


def test_the_page_has_the_weights_table() -> None:
    page = (ROOT / "docs" / "real_data.md").read_text(encoding="utf-8")
    for w in WEIGHTS:
        cells = (w.place, ", ".join(w.datasets), w.use, w.source, w.licence, w.sha256 or "—")
        assert f"| {' | '.join(cells)} |" in page


def test_all_means_the_drawn_data_sets_and_real_in_the_paper_suite() -> None:
    from casl_bench.runs.names import resolve_datasets

    assert set(DATASETS) >= {"celeba_hq", "celeba", "afhq_dog", "lsun_church"}
    assert all(name.startswith("rendered_") for name in resolve_datasets(["all"]))
    photographs = {"celeba_hq", "celeba", "afhq_dog", "lsun_church"}
    assert set(resolve_datasets(["all"], "real")) == photographs
