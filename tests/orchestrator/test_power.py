"""What a sweep could see: whence its noise is known, the differences and seeds that follow, and how it is said."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy.optimize import brentq
from scipy.stats import nct, t

from orchestrator.cli.plan_view import render_plan
from orchestrator.cli.power_view import power_lines, render_power
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.plan import make_plan
from orchestrator.power import MetricPower, SweepPower, measure_power
from orchestrator.publish import publish
from orchestrator.run import describe
from orchestrator.statistics import Action, Design, contrast_power, design_looks, forecast_looks
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Finished, Pruned
from specvit.errors import SpecsweepError

MakeSweep = Callable[..., Sweep]
HOUR_S = 3600.0
CORE_HOURS = {"none": 1.0, "norm@all": 2.0, "random init": 0.25, "raw pixels": 0.125}
VALUES = {"none": (50.0, 51.0), "norm@all": (52.0, 55.0)}
"""Of two seeds: the arm's difference is 2 and 4. All four residuals are half of a unit, so that
their sum of squares is 1, with one degree of freedom: a standard deviation of 1."""


def fill(sweep: Sweep, results: Path, values: Mapping[str, tuple[float, ...]] = VALUES, *, prune: str = "") -> None:
    trials = expand(sweep)
    with Ledger.open(results / sweep.name / LEDGER_NAME) as ledger:
        ledger.register(describe(sweep, trials, {}), trials, collect_provenance())
        for trial in trials:
            of_arm = values.get(trial.arm, (10.0, 10.0))
            if trial.seed >= len(of_arm):
                continue
            attempt = ledger.begin_attempt(trial.trial_id)
            if trial.arm == prune:
                ledger.record(Pruned(trial.trial_id, attempt, step=2, seconds=1.0))
                continue
            hours = CORE_HOURS.get(trial.arm, 1.0)
            metrics = {"knn_top1": of_arm[trial.seed]}
            ledger.record(
                Finished(
                    trial.trial_id, attempt, metrics=metrics, seconds=hours * HOUR_S / 2, core_seconds=hours * HOUR_S
                )
            )


def measured(sweep: Sweep, results: Path, **options: Any) -> SweepPower:
    return measure_power(sweep, expand(sweep), results_root=results, **options)


def knn(power: SweepPower) -> MetricPower:
    ((only,),) = (group.metrics for group in power.groups)
    return only


def detectable(sd: float, num_seeds: int) -> float:
    """Return what Student's paired t test of one arm finds with 80% probability; the far side adds less than 1e-6."""
    df = num_seeds - 1
    critical = t.ppf(0.975, df)

    def excess(shift: float) -> float:
        return float(nct.sf(critical, df, shift)) - 0.8

    return float(brentq(excess, 0.1, 10.0)) * sd * math.sqrt(2 / num_seeds)


def test_the_noise_of_its_own_ledger_says_what_a_sweep_could_see(make_sweep: MakeSweep, tmp_path: Path) -> None:
    fill(make_sweep(), tmp_path)
    found = knn(measured(make_sweep(seeds=6), tmp_path))
    assert (found.metric, found.df, found.source) == ("knn_top1", 1, "this sweep")
    assert found.sd == pytest.approx(1.0)
    assert found.detectable == pytest.approx(detectable(1.0, 6), abs=1e-3)
    fewer = knn(measured(make_sweep(seeds=6), tmp_path, num_seeds=4))
    assert fewer.detectable == pytest.approx(detectable(1.0, 4), abs=1e-3)


def test_one_seed_tells_no_noise_and_sees_no_difference(make_sweep: MakeSweep, tmp_path: Path) -> None:
    fill(make_sweep(), tmp_path, {arm: values[:1] for arm, values in VALUES.items()})
    assert not measured(make_sweep(), tmp_path).is_known
    alone = measured(make_sweep(), tmp_path, num_seeds=1, sds={"knn_top1": 1.0})
    assert knn(alone).detectable is None
    assert power_lines(alone)[0].startswith("could see: nothing; with one seed no difference")


def test_pruned_arms_tell_no_noise(make_sweep: MakeSweep, tmp_path: Path) -> None:
    fill(make_sweep(), tmp_path, prune="norm@all")
    assert not measured(make_sweep(), tmp_path).is_known


def test_a_sweep_of_the_same_group_comes_before_one_that_is_alike_and_more_seeds_before_fewer(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    longer = {"recipe": "dinov2_cpu", "steps": 40, "batch_size": 8}
    other = {"recipe": "mae_cpu", "steps": 4, "batch_size": 8}
    fill(make_sweep(name="recipe", objective=other), tmp_path)
    fill(make_sweep(name="images", data={"source": "scenes", "num_train": 65, "num_val": 32}), tmp_path)
    assert not measured(make_sweep(), tmp_path).is_known
    fill(make_sweep(name="longer", objective=longer), tmp_path, {"none": (50.0, 51.0), "norm@all": (52.0, 57.0)})
    found = knn(measured(make_sweep(), tmp_path))
    assert (found.source, found.df) == ("sweep longer, the same recipe, scale and data", 1)
    assert found.sd == pytest.approx(2.0)
    fill(make_sweep(name="other"), tmp_path)
    assert knn(measured(make_sweep(), tmp_path)).source == "sweep other, the same group"
    three = {"none": (50.0, 51.0, 50.0), "norm@all": (52.0, 55.0, 54.0)}
    fill(make_sweep(name="seeds", seeds=3), tmp_path, three)
    assert (knn(measured(make_sweep(), tmp_path)).source, knn(measured(make_sweep(), tmp_path)).df) == (
        "sweep seeds, the same group", 2,
    )


def test_arms_vary_unlike_each_other_so_that_the_sweep_with_the_most_of_its_arms_tells_its_noise(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    calm = {"none": (50.0, 51.0, 50.0, 51.0), "norm@all": (52.0, 53.1, 52.0, 53.0)}
    wild = {"none": (50.0, 51.0), "norm@all": (52.0, 53.0), "qkv@all": (50.0, 59.0)}
    both = {"components": ["none", "norm", "qkv"]}
    fill(make_sweep(name="calm", seeds=4), tmp_path, calm)
    fill(make_sweep(name="wild", ablate=both), tmp_path, wild)
    for sweep, source, df in ((make_sweep(name="new"), "calm", 3), (make_sweep(name="new", ablate=both), "wild", 2)):
        found = knn(measured(sweep, tmp_path))
        assert (found.source, found.df) == (f"sweep {source}, the same group", df)


def test_published_studies_tell_noise_as_ledgers_do(make_sweep: MakeSweep, tmp_path: Path) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    longer = make_sweep(name="longer", objective={"recipe": "dinov2_cpu", "steps": 40, "batch_size": 8}, seeds=2)
    wide = {"none": (50.0, 51.0), "norm@all": (52.0, 57.0)}
    for sweep, values, sd in ((longer, wide, 2.0), (make_sweep(seeds=2), VALUES, 1.0)):
        fill(sweep, runs, values)
        with Ledger.read(runs / sweep.name / LEDGER_NAME) as ledger:
            publish(ledger, results / "studies" / sweep.name)
        found = knn(measured(make_sweep(name="new"), results))
        alike = "the same recipe, scale and data" if sweep is longer else "the same group"
        assert (found.source, found.sd) == (f"sweep studies/{sweep.name}, {alike}", pytest.approx(sd))
    (results / "studies" / "tiny" / "trials.csv").write_text("no table\n")
    assert knn(measured(make_sweep(name="new"), results)).source.startswith("sweep studies/longer")


def test_noise_that_is_named_takes_the_place_of_what_was_measured(make_sweep: MakeSweep, tmp_path: Path) -> None:
    fill(make_sweep(), tmp_path)
    found = knn(measured(make_sweep(seeds=6), tmp_path, sds={"knn_top1": 3.0}))
    assert (found.sd, found.df, found.source) == (3.0, None, "--sd")
    assert found.detectable == pytest.approx(detectable(3.0, 6), abs=1e-3)


def test_seeds_of_a_wanted_difference_are_the_fewest_with_that_power(make_sweep: MakeSweep, tmp_path: Path) -> None:
    components = ["norm", "qkv", "mlp", "proj", "norm+qkv"]
    made = make_sweep(ablate={"components": components, "blocks": ["first-third", "all"]}, seeds=4)
    power = measured(made, tmp_path, effects={"knn_top1": 2.0}, sds={"knn_top1": 1.5})
    seeds = knn(power).seeds_to_find
    assert seeds is not None
    assert (power.groups[0].num_arms, power.seeds_to_find) == (10, seeds)
    reached = [contrast_power(2.0, sd_difference=1.5 * math.sqrt(2), num_seeds=n) for n in (seeds - 1, seeds)]
    assert reached[0] < 0.8 <= reached[1]
    assert f"a difference of 2 in kNN top-1 takes {seeds} seeds" in power_lines(power)
    # A verdict takes four, however large the difference; the file's smallest effect is wanted if none is named.
    declared = measured(make_sweep(smallest_effect={"knn_top1": 50.0}), tmp_path, sds={"knn_top1": 1.5})
    assert (knn(declared).wanted, declared.seeds_to_find) == (50.0, 4)
    assert "a verdict takes 4 seeds" in power_lines(declared)


def test_core_hours_are_those_of_measured_trials(make_sweep: MakeSweep, tmp_path: Path) -> None:
    assert measured(make_sweep(), tmp_path).core_hours(2) is None
    fill(make_sweep(), tmp_path)
    power = measured(make_sweep(), tmp_path, effects={"knn_top1": 50.0})
    assert power.core_hours_per_seed == pytest.approx(sum(CORE_HOURS.values()))
    assert power_lines(power)[-1] == "6.8 core-hours with 2 seeds, 13.5 with 4, from measured trials"
    # Another group takes what this one takes on average, trained trials (1 + 2) / 2 and floors (.25 + .125) / 2. Raw
    # pixels are run once for both.
    both = make_sweep(vary={"model.scale": ["nano", "micro"]})
    assert measured(both, tmp_path).core_hours_per_seed == pytest.approx(3.25 + (1.5 + 1.5 + 0.1875) + 0.125)


def test_of_seeds_that_grow_by_looks_the_difference_is_what_they_find_and_the_trials_are_told(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    fill(make_sweep(), tmp_path)
    growing = make_sweep(seeds={"start": 4, "most": 8, "looks": [4, 8], "method": "sequential"})
    power = measured(growing, tmp_path)
    found = knn(power).detectable
    assert found is not None
    forecast = forecast_looks(design_looks([4, 8], 1), [found], sd_difference=math.sqrt(2), seed=1, num_sweeps=8000)
    assert forecast.shares[Action.BETTER][0] == pytest.approx(0.8, abs=0.02)
    assert found > detectable(1.0, 8)
    lines = power_lines(power)
    assert "(1 arm, 8 seeds at most by looks; noise: this sweep)" in lines[0]
    assert lines[-1].startswith("at most 27.0 core-hours with 8 seeds")
    # Two trained rows with 8 seeds, two floors with 4.
    assert power.expected_trials is not None
    text = StringIO()
    Console(file=text, width=200).print(render_power(power, "tiny"))
    assert f"seeds grow: 24 trials at most, about {power.expected_trials:.0f} where no arm has" in text.getvalue()
    assert not measured(growing, tmp_path, num_seeds=4).grows
    confirmed = measured(make_sweep(seeds={"start": 4, "most": 8, "method": "confirm"}), tmp_path)
    assert knn(confirmed).detectable == pytest.approx(detectable(1.0, 8), abs=1e-3)
    assert "8 seeds as if all were run at once" in power_lines(confirmed)[0]


def test_groups_have_their_own_noise_and_those_without_any_are_counted(make_sweep: MakeSweep, tmp_path: Path) -> None:
    both = make_sweep(vary={"objective.lr": [0.001, 0.002]}, seeds=5)
    fill(make_sweep(name="one", objective={"recipe": "dinov2_cpu", "steps": 4, "batch_size": 8, "lr": 0.001}), tmp_path)
    power = measured(both, tmp_path)
    sources = [each.source for group in power.groups for each in group.metrics]
    assert sources == ["sweep one, the same group", "sweep one, the same recipe, scale and data"]
    scales = measured(make_sweep(vary={"model.scale": ["nano", "micro"]}), tmp_path)
    assert sorted(len(group.metrics) for group in scales.groups) == [0, 1]
    assert any(line.startswith("of 1 group the noise is not known") for line in power_lines(scales))


def test_a_sweep_that_cannot_be_read_is_passed_over_with_a_warning(
    make_sweep: MakeSweep, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / LEDGER_NAME).write_text("no ledger")
    fill(make_sweep(name="other"), tmp_path)
    assert knn(measured(make_sweep(), tmp_path)).source == "sweep other, the same group"
    assert "broken: times and noise of its trials are not used" in caplog.text


def test_a_plan_says_what_the_sweep_could_see_or_that_it_is_not_known(make_sweep: MakeSweep, tmp_path: Path) -> None:
    def rendered(sweep: Sweep) -> str:
        file = StringIO()
        Console(file=file, width=200, highlight=False).print(render_plan(make_plan(sweep, results_root=tmp_path)))
        return file.getvalue()

    assert "could see: not known before two seeds of it are measured" in rendered(make_sweep())
    fill(make_sweep(), tmp_path)
    more = make_sweep(seeds=6)
    seen = f"differences from kNN top-1 {detectable(1.0, 6):.1f} (1 arm, 6 seeds; noise: this sweep)"
    assert f"could see, with 80% probability: {seen}" in rendered(more)
    told = make_plan(more, results_root=tmp_path).to_json()["power"]
    assert (told["primary"], told["seeds"], told["power"]) == ("knn_top1", 6, 0.8)
    assert told["groups"][0]["metrics"][0]["sd"] == pytest.approx(1.0)
    assert told["core_hours"] == pytest.approx(6 * sum(CORE_HOURS.values()))
    alone = make_sweep(name="alone", ablate={"components": ["none"]})
    assert "could see" not in rendered(alone)
    assert power_lines(measured(alone, tmp_path)) == ["could see: nothing; there is no arm beside the baseline"]


def test_the_command_prints_a_table_or_json(
    command: Callable[..., subprocess.CompletedProcess[str]], write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    write_sweep(tmp_path)
    arguments = ("power", "tiny.yaml", "--seeds", "8", "--effect", "knn_top1=2", "--sd", "knn_top1=1.5")
    ended = command(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "kNN top-1 (%) ↑ (primary)" in ended.stdout
    assert "could see (8 seeds)" in ended.stdout
    told = json.loads(command(*arguments, "--json").stdout)
    assert told["groups"][0]["metrics"][0]["detectable"] == pytest.approx(detectable(1.5, 8), abs=1e-3)
    assert told["seeds_to_find"] == told["groups"][0]["metrics"][0]["seeds_to_find"]
    assert "not known" in command("power", "tiny.yaml").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--effect", "knn_top1"), "--effect: must be METRIC=NUMBER with a number above 0, not 'knn_top1'"),
        (("--sd", "knn_top1=0"), "--sd: must be METRIC=NUMBER with a number above 0, not 'knn_top1=0'"),
        (("--sd", "knn_top1=inf"), "--sd: must be METRIC=NUMBER with a number above 0, not 'knn_top1=inf'"),
        (("--effect", "knn_top=1"), "must name a metric of the sweep's probes (knn_top1), not 'knn_top' (did you mean"),
    ],
)
def test_what_is_no_metric_or_no_number_is_refused(
    arguments: tuple[str, str], message: str, command: Callable[..., subprocess.CompletedProcess[str]],
    write_sweep: Callable[..., Path], tmp_path: Path,
) -> None:
    write_sweep(tmp_path)
    ended = command("power", "tiny.yaml", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr


def test_names_of_metrics_are_checked_by_the_room_itself(make_sweep: MakeSweep, tmp_path: Path) -> None:
    with pytest.raises(SpecsweepError, match="--sd: must name a metric"):
        measured(make_sweep(), tmp_path, sds={"miou": 1.0})


def test_without_blocks_the_seeds_of_the_baseline_count_and_cost(make_sweep: MakeSweep, tmp_path: Path) -> None:
    unblocked = {"model": "unblocked"}
    sweep = make_sweep(seeds=4, comparison=unblocked, baseline_seeds=12, floors=[])
    fill(sweep, tmp_path)
    found = measured(sweep, tmp_path)
    # Within an arm: deviations of .5 twice, and of 1.5 twice, with two degrees of freedom.
    assert knn(found).sd == pytest.approx(math.sqrt((2 * 0.5**2 + 2 * 1.5**2) / 2))
    assert knn(found).df == 2
    design = Design(1, 4, knn(found).sd, blocks=False, num_baseline_seeds=12)
    assert knn(found).detectable == pytest.approx(design.detectable())
    plain = measured(make_sweep(seeds=4, comparison=unblocked, floors=[]), tmp_path)
    assert knn(found).detectable < knn(plain).detectable  # type: ignore[operator]
    # Four seeds of an arm of 2 hours, and twelve of a baseline of one.
    assert (plain.core_hours(4), found.core_hours(4)) == (pytest.approx(4 * (1 + 2)), pytest.approx(12 * 1 + 4 * 2))
