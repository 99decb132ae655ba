import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from specvit.data.sources.scenes import Scenes
from specvit.errors import DataError, DivergenceError
from specvit.probes import METRICS, PROBES, ProbeSplit
from specvit.probes.depth.probe import Depth
from specvit.probes.features import pixel_features
from specvit.probes.selection import split_off_tenth

QUICK = {"ridge": {}, "bins": {"steps": 30, "num_bins": 32, "lrs": (0.03, 0.1)}}
PROTOCOLS = pytest.mark.parametrize("protocol", ["ridge", "bins"])


def make_split(patches, depth, grid, cls=None, labels=None):
    patches = torch.as_tensor(patches, dtype=torch.float32)
    return ProbeSplit(
        cls=patches.mean(1) if cls is None else torch.as_tensor(cls, dtype=torch.float32),
        patches=patches,
        grid=grid,
        labels=labels,
        masks=None,
        depth=None if depth is None else torch.as_tensor(depth, dtype=torch.float16),
    )


def made_up(num_images, *, seed, signal=1.0, grid=(3, 2), tile=4, dim=5, holes=0.3):
    """Make smooth depth of 1 to 9 m with holes, and tokens that tell of it as much as ``signal`` says."""
    generator = np.random.default_rng(seed)
    on_grid = 1 + 8 * generator.random((num_images, *grid))
    depth = on_grid.repeat(tile, 1).repeat(tile, 2)
    tokens = generator.normal(size=(num_images, grid[0] * grid[1], dim))
    tokens[..., 0] += signal * on_grid.reshape(num_images, -1)
    missing = generator.random(depth.shape) < holes
    depth[missing] = generator.choice([0.0, -1.0, np.nan, np.inf], size=missing.sum())
    return make_split(tokens, depth, grid)


def evaluate(probe, train, val, seed=0):
    return probe.evaluate(train, val, num_classes=0, seed=seed)


def test_probe_and_its_metrics_are_found_by_name():
    assert PROBES["depth"] is Depth
    assert (Depth.needs, Depth.at_rungs) == ("depth", False)
    directions = {name: (METRICS[name].unit, METRICS[name].higher_is_better) for name in METRICS if "depth" in name}
    assert directions == {
        "depth_rmse": ("m", False), "depth_abs_rel": ("%", False), "depth_delta1": ("%", True),
    }  # fmt: skip


def test_settings_load_without_torch():
    code = "import sys, specvit.probes.depth.probe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fields_of_a_protocol_have_its_defaults_and_those_of_the_other_none():
    ridge, bins = Depth(), Depth(protocol="bins", steps=7)
    assert (ridge.penalties, ridge.lrs, ridge.num_bins) == ((1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5), None, None)
    assert (bins.penalties, bins.num_bins, bins.steps, bins.batch_size) == (None, 256, 7, 16)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 3}, "steps must not be given with protocol 'ridge'; it is a setting of bins"),
        ({"protocol": "bins", "penalties": (1.0,)}, "penalties must not be given with protocol 'bins'"),
        ({"min_depth_m": 3.0, "max_depth_m": 3.0}, "min_depth_m must be below max_depth_m = 3, not 3"),
        ({"protocol": "bins", "num_bins": 1}, "greater than or equal to 2"),
        ({"penalties": ()}, "at least 1 item"),
        ({"max_depth_m": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_break_a_rule_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        Depth(**fields)


@PROTOCOLS
def test_tokens_that_tell_of_depth_beat_tokens_that_do_not(protocol):
    probe = Depth(protocol=protocol, **QUICK[protocol])
    telling, silent = (
        evaluate(probe, made_up(120, seed=0, signal=signal), made_up(60, seed=1, signal=signal)) for signal in (3, 0)
    )
    assert telling["depth_rmse"] < 0.8 * silent["depth_rmse"]
    assert telling["depth_abs_rel"] < 0.8 * silent["depth_abs_rel"]
    assert telling["depth_delta1"] > 1.2 * silent["depth_delta1"]
    assert set(telling) == {metric.name for metric in Depth.metrics}


@PROTOCOLS
def test_on_scenes_the_mean_depth_of_a_patch_beats_noise(protocol):
    dataset = Scenes(num_train=300, num_val=100, image_size=16).load()
    probe = Depth(protocol=protocol, **QUICK[protocol])
    generator, results = torch.Generator().manual_seed(0), {}
    for name in ("depth", "noise"):
        parts = []
        for split in (dataset.train, dataset.val):
            depth = torch.from_numpy(split.depth)
            tokens = torch.randn(len(split), 16, 3, generator=generator)
            if name == "depth":
                tiles = torch.nn.functional.avg_pool2d(depth.float()[:, None], 4)
                tokens[..., 1] += 3 * tiles.flatten(1)
            parts.append(make_split(tokens, depth, (4, 4)))
        results[name] = evaluate(probe, *parts)
    assert results["depth"]["depth_rmse"] < 0.7 * results["noise"]["depth_rmse"]
    assert results["depth"]["depth_delta1"] > 1.5 * results["noise"]["depth_delta1"]


@PROTOCOLS
def test_raw_pixels_pass_through_the_probe(protocol):
    dataset = Scenes(num_train=60, num_val=20, image_size=16).load()
    train, val = (pixel_features(split, patch_size=4) for split in (dataset.train, dataset.val))
    scores = evaluate(Depth(protocol=protocol, with_cls=True, **QUICK[protocol]), train, val)
    deepest = float(train.depth.max())
    assert 0 < scores["depth_rmse"] < deepest
    assert 0 <= scores["depth_delta1"] <= 100


@PROTOCOLS
def test_cls_counts_only_with_cls(protocol):
    generator = torch.Generator().manual_seed(0)
    train, val = made_up(80, seed=0, signal=0), made_up(40, seed=1, signal=0)

    def with_mean_depth(part):
        depth = part.depth.float()
        known = (depth > 0) & depth.isfinite()
        mean = depth.where(known, 0.0).sum((1, 2)) / known.sum((1, 2))
        return dataclasses.replace(part, cls=20 * mean[:, None] * torch.eye(5)[0])

    def with_noise(part):
        return dataclasses.replace(part, cls=torch.randn(len(part), 5, generator=generator))

    scores = {
        (make.__name__, with_cls): evaluate(
            Depth(protocol=protocol, with_cls=with_cls, **QUICK[protocol]), make(train), make(val)
        )["depth_rmse"]
        for make in (with_mean_depth, with_noise)
        for with_cls in (True, False)
    }
    assert scores["with_mean_depth", False] == scores["with_noise", False]
    assert scores["with_mean_depth", True] < 0.97 * scores["with_noise", True]


@PROTOCOLS
@settings(max_examples=8, deadline=None)
@given(values=st.lists(st.sampled_from([0.0, -3.0, float("nan"), float("inf"), -float("inf")]), min_size=1, max_size=4))
def test_what_stands_in_unmeasured_pixels_changes_nothing(protocol, values):
    probe = Depth(protocol=protocol, **(QUICK[protocol] | ({"steps": 3} if protocol == "bins" else {})))
    train, val = made_up(25, seed=0), made_up(9, seed=1)
    before = evaluate(probe, train, val)

    def replaced(part):
        depth = part.depth.clone()
        missing = ~((depth > 0) & depth.isfinite())
        depth[missing] = torch.tensor(values, dtype=depth.dtype).repeat(int(missing.sum()))[: int(missing.sum())]
        return dataclasses.replace(part, depth=depth)

    assert evaluate(probe, replaced(train), replaced(val)) == before


@PROTOCOLS
def test_images_without_a_measured_pixel_change_no_fit_and_no_score(protocol):
    probe = Depth(protocol=protocol, **{**QUICK[protocol], ("lrs" if protocol == "bins" else "penalties"): (0.03,)})
    train, val = made_up(30, seed=0), made_up(10, seed=1)

    def extended(part):
        return dataclasses.replace(
            part,
            cls=torch.cat([part.cls, part.cls[:3]]),
            patches=torch.cat([part.patches, 100 + part.patches[:3]]),
            depth=torch.cat([part.depth, torch.full_like(part.depth[:3], torch.nan)]),
        )

    assert evaluate(probe, extended(train), extended(val)) == pytest.approx(evaluate(probe, train, val), rel=1e-9)


def chosen(probe, train, *, seed):
    """Return the candidate that ``evaluate`` refits with."""
    return probe._choose(probe._fitter(train, seed=seed), train, seed=seed)


@PROTOCOLS
def test_two_runs_agree_and_the_reported_split_chooses_nothing(protocol):
    probe = Depth(protocol=protocol, **QUICK[protocol])
    train, val = made_up(40, seed=0), made_up(20, seed=1)
    assert evaluate(probe, train, val, seed=5) == evaluate(probe, train, val, seed=5)
    assert chosen(probe, train, seed=5) in (probe.penalties or probe.lrs)


@PROTOCOLS
def test_hyper_parameter_with_the_least_error_on_the_tenth_is_chosen(protocol):
    candidates = (1e3, 1e-3) if protocol == "ridge" else (1e-7, 0.1)
    fields = {"penalties": candidates} if protocol == "ridge" else {"lrs": candidates, "steps": 60, "num_bins": 32}
    probe, train = Depth(protocol=protocol, **fields), made_up(80, seed=0, signal=3)
    # The first neither learns nor fits, whichever tenth is held out.
    assert chosen(probe, train, seed=1) == candidates[1]
    held_out = split_off_tenth(80, None, seed=1)[1]
    depth = train.depth.clone()
    depth[held_out] = torch.nan
    assert chosen(probe, dataclasses.replace(train, depth=depth), seed=1) == candidates[0]


@PROTOCOLS
def test_predictions_keep_to_the_limits(protocol):
    # All of val is at 9 m: if nothing above 4 m is predicted, no error is below 5 m.
    train, val = made_up(30, seed=0), made_up(10, seed=1)
    val = dataclasses.replace(val, depth=torch.full_like(val.depth, 9.0))
    scores = evaluate(Depth(protocol=protocol, min_depth_m=2.0, max_depth_m=4.0, **QUICK[protocol]), train, val)
    assert 5.0 <= scores["depth_rmse"] <= 7.0
    assert 100 * 5 / 9 <= scores["depth_abs_rel"] <= 100 * 7 / 9
    assert scores["depth_delta1"] == 0.0


@PROTOCOLS
def test_missing_or_unusable_targets_and_features_are_refused(protocol):
    probe = Depth(protocol=protocol, **QUICK[protocol])
    good = made_up(10, seed=0)
    without = dataclasses.replace(good, depth=None)
    with pytest.raises(DataError, match="probe 'depth': the train split has no depth"):
        evaluate(probe, without, good)
    with pytest.raises(DataError, match="probe 'depth': the val split has no depth"):
        evaluate(probe, good, without)
    with pytest.raises(DataError, match="no pixel of the val depth maps is measured"):
        evaluate(probe, good, dataclasses.replace(good, depth=torch.zeros_like(good.depth)))
    with pytest.raises(DataError, match="must be a multiple of the patch grid 3 x 2, not 11 x 8"):
        evaluate(probe, dataclasses.replace(good, depth=good.depth[:, :11]), good)
    for bad in (torch.nan, torch.inf):
        patches = good.patches.clone()
        patches[4, 2, 1] = bad
        with pytest.raises(DivergenceError, match="those of 1 of 10 train images are not"):
            evaluate(probe, dataclasses.replace(good, patches=patches), good)
    cls = good.cls.clone()
    cls[3] = torch.nan
    broken = dataclasses.replace(good, cls=cls)
    with pytest.raises(DivergenceError, match="those of 1 of 10 val images are not"):
        evaluate(Depth(protocol=protocol, with_cls=True, **QUICK[protocol]), good, broken)
    assert evaluate(probe, good, broken)["depth_rmse"] > 0
    with pytest.raises(DataError, match=r"train depth is in \[.*\] m and the limits are \[50, .*\] m"):
        evaluate(Depth(protocol=protocol, min_depth_m=50.0, **QUICK[protocol]), good, good)


@PROTOCOLS
def test_a_single_image_and_constant_tokens_are_fitted_by_its_mean_depth(protocol):
    single = made_up(1, seed=0, holes=0.0)
    single = dataclasses.replace(single, patches=torch.full_like(single.patches, 3.0))
    scores = evaluate(Depth(protocol=protocol, **QUICK[protocol]), single, single)
    if protocol == "ridge":
        assert scores["depth_rmse"] == pytest.approx(float(single.depth.double().std(correction=0)), rel=1e-5)
    assert np.isfinite(list(scores.values())).all()
