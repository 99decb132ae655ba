"""Models in files, and plain weights from files. References are timm's models and timm's own conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

import specvit.models.timm_registry  # noqa: F401  timm then knows our names
from specvit.checkpoints import fold, load_model, load_plain_weights, save_model
from specvit.errors import ConfigError, DataError, SpecsweepError
from specvit.files.checksum import sha256_of
from specvit.models import pretrained_weights
from specvit.models.config import BACKBONE_OPTIONS, VitConfig, config_of, parse_high_norm
from specvit.models.pretrained_weights import find_checkpoint
from specvit.models.routed_layers import own_parameters
from specvit.models.scales import Scale
from specvit.models.vit import build_empty, build_vit
from specvit.specialization.token_rows import PatchRow, PrefixRows

from .file_size_limit import file_size_limit

SCALE = Scale(width=16, depth=3, num_heads=2)
EVERYTHING = "norm+qkv(gate)+proj(lora:2)+mlp@last-half+final_norm"


def build(text: str = "none", *, high_norm: str = "vanilla", **settings: Any) -> VisionTransformer:
    options, build_options = (
        {name: settings.pop(name) for name in names if name in settings}
        for names in (("num_classes", "global_pool", "norm_layer"), ("seed", "init", "pretrained"))
    )
    config = VitConfig(
        SCALE,
        **({"image_size": 16, "patch_size": 4} | settings),
        specialization=text,
        high_norm=parse_high_norm(high_norm),
        options={**BACKBONE_OPTIONS, **options},
    )
    return build_vit(config, **build_options).eval()


def timm_vit(**settings: Any) -> VisionTransformer:
    """Build timm's own model of the same scale, with a head, from weights of its own."""
    torch.manual_seed(9)
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 5}
    model = VisionTransformer(**(shape | settings))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value), alpha=0.05)
    return model.eval()


def shake(model: VisionTransformer) -> VisionTransformer:
    torch.manual_seed(2)
    with torch.no_grad():
        for value in own_parameters(model).values():
            value.add_(torch.randn_like(value), alpha=0.1)
    return model


def images(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def write(model: nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path)
    return path


# save_model, load_model


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


# load_plain_weights


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_timms_weights_give_timms_features(suffix: str, tmp_path: Path) -> None:
    theirs = timm_vit(init_values=0.1)
    path = tmp_path / f"theirs{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{n}": v for n, v in theirs.state_dict().items()}, "epoch": 3}, path)
    else:
        write(theirs, path)
    ours = build(layer_scale=1e-5, num_classes=2)
    head = ours.head.weight.clone()
    load_plain_weights(ours, path)
    assert torch.equal(ours.forward_features(images()), theirs.forward_features(images()))
    assert torch.equal(ours.head.weight, head)


def test_positions_are_resampled_to_another_image_size_as_timm_does(tmp_path: Path) -> None:
    theirs = timm_vit()
    path = write(theirs, tmp_path / "t.safetensors")
    ours = build(image_size=24)
    load_plain_weights(ours, path)
    wanted = checkpoint_filter_fn(theirs.state_dict(), timm_vit(img_size=24))["pos_embed"]
    assert wanted.shape == (1, 37, 16)
    torch.testing.assert_close(ours.pos_embed, wanted, rtol=0, atol=1e-6)
    assert torch.equal(ours.blocks[2].mlp.fc2.weight, theirs.blocks[2].mlp.fc2.weight)


@pytest.mark.parametrize(("theirs_has", "ours_has"), [(True, False), (False, True)])
def test_position_of_cls_moves_where_only_one_model_has_it(theirs_has: bool, ours_has: bool, tmp_path: Path) -> None:
    theirs = timm_vit(no_embed_class=not theirs_has)
    ours = build(cls_position=ours_has)
    load_plain_weights(ours, write(theirs, tmp_path / "t.safetensors"))
    torch.testing.assert_close(ours.forward_features(images()), theirs.forward_features(images()))


def test_registers_load_or_stay_as_drawn(tmp_path: Path) -> None:
    theirs = timm_vit(reg_tokens=2)  # with positions for [CLS] and the registers
    ours = build(high_norm="registers:2")  # without
    load_plain_weights(ours, write(theirs, tmp_path / "r.safetensors"))
    torch.testing.assert_close(ours.forward_features(images()), theirs.forward_features(images()))
    plain = write(timm_vit(), tmp_path / "p.safetensors")
    drawn, biased = build(high_norm="registers:3"), build(high_norm="attention_bias")
    registers, bias = drawn.reg_token.detach().clone(), biased.blocks[1].attn.key_bias.detach().clone()
    for model in (drawn, biased):
        load_plain_weights(model, plain)
        assert torch.equal(model.blocks[0].mlp.fc1.weight, timm_vit().blocks[0].mlp.fc1.weight)
    assert torch.equal(drawn.reg_token, registers)
    assert torch.equal(biased.blocks[1].attn.key_bias, bias)


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({"embed_dim": 8}, {}, r"width \(model.scale\) must be that of the model, 16, not 8"),
        ({"depth": 2}, {}, r"depth \(model.scale\) must be that of the model, 3, not 2"),
        ({"patch_size": 8}, {}, r"patch size \(model.patch_size\) must be that of the model, 4, not 8"),
        ({"in_chans": 1}, {}, "image channels must be that of the model, 3, not 1"),
        ({"reg_tokens": 2}, {}, r"registers \(model.high_norm\) must be that of the model, 0, not 2"),
        ({"init_values": 0.1}, {}, r"layer scales \(objective.layer_scale\) must be that of the model, False, not"),
        ({}, {"layer_scale": 0.1}, r"objective.layer_scale\) must be that of the model, True, not False"),
        ({"mlp_ratio": 2.0}, {}, r"blocks.0.mlp.fc1.bias must be \(64,\), not \(32,\)"),
        ({"qk_norm": True}, {}, "has blocks.0.attn.k_norm.bias, which the model does not have"),
        ({"global_pool": "avg"}, {}, "has no norm.weight, which the model has"),
        ({"class_token": False, "global_pool": "avg"}, {}, "it has no cls_token"),
        ({"img_size": (8, 12)}, {}, "its 7 positions must be those of a square grid"),
        # 8 x 8 patches and [CLS] make 65 positions, as many as the model's 5 x 13 patches alone.
        ({"img_size": 32}, {"image_size": (20, 52)}, "65 positions can be read in two ways, 1 . 8 x 8 or 0 . 5 x 13"),
        ({}, {"text": "norm"}, "before it is specialized"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_field_and_both_values(
    theirs: dict[str, Any], ours: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(timm_vit(**theirs), tmp_path / "t.safetensors")
    model = build(**ours)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=message):
        load_plain_weights(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_specialized_file_is_refused_and_a_plain_one_of_ours_loads(tmp_path: Path) -> None:
    model = build("norm", seed=5)
    save_model(model, tmp_path / "own.safetensors")
    with pytest.raises(ConfigError, match=r"must be of a plain ViT, but has own weights .*fold it"):
        load_plain_weights(build(), tmp_path / "own.safetensors")
    save_model(fold(model), tmp_path / "folded.safetensors")
    other = build(seed=6)
    load_plain_weights(other, tmp_path / "folded.safetensors")
    assert torch.equal(other(images()), model(images()))


def test_missing_and_unreadable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("absent.safetensors", "sub/absent", "vit_of_nobody_patch4"):
        with pytest.raises(DataError, match=f"no such checkpoint.*{name}"):
            load_plain_weights(build(), name)
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 9)
    (tmp_path / "broken.pth").write_bytes(b"no zip")
    torch.save({"weight": [1, 2]}, tmp_path / "list.pth")
    for name in ("broken.safetensors", "broken.pth", "list.pth"):
        with pytest.raises(DataError, match=name):
            load_plain_weights(build(), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Malicious()}, tmp_path / "code.pth")
    with pytest.raises(DataError, match=r"code\.pth.* cannot be read"):
        load_plain_weights(build(), tmp_path / "code.pth")
    assert not (tmp_path / "ran").exists()


class Malicious:
    """Run code where a file is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_a_file_of_another_hash_is_refused(tmp_path: Path) -> None:
    path = write(timm_vit(), tmp_path / "t.safetensors")
    load_plain_weights(build(), path, sha256=sha256_of(path))
    with pytest.raises(DataError, match="has changed"):
        load_plain_weights(build(), path, sha256="0" * 64)


def test_names_are_those_of_timm_and_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(repository: str, filename: str) -> str:
        asked.append((repository, filename))
        if repository == "nobody/nothing":
            raise OSError("offline\nsecond line")
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert find_checkpoint("vit_small_patch16_224.augreg_in21k") == tmp_path / "model.safetensors"
    find_checkpoint("hf-hub:somebody/something")
    assert asked[0][0] == timm.models.get_pretrained_cfg("vit_small_patch16_224.augreg_in21k").hf_hub_id
    assert asked[1] == ("somebody/something", "model.safetensors")
    with pytest.raises(DataError, match=r"nobody/nothing.*cannot be fetched: offline$"):
        find_checkpoint("hf-hub:nobody/nothing")
    assert pretrained_weights.HUB_PREFIX == "hf-hub:"


def test_own_weights_are_copies_of_the_checkpoints(tmp_path: Path) -> None:
    theirs = timm_vit()
    path = str(write(theirs, tmp_path / "t.safetensors"))
    ours = build(EVERYTHING, pretrained=path)
    torch.testing.assert_close(ours.forward_features(images()), theirs.forward_features(images()), rtol=0, atol=0)
    own = own_parameters(ours)
    assert torch.equal(own["blocks.1.norm1.own.norm1.weight"], theirs.blocks[1].norm1.weight)
    drawn = build("norm", pretrained=path, init="independent")
    assert torch.equal(own_parameters(drawn)["blocks.1.norm1.own.norm1.weight"], torch.ones(16))


# fold


@pytest.mark.parametrize("high_norm", ["vanilla", "registers:2", "attention_bias"])
def test_a_model_of_copies_folds_to_the_plain_one_bit_for_bit(high_norm: str) -> None:
    model = build(EVERYTHING, high_norm=high_norm, num_classes=3)
    model.blocks[0].norm1.weight.requires_grad_(False)
    folded = fold(model)
    assert not own_parameters(folded)
    assert config_of(folded).specialization == "none"
    assert torch.equal(folded(images()), model(images()))
    assert (folded.training, folded.blocks[0].norm1.weight.requires_grad) == (False, False)
    assert folded.blocks[0].norm2.weight.requires_grad
    folded.norm.weight.data.zero_()
    assert torch.equal(model.norm.weight, torch.ones(16))


def test_gates_of_zero_fold_whatever_the_own_weights() -> None:
    model = shake(build("norm(gate)+qkv(gate)"))
    with pytest.raises(ConfigError, match=r"own norm1 \(gate\) of blocks\.0\.norm1 differs"):
        fold(model)
    with torch.no_grad():
        for name, value in own_parameters(model).items():
            if name.endswith("gate"):
                value.zero_()
    assert torch.equal(fold(model)(images()), model(images()))


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("norm+mlp", "blocks.2.mlp.fc1.own.fc1.bias", r"own fc1 \(full\) of blocks\.2\.mlp\.fc1"),
        ("q+k+v(gate)", "blocks.1.attn.qkv.own.v.weight", r"own v \(gate\) of blocks\.1\.attn\.qkv"),
        ("proj(lora:2)", "blocks.0.attn.proj.own.proj.up", r"own proj \(lora:2\) of blocks\.0\.attn\.proj"),
        ("final_norm", "norm.own.final_norm.bias", r"own final_norm \(full\) of norm"),
    ],
)
def test_own_weights_that_differ_are_named(text: str, name: str, message: str) -> None:
    model = build(text)
    with torch.no_grad():
        own_parameters(model)[name].view(-1)[-1] += 1e-3
    with pytest.raises(ConfigError, match=f"cannot be folded: {message} differs"):
        fold(model)
