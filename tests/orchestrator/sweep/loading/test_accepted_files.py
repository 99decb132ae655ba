"""What is accepted in a sweep file, what it means, and what ``--set`` changes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.sweep.resolved import Limits, Sweep
from specvit.training.checkpoint import Checkpoint

from .sweep_texts import MINIMAL, VALID, Load, message_of


def test_load_sweep_valid_file_resolves_everything(load: Load) -> None:
    sweep = load(VALID)
    assert sweep.name == "components"
    assert sweep.text == VALID
    assert sweep.file.seeds == (0, 1, 2)
    assert [group.varied for group in sweep.groups] == [(("model.scale", "nano"),), (("model.scale", "micro"),)]
    assert [group.model.scale for group in sweep.groups] == ["nano", "micro"]
    assert sweep.groups[0].objective.steps == 150
    assert [probe.name for probe in sweep.file.probes] == ["knn", "linear"]
    assert sweep.file.rungs.probes == ("knn",)
    assert sweep.pruning_metric == "knn_top1"


def test_load_sweep_minimal_file_takes_the_defaults(load: Load) -> None:
    sweep = load(MINIMAL, name="my-sweep.yaml")
    assert sweep.name == "my-sweep"
    assert sweep.file.seeds == (0, 1, 2)
    assert sweep.file.floors == ("random_init", "raw_pixels")
    assert sweep.groups[0].data.name == "scenes"
    assert len(sweep.groups) == 1
    assert sweep.groups[0].varied == ()


def test_load_sweep_number_of_seeds_counts_from_zero(load: Load) -> None:
    assert load(MINIMAL + "seeds: 4\n").file.seeds == (0, 1, 2, 3)


def test_load_sweep_varied_kind_may_be_absent_from_its_section(load: Load) -> None:
    text = "objective: {steps: 9}\nprobes: {knn: }\nvary: {objective.recipe: [dinov2_cpu, deit3_cpu]}\n"
    assert [group.objective.name for group in load(text).groups] == ["dinov2_cpu", "deit3_cpu"]


def test_load_sweep_length_in_epochs_passes_whatever_the_rungs(load: Load) -> None:
    # How many steps they are is known when the images are.
    text = VALID.replace("steps: 150", "epochs: 0.5").replace("{count: 3}", "{count: 400}")
    assert {group.objective.epochs for group in load(text).groups} == {0.5}
    varied = MINIMAL + "vary: {objective.epochs: [1, 2.5]}\n"
    assert [group.objective.epochs for group in load(varied).groups] == [1, 2.5]


def test_load_sweep_two_varied_fields_of_a_section_make_their_product(load: Load) -> None:
    text = MINIMAL + "vary:\n  objective.lr: [1e-3, 1]\n  model.scale: [nano]\n  objective.steps: [5, 6]\n"
    groups = load(text).groups
    assert [(group.objective.lr, group.objective.steps) for group in groups] == [(1e-3, 5), (1e-3, 6), (1, 5), (1, 6)]


def test_load_sweep_joint_settings_make_a_group_each(load: Load) -> None:
    text = MINIMAL + "vary:\n- {model.scale: nano, objective.lr: 1e-3}\n- {objective.lr: 5e-4, model.scale: micro}\n"
    groups = load(text).groups
    assert [(group.model.scale, group.objective.lr) for group in groups] == [("nano", 1e-3), ("micro", 5e-4)]
    assert [group.varied for group in groups] == [
        (("model.scale", "nano"), ("objective.lr", 1e-3)),
        (("model.scale", "micro"), ("objective.lr", 5e-4)),
    ]


def test_load_sweep_a_list_in_a_joint_setting_is_crossed_with_the_rest_of_it(load: Load) -> None:
    vary = "- {model.scale: nano, objective.lr: [1, 2]}\n- {model.scale: [nano, micro], objective.lr: 3}\n"
    groups = [(group.model.scale, group.objective.lr) for group in load(f"{MINIMAL}vary:\n{vary}").groups]
    assert groups == [("nano", 1), ("nano", 2), ("nano", 3), ("micro", 3)]


def test_load_sweep_a_list_of_one_mapping_of_axes_is_that_mapping(load: Load) -> None:
    axes = "{model.scale: [nano, micro], objective.lr: [1, 2]}"
    assert load(f"{MINIMAL}vary: [{axes}]\n").groups == load(f"{MINIMAL}vary: {axes}\n").groups


def test_load_sweep_groups_name_what_others_are_given_if_they_have_it(load: Load) -> None:
    text = (
        "objective: {recipe: deit3_cpu, lr: 2}\nprobes: {knn: }\nvary:\n- {model.scale: micro}\n"
        "- {objective.lr: 3, objective.dense_weight: 0.5}\n- {objective.recipe: dinov2_cpu, objective.lr: 3}\n"
    )
    assert [group.varied[:2] for group in load(text).groups] == [
        (("model.scale", "micro"), ("objective.lr", 2)),
        (("model.scale", "nano"), ("objective.lr", 3)),
        (("model.scale", "nano"), ("objective.lr", 3)),
    ]
    # DINOv2 has no dense loss.
    assert [[path for path, _ in group.varied[2:]] for group in load(text).groups] == [
        ["objective.dense_weight", "objective.recipe"],
        ["objective.dense_weight", "objective.recipe"],
        ["objective.recipe"],
    ]


def test_load_sweep_a_joint_setting_says_where_its_data_lies_and_how_to_compute(load: Load) -> None:
    joint = "{data.source: image_folder, data.root: /a, model.scale: micro, objective.micro_batch: 8}"
    plain, other = load(f"{MINIMAL}vary:\n- {{model.scale: nano}}\n- {joint}\n").groups
    assert (other.data.root, other.objective.micro_batch) == ("/a", 8)  # type: ignore[union-attr]
    assert other.varied == (("model.scale", "micro"), ("data.source", "image_folder"))
    assert plain.varied == (("model.scale", "nano"), ("data.source", "scenes"))


@pytest.mark.parametrize(
    ("overrides", "field", "value"),
    [
        (["objective.steps=7"], lambda s: s.groups[0].objective.steps, 7),
        (["seeds=[5, 6]"], lambda s: s.file.seeds, (5, 6)),
        (["seeds=2"], lambda s: s.file.seeds, (0, 1)),
        (["name=other"], lambda s: s.name, "other"),
        (["objective.lr=1e-2", "objective.lr=2e-2"], lambda s: s.groups[0].objective.lr, 0.02),
        (["vary.model.scale=[mini]"], lambda s: s.groups[0].model.scale, "mini"),
        (["vary={}"], lambda s: len(s.groups), 1),
        (["vary=[{model.scale: mini}]", "objective.lr=3"], lambda s: (s.groups[0].model.scale, s.groups[0].objective.lr), ("mini", 3)),  # noqa: E501
        (["data={source: image_folder}", "data.root=/x=y"], lambda s: s.groups[0].data.root, "/x=y"),
        (["probes.segmentation="], lambda s: "segmentation" in {probe.name for probe in s.file.probes}, True),
        (["probes.knn.temperature=0.5"], lambda s: next(probe for probe in s.file.probes if probe.name == "knn").temperature, 0.5),  # noqa: E501
        (["resources.processes=4"], lambda s: s.file.resources.processes, 4),
        (["checkpoint_every_s=0"], lambda s: s.file.checkpoint_every_s, 0),
        ([], lambda s: (s.file.resources.processes, s.file.checkpoint_every_s), (1, 60)),
        ([], lambda s: s.file.checkpoint_max_share, Checkpoint(Path(), "").max_share),
        (["checkpoint_max_share=1"], lambda s: s.file.checkpoint_max_share, 1),
    ],
)
def test_load_sweep_override_wins_over_the_file(
    load: Load, overrides: list[str], field: Callable[[Sweep], object], value: object
) -> None:
    sweep = load(VALID, *overrides)
    assert field(sweep) == value
    assert sweep.overrides == tuple(overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds", "--set seeds: must be path=value"),
        ("=3", "--set =3: must be path=value"),
        ("a..b=3", "--set a..b=3: must be path=value"),
        ("seeds.0=3", "--set seeds.0=3: seeds is [0, 1, 2], which has no fields to set"),
        ("seeds=[1", "--set seeds=[1: not valid YAML"),
        ("seeds=.nan", "--set seeds=.nan: must be a finite number"),
        ("a\nb=[\x1b", r"--set a\nb=[\x1b: character U+001B is not allowed"),
        ("objective.\udc80=1", r"--set objective.\udc80=1: must be UTF-8"),
        (f"{'a.' * 2000}b=1", "a.b=1: must be at most 32 levels deep, not 2001"),
        ("seeds=[-1]", "--set seeds=[-1]: seeds[0]: must be at least 0, not -1"),
        ("objective.step=3", "--set objective.step=3: objective.step: unknown field"),
        ("data.source=image_folder", "--set data.source=image_folder: data.root: is required by source 'image_folder'"),
        ("vary.model.scale=[nan]", "--set vary.model.scale=[nan]: vary.model.scale[0]: must be nano"),
        ("vary.0=3", "--set vary.0=3: vary.0: must be a field of model"),
        ("vary=[{model.scale: nan}]", "--set vary=[{model.scale: nan}]: vary[0].model.scale: must be nano"),
        ("ablate.blocks=[5:9]", "--set ablate.blocks=[5:9]: ablate.blocks[0]: block range '5:9'"),
    ],
)
def test_load_sweep_broken_override_is_named_in_place_of_a_line(load: Load, override: str, message: str) -> None:
    text = VALID.replace("data: {source: scenes, image_size: 32}\n", "")
    assert message in message_of(load, text, override)


def test_load_sweep_without_limits_bounds_nothing_and_tries_twice_again(load: Load) -> None:
    sweep = load(MINIMAL)
    assert sweep.limits == Limits(max_retries=2, stall_timeout_s=1800.0, time_budget_h=None, max_gpu_hours=None)
    assert sweep.file.priority == ()


def test_load_sweep_takes_limits_and_priority_from_the_file_and_the_command_line(load: Load) -> None:
    text = VALID + "max_retries: 0\nstall_timeout_s: 90\ntime_budget_h: 1.5\npriority: [norm@all]\n"
    sweep = load(text, "max_gpu_hours=20")
    assert sweep.limits == Limits(max_retries=0, stall_timeout_s=90.0, time_budget_h=1.5, max_gpu_hours=20.0)
    assert sweep.file.priority == ("norm@all",)
