"""Reading sweep files: what is accepted, what it means, and how every mistake is told."""

# ruff: noqa: E501  (the table of malformed files reads best with a case on a line)

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.resolved import Limits, Sweep
from orchestrator.sweep.schema import sweep_json_schema
from specvit.errors import SpecsweepError

VALID = """\
name: components
question: Which component gains from its own [CLS] weights?
model: {scale: nano, patch_size: 4}
data: {source: scenes, image_size: 32}
objective:
  recipe: dinov2_cpu
  steps: 150
  local_size: 16
probes:
  knn:
  linear: {}
rungs: {count: 3}
seeds: [0, 1, 2]
ablate:
  components: [none, norm, qkv, norm+qkv]
  blocks: [first-third, all]
  specialize: [norm@all+qkv@first-third]
vary:
  model.scale: [nano, micro]
floors: [random_init]
pruning: {pruner: none}
resources: {cpus: 1, gpus: 0}
"""
MINIMAL = "objective: {recipe: dinov2_cpu}\nprobes: {knn: }\n"

Load = Callable[..., Sweep]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str, *overrides: str, name: str = "x.yaml") -> Sweep:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return load_sweep(path, overrides)

    return load_text


def message_of(load: Load, text: str, *overrides: str, name: str = "x.yaml") -> str:
    """Load what must fail, and return the message without the folder."""
    with pytest.raises(SweepFileError) as caught:
        load(text, *overrides, name=name)
    assert isinstance(caught.value, SpecsweepError)
    lines = str(caught.value).splitlines()
    return "\n".join(line if line.startswith("--set") else line[line.index(name) :] for line in lines)


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
        (["data={source: image_folder}", "data.root=/x=y"], lambda s: s.groups[0].data.root, "/x=y"),
        (["probes.segmentation="], lambda s: "segmentation" in {probe.name for probe in s.file.probes}, True),
        (["probes.knn.temperature=0.5"], lambda s: next(probe for probe in s.file.probes if probe.name == "knn").temperature, 0.5),
        (["resources.processes=4"], lambda s: s.file.resources.processes, 4),
        (["checkpoint_every_s=0"], lambda s: s.file.checkpoint_every_s, 0),
        ([], lambda s: (s.file.resources.processes, s.file.checkpoint_every_s), (1, 60)),
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
        ("ablate.blocks=[5:9]", "--set ablate.blocks=[5:9]: ablate.blocks[0]: block range '5:9'"),
    ],
)
def test_load_sweep_broken_override_is_named_in_place_of_a_line(load: Load, override: str, message: str) -> None:
    text = VALID.replace("data: {source: scenes, image_size: 32}\n", "")
    assert message in message_of(load, text, override)


def changed(old: str, new: str) -> str:
    assert VALID.count(old) == 1, old
    return VALID.replace(old, new)


MALFORMED = {
    # the shape
    "misspelt_field": (changed("seeds:", "sedes:"), 13, "sedes: unknown field; known: ", "did you mean 'seeds'?"),
    "misspelt_inner_field": (changed("steps: 150", "step: 150"), 7, "objective.step: unknown field", "'steps'"),
    "misspelt_probe": (changed("  linear: {}", "  liner: {}"), 11, "probes.liner: unknown field", "'linear'"),
    "probe_option": (changed("linear: {}", "linear: {x: 1}"), 11, "probes.linear.x: unknown field", "known: "),
    "protocol_misfit": (
        changed("linear: {}", "segmentation: {protocol: knn, balance: 0.5}"),
        11, "probes.segmentation.balance: must not be given with protocol 'knn'", "it is a setting of ridge",
    ),
    "unknown_protocol": (
        changed("linear: {}", "segmentation: {protocol: kn}"), 11, "probes.segmentation.protocol: must be ridge", "did you mean 'knn'?",
    ),
    "protocol_field_out_of_range": (
        changed("linear: {}", "segmentation: {protocol: knn, ks: [0]}"), 11, "probes.segmentation.ks[0]: must be greater than 0", "not 0",
    ),
    "wrong_type": (changed("steps: 150", "steps: many"), 7, "objective.steps: must be a whole number", "'many'"),
    "float_for_int": (changed("steps: 150", "steps: 1.5"), 7, "objective.steps: must be a whole number", "1.5"),
    "bool_for_int": (changed("steps: 150", "steps: true"), 7, "objective.steps: must be a whole number", "true"),
    "out_of_range": (changed("steps: 150", "steps: 0"), 7, "objective.steps: must be greater than 0", "not 0"),
    "unknown_recipe": (changed("recipe: dinov2_cpu", "recipe: dinov2_gpu"), 6, "objective.recipe: unknown", "'dinov2_cpu'"),
    "recipe_absent": (changed("  recipe: dinov2_cpu\n", ""), 5, "objective.recipe: is required", "known: deit3"),
    "unknown_source": (changed("source: scenes", "source: scene"), 4, "data.source: unknown source", "'scenes'"),
    "root_absent": (changed("source: scenes", "source: image_folder"), 4, "data.root: is required", "image_folder"),
    "section_no_mapping": (changed("rungs: {count: 3}", "rungs: 3"), 12, "rungs: must be a mapping", "not 3"),
    "model_null": (changed("model: {scale: nano, patch_size: 4}", "model:"), 3, "model: must be a mapping", "null"),
    "data_list": (changed("data: {source: scenes, image_size: 32}", "data: [1]"), 4, "data: must be a mapping", "[1]"),
    "unknown_scale": (
        changed("model: {scale: nano, patch_size: 4}", "model: {scale: nano}").replace("[nano, micro]", "[nano, mikro]"),
        19, "vary.model.scale[1]: must be nano, micro", "did you mean 'micro'?",
    ),
    "negative_seed": (changed("[0, 1, 2]", "[0, -1]"), 13, "seeds[1]: must be at least 0", "not -1"),
    "same_seed_twice": (changed("[0, 1, 2]", "[3, 1, 3]"), 13, "seeds: must hold each seed once", "3 comes 2 times"),
    "no_seeds": (changed("[0, 1, 2]", "[]"), 13, "seeds: must not be empty", "empty grid"),
    "zero_seeds": (changed("[0, 1, 2]", "0"), 13, "seeds: must be a list of seeds, or their number", "not 0"),
    "text_seeds": (changed("[0, 1, 2]", "three"), 13, "seeds: must be a list", "'three'"),
    "empty_components": (changed("[none, norm, qkv, norm+qkv]", "[]"), 15, "ablate.components: must not be empty", ""),
    "components_text": (changed("[none, norm, qkv, norm+qkv]", "norm"), 15, "ablate.components: must be a list", "'norm'"),
    "unknown_pruner": (changed("pruner: none", "pruner: medain"), 21, "pruning.pruner: unknown pruner", "'median'"),
    "unknown_floor": (changed("[random_init]", "[random]"), 20, "floors[0]: must be random_init", "'random_init'"),
    "bad_name": (changed("name: components", "name: ../up"), 1, "name: must be at most 100 letters", "'../up'"),
    "hidden_name": (changed("name: components", "name: .git"), 1, "name: must be at most 100 letters", "'.git'"),
    "no_processes": (changed("gpus: 0", "processes: 0"), 22, "resources.processes: must be greater than 0", "0"),
    "uneven_processes": (changed("gpus: 0", "processes: 7"), 22, "resources.processes: must divide objective.batch_size, 32", "7"),
    "shared_gpu": (changed("gpus: 0", "gpus: 0.5, processes: 2"), 22, "resources.processes: must be 1 where gpus is a share of a GPU (0.5)", "2"),
    "negative_interval": (changed("seeds: [0, 1, 2]", "seeds: 3\ncheckpoint_every_s: -1"), 14, "checkpoint_every_s: must be at least 0", "-1"),
    "sliver_of_a_gpu": (changed("gpus: 0", "gpus: 1e-5"), 22, "resources.gpus: must be 0 or at least 0.0001", "not 1e-05"),
    "sliver_of_a_cpu": (changed("cpus: 1", "cpus: 1e-320"), 22, "resources.cpus: must be at least 0.0001", "not 1e-320"),
    "part_gpus": (changed("gpus: 0", "gpus: 1.5"), 22, "resources.gpus: must be a whole number", "1.5"),
    "part_gpus_of_a_scale": (changed("gpus: 0", "nano: {gpus: 2.5}"), 22, "resources.nano.gpus: must be a whole number", "2.5"),
    "unknown_scale_of_resources": (changed("gpus: 0", "mikro: {gpus: 1}"), 22, "resources.mikro: unknown field", "did you mean 'micro'?"),
    "rays_own_resource": (changed("gpus: 0", "custom: {GPU: 1}"), 22, "resources.custom: must name resources of your own", "'GPU'"),
    "negative_retries": (changed("seeds: [0, 1, 2]", "seeds: 3\nmax_retries: -1"), 14, "max_retries: must be at least 0", "-1"),
    "half_a_retry": (changed("seeds: [0, 1, 2]", "seeds: 3\nmax_retries: 1.5"), 14, "max_retries: must be a whole number", "1.5"),
    "no_stall_timeout": (changed("seeds: [0, 1, 2]", "seeds: 3\nstall_timeout_s: 0"), 14, "stall_timeout_s: must be greater than 0", "0"),
    "no_time": (changed("seeds: [0, 1, 2]", "seeds: 3\ntime_budget_h: 0"), 14, "time_budget_h: must be greater than 0", "0"),
    "endless_time": (changed("seeds: [0, 1, 2]", "seeds: 3\ntime_budget_h: .inf"), 14, "time_budget_h: must be a finite number", ".inf"),
    "no_gpu_hours": (changed("seeds: [0, 1, 2]", "seeds: 3\nmax_gpu_hours: -2"), 14, "max_gpu_hours: must be greater than 0", "-2"),
    "unknown_priority": (changed("seeds: [0, 1, 2]", "seeds: 3\npriority: [norm@all, qvk@all]"), 14, "priority[1]: must be an arm of the sweep (", "not 'qvk@all' (did you mean 'qkv@all'?)"),
    "priority_of_the_baseline": (changed("seeds: [0, 1, 2]", "seeds: 3\npriority: [none]"), 14, "priority[0]: must be an arm of the sweep", "not 'none'"),
    "priority_twice": (changed("seeds: [0, 1, 2]", "seeds: 3\npriority: [qkv@all, qkv@all]"), 14, "priority[1]: must name each arm once", "'qkv@all' again"),
    "priority_no_list": (changed("seeds: [0, 1, 2]", "seeds: 3\npriority: qkv@all"), 14, "priority: must be a list", "'qkv@all'"),
    "nan": (changed("steps: 150", "steps: .nan"), 7, "objective.steps: must be a finite number", ".nan"),
    "duplicate_key": (VALID + "seeds: [1]\n", 23, "seeds: duplicate key", "line 13"),
    "empty_axis": (changed("[nano, micro]", "[]"), 19, "vary.model.scale: must not be empty", ""),
    "axis_no_list": (changed("[nano, micro]", "nano"), 19, "vary.model.scale: must be a list", "'nano'"),
    "axis_twice": (changed("[nano, micro]", "[nano, micro, nano]"), 19, "vary.model.scale[2]: must differ", "'nano' again"),
    "axis_that_is_none_and_no_list": (changed("model.scale: [nano, micro]", "seeds: {x: 1}"), 19, "vary.seeds: must be a field of model", ""),
    "axis_unknown_field": (changed("model.scale: [", "model.scal: ["), 19, "vary.model.scal: unknown field", "'scale'"),
    "axis_ablated": (changed("model.scale: [nano, micro]", "ablate.init: [copy]"), 19, "vary.ablate.init: must be a field", "ablate"),
    "axis_seeds": (changed("model.scale: [nano, micro]", "seeds: [1]"), 19, "vary.seeds: must be a field of model", "seeds"),
    "axis_misfit": (
        changed("model.scale: [nano, micro]", "objective.recipe: [dinov2_cpu, deit3_cpu]"),
        19, "vary.objective.recipe[1]: 'deit3_cpu' does not go with objective.local_size", "unknown field",
    ),
    "axis_unknown_to_one_kind": (
        changed("model.scale: [nano, micro]", "objective.recipe: [dinov2_cpu, deit3_cpu]\n  objective.ema: [0.9, 0.8]").replace("  local_size: 16\n", ""),
        18, "vary.objective.recipe[1]: 'deit3_cpu' does not go with objective.ema", "unknown field",
    ),
    "axis_path": (
        MINIMAL + "data: {source: image_folder}\nvary:\n  data.root: [/a, /b]\n", 5, "vary.data.root: says where", "",
    ),
    "axis_resource": (
        MINIMAL + "vary:\n  objective.micro_batch: [4, 8]\n", 4, "vary.objective.micro_batch: says how to compute", "",
    ),
    "rule_between_fields": (
        changed("steps: 150", "steps: 150\n  global_scale: [0.9, 0.1]"),
        8, "objective.global_scale: must be [low, high]", "[0.9, 0.1]",
    ),
    "axis_misfit_of_two": (
        changed("model.scale: [nano, micro]", "objective.lr: [1, 2]\n  objective.recipe: [dinov2, deit3]"),
        20, "vary.objective.recipe[1]: 'deit3' does not go with objective.local_size", "unknown field",
    ),
    # what must fit together
    "patch_size": (changed("patch_size: 4", "patch_size: 5"), 3, "model.patch_size: must divide data.image_size, 32", "not 5"),
    "varied_image_size": (
        changed("model.scale: [nano, micro]", "data.image_size: [32, 34]"),
        19, "vary.data.image_size[1]: model.patch_size must divide", "34",
    ),
    "local_size": (changed("local_size: 16", "local_size: 18"), 8, "must be a multiple of model.patch_size, 4", "18"),
    "local_size_beyond": (changed("local_size: 16", "local_size: 64"), 8, "must be at most data.image_size, 32", "64"),
    "unknown_component": (changed("norm, qkv, norm", "nrom, qkv, norm"), 15, "ablate.components[1]: specialization 'nrom'", "'norm"),
    "unknown_range": (changed("[first-third, all]", "[frist-third]"), 16, "ablate.blocks[0]: unknown block range", "'first-third'"),
    "range_beyond": (changed("qkv@first-third]", "qkv@2:9]"), 17, "<= 6, the depth of the model", "scale 'nano'"),
    "range_beyond_one_scale": (
        changed("qkv@first-third]", "qkv@2:9]").replace("[nano, micro]", "[tiny, nano]"),
        17, "ablate.specialize[0]: block range '2:9'", "scale 'nano'",
    ),
    "blocks_alone": (changed("  components: [none, norm, qkv, norm+qkv]\n", ""), 15, "ablate.blocks: needs ablate.components", ""),
    "unknown_comparator": (
        changed("  blocks:", "  comparators: [jumb]\n  blocks:"),
        16, "ablate.comparators[0]: unknown comparator; known: class_attention", "did you mean 'jumbo'?",
    ),
    "unknown_comparator_in_a_mapping": (
        changed("  blocks:", "  comparators: [{comparator: jumb}]\n  blocks:"),
        16, "ablate.comparators[0].comparator: unknown comparator; known: class_attention", "did you mean 'jumbo'?",
    ),
    "comparator_unnamed": (
        changed("  blocks:", "  comparators: [{slots: 4}]\n  blocks:"),
        16, "ablate.comparators[0]: comparator is required; known: class_attention", "",
    ),
    "comparator_misspelt_field": (
        changed("  blocks:", "  comparators:\n  - comparator: jumbo\n    slot: 4\n  blocks:"),
        18, "ablate.comparators[0].slot: unknown field; known: comparator, slots, mlp_ratio", "did you mean 'slots'?",
    ),
    "comparator_field_out_of_range": (
        changed("  blocks:", "  comparators: [jumbo, {comparator: token_pooling, keep: 0}]\n  blocks:"),
        16, "ablate.comparators[1].keep: must be greater than 0", "not 0",
    ),
    "comparator_recipe": (
        changed("  blocks:", "  comparators: [jumbo, {comparator: patch_diversification, mixing_weight: 1}]\n  blocks:"),
        16, "ablate.comparators[1]: mixing_weight must be 0 with a recipe that does not mix", "'dinov2_cpu' as it is set, not 1",
    ),
    "dense_needs": (
        "data: {source: image_folder, root: /x}\nprobes: {knn: }\nobjective:\n  recipe: deit3_cpu\n  dense_weight: 0.5\n",
        5, "objective.dense_weight: recipe 'deit3_cpu' learns from masks", "source 'image_folder' has labels",
    ),
    "recipe_needs": (
        "data: {source: masks, root: /x}\nprobes: {segmentation: }\nobjective: {recipe: deit3_cpu}\n",
        3, "objective.recipe: recipe 'deit3_cpu' learns from labels", "source 'masks' has masks",
    ),
    "probe_needs": (
        "data: {source: masks, root: /x}\nobjective: {recipe: dinov2_cpu}\nprobes:\n  segmentation:\n  knn:\n",
        5, "probes.knn: predicts labels", "source 'masks' has masks",
    ),
    "weights_of_comparators": (
        "objective: {recipe: dinov2_cpu}\nprobes: {knn: }\nkeep_weights: true\n"
        "ablate: {comparators: [patch_diversification, jumbo]}\n",
        3, "keep_weights: must be false with comparator 'jumbo'", "",
    ),
    "probe_data_needs": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  knn:\n    data: {source: masks, root: /x}\n",
        4, "probes.knn.data: must have labels", "source 'masks' has masks",
    ),
    "probe_data_size": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  segmentation:\n    data:\n      source: masks\n"
        "      root: /x\n      image_size: 30\n",
        7, "probes.segmentation.data.image_size: must be a multiple of model.patch_size, 4", "not 30",
    ),
    "probe_data_unknown": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  knn:\n    data: {source: imagefolder}\n",
        4, "probes.knn.data", "imagefolder",
    ),
    "probe_data_of_no_kind": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  knn:\n    data: {}\n",
        4, "probes.knn.data.source: is required; known: ade20k", "webdataset",
    ),
    "line_break_in_a_key": ('objective: {recipe: dinov2_cpu}\nprobes: {knn: }\n"a\\nb": 1\n', 3, r"a\nb: unknown field", ""),
    "no_probes": (changed("probes:\n  knn:\n  linear: {}\n", "probes: {}\n"), 9, "probes: must switch on at least one", "knn"),
    "rung_probe_off": (changed("{count: 3}", "{probes: [segmentation]}"), 12, "rungs.probes[0]: must be a probe that is on", "knn, linear"),
    "rung_probe_twice": (changed("{count: 3}", "{probes: [knn, knn]}"), 12, "rungs.probes[1]: must name each probe once", ""),
    "rungs_beyond": (changed("{count: 3}", "{count: 150}"), 12, "rungs.count: must be less than objective.steps, 150", "not 150"),
    "steps_and_epochs": (changed("steps: 150", "steps: 150\n  epochs: 2"), 8, "objective.epochs: must not be given beside steps, 150", "not epochs 2"),
    "steps_at_their_default_and_epochs": (
        changed("steps: 150", "steps: 1200\n  epochs: 2"),
        8, "objective.epochs: must be left out where objective.steps, 1200, is given", "not 2",
    ),
    "steps_and_varied_epochs": (
        changed("steps: 150", "steps: 1200").replace("model.scale: [nano, micro]", "objective.epochs: [2]"),
        19, "vary.objective.epochs[0]: objective.epochs must be left out where objective.steps, 1200, is given", "not 2",
    ),
    "epochs_beyond": (changed("steps: 150", "epochs: 1e308"), 7, "objective.epochs: must be at most 1e+06", "not 1e+308"),
    "epochs_of_none": (changed("steps: 150", "epochs: 0"), 7, "objective.epochs: must be greater than 0", "not 0"),
    "pruning_without_rungs": (
        changed("{count: 3}", "{count: 0}").replace("pruner: none", "pruner: median"),
        12, "rungs.count: must be at least 1, since pruning", "",
    ),
    "pruning_metric": (
        changed("pruner: none", "pruner: median, metric: knn_top"),
        21, "pruning.metric: must be a metric of the rungs' probes (knn_top1)", "did you mean 'knn_top1'?",
    ),
    "too_many_trials": (changed("[0, 1, 2]", "100000"), 1, "at most 100000 trials", "not 1800000"),
    "too_many_crossed": (
        changed("[none, norm, qkv, norm+qkv]", str([f"x{n}" for n in range(1000)])).replace("[first-third, all]", str([f"0:{n}" for n in range(1000)])),
        14, "ablate: components, blocks and modes must make at most 100000 arms, not 1000000", "",
    ),
    "too_many_written_out": (
        changed("[norm@all+qkv@first-third]", str([f"x{n}" for n in range(1000)]) + "\n  modes: " + str([f"lora:{n}" for n in range(1000)])),
        14, "ablate: specialize and modes must make at most 100000 arms, not 1000000", "",
    ),
    "too_many_groups": (
        changed("model.scale: [nano, micro]", f"objective.lr: {list(range(1, 401))}\n  objective.steps: {list(range(200, 600))}"),
        18, "vary: must make at most 100000 groups", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_load_sweep_malformed_file_names_line_field_and_rule(load: Load, case: str) -> None:
    text, line, *words = MALFORMED[case]
    told = message_of(load, text)
    assert told.startswith(f"x.yaml:{line}: ")
    assert "\n" not in told
    for word in words:
        assert word in told
    for jargon in ("pydantic", "Input should", "http", "Value error", "NoneType", "tuple", "dataclass"):
        assert jargon not in told


def test_load_sweep_objective_absent_is_required(load: Load) -> None:
    assert message_of(load, "probes: {knn: }\n") == "x.yaml:1: objective: is required"


def test_load_sweep_stem_that_is_no_name_asks_for_one(load: Load) -> None:
    told = message_of(load, MINIMAL, name="my sweep.yaml")
    assert told.startswith("my sweep.yaml:1: name: must be at most 100 letters")


def test_load_sweep_several_problems_lists_each_once_in_order(load: Load) -> None:
    text = changed("steps: 150", "steps: 0").replace("seeds: [0", "seeds: [-2").replace("name: comp", "nam: comp")
    told = message_of(load, text)
    assert [line.split(":")[1] for line in told.splitlines()] == ["1", "7", "13"]


def test_load_sweep_part_missing_from_every_kind_stands_at_its_own_field(load: Load) -> None:
    text = changed("model.scale: [nano, micro]", "objective.recipe: [dinov2_cpu, dinov2]").replace("  steps:", "  stepz:")
    assert message_of(load, text).startswith("x.yaml:7: objective.stepz: unknown field")


def schema_errors(text: str) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    schema = sweep_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize(
    "text",
    [
        VALID,
        MINIMAL,
        MINIMAL + "seeds: 3\n",
        "objective: {steps: 9}\nprobes: {knn: }\nvary: {objective.recipe: [dinov2_cpu, deit3_cpu]}\n",
        MINIMAL + "pruning: {pruner: hyperband, max_resource: 4}\n",
        "objective: {recipe: dinov2_cpu}\nprobes: {depth: {protocol: bins, steps: 9}}\nfloors: [raw_pixels]\n",
        "objective: {recipe: dinov2_cpu}\nprobes: {depth: }\ndata: {source: depth, root: /d, max_depth_m: 10.0}\n",
        "objective: {recipe: dinov2_cpu}\nprobes: {depth: }\ndata: {source: nyuv2, root: /d, eigen_crop: false}\n",
    ],
)
def test_sweep_json_schema_valid_file_is_accepted(load: Load, text: str) -> None:
    load(text)
    assert schema_errors(text) == []


@pytest.mark.parametrize("case", ["misspelt_field", "wrong_type", "unknown_floor", "negative_seed", "unknown_recipe"])
def test_sweep_json_schema_malformed_file_is_refused(case: str) -> None:
    assert schema_errors(str(MALFORMED[case][0])) != []


def test_sweep_json_schema_every_field_is_described() -> None:
    schema = sweep_json_schema()
    assert all(field["description"] for field in schema["properties"].values())
    assert schema["$schema"].startswith("https://json-schema.org/")


def load_or_refuse(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        sweep = load_sweep(path)
    except SweepFileError as error:
        told = str(error)
    else:
        told = str(sweep.path)
    assert told.startswith(str(path))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.yaml"


@hypothesis_settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=80) | st.text(alphabet="ab:-[]{},\n \t'\"|>&*!%@?#<0.1e", max_size=60))
def test_load_sweep_any_text_is_a_sweep_or_refused(scratch: Path, text: str) -> None:
    load_or_refuse(scratch, text)


@hypothesis_settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), piece=st.sampled_from([*"[]{}:,-'\"\n \t#&*!|", "null", "-1", ".inf", "1e9", "x"]))
def test_load_sweep_mutated_file_is_a_sweep_or_refused(scratch: Path, seed: int, piece: str) -> None:
    generator = random.Random(seed)
    text = VALID
    for _ in range(generator.randint(1, 3)):
        start = generator.randrange(len(text))
        text = text[:start] + piece + text[start + generator.randint(0, 6) :]
    load_or_refuse(scratch, text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "nano", "norm", "none", "copy", "1:2"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["knn", "pruner", "x"]), inner, max_size=2),
    max_leaves=5,
)


@hypothesis_settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_load_sweep_any_value_anywhere_is_a_sweep_or_refused(scratch: Path, data: st.DataObject) -> None:
    document = yaml.safe_load(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        target, key = document, data.draw(st.sampled_from(sorted(document)))
        while isinstance(target[key], dict) and target[key] and data.draw(st.booleans()):
            target, key = target[key], data.draw(st.sampled_from(sorted(target[key], key=str)))
        target[key] = data.draw(JSON_VALUES)
    load_or_refuse(scratch, yaml.safe_dump(document))


def test_a_placebo_is_refused_with_a_recipe_that_drops_patches(tmp_path: Path) -> None:
    path = tmp_path / "mae.yaml"
    path.write_text(
        "objective: {recipe: mae_cpu}\nprobes: {knn: {}}\n"
        "ablate:\n  specialize: [norm@all]\n  tokens: [cls, placebo]\n"
    )
    with pytest.raises(SweepFileError, match=r"mae\.yaml:5: ablate\.tokens.*'placebo' with recipe 'mae_cpu'"):
        load_sweep(path)


def test_load_sweep_without_limits_bounds_nothing_and_tries_twice_again(load: Load) -> None:
    sweep = load(MINIMAL)
    assert sweep.limits == Limits(max_retries=2, stall_timeout_s=1800.0, time_budget_h=None, max_gpu_hours=None)
    assert sweep.file.priority == ()


def test_load_sweep_takes_limits_and_priority_from_the_file_and_the_command_line(load: Load) -> None:
    text = VALID + "max_retries: 0\nstall_timeout_s: 90\ntime_budget_h: 1.5\npriority: [norm@all]\n"
    sweep = load(text, "max_gpu_hours=20")
    assert sweep.limits == Limits(max_retries=0, stall_timeout_s=90.0, time_budget_h=1.5, max_gpu_hours=20.0)
    assert sweep.file.priority == ("norm@all",)
