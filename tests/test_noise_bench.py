"""The noise bench: its settings and arms, its files, its arithmetic on made-up runs, and its report."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.statistics.dunnett import dunnett_critical
from orchestrator.sweep.loading import load_sweep
from specvit.errors import ConfigError

from .noise_bench import workers
from .noise_bench.__main__ import main, work_left
from .noise_bench.analysis import analyse, repeat_correlation, twin_distances, twin_rms, verdict_cost
from .noise_bench.arms import ARMS, BASELINE, CONTROLS, REAL, TWINS, arm_config, tasks
from .noise_bench.detection import NUM_DRAWS, model_rate, resampled_rates
from .noise_bench.probe_noise import ProbeTask
from .noise_bench.records import PROBE_NOISE, RUNS, Run, append, by_arm, drop_half_line, read_runs
from .noise_bench.report import write_report
from .noise_bench.settings import FIRST_SEED, SHIPPED, Setting, read_settings
from .noise_bench.training import snapshot_steps
from .noise_bench.workers import Pace

ROOT = Path(__file__).parents[1]
REAL_TWIN = f"{REAL} repeat"


@pytest.fixture(scope="module")
def shipped() -> dict[str, Setting]:
    return read_settings(SHIPPED)


def run(arm: str, seed: int, miou: float, *, digest: str = "d", distance: Mapping[int, float] | None = None) -> Run:
    return Run("made up", digest, arm, seed, {"miou": miou}, 50.0, 10.0, distance or {})


def made_up_runs(num_seeds: int, *, effect: float, noise: float, twin_noise: float, digest: str = "d") -> list[Run]:
    """Return runs of arms whose values are 50 + the seed's share + noise, twins a little beside their runs."""
    rng = np.random.default_rng(11)
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + num_seeds):
        shared = 50 + rng.normal(0, 3)
        for arm in (BASELINE, REAL, *CONTROLS):
            value = shared + rng.normal(0, noise) - (effect if arm in CONTROLS else 0)
            runs.append(run(arm, seed, value, digest=digest))
            twin = next((twin for twin, of in TWINS.items() if of == arm), None)
            if twin:
                again = value + rng.normal(0, twin_noise)
                runs.append(run(twin, seed, again, digest=digest, distance={5: 1e-6, 300: 1e-4}))
    return runs


def test_no_sweep_uses_the_seeds_of_the_bench() -> None:
    for path in sorted((ROOT / "sweeps").rglob("*.yaml")):
        assert max(load_sweep(path).seeds) < FIRST_SEED
    for path in sorted((ROOT / "results" / "studies").rglob("sweep.yaml")):
        assert max(load_sweep(path).seeds) < FIRST_SEED


def test_settings_differ_and_are_those_of_the_sweeps(shipped: dict[str, Setting]) -> None:
    assert len({setting.digest for setting in shipped.values()}) == len(shipped)
    group = load_sweep(ROOT / "sweeps" / "components.yaml").groups[0]
    ours = shipped["deit3_dense_cpu"].baseline
    assert (ours.model, ours.data, ours.objective) == (group.model, group.data, group.objective)
    for group in load_sweep(ROOT / "sweeps" / "recipes.yaml").groups:
        ours = shipped[group.objective.name].baseline
        same_size = replace(ours.data, image_size=group.data.image_size)  # recipes are compared at one size
        assert (ours.model, same_size, ours.objective) == (group.model, group.data, group.objective)


def test_the_digest_of_a_setting_depends_on_what_its_runs_share_alone(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("a: {why: One., objective: {recipe: mae_cpu}}\nb: {objective: {recipe: mae_cpu, lr: 0.001}}\n")
    settings = read_settings(file)
    file.write_text("other: {objective: {recipe: mae_cpu}, data: {image_size: 32}}\n")
    assert settings["a"].digest == read_settings(file)["other"].digest != settings["b"].digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {objective: {recipe: mae_cpu, stepz: 3}}", r"a\.objective\.stepz"),
        ("a: {objective: {recipe: mae_cpu, steps: -1}}", r"a\.objective\.steps: must be greater than 0"),
        ("a: {recipe: mae_cpu}", r"a: must be a mapping with why, model.*unknown fields \['recipe'\]"),
        ("a: 3", "a: must be a mapping.*: not a mapping"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text + "\n")
    with pytest.raises(ConfigError, match=message):
        read_settings(file)


def test_arms_differ_from_the_baseline_by_what_they_say(shipped: dict[str, Setting]) -> None:
    setting = shipped["dinov2_cpu"]
    config = {arm: arm_config(setting, arm, 907) for arm in ARMS}
    baseline = config[BASELINE]
    assert baseline.seed == 907
    assert (config["repeat"], config[REAL_TWIN]) == (baseline, config[REAL])
    assert config[REAL].treatment.specialize == REAL
    assert config["fewer steps"].objective.steps == 0.8 * baseline.objective.steps
    assert config["slightly fewer steps"].objective.steps == 0.95 * baseline.objective.steps
    assert (baseline.objective.head_hidden, config["half head"].objective.head_hidden) == (256, 128)
    large = config["large patches"]
    assert (large.model.patch_size, large.objective.global_size, large.objective.local_size) == (8, 24, 16)
    for arm, term in (("without dino", "dino"), ("without ibot", "ibot")):
        weights = {name: getattr(config[arm].objective, f"{name}_weight") for name in ("dino", "ibot")}
        assert weights == {"dino": 1.0, "ibot": 1.0} | {term: 0.0}


def test_a_control_is_left_out_where_there_is_nothing_to_change(shipped: dict[str, Setting]) -> None:
    assert arm_config(shipped["deit3_cpu"], "half head", 900) is None
    assert arm_config(shipped["mae_cpu"], "half head", 900).objective.decoder_width == 16
    arms = [task.arms for task in tasks(shipped["deit3_cpu"], 900, done=set())]
    controls = [("fewer steps",), ("slightly fewer steps",), ("large patches",)]
    assert arms == [(BASELINE, "repeat"), (REAL, REAL_TWIN), *controls]


def test_a_run_whose_twin_is_missing_is_trained_again_and_not_recorded_again(shipped: dict[str, Setting]) -> None:
    first, *others = tasks(shipped["mae_cpu"], 900, done={BASELINE, REAL, REAL_TWIN, "fewer steps"})
    assert (first.arms, first.record_run) == ((BASELINE, "repeat"), False)
    assert [task.arms for task in others] == [("slightly fewer steps",), ("half head",), ("large patches",)]


def test_arms_that_are_not_wanted_are_not_trained(shipped: dict[str, Setting]) -> None:
    wanted = (BASELINE, "without ibot", REAL_TWIN)
    left = tasks(shipped["dinov2_cpu"], 900, done=(), wanted=wanted)
    assert [task.arms for task in left] == [(BASELINE,), (REAL, REAL_TWIN), ("without ibot",)]
    assert [task.record_run for task in left] == [True, False, True]
    assert tasks(shipped["dinov2_cpu"], 900, done=wanted, wanted=wanted) == []


def test_what_is_recorded_is_not_done_again(shipped: dict[str, Setting]) -> None:
    setting = shipped["mae_cpu"]
    all_arms = {arm for task in tasks(setting, 900, done=set()) for arm in task.arms}
    runs = [run(arm, seed, 1.0, digest=setting.digest) for arm in all_arms for seed in (900, 901)]
    assert work_left([setting], runs, {setting.digest}, num_seeds=2) == []
    left = work_left([setting], runs, set(), num_seeds=3)
    assert left[0] == ProbeTask(setting)
    assert {task.seed for task in left[1:]} == {902}


def test_twins_are_compared_early_and_at_the_end() -> None:
    assert snapshot_steps(10) == (5, 10)
    assert snapshot_steps(300) == (5, 20, 60, 100, 150, 200, 250, 300)


def test_a_half_written_line_is_dropped_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / RUNS
    assert (drop_half_line(file), read_runs(file)) == (False, [])
    recorded = [run(BASELINE, 900, 1.5), run("repeat", 900, 1.25, distance={5: 1e-6})]
    for one in (*recorded, run(BASELINE, 900, 7.0)):
        append(file, asdict(one))
    whole = file.read_bytes()
    file.write_bytes(whole + json.dumps(asdict(recorded[0])).encode()[:-9])
    assert read_runs(file) == recorded  # of two with one key the first
    assert (drop_half_line(file), drop_half_line(file)) == (True, False)
    assert file.read_bytes() == whole


def test_the_rms_of_twins_and_their_distances_are_those_of_the_arithmetic() -> None:
    runs = [
        run(BASELINE, 900, 10.0),
        run("repeat", 900, 13.0, distance={5: 1e-6, 300: 0.2}),
        run(REAL, 900, 20.0),
        run(REAL_TWIN, 900, 16.0, distance={5: 3e-6, 300: 0.1}),
        run("repeat", 901, 99.0),
    ]
    assert twin_rms(by_arm(runs, "miou")) == pytest.approx(math.sqrt((3**2 + 4**2) / 2))
    assert twin_distances(runs) == {5: (pytest.approx(2e-6), 3e-6), 300: (pytest.approx(0.15), 0.2)}


def test_differences_repeat_where_twins_agree_and_do_not_where_they_are_new_draws() -> None:
    smooth = by_arm(made_up_runs(12, effect=0, noise=1.0, twin_noise=1e-3), "miou")
    chaotic = by_arm(made_up_runs(200, effect=0, noise=0.01, twin_noise=1.0), "miou")
    assert repeat_correlation(smooth) == pytest.approx(1.0, abs=1e-3)
    # Differences of first runs share nothing with those of repeats, but for the runs' own 0.01.
    assert repeat_correlation(chaotic) == pytest.approx(0.0, abs=0.25)


def test_the_cost_of_a_verdict_is_seeds_times_arms_times_seconds() -> None:
    cost = verdict_cost(1.2, core_s=60.0)
    assert cost.seeds == math.ceil(cost.exact_seeds) == 5
    assert cost.core_hours == pytest.approx(5 * 11 * 60 / 3600)
    assert cost.exact_core_hours == pytest.approx(cost.exact_seeds * 11 / 60)
    assert verdict_cost(0.0, core_s=60.0).seeds == 2


def test_resampled_designs_find_what_the_normal_model_says() -> None:
    # So many seeds that a draw of them is a draw of the normal distribution; ten arms as the design has.
    rng = np.random.default_rng(2)
    shape = (12, 3000)
    values = rng.normal(0, math.sqrt(0.5), shape) + rng.normal(0, 4, shape[1])
    judged = {"nothing": values[11], "something": values[1] + 1.5}
    rates = resampled_rates(values[0], judged, [values[1] + 1.5, *values[2:11]], num_seeds=5)
    expected = model_rate(1.5, sd_difference=1.0, num_seeds=5)
    assert rates["something"] == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(NUM_DRAWS) + 0.03)
    assert rates["nothing"] == pytest.approx(model_rate(0.0, sd_difference=1.0, num_seeds=5), abs=0.01)


def test_resampled_designs_never_consist_of_one_seed() -> None:
    baseline, arm = np.zeros(3), np.array([1.0, -1.0, 0.0])
    rates = resampled_rates(baseline, {"arm": arm, "same": baseline}, [arm], num_seeds=2)
    # Two different seeds of three: t = 0, or 1 by its own residual, and never beyond the critical value.
    assert dunnett_critical(10, 1) > 1
    assert rates == {"arm": 0.0, "same": 0.0}


def test_without_noise_every_difference_is_found() -> None:
    assert model_rate(0.1, sd_difference=0.0, num_seeds=2) == 1.0
    assert math.isnan(model_rate(0.0, sd_difference=0.0, num_seeds=2))


def test_the_analysis_finds_what_was_put_in() -> None:
    runs = made_up_runs(40, effect=4.0, noise=0.5, twin_noise=0.01)
    noise = {"tables": {"miou": [[1, 2], [3, 4]]}, "by_probe_seed": {"miou": [1, 3]}}
    (found,) = analyse("made up", "", runs, noise).metrics
    assert found.num_pairs == 40
    assert found.sd_difference == pytest.approx(0.5 * math.sqrt(2), rel=0.4)
    assert found.sd_low < found.sd_difference < found.sd_high
    assert found.sd_seeds == pytest.approx(3.0, rel=0.4)
    assert found.seed_correlation > 0.9
    assert found.twin_rms == pytest.approx(0.01, rel=0.4)
    assert found.repeat_correlation > 0.99
    assert found.cost_low.seeds <= found.cost.seeds <= found.cost_high.seeds
    assert all(effect.is_resampled for effect in found.effects.values())
    assert [found.effects[arm].detected > 0.8 for arm in CONTROLS] == [True] * len(CONTROLS)
    assert found.effects["fewer steps"].difference.mean == pytest.approx(-4.0, abs=0.5)
    assert found.effects["repeat"].detected < 0.05
    assert (found.probes.residual, found.sd_probe_seeds) == (0.0, pytest.approx(math.sqrt(2)))


def test_few_seeds_are_judged_by_the_normal_model_and_one_seed_not_at_all() -> None:
    (few,) = analyse("made up", "", made_up_runs(3, effect=4.0, noise=0.5, twin_noise=0.01), None).metrics
    assert not any(effect.is_resampled for effect in few.effects.values())
    assert few.effects["half head"].detected > 0.8
    (one,) = analyse("made up", "", made_up_runs(1, effect=4.0, noise=0.5, twin_noise=0.01), None).metrics
    assert (one.sd_difference, one.cost, one.effects["half head"].detected) == (None, None, None)


def test_the_report_says_what_failed_and_leaves_out_settings_of_before(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("mine: {why: To see., objective: {recipe: mae_cpu}}\nidle: {objective: {recipe: deit3_cpu}}\n")
    settings = read_settings(file)
    digest = settings["mine"].digest
    failed = Run("mine", digest, "half head", 950, {}, 1.0, 0.0, {}, error="the loss is nan")
    foreign = Run("older", "0123", BASELINE, 900, {"miou": 1.0}, 1.0, 0.0, {})
    for one in (*made_up_runs(9, effect=3.0, noise=0.5, twin_noise=0.1, digest=digest), failed, foreign):
        append(tmp_path / RUNS, asdict(one))
    noise = {"digest": digest, "tables": {"miou": [[1, 2], [3, 5]]}, "by_probe_seed": {"miou": [1, 2]}}
    append(tmp_path / PROBE_NOISE, noise)
    assert main(["--file", str(file), "--results", str(tmp_path), "--report"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "`mine`, half head, seed 950: the loss is nan" in text
    assert "no longer those of the file: older." in text
    assert "To see." in text
    assert "idle" not in text
    (row,) = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert (row["setting"], row["metric"], row["num_pairs"], row["repeat:by"]) == ("mine", "miou", "9", "seeds")
    assert float(row["exact_core_hours"]) == pytest.approx(float(row["exact_seeds"]) * 11 / 60)
    assert float(row["twin_distance_largest"]) == 1e-4
    assert float(row["training_core_s"]) == 50.0


def test_a_report_of_nothing_is_a_report(tmp_path: Path, shipped: dict[str, Setting]) -> None:
    assert write_report(shipped, tmp_path) == []
    assert (tmp_path / "table.csv").read_text() == "\n"


def test_mistakes_on_the_command_line_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--settings", "nosuch", "--results", str(tmp_path)]) == 2
    assert "--settings must be among deit3_dense_cpu" in capsys.readouterr().err
    assert main(["--file", str(tmp_path / "none.yaml"), "--results", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_list_names_every_setting(capsys: pytest.CaptureFixture[str], shipped: dict[str, Setting]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        [setting.name, setting.digest] for setting in shipped.values()
    ]


def test_time_left_counts_what_is_known_of_a_setting(
    shipped: dict[str, Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(workers.time, "monotonic", lambda: now[0])
    setting, other = shipped["mae_cpu"], shipped["deit3_cpu"]
    pace = Pace([run(BASELINE, 900, 1.0, digest=setting.digest)])
    pair, *_ = tasks(setting, 901, done=set())
    assert pace.core_s(pair) == 2 * 60.0
    assert pace.core_s(tasks(other, 901, done=set())[-1]) == 60.0  # of another setting, for want of its own
    pace.finished(pair, [])
    now[0] += 30.0
    assert [pace.seconds_left([pair] * number) for number in range(3)] == [0.0, 30.0, 60.0]
