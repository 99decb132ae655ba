"""A sweep that starts from a checkpoint: its identity, what is refused, and what its trials start from."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from orchestrator.cli.app import main
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.pretrained import pin_checkpoints
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.identity import trial_id
from orchestrator.trials.trial import Trial
from specvit.config import ModelSettings
from specvit.data import Dataset
from specvit.errors import ConfigError, DataError
from specvit.models.routed_layers import own_parameters
from specvit.probing import Probing
from specvit.trial import run_trial

SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 6, "num_heads": 2, "num_classes": 3}
"""What the tiny sweep's backbone is, with a head."""


class Silent:
    def progress(self, **_: object) -> None: ...

    def rung(self, **_: object) -> None: ...

    def should_stop(self) -> bool:
        return True


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Callable[..., str]:
    def write(name: str = "pretrained.safetensors", *, seed: int = 0, **shape: Any) -> str:
        torch.manual_seed(seed)
        model = timm.create_model("vit_tiny_patch16_224", **(SHAPE | shape))
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        save_file(model.state_dict(), path)
        return str(path)

    return write


def trials_of(sweep: Sweep) -> tuple[Trial, ...]:
    return expand(pin_checkpoints(sweep))


def ids(sweep: Sweep) -> list[str]:
    return [trial.trial_id for trial in trials_of(sweep)]


def test_without_a_checkpoint_the_sweep_stays_as_it_is_and_torch_is_not_needed(sweep: Sweep) -> None:
    assert pin_checkpoints(sweep) is sweep


def test_identity_follows_the_content_not_the_path(
    make_sweep: Callable[..., Sweep], write_checkpoint: Callable[..., str], sweep: Sweep
) -> None:
    here = ids(make_sweep(model={"checkpoint": write_checkpoint("a.safetensors")}))
    moved = ids(make_sweep(model={"checkpoint": write_checkpoint("sub/b.safetensors")}))
    other = ids(make_sweep(model={"checkpoint": write_checkpoint("a.safetensors", seed=1)}))
    assert here == moved
    assert len({*here, *other, *ids(sweep)}) == 3 * len(here)


def test_pinned_settings_hold_the_files_hash_and_absolute_path(
    make_sweep: Callable[..., Sweep], write_checkpoint: Callable[..., str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = Path(write_checkpoint())
    monkeypatch.chdir(tmp_path)
    (group,) = pin_checkpoints(make_sweep(model={"checkpoint": path.name})).groups
    assert group.model.checkpoint == str(path.resolve())
    assert group.model.checkpoint_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_configuration_without_the_hash_has_no_identity(trials: tuple[Trial, ...]) -> None:
    config = dataclasses.replace(trials[0].config, model=ModelSettings(checkpoint="x"))
    with pytest.raises(ValueError, match="has no hash yet"):
        trial_id(config)


def test_a_given_hash_is_checked(make_sweep: Callable[..., Sweep], write_checkpoint: Callable[..., str]) -> None:
    path = write_checkpoint()
    right = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    pinned = make_sweep(model={"checkpoint": path, "checkpoint_sha256": right})
    assert ids(pinned) == ids(make_sweep(model={"checkpoint": path}))
    with pytest.raises(ConfigError, match=f"model.checkpoint_sha256: must be that of .*{right}, not {'0' * 64}"):
        pin_checkpoints(make_sweep(model={"checkpoint": path, "checkpoint_sha256": "0" * 64}))
    with pytest.raises(ConfigError, match=r"model\.checkpoint_sha256: needs model\.checkpoint"):
        pin_checkpoints(make_sweep(model={"checkpoint_sha256": "0" * 64}))


@pytest.mark.parametrize(
    ("sections", "shape", "message"),
    [
        ({}, {"embed_dim": 32}, r"model\.scale\) must be that of the model, 64, not 32"),
        ({}, {"patch_size": 8}, r"model\.patch_size\) must be that of the model, 4, not 8"),
        ({"vary": {"model.scale": ["nano", "mini"]}}, {}, r"must be that of the model, 128, not 64"),
        ({"objective": {"recipe": "dinov2_cpu", "steps": 4, "layer_scale": 0.1}}, {}, r"objective\.layer_scale"),
    ],
)
def test_a_checkpoint_that_does_not_fit_a_group_is_refused(
    make_sweep: Callable[..., Sweep], write_checkpoint: Callable[..., str],
    sections: dict[str, Any], shape: dict[str, int], message: str,
) -> None:
    sweep = make_sweep(**({"model": {"checkpoint": write_checkpoint(**shape)}} | sections))
    with pytest.raises(ConfigError, match=rf"^.*tiny\.yaml: model\.checkpoint: .*{message}"):
        pin_checkpoints(sweep)


def test_from_scratch_and_two_checkpoints_make_three_groups_but_one_content_is_refused(
    make_sweep: Callable[..., Sweep], write_checkpoint: Callable[..., str]
) -> None:
    one, other = write_checkpoint("one.safetensors"), write_checkpoint("other.safetensors", seed=1)
    found = trials_of(make_sweep(vary={"model.checkpoint": [None, one, other]}))
    assert len({trial.group_id for trial in found}) == 3
    assert {trial.group for trial in found} == {f"model.checkpoint={value}" for value in ("null", one, other)}
    copy = write_checkpoint("copy.safetensors")
    with pytest.raises(ConfigError, match=r"model\.checkpoint: must differ in content .*one.*copy"):
        pin_checkpoints(make_sweep(vary={"model.checkpoint": [one, copy]}))


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("kind", ["missing", "ill-fitting"])
def test_command_line_ends_with_2_before_anything_is_written(
    command: str, kind: str, write_sweep: Callable[..., Path], write_checkpoint: Callable[..., str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = "absent.safetensors" if kind == "missing" else write_checkpoint(depth=2)
    path = write_sweep(tmp_path, model={"checkpoint": checkpoint})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["specsweep", command, str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"{path}: model.checkpoint: ")
    assert ("absent.safetensors" if kind == "missing" else "must be that of the model, 6, not 2") in message
    assert not (tmp_path / "results").exists()


def test_trials_start_from_the_checkpoint_own_weights_as_copies_and_the_floor_untrained(
    make_sweep: Callable[..., Sweep], write_checkpoint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_checkpoint()
    torch.manual_seed(0)
    weights = timm.create_model("vit_tiny_patch16_224", **SHAPE).state_dict()
    built: dict[str, Any] = {}

    def stop_at_the_probes(probing: Probing, model: Any, **_: object) -> dict[str, float]:
        built[probing.config.treatment.kind] = model
        return {}

    def stop_at_the_learner(recipe: object, backbone: Any, dataset: Dataset, *, seed: int) -> None:
        built["own" if own_parameters(backbone) else "baseline"] = backbone
        raise InterruptedError

    monkeypatch.setattr(Probing, "backbone", stop_at_the_probes)
    sweep = make_sweep(model={"checkpoint": path}, floors=["random_init"], seeds=1)
    monkeypatch.setattr(type(sweep.groups[0].objective), "build", stop_at_the_learner)
    for trial in trials_of(sweep):
        dataset = trial.config.data.load()
        try:
            run_trial(trial.config, dataset, Silent())
        except InterruptedError:
            continue
    for name in ("baseline", "own"):
        assert torch.equal(built[name].blocks[3].attn.qkv.weight, weights["blocks.3.attn.qkv.weight"])
    own = own_parameters(built["own"])
    assert torch.equal(own["blocks.3.norm1.own.norm1.weight"], weights["blocks.3.norm1.weight"])
    floor = built["random_init"].blocks[3].attn.qkv.weight
    assert not torch.equal(floor.cpu(), weights["blocks.3.attn.qkv.weight"])


def test_a_checkpoint_replaced_after_the_start_fails_the_trial(
    make_sweep: Callable[..., Sweep], write_checkpoint: Callable[..., str]
) -> None:
    trial = trials_of(make_sweep(model={"checkpoint": write_checkpoint()}))[0]
    write_checkpoint(seed=1)
    with pytest.raises(DataError, match="has changed"):
        run_trial(trial.config, trial.config.data.load(), Silent())


def test_a_sweep_file_says_it_in_one_line(tmp_path: Path, write_checkpoint: Callable[..., str]) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"model: {{scale: nano, patch_size: 4, checkpoint: {write_checkpoint()}}}\n"
        "objective: {recipe: dinov2_cpu}\nprobes: {knn: {}}\n"
    )
    assert load_sweep(path).groups[0].model.checkpoint == write_checkpoint()
