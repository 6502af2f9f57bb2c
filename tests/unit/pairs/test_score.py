from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import casl_bench
from casl_bench.cli.main import main
from casl_bench.conformance.toy_domain import toy_domain
from casl_bench.core.errors import BenchError, InputError, UsageError
from casl_bench.pairs.scorers import Description, load_classifier, read_prompts
from casl_bench.photos.scorers.classifier import build_network

from .conftest import ATTRIBUTES, COUNT, save


def brightness(pixels: Tensor) -> Tensor:
    """Three logits: the mean of all channels, red alone, and nothing."""
    mean = pixels.mean((2, 3))
    return torch.stack([mean.mean(1), mean[:, 0] / 10, 0 * mean[:, 0]], 1)


def test_folders_are_scored_by_a_function(folders: tuple[Path, Path]) -> None:
    found = casl_bench.score_pairs(*folders, "bright", classifier=brightness, attributes=ATTRIBUTES)
    assert len(found) == COUNT and found.notes == ()
    assert found.table.loc["flip_rate", "value"] == 1
    assert found.table.loc["epr_raw", "value"] == pytest.approx(20, rel=0.05)


def test_arrays_tensors_and_bytes_are_scored_alike() -> None:
    rng = np.random.default_rng(0)
    before = rng.integers(0, 120, (5, 16, 16, 3), dtype=np.uint8)
    after = before + 100
    found = [
        casl_bench.score_pairs(*pair, 0, classifier=brightness, attributes=ATTRIBUTES).per_image
        for pair in (
            (before, after),
            tuple(torch.from_numpy(x).permute(0, 3, 1, 2) for x in (before, after)),
            tuple(x.transpose(0, 3, 1, 2) / 127.5 - 1 for x in (before, after)),
        )
    ]
    assert np.allclose(found[0].iloc[:, 3:4].astype(float), found[1].iloc[:, 3:4].astype(float))
    assert np.allclose(found[0]["after/bright"], found[2]["after/bright"], atol=1e-6)


def test_a_scorer_of_the_benchmark_and_its_similarity_score(folders: tuple[Path, Path]) -> None:
    domain = toy_domain()
    batch = domain.dataset.load("test", 8)
    edited = domain.dataset.oracle(batch.image_ids, "bright")  # type: ignore[attr-defined]
    found = casl_bench.score_pairs(
        batch.pixels, edited, "bright",
        classifier=domain.classifiers[0], similarity=domain.embedder,
    )  # fmt: skip
    assert {"perceptual", "identity"} <= set(found.table.index)
    flipped = found.per_image["flipped"] == found.per_image["lacked_it"]
    assert flipped.all()


def test_folders_are_read_at_the_size_that_a_scorer_takes(folders: tuple[Path, Path]) -> None:
    classifier = toy_domain().classifiers[0]
    found = casl_bench.score_pairs(*folders, "bright", classifier=classifier)
    assert len(found) == COUNT and found.per_image["flipped"].all()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((2, 16, 16)), "not \\[n, 3, H, W\\]"),
        (np.zeros((2, 4, 16, 16)), "not of three channels"),
        (np.full((2, 3, 16, 16), 200.0), "not in \\[-1, 1\\]"),
        (np.zeros((3, 3, 16, 16)), "twice"),
    ],
)
def test_bad_arrays_are_refused(source: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        casl_bench.score_pairs(
            source, np.zeros((2, 3, 16, 16)), 0, classifier=brightness, attributes=ATTRIBUTES
        )  # type: ignore[arg-type]


def test_a_classifier_that_gives_something_else_is_refused() -> None:
    pictures = np.zeros((2, 3, 16, 16))
    with pytest.raises(InputError, match=r"gives \(2, 3\) for 2 images, not \(2, 2\)"):
        casl_bench.score_pairs(pictures, pictures, 0, classifier=brightness, attributes=["a", "b"])
    with pytest.raises(InputError, match="need names"):
        casl_bench.score_pairs(pictures, pictures, 0, classifier=brightness)
    with pytest.raises(UsageError, match="did you mean 'bright'"):
        casl_bench.score_pairs(
            pictures, pictures, "brigt", classifier=brightness, attributes=ATTRIBUTES
        )


# The command ------------------------------------------------------------------------


def score(*arguments: object) -> int:
    return main(["score", *map(str, arguments)])


def test_one_command_with_a_csv_of_logits(
    folders: tuple[Path, Path], logits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folders[0] / "alone.png", 3)
    save(folders[1] / "02.jpg", 3, (48, 24))
    (folders[0] / "bad.png").write_bytes(b"no picture")
    (folders[1] / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert score(*folders, "--target", "bright", "--logits", logits, "--out", out) == 0
    said = capsys.readouterr().out
    assert f"bright, turned on: {COUNT} pairs" in said and "flipped" in said
    assert "alone.png" in said and "02 (24×24 and 24×48)" in said and "without logits: bad" in said
    assert len(said.splitlines()) <= 25
    assert {p.name for p in out.iterdir()} == {"table.md", "pairs.csv", "contact_sheet.png"}
    header, *rows = (out / "pairs.csv").read_text("utf-8").splitlines()
    assert header.startswith("image,lacked_it,flipped,precise,target_change")
    assert len(rows) == COUNT


def test_weights_with_their_architecture_and_pictures_that_cannot_be_read(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build_network("torchvision:squeezenet1_1", 3)
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    (folders[0] / "bad.png").write_bytes(b"no picture")
    (folders[1] / "bad.png").write_bytes(b"no picture")
    code = score(
        *folders, "--target", "red", "--classifier", tmp_path / "mine.safetensors",
        "--architecture", "torchvision:squeezenet1_1", "--attributes", "bright,red,still",
        "--image-size", 64, "--out", tmp_path / "out",
    )  # fmt: skip
    said = capsys.readouterr().out
    assert code == 0 and "cannot be read" in said and "bad.png" in said


def onnx_file(path: Path, batch: int | str) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra 'test'")
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra 'onnx'")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["p"]),
         helper.make_node("Flatten", ["p"], ["y"])],
        "mean_colour",
        [helper.make_tensor_value_info("x", kind, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("y", kind, [batch, 3])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("batch", [1, "n"])
def test_an_onnx_file_is_a_classifier(
    folders: tuple[Path, Path], tmp_path: Path, batch: int | str
) -> None:
    path = tmp_path / "mine.onnx"
    onnx_file(path, batch)
    plain = {"attributes": ["r", "g", "b"], "image_size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}
    path.with_suffix(".json").write_text(json.dumps(plain), encoding="utf-8")
    found = casl_bench.score_pairs(*folders, "r", classifier=path)
    assert found.per_image["before/r"].iloc[0] == pytest.approx(40 / 255, abs=0.01)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no.onnx", b"nothing", "not an ONNX model"),
        ("no.pt", b"nothing", "unreadable weights"),
    ],
)
def test_a_file_that_is_no_classifier_is_one_clear_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra 'onnx'")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BenchError, match=said) as error:
        load_classifier(path, Description(("a",), "torchvision:squeezenet1_1"))
    assert "\n" not in str(error.value)


def test_a_classifier_that_nobody_describes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="names of the classifier's outputs"):
        load_classifier(path)
    with pytest.raises(UsageError, match="the network of these weights"):
        load_classifier(path, Description(("a",)))
    with pytest.raises(UsageError, match="no such classifier"):
        load_classifier(tmp_path / "absent.pt")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "which attributes a picture shows"),
        (["--logits", "LOGITS", "--zero-shot", "ViT-B-32:openai"], "give one of"),
        (["--logits", "LOGITS", "--attributes", "a"], "--attributes describes a --classifier"),
        (["--logits", "LOGITS", "--tolerance", "nan"], "is no amount"),
        (["--logits", "LOGITS", "--mean", "1,2"], "three numbers"),
    ],
)
def test_options_that_contradict_are_refused(
    folders: tuple[Path, Path], logits: Path, more: list[str], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [str(logits) if word == "LOGITS" else word for word in more]
    assert score(*folders, "--target", "bright", *given) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_an_unknown_target_leaves_nothing_behind(
    folders: tuple[Path, Path], logits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert score(*folders, "--target", "brigth", "--logits", logits, "--out", out) == 2
    assert "did you mean 'bright'" in capsys.readouterr().err
    assert not out.exists()


def test_prompts_come_from_a_file_or_a_data_set(tmp_path: Path) -> None:
    assert read_prompts("celeba_hq")["smiling"] == ("face", "smiling face")
    with pytest.raises(UsageError, match="did you mean 'celeba_hq'"):
        read_prompts("celeba")
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[concept]]\nname = "hat"\nsource = "a head"\ntarget = "a hat"\nattribute = "hat"\n',
        encoding="utf-8",
    )
    assert read_prompts(str(path)) == {"hat": ("a head", "a hat")}


def test_pixels_between_0_and_1_are_noticed() -> None:
    pictures = np.random.default_rng(0).random((4, 3, 16, 16), dtype=np.float32)
    found = casl_bench.score_pairs(
        pictures, pictures, 0, classifier=brightness, attributes=ATTRIBUTES
    )
    assert "2 * x - 1" in found.notes[0]


def test_a_network_is_given_pixels_as_its_weights_are() -> None:
    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3)
    ).double()
    pictures = np.zeros((4, 3, 16, 16))
    found = casl_bench.score_pairs(
        pictures, pictures + 1, "red", classifier=network, attributes=ATTRIBUTES
    )
    assert len(found) == 4 and not network.training
    assert "flipped" in found._repr_html_() and len(repr(found)) < 200


def test_logits_that_are_no_numbers_are_refused() -> None:
    pictures = np.zeros((2, 3, 16, 16))
    with pytest.raises(InputError, match="a logit that is no number"):
        casl_bench.score_pairs(
            pictures, pictures, 0, classifier=lambda x: brightness(x) / 0, attributes=ATTRIBUTES
        )


def test_the_summary_names_the_other_attributes(
    folders: tuple[Path, Path], logits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--target", "bright", "--logits", logits, "--out", tmp_path / "out")
    assert score(*folders, *given) == 0
    assert "other attributes: red, still" in capsys.readouterr().out


def test_weights_of_another_number_of_outputs_are_refused_with_what_to_do(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build_network("torchvision:squeezenet1_1", 5)
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    code = score(
        *folders, "--target", "red", "--classifier", tmp_path / "mine.safetensors",
        "--architecture", "torchvision:squeezenet1_1", "--attributes", "bright,red,still",
        "--out", tmp_path / "out",
    )  # fmt: skip
    last = capsys.readouterr().err.splitlines()[-1]
    assert code == 5 and "[5, 512, 1, 1], not [3, 512, 1, 1]" in last
    assert "in attributes each of its outputs" in last and not (tmp_path / "out").exists()


def test_one_attribute_is_given_by_its_name() -> None:
    found = casl_bench.score_pairs(
        np.zeros((2, 3, 16, 16)), np.ones((2, 3, 16, 16)), "bright",
        classifier=lambda x: x.mean((1, 2, 3)), attributes="bright",
    )  # fmt: skip
    assert found.attributes == ("bright",) and found.table.loc["epr_raw", "reason"]
