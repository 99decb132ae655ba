"""Plain weights from files. References are timm's models and timm's own conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

from specvit.checkpoints import fold, load_plain_weights, save_model
from specvit.errors import ConfigError, DataError
from specvit.files.checksum import sha256_of
from specvit.models import pretrained_weights
from specvit.models.pretrained_weights import find_checkpoint
from specvit.models.routed_layers import own_parameters

from .small_models import EVERYTHING, build, images, timm_vit, write


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
    with pytest.raises(DataError, match="timm has no pretrained model of that name"):
        find_checkpoint("vit_small_patch16_224.nobody")
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
