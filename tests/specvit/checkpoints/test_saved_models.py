"""Models in files: they come back as they were saved, and nothing else is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import specvit.models.timm_registry  # noqa: F401  timm then knows our names
from specvit.checkpoints import load_model, save_model
from specvit.errors import ConfigError, DataError, SpecsweepError
from specvit.models.config import VitConfig, config_of, parse_high_norm
from specvit.models.vit import build_empty
from specvit.specialization.token_rows import PatchRow, PrefixRows

from ..file_size_limit import file_size_limit
from .small_models import EVERYTHING, SCALE, build, images, shake, timm_vit, write


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"text": EVERYTHING, "num_classes": 7, "drop_path": 0.2},
        {"text": "norm+layerscale", "layer_scale": 0.1, "high_norm": "registers:2", "rows": PrefixRows(3)},
        {"text": "qkv", "rows": PatchRow(num_prefix=1, grid=(4, 6), position=(3, 5)), "image_size": (16, 24)},
        {"text": "mlp", "high_norm": "attention_bias", "cls_position": False, "global_pool": "avg"},
    ],
)
def test_a_model_comes_back_with_its_weights_its_function_and_its_configuration(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    model = shake(build(**settings))
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.training
    assert config_of(loaded) == config_of(model)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    batch = images() if settings.get("image_size") is None else torch.randn(2, 3, 16, 24)
    assert torch.equal(loaded.eval()(batch), model(batch))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_model_of_timms_registry_comes_back_as_it_is_now_with_its_new_head_and_type(tmp_path: Path) -> None:
    model = timm.create_model("specvit_nano_patch16_224", img_size=32, specialize="norm@first-third", seed=0)
    model.reset_classifier(3)
    model.set_input_size((48, 32))
    model = model.to(torch.bfloat16).eval()
    save_model(model, tmp_path / "m")
    loaded = load_model(str(tmp_path / "m")).eval()
    assert (loaded.num_classes, loaded.patch_embed.img_size, loaded.head.weight.dtype) == (3, (48, 32), torch.bfloat16)
    batch = torch.randn(1, 3, 48, 32, dtype=torch.bfloat16)
    assert torch.equal(loaded(batch), model(batch))


def test_the_configuration_stands_in_the_file_as_json(tmp_path: Path) -> None:
    save_model(build("norm@all+qkv@first-third", drop_path=0.1), tmp_path / "m")
    with safe_open(tmp_path / "m", framework="numpy") as file:
        written = json.loads(file.metadata()["specvit_config"])
    assert written["scale"] == {"width": 16, "depth": 3, "num_heads": 2}
    assert (written["image_size"], written["patch_size"], written["drop_path"]) == (16, 4, 0.1)
    assert written["specialization"] == "norm@all+qkv@first-third"
    assert written["options"]["num_classes"] == 0


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"old")
    with file_size_limit(1000), pytest.raises(SpecsweepError, match=f"{path}: cannot be written .*File too large"):
        save_model(build(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_configuration_cannot_say_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not know its configuration"):
        save_model(timm_vit(), tmp_path / "m")
    pruned = build()
    pruned.prune_intermediate_layers([0])
    with pytest.raises(ConfigError, match=r"not what its configuration says: blocks\.1 "):
        save_model(pruned, tmp_path / "m")
    with pytest.raises(ConfigError, match="norm_layer: must be"):
        save_model(build(norm_layer=nn.LayerNorm), tmp_path / "m")
    changed = build()
    changed.blocks[1].mlp.act = nn.ReLU()
    with pytest.raises(ConfigError, match=r"blocks\.1\.mlp\.act is ReLU, not GELU"):
        save_model(changed, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_models_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such model file: .*absent"):
        load_model(tmp_path / "absent")
    with pytest.raises(DataError, match=r"plain.* was not written by save_model"):
        load_model(write(timm_vit(), tmp_path / "plain"))
    (tmp_path / "text").write_text("not weights at all")
    with pytest.raises(DataError, match=r"text.* cannot be read as a model"):
        load_model(tmp_path / "text")
    save_model(build(), tmp_path / "m")
    state = load_file(tmp_path / "m")
    del state["norm.weight"]
    save_file(state, tmp_path / "m", metadata={"specvit_config": config_of(build()).to_json()})
    with pytest.raises(DataError, match=r"norm\.weight is absent"):
        load_model(tmp_path / "m")
    save_file(state, tmp_path / "m", metadata={"specvit_config": "{}"})
    with pytest.raises(DataError, match="not the configuration of a model"):
        load_model(tmp_path / "m")


def test_an_empty_model_has_no_weights_and_the_shapes_of_a_real_one() -> None:
    model = build(EVERYTHING, high_norm="registers:2")
    empty = build_empty(config_of(model))
    assert all(value.is_meta for value in empty.state_dict().values())
    assert {n: v.shape for n, v in empty.state_dict().items()} == {n: v.shape for n, v in model.state_dict().items()}


def test_configuration_reads_back_what_it_wrote() -> None:
    config = VitConfig(
        scale=SCALE, image_size=(8, 12), patch_size=4, rows=PatchRow(num_prefix=3, grid=(2, 3), position=(0, 2)),
        high_norm=parse_high_norm("registers:2"), options={"qkv_bias": False, "fc_norm": None},
    )
    assert VitConfig.from_json(config.to_json()) == config
