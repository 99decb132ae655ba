"""Content addresses: pinned, and independent of what must not matter."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.trials import identity
from orchestrator.trials.identity import arm_id, canonical_json, group_id, plain, training_id, trial_id
from specvit.config import ModelSettings, RungSettings, Treatment, TrialConfig
from specvit.data import DATA_SOURCES
from specvit.probes import PROBES
from specvit.recipes import RECIPES
from specvit.settings import PositiveFloat, PositiveInt, settings

from ...pins.pinned_runs import DINOV2_BEFORE


def make_config(**changes: Any) -> TrialConfig:
    values: dict[str, Any] = {
        "treatment": Treatment(specialize="norm@all"),
        "model": ModelSettings(),
        "data": DATA_SOURCES["scenes"](),
        "objective": RECIPES["dinov2_cpu"](steps=150, **DINOV2_BEFORE),
        "probes": {"knn": {}},
        "rungs": RungSettings(count=2, probes=("knn",)),
        "seed": 1,
    }
    return TrialConfig(**(values | changes))


@settings
class Before:
    """Stand for settings as first released."""

    lr: PositiveFloat = 0.1


@settings
class After(Before):
    """Stand for the same settings with a field more."""

    registers: PositiveInt = 4


def test_trial_id_is_sha256_of_sorted_json_of_the_whole_configuration() -> None:
    config = make_config()
    # Built with dataclasses.asdict and json alone; only the scenes source, which has no paths, is like this.
    document = dataclasses.asdict(config)
    (knn,) = document["probes"]
    document["probes"] = {"knn": knn}
    document["protocol"] = 2
    del document["model"]["checkpoint"]  # a path
    del document["rungs"]["held_out"]  # of self-supervised recipes there is nothing to say
    for name in ("own_lr", "own_weight_decay", "external", "perturbation"):
        del document["treatment"][name]
    for name in LATER:
        del document["objective"][name]
    for name in ("data", "num_train"):
        del document["probes"]["knn"][name]
    del document["objective"]["micro_batch"]  # how to compute, not what
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert trial_id(config) == hashlib.sha256(text.encode()).hexdigest()
    del document["seed"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert arm_id(config) == hashlib.sha256(text.encode()).hexdigest()
    del document["treatment"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert group_id(config) == hashlib.sha256(text.encode()).hexdigest()


LATER = (
    "optimizer",
    "betas",
    "epochs",
    "lr_batch_size",
    "drop_path_uniform",
    "cls_std",
    "drop_path_subset",
    "clip_separately",
    "blur_scales",
    "patch_bottleneck",
    "koleo_radius",
)
"""Fields of the recipe that came later, which have here the values of the time before them."""

PINNED = {
    "scenes": ({}, "b2d3543f6eb653deabbc73a2f8a1a7f1a628b1dd65b4a4be50b1e727ac33d178"),
    "image_folder": (
        {"data": DATA_SOURCES["image_folder"](root="/x"), "seed": 0},
        "cf8443a622f2853b1de396f6cc19f946ae23e6787a8785f14b3f8705851edf4b",
    ),
    "deit3": (
        {
            "objective": RECIPES["deit3_cpu"](steps=90),
            "treatment": Treatment(kind="random_init"),
            "seed": 2,
            "rungs": RungSettings(count=2, probes=("knn",), held_out=False),  # as there was no other way
        },
        "b5de2ac7ab46078454806e89a5fd875e40c2de68524dcb427827c5f7dfd522ab",
    ),
    # Pinned from the release before the probe had protocols.
    "segmentation": (
        {"probes": {"knn": {}, "segmentation": {}}},
        "681510e1f0ffdbcc7951005e72a9615033a8875c7d0a975e8afb47940ab2a23f",
    ),
    "segmentation_balance": (
        {"probes": {"segmentation": {"balance": 0.5}}},
        "0daeea075a4fb879dec0cdceec7dae6e3dcc14978ab7ee06ebfe6afc2adebcdc",
    ),
    "linear": (
        {"probes": {"linear": {}}},
        "a30a3df2993e5882082d3dbe1f87e399912b25fef38c98088e4e70b9722d70f8",
    ),
}


@pytest.mark.parametrize("case", PINNED)
def test_trial_id_known_configuration_is_pinned(case: str) -> None:
    # A change here makes every finished trial of every user a new one. If a setting was added, give it a row
    # in ADDED_LATER; if what is computed has changed, raise PROTOCOL_VERSION and pin the new ids.
    changes, expected = PINNED[case]
    assert trial_id(make_config(**changes)) == expected


def test_ids_int_in_a_float_field_is_the_float() -> None:
    assert trial_id(make_config(objective=RECIPES["dinov2_cpu"](lr=1))) == trial_id(
        make_config(objective=RECIPES["dinov2_cpu"](lr=1.0))
    )


def test_ids_path_of_the_data_takes_no_part() -> None:
    here, there = (make_config(data=DATA_SOURCES["image_folder"](root=root)) for root in ("/a", "/b"))
    other = make_config(data=DATA_SOURCES["image_folder"](root="/a", image_size=64))
    assert trial_id(here) == trial_id(there)
    assert trial_id(here) != trial_id(other)


def test_ids_images_of_a_probe_take_part_but_not_where_they_lie() -> None:
    def with_images(**fields: object) -> str:
        source = DATA_SOURCES["masks"](**{"root": "/a", **fields})
        return trial_id(make_config(probes={"segmentation": PROBES["segmentation"](data=source)}))

    assert with_images() == with_images(root="/b")
    assert with_images() != with_images(image_size=64)
    assert with_images() != trial_id(make_config(probes={"segmentation": PROBES["segmentation"]()}))


def test_ids_seed_and_treatment_part_trials_arms_and_groups() -> None:
    one, seeded = make_config(), make_config(seed=2)
    treated = make_config(treatment=Treatment(specialize="qkv@all"))
    assert trial_id(one) != trial_id(seeded)
    assert arm_id(one) == arm_id(seeded)
    assert arm_id(one) != arm_id(treated)
    assert group_id(one) == group_id(treated) == group_id(seeded)
    assert group_id(one) != group_id(make_config(model=ModelSettings(patch_size=8)))


def test_trial_id_protocol_version_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    before = trial_id(make_config())
    monkeypatch.setattr(identity, "PROTOCOL_VERSION", identity.PROTOCOL_VERSION + 1)
    assert trial_id(make_config()) != before


def test_plain_field_added_later_is_left_out_at_its_old_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    old = canonical_json(Before())
    assert canonical_json(After()) != old
    monkeypatch.setattr(identity, "ADDED_LATER", {"After": {"registers": 4}})
    assert canonical_json(After()) == old
    assert plain(After(registers=5)) == {"lr": 0.1, "registers": 5}


def test_plain_default_that_moves_on_is_never_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # The table holds the value that computes as before (here 1), not "whatever the default is" (here 4).
    monkeypatch.setattr(identity, "ADDED_LATER", {"After": {"registers": 1}})
    assert plain(After()) == {"lr": 0.1, "registers": 4}
    # Fields that were there from the start are part of the id also at their defaults.
    assert plain(Before()) == {"lr": 0.1}


def test_canonical_json_negative_zero_is_zero() -> None:
    assert canonical_json({"a": -0.0}) == canonical_json({"a": 0.0}) == '{"a":0.0}'


@pytest.mark.parametrize("value", [{1: 2}, {1, 2}, object(), b"x"])
def test_canonical_json_not_plain_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="plain values"):
        canonical_json(value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_canonical_json_any_value_reads_back_and_ignores_order(value: dict[str, Any]) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(dict(reversed(value.items()))) == text


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "lamb"},
        {"repeats": 2},
        {"drop_path_uniform": True},
        {"cls_std": 0.02},
        {"dense_weight": 0.5},
    ],
)
def test_trial_id_of_deit3_tells_its_later_settings_apart(changes: dict[str, Any]) -> None:
    values, _ = PINNED["deit3"]
    objective = dataclasses.replace(values["objective"], **changes)
    assert trial_id(make_config(**{**values, "objective": objective})) != PINNED["deit3"][1]


def test_trial_id_tells_segmentation_protocols_and_their_fields_apart() -> None:
    probes: list[dict[str, Any]] = [
        {},
        {"protocol": "logistic"},
        {"protocol": "logistic", "upsample": "bilinear"},
        {"protocol": "linear"},
        {"protocol": "linear", "steps": 7},
        {"protocol": "knn"},
        {"protocol": "knn", "ks": [1]},
    ]
    configs = [make_config(probes={"segmentation": fields}) for fields in probes]
    assert len({trial_id(config) for config in configs}) == len(probes)
    # A default that is written out is the default.
    written = make_config(probes={"segmentation": {"protocol": "knn", "ks": [1, 3, 10, 30]}})
    assert trial_id(written) == trial_id(configs[5])


def test_trial_id_tells_the_protocols_of_the_linear_probe_apart() -> None:
    sgd = {"protocol": "sgd"}
    settings = [{}, sgd, {**sgd, "epochs": 10}, {**sgd, "lrs": (0.1,)}]
    ids = {trial_id(make_config(probes={"linear": each})) for each in settings}
    assert len(ids) == len(settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2.0, "steps": 1200},
        {"lr_batch_size": 1024},
        {"drop_path_uniform": True},
        {"cls_std": 0.02},
        {"drop_path_subset": True},
        {"clip_separately": True},
        {"blur_scales": False},
        {"patch_bottleneck": 32, "shared_head": False},
        {"koleo_radius": 0.05},
    ],
)
def test_trial_id_of_dinov2_tells_its_later_settings_apart(changes: dict[str, Any]) -> None:
    objective = dataclasses.replace(make_config().objective, **changes)  # type: ignore[type-var]
    old = {name: value for name, value in changes.items() if name not in LATER}
    before = dataclasses.replace(make_config().objective, **old)  # type: ignore[type-var]
    assert trial_id(make_config(objective=objective)) != trial_id(make_config(objective=before))


@pytest.mark.parametrize("changes", [{"own_lr": 0.5}, {"own_weight_decay": 0.0}, {"perturbation": 1e-6}])
def test_trial_id_tells_the_rates_of_own_weights_apart(changes: dict[str, float]) -> None:
    assert trial_id(make_config(treatment=Treatment(specialize="norm@all", own_lr=1.0))) == trial_id(make_config())
    treatment = Treatment(specialize="norm@all", **changes)  # type: ignore[arg-type]
    assert trial_id(make_config(treatment=treatment)) != trial_id(make_config())


def test_trial_id_of_epochs_differs_from_that_of_the_same_number_of_steps() -> None:
    epochs = RECIPES["dinov2_cpu"](epochs=1.0)
    assert trial_id(make_config(objective=epochs)) != trial_id(make_config(objective=epochs.for_images(2000)))


def test_without_rungs_it_does_not_matter_how_they_would_be() -> None:
    none = [
        make_config(rungs=RungSettings(count=0, num_images=images, probes=probes))
        for images, probes in ((32, ("knn",)), (64, ("knn",)), (512, ()))
    ]
    assert len({trial_id(config) for config in none}) == 1
    some = [make_config(rungs=RungSettings(count=1, num_images=images, probes=("knn",))) for images in (32, 64)]
    assert len({trial_id(config) for config in some}) == 2


@pytest.mark.parametrize(
    ("recipe", "count", "num_ids"), [("deit3_cpu", 2, 2), ("deit3_cpu", 0, 1), ("dinov2_cpu", 2, 1), ("mae_cpu", 2, 1)]
)
def test_whether_images_are_held_out_matters_where_labels_train_and_there_are_rungs(
    recipe: str, count: int, num_ids: int
) -> None:
    configs = [
        make_config(objective=RECIPES[recipe](), rungs=RungSettings(count=count, held_out=held_out))
        for held_out in (False, True)
    ]
    assert len({trial_id(config) for config in configs}) == num_ids


def test_a_training_that_leaves_out_the_images_of_rungs_is_another_one_whatever_the_rungs_do_with_them() -> None:
    def trainings(recipe: str, *rungs: RungSettings) -> list[str]:
        return [training_id(make_config(objective=RECIPES[recipe](), rungs=each)) for each in rungs]

    none, all_images = RungSettings(count=0), RungSettings(count=2, held_out=False)
    few, often, many = RungSettings(num_images=64), RungSettings(count=9, num_images=64), RungSettings(num_images=128)
    ids = trainings("deit3_cpu", none, all_images, few, often, many)
    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert len(set(ids)) == 3
    assert len(set(trainings("mae_cpu", none, all_images, few, often, many))) == 1


def test_the_order_of_the_rungs_probes_does_not_matter_and_which_they_are_does() -> None:
    probes = {"knn": {}, "depth": {}, "segmentation": {}}
    orders = (("knn", "depth", "segmentation"), ("segmentation", "depth", "knn"), ("depth", "knn", "segmentation"))
    ids = {trial_id(make_config(probes=probes, rungs=RungSettings(count=2, probes=order))) for order in orders}
    assert len(ids) == 1
    assert trial_id(make_config(probes=probes, rungs=RungSettings(count=2, probes=("knn", "depth")))) not in ids


@pytest.mark.parametrize(("image_size", "patch_size", "middle"), [(32, 4, (4, 4)), (28, 4, (3, 3)), (64, 16, (2, 2))])
def test_the_middle_is_where_the_placebo_is_if_nothing_is_said(
    image_size: int, patch_size: int, middle: tuple[int, int]
) -> None:
    def with_position(position: tuple[int, int] | None) -> str:
        return trial_id(
            make_config(
                treatment=Treatment(specialize="norm@all", tokens="placebo", placebo_position=position),
                data=DATA_SOURCES["scenes"](image_size=image_size),
                model=ModelSettings(patch_size=patch_size),
            )
        )

    assert with_position(middle) == with_position(None)
    assert with_position((middle[0], middle[1] - 1)) != with_position(None)
