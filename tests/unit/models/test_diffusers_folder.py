"""A backbone from any place: diffusers' folders, ours, the Hub's cache, or one clear line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.models.backbone import Backbone
from casl_bench.models.unet import ScheduleConfig, save_folder
from casl_bench.photos.checkpoints.convert import open_backbone

NON_EMA = "diffusion_pytorch_model.non_ema.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
SAFE, PICKLED = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
# As google/ddpm-ema-celebahq-256 has it, smaller.
PUBLISHED = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [8, 16],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 16,
    "time_embedding_type": "positional",
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
Make = Callable[..., Backbone]


def unet_of(**changes: Any) -> UNet2DModel:
    config = {k: v for k, v in PUBLISHED.items() if not k.startswith("_")} | changes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(**config).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As diffusers saves it: network and scheduler at the root."""
    unet_of().save_pretrained(tmp_path / "net")
    DDIMScheduler().save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def eps_of(unet: UNet2DModel) -> Tensor:
    with torch.no_grad():
        return unet(images(), 300).sample


def opened(place: str | Path, **settings: Any) -> Backbone:
    return open_backbone(place, name="net", micro_batch=4, **settings)


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))


def test_a_folder_of_diffusers(folder: Path) -> None:
    backbone = opened(folder)
    assert torch.equal(backbone.eps(images(), 300), eps_of(unet_of()))
    assert (backbone.name, backbone.micro_batch, backbone.image_size) == ("net", 4, 16)
    assert (backbone.family, backbone.prediction, backbone.learned_sigma) == ("ddpm", "eps", False)
    assert backbone.h_shape == (16, 8, 8)
    assert Backbone.from_folder(folder).weights_hash != backbone.weights_hash  # micro_batch
    assert opened(str(folder)).weights_hash == backbone.weights_hash


def test_a_pipeline_s_folder(tmp_path: Path) -> None:
    unet_of().save_pretrained(tmp_path / "unet")
    DDIMScheduler(beta_end=0.03).save_pretrained(tmp_path / "scheduler")
    backbone = opened(tmp_path)
    assert torch.equal(backbone.eps(images(), 300), eps_of(unet_of()))
    assert backbone.config.schedule.beta_end == 0.03


def test_an_average_beside_the_weights_is_taken(tmp_path: Path) -> None:
    """As diffusers' own training scripts leave them."""
    unet_of(norm_num_groups=2).save_pretrained(tmp_path / "unet")
    unet_of().save_pretrained(tmp_path / "unet_ema")
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    assert torch.equal(opened(tmp_path).eps(images(), 300), eps_of(unet_of()))
    (tmp_path / "unet_ema" / "config.json").write_text("{")
    with pytest.raises(InvalidBenchmarkError, match="unet_ema"):
        opened(tmp_path)


def test_the_hub_s_oldest_files(folder: Path) -> None:
    """Pickled, with the attention's names of that time."""
    weights = load_file(folder / SAFE)
    for new, old in OLD_NAMES.items():
        weights = {k.replace(f".{new}.", f".{old}."): v for k, v in weights.items()}
    assert "mid_block.attentions.0.proj_attn.bias" in weights
    (folder / SAFE).unlink()
    torch.save(weights, folder / PICKLED)
    (folder / "config.json").write_text(json.dumps(PUBLISHED))
    assert torch.equal(opened(folder).eps(images(), 300), eps_of(unet_of()))


def test_a_scale_shift_network_with_learned_variance(tmp_path: Path) -> None:
    changes = {
        "out_channels": 6,
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 4,
        "attention_head_dim": 8,
    }
    unet_of(**changes).save_pretrained(tmp_path)
    DDIMScheduler().save_pretrained(tmp_path)
    backbone = opened(tmp_path)
    assert (backbone.family, backbone.learned_sigma) == ("adm", True)
    assert torch.equal(backbone.eps(images(), 300), eps_of(unet_of(**changes))[:, :3])


@pytest.mark.parametrize(
    ("theirs", "ours"), [("epsilon", "eps"), ("v_prediction", "v"), ("sample", "x0")]
)
def test_predictions(folder: Path, theirs: Any, ours: str) -> None:
    edit(folder / "scheduler_config.json", prediction_type=theirs)
    assert opened(folder).prediction == ours


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_noise_schedules_are_those_of_diffusers(folder: Path, kind: Any) -> None:
    theirs = DDIMScheduler(num_train_timesteps=500, beta_start=2e-4, beta_schedule=kind)
    theirs.save_pretrained(folder)
    schedule = opened(folder).schedule
    assert schedule.num_timesteps == 500
    torch.testing.assert_close(schedule.betas.float(), theirs.betas, rtol=1e-4, atol=1e-7)
    ours = torch.tensor([schedule.alpha_bar(t) for t in (0, 100, 400, 499)]).float()
    theirs_then = theirs.alphas_cumprod[[0, 100, 400, 499]]
    torch.testing.assert_close(ours, theirs_then, rtol=1e-4, atol=1e-7)


def test_a_linear_schedule_is_written_as_before() -> None:
    """What a backbone's hash is made of."""
    assert ScheduleConfig().model_dump() == {
        "kind": "linear",
        "num_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
    }


def test_parts_are_put_together(folder: Path) -> None:
    whole = opened(folder)
    _in_parts(folder)
    assert len([*folder.glob("diffusion_pytorch_model-*.safetensors")]) > 2
    assert opened(folder).weights_hash == whole.weights_hash


@pytest.mark.parametrize("in_parts", [False, True])
def test_half_precision_is_taken_where_there_is_nothing_else(folder: Path, in_parts: bool) -> None:
    whole = opened(folder).weights_hash
    settings = {"max_shard_size": "4KB"} if in_parts else {}
    unet_of().half().save_pretrained(folder, variant="fp16", **settings)
    assert opened(folder).weights_hash == whole
    (folder / SAFE).unlink()
    half = opened(folder)
    assert half.weights_hash != whole
    torch.testing.assert_close(half.eps(images(), 300), eps_of(unet_of()), rtol=1e-2, atol=1e-2)


def test_a_folder_of_our_own(make_backbone: Make, tmp_path: Path) -> None:
    backbone = make_backbone()
    save_folder(tmp_path, backbone.config, backbone.unet, torch.float32)
    found = open_backbone(tmp_path, name=backbone.name, micro_batch=backbone.micro_batch)
    assert found.weights_hash == backbone.weights_hash


def _poison(folder: Path) -> None:
    shutil.copy(folder / SAFE, folder / "copy")
    weights = load_file(folder / "copy")
    weights["conv_out.bias"][0] = torch.nan
    (folder / SAFE).unlink()
    torch.save(weights, folder / PICKLED)


def _truncate(folder: Path) -> None:
    (folder / SAFE).write_bytes((folder / SAFE).read_bytes()[:-100])


def _in_parts(folder: Path) -> None:
    (folder / SAFE).unlink()
    unet_of().save_pretrained(folder, max_shard_size="4KB")


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


def _scheduler(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "scheduler_config.json", **changes)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_poison, "conv_out.bias holds NaN or infinity"),
        (_truncate, "unreadable weights"),
        (lambda p: (p / SAFE).unlink(), "unreadable weights"),
        (_config(block_out_channels=[8, 32]), "weights do not fit"),
        (_config(num_class_embeds=3), "num_class_embeds 3 is not supported"),
        (_config(time_embedding_type="fourier"), "time_embedding_type fourier is not supported"),
        (_config(center_input_sample=True), "center_input_sample True is not supported"),
        (_config(layers_per_block=3000), "layers_per_block is 3000, not a number from 0 to 64"),
        (_config(block_out_channels=[8, 10**12]), "block_out_channels is 1000000000000, not a"),
        (_config(block_out_channels=[8] * 99), "16 pixels cannot be halved 98 times"),
        (_config(norm_eps=float("nan")), "norm_eps is nan, not a number"),
        (_config(norm_num_groups=-4), "norm_num_groups is -4, not a number"),
        (_config(norm_num_groups=0), "no U-Net can be built from this config"),
        (_config(down_block_types=5), "no U-Net can be built from this config"),
        (_config(sample_size=10**6), "image_size: Input should be less than or equal to 4096"),
        (lambda p: (p / "config.json").write_text(""), "invalid config: an empty file"),
        (lambda p: (p / "config.json").write_text("<html>"), "invalid config: a web page"),
        (lambda p: (p / SAFE).rename(p / NON_EMA), f"only {NON_EMA} is there"),
        (lambda p: (_in_parts(p), (p / INDEX).unlink()), "only diffusion_pytorch_model-00001-of"),
        (lambda p: (_in_parts(p), (p / INDEX).write_text("{}")), "the index names no files"),
        (
            lambda p: (_in_parts(p), (p / INDEX).write_text('{"weight_map": {"a": "../b"}}')),
            "the index names files elsewhere",
        ),
        (lambda p: (_in_parts(p), next(p.glob("*-00002-*")).unlink()), "unreadable weights"),
        (_config(_class_name="UNet2DConditionModel"), "the network is a UNet2DConditionModel"),
        (_config(colour=3), "no U-Net can be built from this config"),
        (_config(sample_size="absent"), "sample_size is None, not the side"),
        (_config(sample_size=[16, 8]), "sample_size is [16, 8], not the side"),
        (_config(sample_size=15), "15 pixels cannot be halved 1 times"),
        (_config(in_channels=4), "takes 4 channels and gives 3"),
        (lambda p: (p / "scheduler_config.json").unlink(), "there is no scheduler_config.json"),
        (lambda p: (p / "scheduler_config.json").write_text("{"), "invalid config: Expecting"),
        (
            lambda p: (p / "scheduler_config.json").write_text("[]"),
            "config: Input should be a valid",
        ),
        (_scheduler(_class_name="ScoreSdeVeScheduler"), "scheduler ScoreSdeVeScheduler cannot"),
        (_scheduler(beta_schedule="sigmoid"), "a noise schedule of kind sigmoid cannot be run"),
        (_scheduler(num_train_timesteps=10**12), "num_timesteps 1000000000000 cannot be run"),
        (_scheduler(beta_start=float("nan")), "a noise schedule of beta_start nan cannot be run"),
        (_scheduler(beta_end=2.0), "a noise schedule of beta_end 2.0 cannot be run"),
        (_scheduler(trained_betas=[0.1]), "trained_betas cannot be run"),
        (_scheduler(rescale_betas_zero_snr=True), "rescale_betas_zero_snr cannot be run"),
        (_scheduler(prediction_type="flow"), "prediction_type flow cannot be run"),
    ],
)
def test_damaged_and_other_folders_are_one_clear_line(
    folder: Path, damage: Callable[[Path], object], told: str
) -> None:
    damage(folder)
    with pytest.raises(InvalidBenchmarkError) as raised:
        opened(folder)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.hint and str(folder) in str(raised.value)


@pytest.mark.parametrize("content", ["{", '{"backbone": 1}', '{"backbone": {"colour": 1}}'])
def test_a_damaged_description_of_ours_is_one_clear_line(folder: Path, content: str) -> None:
    (folder / "casl_bench.json").write_text(content)
    with pytest.raises(InvalidBenchmarkError, match=r"casl_bench\.json"):
        opened(folder)


@pytest.mark.parametrize("place", ["", "absent", "a/b/c", "/no/such"])
def test_where_nothing_is(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="no backbone is there"):
        opened(place)


def test_an_absent_id_offline_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as raised:
        opened("google/ddpm-ema-celebahq-256")
    assert "'google/ddpm-ema-celebahq-256' is neither a path here" in str(raised.value)
    assert "--allow-download" in str(raised.value)


class Hub:
    """Stands for the Hub: remembers what it was asked and hands out a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[dict[str, Any]]()

    def __call__(self, hub_id: str, **settings: Any) -> str:
        self.asked.append({"id": hub_id, **settings})
        return str(self.folder)


@pytest.mark.parametrize("allowed", [False, True])
def test_an_id_in_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    hub = Hub(folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    backbone = opened("owner/net", allow_download=allowed)
    assert torch.equal(backbone.eps(images(), 300), eps_of(unet_of()))
    assert [(a["id"], a["local_files_only"]) for a in hub.asked] == [("owner/net", not allowed)]
    assert not any(p.endswith(".bin") for p in hub.asked[0]["allow_patterns"])


def test_pickled_weights_are_fetched_only_where_there_are_no_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(load_file(folder / SAFE), folder / PICKLED)
    (folder / SAFE).unlink()
    hub = Hub(folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    opened("owner/net", allow_download=True)
    assert len(hub.asked) == 2
    assert "unet/diffusion_pytorch_model.bin" in hub.asked[1]["allow_patterns"]


def test_half_precision_and_parts_are_fetched_where_there_is_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_parts(folder)
    hub = Hub(folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    opened("owner/net", allow_download=True)
    assert len(hub.asked) == 3
    assert "unet/diffusion_pytorch_model*.safetensors*" in hub.asked[2]["allow_patterns"]


def test_a_hub_that_does_not_answer_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(hub_id: str, **settings: Any) -> str:
        raise LocalEntryNotFoundError("no connection\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(BenchError) as raised:
        opened("owner/net", allow_download=True)
    assert "'owner/net' cannot be fetched from the Hub: no connection" in str(raised.value)
    assert "at all" not in str(raised.value)
