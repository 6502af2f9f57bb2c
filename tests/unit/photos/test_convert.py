"""From a published file to a folder that we and diffusers read, or to one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from casl_bench.cli import main as cli
from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.models import diffusers_folder as diffusers_files
from casl_bench.models.backbone import Backbone
from casl_bench.models.diffusers_folder import write_diffusers_folder
from casl_bench.models.unet import build_unet
from casl_bench.models.weights import UnfitWeightsError
from casl_bench.photos.checkpoints.convert import convert, open_backbone
from casl_bench.photos.checkpoints.formats import Architecture

FORMS = {
    "ddpm": Architecture("ddpm", 3, 3, 32, (1, 2), 1, (1,)),
    "adm": Architecture("adm", 3, 6, 32, (1, 2), 1, (1,)),
}
HEADS = {"ddpm": None, "adm": 32}
Publish = Callable[..., Path]


@pytest.fixture
def publish(tmp_path: Path, as_published: Callable[..., dict[str, Tensor]]) -> Publish:
    """Write a 16-pixel network of a family as its authors would: `net.pt`."""

    def write(
        family: str, change: Callable[[dict[str, Tensor]], Any] = lambda weights: weights
    ) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet = build_unet(FORMS[family].unet_config(16, HEADS[family]))
        weights = as_published(family, unet.state_dict(), HEADS[family])
        torch.save(change(weights), tmp_path / "net.pt")
        return tmp_path / "net.pt"

    return write


def expected_unet(family: str) -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_unet(FORMS[family].unet_config(16, HEADS[family]))


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FORMS)
def test_every_weight_comes_back(publish: Publish, family: str) -> None:
    made = convert(publish(family), name="n", image_size=16, head_channels=HEADS[family])
    expected = expected_unet(family).state_dict()
    assert {k: v.shape for k, v in made.unet.state_dict().items()} == {
        k: v.shape for k, v in expected.items()
    }
    assert all(torch.equal(v, expected[k]) for k, v in made.unet.state_dict().items())
    assert made.architecture == FORMS[family]
    assert (made.config.family, made.config.image_size) == (family, 16)
    assert made.config.learned_sigma == (family == "adm")
    assert made.assumed == ()


@pytest.mark.parametrize("family", FORMS)
def test_we_and_diffusers_read_what_is_written(
    publish: Publish, tmp_path: Path, family: str
) -> None:
    made = convert(publish(family), name="n", image_size=16, head_channels=HEADS[family])
    backbone = Backbone(made.config, made.unet)
    write_diffusers_folder(tmp_path / "out", made.config, made.unet)
    same = Backbone.from_folder(tmp_path / "out")
    assert same.config == backbone.config
    assert same.weights_hash == backbone.weights_hash
    theirs = UNet2DModel.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        output = theirs(images(8), 300).sample[:, :3]
    assert torch.equal(same.eps(images(8), 300), output)
    opened = open_backbone(tmp_path / "out", name="other", micro_batch=2)
    assert (opened.name, opened.micro_batch) == ("other", 2)
    for kind in (DDPMScheduler, DDIMScheduler):
        scheduler = kind.from_pretrained(tmp_path / "out")
        expected = same.schedule.betas.float()
        torch.testing.assert_close(scheduler.betas, expected)
        assert not scheduler.config["clip_sample"]


def test_what_was_assumed_is_told(publish: Publish) -> None:
    made = convert(publish("adm"), name="n")
    assert made.assumed == ("image size 256", "64 channels a head")
    assert made.config.unet["attention_head_dim"] == 64
    assert convert(publish("ddpm"), name="n", image_size=16).assumed == ()


def test_a_checkpoint_opens_without_a_folder(publish: Publish) -> None:
    backbone = open_backbone(publish("ddpm"), name="n", micro_batch=4, image_size=16)
    with torch.no_grad():
        expected = expected_unet("ddpm")(images(4), 300).sample
    assert torch.equal(backbone.eps(images(4), 300), expected)


def _poison(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    weights["norm_out.weight"][0] = torch.nan
    return weights


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (lambda w: w | {"a": torch.zeros(1)}, ["unexpected a"]),
        (
            lambda w: {k: v for k, v in w.items() if "mid.attn_1.q" not in k},
            ["missing mid.attn_1.q.weight", "missing mid.attn_1.q.bias"],
        ),
        (
            lambda w: w | {"norm_out.bias": torch.zeros(3)},
            ["norm_out.bias is [3], not [32]"],
        ),
        (_poison, ["norm_out.weight holds NaN or infinity"]),
    ],
    ids=["extra", "missing", "misshapen", "nan"],
)
def test_all_that_does_not_fit_is_listed(
    publish: Publish, change: Callable[[Mapping[str, Tensor]], Any], faults: list[str]
) -> None:
    with pytest.raises(UnfitWeightsError) as raised:
        convert(publish("ddpm", change), name="n", image_size=16)
    assert sorted(raised.value.faults) == sorted(faults)
    assert all(fault in str(raised.value) for fault in faults)


def test_fifty_faults_are_told_and_all_are_kept(publish: Publish) -> None:
    extra = {f"extra.{i}": torch.zeros(1) for i in range(53)}
    with pytest.raises(UnfitWeightsError) as raised:
        convert(publish("ddpm", lambda w: w | extra), name="n", image_size=16)
    assert len(raised.value.faults) == 53
    assert "extra.49 and 3 more" in str(raised.value)


def test_networks_on_other_than_pictures_are_refused(publish: Publish) -> None:
    change = lambda w: w | {"conv_in.weight": torch.zeros(32, 4, 3, 3)}  # noqa: E731
    with pytest.raises(InvalidBenchmarkError, match="takes 4 channels and gives 3"):
        convert(publish("ddpm", change), name="n", image_size=16)


def config_file(folder: Path, **facts: Any) -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps(facts))
    return path


def test_a_config_fills_in_what_the_file_does_not_tell(publish: Publish, tmp_path: Path) -> None:
    config = config_file(
        tmp_path,
        image_size=16,
        head_channels=32,
        prediction="v",
        schedule={"beta_end": 0.03},
        multipliers=[1, 2],
    )
    made = convert(publish("adm"), name="n", config=config)
    assert made.config.unet["attention_head_dim"] == 32
    assert (made.config.prediction, made.config.schedule.beta_end) == ("v", 0.03)
    assert made.assumed == ()


def test_the_order_of_qkv_is_taken_from_the_config(publish: Publish, tmp_path: Path) -> None:
    made = [
        convert(
            publish("adm"), name="n",
            config=config_file(
                tmp_path, image_size=16, head_channels=32, new_attention_order=new
            ),
        )
        for new in (False, True)
    ]  # fmt: skip
    name = "mid_block.attentions.0.to_q.weight"
    q, other = (m.unet.state_dict()[name] for m in made)
    assert torch.equal(q, expected_unet("adm").state_dict()[name])
    assert not torch.equal(q, other)


@pytest.mark.parametrize(
    ("facts", "given", "told"),
    [
        ({"image_size": 16}, {"image_size": 32}, "image_size 32 contradicts config"),
        ({"head_channels": 64}, {"head_channels": 32}, "head_channels 32 contradicts config"),
        ({"image_size": 16, "res_blocks": 2}, {}, "res_blocks is 1 in the file, 2 in the config"),
        ({"image_size": 16, "family": "ddpm"}, {}, "family is adm in the file, ddpm in the"),
    ],
)
def test_contradictions_are_named(
    publish: Publish, tmp_path: Path, facts: dict[str, Any], given: dict[str, Any], told: str
) -> None:
    with pytest.raises(BenchError) as raised:
        convert(publish("adm"), name="n", config=config_file(tmp_path, **facts), **given)
    assert told in str(raised.value)


def test_nothing_is_left_of_a_write_that_fails(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = convert(publish("ddpm"), name="n", image_size=16)
    before = sorted(tmp_path.rglob("*"))

    def full(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(diffusers_files, "write_json", full)
    with pytest.raises(UsageError, match="cannot write: No space left on device"):
        write_diffusers_folder(tmp_path / "out", made.config, made.unet)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command(publish: Publish, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = publish("adm", lambda w: {"ema": w, "model": w, "step": 3})
    out = tmp_path / "deeper" / "dogs"
    arguments = f"convert {path} --out {out} --image-size 16 --head-channels 32 --half"
    assert cli.main(arguments.split()) == 0
    said = capsys.readouterr().out
    for line in (
        "weights       'ema' (averaged; 'model' is there too)",
        "family        adm",
        "channels      32 × 1, 2; 1 residual block a level",
        "attention     8 px; 32 channels a head",
        "output        eps and a variance",
        "h-space       64 × 8 × 8",
        "(half precision)",
    ):
        assert line in said
    backbone = Backbone.from_folder(out)
    assert backbone.name == "dogs" and backbone.unet.dtype == torch.float32
    source = json.loads((out / "casl_bench.json").read_text())["source"]
    assert source["file"] == "net.pt" and source["taken"].startswith("'ema'")
    assert len(source["sha256"]) == 64
    assert not list(out.parent.glob(".*"))
    modes = {file.stat().st_mode for file in out.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("absent.pt --out out", 2, "no such file (absent.pt)"),
        ("folder --out out", 2, "a folder is no checkpoint file"),
        ("net.pt", 2, "Missing option '--out'"),
        ("net.pt --out .", 2, "there already"),
        ("net.pt --out net.pt", 2, "there already"),
        ("net.pt --out net.pt/out --image-size 16", 2, "cannot write"),
        ("net.pt --out out --image-size 0", 2, "Invalid value for '--image-size'"),
        ("net.pt --out out --image-size 15", 2, "cannot be halved 1 times"),
        ("net.pt --out out --config ffhq", 2, "unknown config 'ffhq'; did you mean 'ffhq_256_adm'"),
        ("net.pt --out out --config ffhq_256_adm --image-size 9", 2, "image_size 9 contradicts"),
        ("net.pt --out out --config ffhq_256_adm", 5, "family is ddpm in the file, adm in the"),
        ("net.pt --out out --head-channels 32", 2, "the ddpm family has one attention head"),
        ("empty.pt --out out", 5, "unreadable weights"),
        ("other.pt --out out", 5, "neither of the ddpm nor of the adm family"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    publish: Publish,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    code: int,
    told: str,
) -> None:
    publish("ddpm")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.pt").touch()
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["convert", *arguments.split()]) == code
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ")
    assert told in said.err and said.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
