"""Under which ids trials come, and what leaves them as they are."""

from __future__ import annotations

import pytest

from orchestrator.trials.identity import arm_id, group_id, trial_id
from specvit.recipes import RECIPES

from .grids import BASE, Expand


def test_expand_parameters_are_the_arithmetic_of_a_vit(trials_of: Expand) -> None:
    text = "model: {scale: small, patch_size: 16}\ndata: {source: scenes, image_size: 224}\n"
    trials = trials_of(
        text + "objective: {recipe: deit3_cpu, cls_position: true}\nprobes: {knn: }\nseeds: 1\n"
        "ablate: {specialize: [norm@all, mlp@0:1]}\n"
    )
    by_arm = {trial.arm: trial for trial in trials}
    # ViT-S/16 without its head (Touvron et al. 2021): 21,665,664 parameters.
    assert by_arm["none"].num_parameters == by_arm["random init"].num_parameters == 21_665_664
    assert by_arm["raw pixels"].num_parameters == 0
    # Two norms of 2 x 384 in each of 12 blocks.
    assert by_arm["norm@all"].num_parameters == 21_665_664 + 12 * 2 * 2 * 384
    assert by_arm["norm@all"].extra_parameters_percent == pytest.approx(100 * 18_432 / 21_665_664)
    assert by_arm["mlp@0:1"].num_parameters - 21_665_664 == 2 * 384 * 1536 + 384 + 1536


def test_expand_ids_are_those_of_the_configurations(trials_of: Expand) -> None:
    for trial in trials_of(BASE + "vary: {model.scale: [nano, micro]}\nablate: {components: [qkv]}\n"):
        assert trial.trial_id == trial_id(trial.config)
        assert trial.arm_id == arm_id(trial.config)
        assert trial.group_id == group_id(trial.config)


def test_expand_rung_probes_are_named_in_the_configuration(trials_of: Expand) -> None:
    assert {trial.config.rungs.probes for trial in trials_of(BASE)} == {("knn",)}


@pytest.mark.parametrize(
    "change",
    [
        "resources={cpus: 4, gpus: 1}",
        "resources={nano: {gpus: 0.5, labels: {kind: A100}}, custom: {disk: 1}}",
        "time_budget_h=1",
        "max_gpu_hours=1",
        "max_retries=0",
        "stall_timeout_s=5",
        "name=other",
        "question=other",
        "pruning={pruner: median}",
        f"objective.lr={RECIPES['dinov2_cpu']().lr}",  # a default written out
        "rungs.probes=[knn]",
    ],
)
def test_expand_what_computes_the_same_keeps_the_ids(trials_of: Expand, change: str) -> None:
    before, after = trials_of(BASE), trials_of(BASE, change)
    assert [trial.trial_id for trial in before] == [trial.trial_id for trial in after]


def test_expand_joint_settings_give_the_ids_and_groups_of_their_product(trials_of: Expand) -> None:
    product = trials_of(BASE + "vary: {model.scale: [nano, micro], objective.lr: [1, 2]}\n")
    joint = trials_of(
        BASE + "vary:\n- {objective.lr: 2, model.scale: micro}\n- {model.scale: nano, objective.lr: [1, 2]}\n"
    )
    # But for the order of the fields, which is that of the file.
    texts = {trial.trial_id: set(trial.group.split(", ")) for trial in product}
    wanted = {key for key, text in texts.items() if text != {"model.scale=micro", "objective.lr=1.0"}}
    assert {trial.trial_id: set(trial.group.split(", ")) for trial in joint} == {key: texts[key] for key in wanted}
    assert {trial.group for trial in joint if trial.config.model.scale == "micro"} == {
        "objective.lr=2.0, model.scale=micro"
    }


def test_expand_added_arm_leaves_the_other_ids(trials_of: Expand) -> None:
    before = {t.trial_id for t in trials_of(BASE + "ablate: {components: [norm]}\n")}
    after = {t.trial_id for t in trials_of(BASE + "ablate: {components: [qkv, norm]}\nseeds: 4\n")}
    assert before < after
