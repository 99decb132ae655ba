"""Backbones from elsewhere. References are timm's models, and the probes called by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from specvit.checkpoints import save_model
from specvit.config import ExternalBackbone, TrialConfig
from specvit.data.sources.scenes import Scenes
from specvit.errors import ConfigError, DataError
from specvit.external import build_external, inspect_external
from specvit.footprint import footprint
from specvit.models.config import VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit, encode
from specvit.probing import Probing
from specvit.training.augment import MEAN, STD

from .trial.small_trials import CPU, make_config, run_watched

TINY = "test_vit"
"""timm's ViT for tests: six blocks of width 64, patches of 16 pixels, images of 160."""
DATA: dict[str, Any] = {"source": "scenes", "image_size": 32, "num_train": 32, "num_val": 16}


@pytest.fixture(scope="module")
def theirs() -> VisionTransformer:
    """Build timm's ViT with a head, which nobody trained."""
    torch.manual_seed(3)
    return timm.create_model(TINY, num_classes=5).eval()


@pytest.fixture(scope="module")
def plain(theirs: VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "theirs.safetensors"
    save_file(theirs.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "student.safetensors"
    save_model(build_vit(VitConfig(SCALES["nano"], 32, 8, specialization="norm@all"), seed=5), path)
    return path


def inspected(checkpoint: Path | str, **settings: Any) -> ExternalBackbone:
    return inspect_external(ExternalBackbone(name="x", checkpoint=str(checkpoint), **settings)).settings


def config_of(external: ExternalBackbone) -> TrialConfig:
    return make_config(treatment={"kind": "external", "external": external}, data=DATA)


def by_hand(model: VisionTransformer) -> dict[str, float]:
    config = make_config(data=DATA)
    return Probing(config, Scenes(**{k: v for k, v in DATA.items() if k != "source"}).load(), {}).backbone(
        model, device=CPU
    )


def test_a_file_of_ours_gets_what_the_probes_find_by_hand(saved: Path) -> None:
    external = inspect_external(ExternalBackbone(name="ours", checkpoint=str(saved)))
    ours = build_vit(VitConfig(SCALES["nano"], 32, 8, specialization="norm@all"), seed=5)
    assert (external.patch_size, external.num_parameters) == (8, sum(each.numel() for each in ours.parameters()))
    assert external.settings.checkpoint_sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    config = config_of(external.settings)
    result, observer = run_watched(config, config.data.load())
    assert result.metrics == by_hand(ours)
    assert (observer.steps[0], observer.rungs, result.cost, result.weights) == ((0, 0), {}, None, ())
    assert footprint(config, num_parameters=external.num_parameters).machine is None  # its width is not in the settings


@pytest.mark.long
def test_plain_weights_get_what_the_probes_find_by_hand_on_timms_model(tmp_path: Path) -> None:
    name, path = "vit_tiny_patch16_224", tmp_path / "theirs.safetensors"
    torch.manual_seed(3)
    save_file(timm.create_model(name, num_classes=5).state_dict(), path)
    # timm's own way to load a file: it resamples 14 x 14 positions to 2 x 2 as it does so.
    options: dict[str, Any] = {"img_size": 32, "num_classes": 0, "dynamic_img_size": True}
    timms = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options)
    assert timms.pos_embed.shape == (1, 5, 192)
    external = inspect_external(ExternalBackbone(name="theirs", checkpoint=str(path), model=name))
    # 12 blocks of width 192, 197 positions, [CLS] and the final norm; without the head of 5 classes.
    block = 4 * 192 + 4 * 192 * 193 + 8 * 192**2 + 5 * 192
    assert external.num_parameters == 12 * block + (3 * 256 + 1) * 192 + 198 * 192 + 2 * 192
    assert (external.settings.mean, external.settings.std, external.settings.model) == (MEAN, STD, name)
    config = config_of(external.settings)
    result, _ = run_watched(config, config.data.load())
    assert result.metrics == by_hand(timms)


def test_positions_are_resampled_once_whatever_the_size_of_the_images(theirs: VisionTransformer, plain: Path) -> None:
    model = build_external(inspected(plain, model=TINY)).eval()
    assert tuple(model.patch_embed.img_size) == (160, 160)
    images = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        tokens = encode(model, images)
        assert torch.equal(tokens.cls, theirs.forward_features(images)[:, 0])
        assert encode(model, images[..., :48, :64]).patches.shape == (1, 12, 64)


@pytest.mark.long
def test_images_are_normalised_as_the_model_wants_them(theirs: VisionTransformer, plain: Path) -> None:
    half = (0.5, 0.5, 0.5)
    model = build_external(inspected(plain, model=f"{TINY}.r160_in1k")).eval()
    assert inspected(plain, model=f"{TINY}.r160_in1k").mean == half  # as timm published these weights
    assert inspected(plain, model=TINY, mean=half, std=half).std == half
    pixels = torch.rand(1, 3, 160, 160)
    our_mean, our_std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        found = encode(model, (pixels - our_mean) / our_std).cls
        torch.testing.assert_close(found, theirs.forward_features((pixels - 0.5) / 0.5)[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_diagnostics_look_into_it_too(plain: Path) -> None:
    config = make_config(
        treatment={"kind": "external", "external": inspected(plain, model=TINY)}, data=DATA, diagnostics=True, probes={}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Probing, "backbone", lambda *_, **__: {})
        result, _ = run_watched(config, config.data.load())
    assert max(each.block for each in result.diagnostics) == 6


def write(path: Path, model: nn.Module, **changes: torch.Tensor | None) -> Path:
    state = {key: value for key, value in {**model.state_dict(), **changes}.items() if value is not None}
    save_file(state, path)
    return path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint": "absent.safetensors"}, r"no such checkpoint file: 'absent\.safetensors'"),
        ({"checkpoint": "vit_no_such"}, r"'vit_no_such' is no file, and timm has no pretrained model of that name"),
        ({"checkpoint": "resnet18.a1_in1k"}, "must be a VisionTransformer of timm's, which 'resnet18.a1_in1k' is not"),
        ({"checkpoint": "vit_base_patch16_gap_224"}, r"must be a model with a \[CLS\] token"),
        ({}, r"model is required with a file of plain weights"),
        ({"model": "vit_tiny_patch61_224"}, r"timm has no model 'vit_tiny_patch61_224' \(did you mean 'vit_tiny_pat"),
        ({"model": "resnet18"}, r"must be a VisionTransformer of timm's, which 'resnet18' is not"),
        ({"model": f"{TINY}.nobody"}, rf"model must be a name of timm's, not '{TINY}\.nobody'"),
        ({"model": "vit_small_patch16_224"}, r"its cls_token must be \(1, 1, 384\) in vit_s.*, not \(1, 1, 64\)"),
        ({"model": "vit_small_patch32_224"}, r"its patch size must be that of vit_small_patch32_224, 32, not 16"),
        ({"model": TINY, "checkpoint_sha256": "0" * 64}, r"checkpoint_sha256 must be that of .*theirs\.safetensors"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(settings: dict[str, str], message: str, plain: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        inspected(**({"checkpoint": str(plain)} | settings))


def test_files_that_do_not_hold_what_the_model_has_are_refused(
    theirs: VisionTransformer, saved: Path, tmp_path: Path
) -> None:
    lacking = write(tmp_path / "lacking.safetensors", theirs, **{"blocks.5.norm1.weight": None})
    with pytest.raises(ConfigError, match=r"its blocks\.5\.norm1\.weight must be \(64,\) in .*, not absent"):
        inspected(lacking, model=TINY)
    torn = write(tmp_path / "torn.safetensors", theirs, pos_embed=torch.zeros(1, 8, 64))
    with pytest.raises(ConfigError, match=r"must have a pos_embed of a square grid, not of 8 positions"):
        inspected(torn, model=TINY)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(DataError, match=r"broken\.safetensors' cannot be read"):
        inspected(broken, model=TINY)
    with pytest.raises(ConfigError, match=f"model must be left out, since the file itself says it, not '{TINY}'"):
        inspected(saved, model=TINY)


def test_a_file_that_is_replaced_after_the_start_fails_the_trial(plain: Path, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(saved.read_bytes())
    external = inspected(path)
    path.write_bytes(plain.read_bytes())
    with pytest.raises(DataError, match="has changed: its SHA-256 is no longer"):
        build_external(external)


@pytest.fixture
def hub(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Stand in for the hub: every model is the plain one, with the given config.json."""

    def serve(config: dict[str, Any]) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config))

    def download(repository: str, filename: str, **_: object) -> str:
        assert repository in ("somebody/something", f"timm/{TINY}.r160_in1k")
        return str(tmp_path / filename if filename == "config.json" else plain)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    return serve


@pytest.mark.long
def test_names_are_those_of_timm_and_the_hub(hub: Callable[[dict[str, Any]], None]) -> None:
    named = inspected(f"{TINY}.r160_in1k")
    assert (named.checkpoint, named.model, named.mean) == (f"{TINY}.r160_in1k", TINY, (0.5, 0.5, 0.5))
    hub({"architecture": TINY, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}})
    of_hub = inspected("hf-hub:somebody/something")
    assert (of_hub.model, of_hub.mean, of_hub.std) == (TINY, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    hub({"architecture": TINY, "pretrained_cfg": {}, "model_args": {"num_heads": 4}})
    with pytest.raises(ConfigError, match="is not test_vit as it stands, but with other num_heads"):
        inspected("hf-hub:somebody/something")
    assert inspected("hf-hub:somebody/something", model=TINY).mean == MEAN
