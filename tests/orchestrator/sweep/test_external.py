"""Finished backbones from elsewhere in a sweep file: their trials, their ids, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from orchestrator.scheduling.shared_floors import find_followers
from orchestrator.sweep.grid import count_trials, expand
from orchestrator.sweep.pretrained import pin_checkpoints
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.identity import training_id, trial_id
from orchestrator.trials.stored import read_config
from orchestrator.trials.trial import Role, Trial
from specvit.checkpoints import save_model
from specvit.models.config import VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit, num_parameters


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "student.safetensors"
    save_model(build_vit(VitConfig(SCALES["nano"], 32, 8), seed=5), path)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "theirs.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    return path


def entry(path: Path, name: str = "mine", **fields: Any) -> dict[str, Any]:
    return {"name": name, "checkpoint": str(path), **fields}


def externals(sweep: Sweep) -> list[Trial]:
    return [trial for trial in expand(pin_checkpoints(sweep)) if trial.role is Role.EXTERNAL]


def test_there_is_one_trial_of_each_in_a_group_after_the_floors(
    make_sweep: Callable[..., Sweep], saved: Path, plain: Path
) -> None:
    sweep = make_sweep(external=[entry(saved), entry(plain, "theirs", model="test_vit")], seeds=[7, 3])
    trials = expand(pin_checkpoints(sweep))
    assert [trial.label for trial in trials] == [
        *("nano none seed 7", "nano random init seed 7", "nano raw pixels seed 7"),
        *("mine (external)", "theirs (external)", "nano norm@all seed 7"),
        *("nano none seed 3", "nano random init seed 3", "nano raw pixels seed 3", "nano norm@all seed 3"),
    ]
    assert count_trials(sweep) == len(trials) == 10
    (mine,) = [trial for trial in trials if trial.arm == "mine"]
    with torch.device("meta"):
        count = num_parameters(build_vit(VitConfig(SCALES["nano"], 32, 8)))
    assert (mine.seed, mine.num_parameters, mine.group_id) == (7, count, trials[0].group_id)
    assert mine.extra_parameters_percent == pytest.approx(100 * (count / trials[0].num_parameters - 1))


def test_other_trials_keep_their_ids(make_sweep: Callable[..., Sweep], saved: Path) -> None:
    before = [trial.trial_id for trial in expand(make_sweep())]
    after = [trial.trial_id for trial in expand(pin_checkpoints(make_sweep(external=[entry(saved)])))]
    assert len(after) == len(before) + 1
    assert set(before) < set(after)


def test_identity_follows_the_content_not_path_and_name(
    make_sweep: Callable[..., Sweep], saved: Path, tmp_path: Path
) -> None:
    moved, other = tmp_path / "moved.safetensors", tmp_path / "other.safetensors"
    shutil.copy(saved, moved)
    save_model(build_vit(VitConfig(SCALES["nano"], 32, 8), seed=6), other)
    here, there, else_where = (
        externals(make_sweep(external=[each]))[0] for each in (entry(saved), entry(moved, "renamed"), entry(other))
    )
    assert (here.trial_id, here.arm_id) == (there.trial_id, there.arm_id)
    assert (there.arm, there.label) == ("renamed", "renamed (external)")
    assert here.trial_id != else_where.trial_id
    assert len({training_id(trial.config) for trial in (here, there, else_where)}) == 2
    stored = dataclasses.asdict(here.config)
    stored["probes"] = {"knn": stored["probes"][0]}
    assert read_config(stored, here.trial_id) == here.config
    unpinned = dataclasses.replace(here.config.treatment, external=make_sweep(external=[entry(saved)]).file.external[0])
    with pytest.raises(ValueError, match="has no hash yet"):
        trial_id(dataclasses.replace(here.config, treatment=unpinned))


def test_groups_that_differ_in_the_recipe_share_the_result(make_sweep: Callable[..., Sweep], saved: Path) -> None:
    sweep = make_sweep(external=[entry(saved)], vary={"objective.lr": [1e-3, 2e-3], "data.num_train": [64, 80]})
    trials = externals(sweep)
    assert [trial.label for trial in trials] == [
        f"objective.lr={lr}, data.num_train={count} mine (external)".replace(", ", " ")
        for lr in (0.001, 0.002) for count in (64, 80)
    ]
    to_run, followers = find_followers(trials, trials)
    assert to_run == trials[:2]
    assert followers == {trials[0].trial_id: [trials[2]], trials[1].trial_id: [trials[3]]}
    diagnosed = externals(make_sweep(external=[entry(saved)], diagnostics=True))[0]
    assert find_followers([*trials, diagnosed], [diagnosed], {trials[0].trial_id})[0] == [diagnosed]


@pytest.mark.parametrize("command_name", ["run", pytest.param("plan", marks=pytest.mark.long)])
def test_what_is_wrong_is_told_at_once_by_line_and_field_before_anything_is_written(
    command_name: str, command: Callable[..., subprocess.CompletedProcess[str]],
    saved: Path, plain: Path, tmp_path: Path,
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "objective: {recipe: dinov2_cpu}\nprobes: {knn: {}}\ndata: {source: scenes, image_size: 48}\n"
        "external:\n  - {name: gone, checkpoint: absent.safetensors}\n"
        f"  - {{name: theirs, checkpoint: {plain}}}\n"
        f"  - {{name: large, checkpoint: {saved}}}\n  - name: again\n    checkpoint: {saved}\n"
        f"  - {{name: third, checkpoint: {plain}, model: vit_tiny_patch16_224}}\n"
    )
    ended = command(command_name, str(path))
    assert ended.returncode == 2
    assert [line.removeprefix(f"{path}:") for line in ended.stderr.splitlines()] == [
        "5: external[0].checkpoint: no such checkpoint file: 'absent.safetensors'",
        "6: external[1].checkpoint: model is required with a file of plain weights: timm's name of the model, e.g. "
        "vit_small_patch16_224",
        "9: external[3].checkpoint: must differ in content, but 'large' and 'again' hold the same",
        f"10: external[4].checkpoint: checkpoint '{plain}': its cls_token must be (1, 1, 192) in vit_tiny_patch16_224, "
        "not (1, 1, 64)",
    ]
    assert not (tmp_path / "results").exists()


@pytest.mark.long
def test_patches_must_divide_the_images_of_every_probe(
    make_sweep: Callable[..., Sweep], plain: Path, tmp_path: Path
) -> None:
    own = {"source": "scenes", "image_size": 24, "num_train": 64, "num_val": 32}
    sweep = make_sweep(external=[entry(plain, model="test_vit")], probes={"knn": {}, "linear": {"data": own}})
    place = r"tiny\.yaml:\d+: external\[0\]\.checkpoint"
    rule = "must have a patch size that divides the images of probe 'linear', 24 pixels, not 16"
    with pytest.raises(ValueError, match=f"{place}: {rule}"):
        pin_checkpoints(sweep)
    fixed = build_vit(VitConfig(SCALES["nano"], 24, 8, options={"num_classes": 0}), seed=5)
    save_model(fixed, tmp_path / "fixed.safetensors")
    with pytest.raises(ValueError, match=r"takes images of 24 pixels alone .* but those of probe 'knn' have 32"):
        pin_checkpoints(make_sweep(external=[entry(tmp_path / "fixed.safetensors")]))


@pytest.mark.parametrize(
    ("external", "message"),
    [
        ([{"name": "a", "checkpoint": "x"}] * 2, r"external\[1\]\.name: must be given once, not 'a' again"),
        ([{"name": " a", "checkpoint": "x"}], r"external\[0\]\.name: must be one line of text.*, not ' a'"),
        ([{"name": "a"}], r"external\[0\]\.checkpoint"),
        ([{"name": "a", "checkpoint": "x", "modle": "y"}], r"external\[0\]\.modle: unknown .*you mean 'model'"),
        ([{"name": "a", "checkpoint": "x", "std": [0.5, 0, 0.5]}], r"external\[0\]\.std\[1\]: must be greater than 0"),
        ({"name": "a"}, r"external: must be a list"),
    ],
)
def test_entries_are_checked_as_the_file_is_read(
    external: object, message: str, make_sweep: Callable[..., Sweep]
) -> None:
    with pytest.raises(ValueError, match=message):
        make_sweep(external=external)
