"""Two sweeps side by side, by ledgers with made-up numbers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.provenance import Provenance, collect_provenance
from orchestrator.run import describe
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.events import Finished, Pruned, Started
from orchestrator.trials.trial import Role, Trial

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Fill = Callable[..., Path]
NOISE = {0: 0.1, 1: -0.4, 2: 0.6, 3: -0.2}
SHIFT = {0: 1.0, 1: 1.5, 2: 1.0, 3: 2.5}
PROVENANCE = replace(collect_provenance(), git_sha="a" * 40, git_dirty=False, code={"specvit": "1" * 64})


def plain(trial: Trial) -> dict[str, float]:
    return {"knn_top1": 50.0 + NOISE.get(trial.seed, 0.0) + 3.0 * trial.seed + len(trial.arm), "loss": 1.0}


def shifted(trial: Trial) -> dict[str, float]:
    shift = SHIFT[trial.seed] if trial.arm == "norm@all" else 0.0
    return {"knn_top1": plain(trial)["knn_top1"] + shift, "loss": 1.0}


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory, write_sweep: Callable[..., Path]) -> Fill:
    """Write the ledger of a tiny sweep of four seeds, with the metrics that a function gives its trials."""
    root = tmp_path_factory.mktemp("compared")

    def make(
        name: str,
        metrics: Callable[[Trial], dict[str, float] | None] = plain,
        *,
        provenance: Provenance = PROVENANCE,
        device: str = "cpu",
        prints: str = "0",
        **sections: Any,
    ) -> Path:
        folder = root / name
        folder.mkdir()
        sweep = load_sweep(write_sweep(root, "tiny", **{"seeds": 4, **sections}))
        trials = expand(sweep)
        info = replace(describe(sweep, trials, {}), data_fingerprints={trial.group_id: prints for trial in trials})
        with Ledger.open(folder / LEDGER_NAME) as ledger:
            ledger.register(info, trials, provenance)
            for trial in trials:
                key = (trial.trial_id, ledger.begin_attempt(trial.trial_id))
                ledger.record(Started(*key, worker="node:1", device=device))
                found = metrics(trial)
                if found is None:
                    ledger.record(Pruned(*key, step=2, seconds=1.0))
                else:
                    ledger.record(Finished(*key, found, 1.0, 1.0))
        return folder

    return make


@pytest.fixture(scope="module")
def first(fill: Fill) -> str:
    return str(fill("first"))


@pytest.fixture(scope="module")
def second(fill: Fill) -> str:
    """The same sweep, in which the arm is better."""
    return str(fill("second", shifted))


def compared(command: Command, *arguments: str) -> dict[str, Any]:
    ended = command("compare", *arguments, "--format", "json")
    assert (ended.returncode, ended.stderr) == (0, "")
    made: dict[str, Any] = json.loads(ended.stdout)
    return made


def arm(made: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in made["arms"] if each["arm"] == name)
    return dict(found)


def test_two_runs_of_one_sweep_are_paired_by_seed(command: Command, first: str, second: str) -> None:
    made = compared(command, first, second)
    assert (made["metric"], made["paired"], made["differences"]) == ("knn_top1", True, [])
    changed, base = arm(made, "norm@all"), arm(made, "none")
    # 1.0, 1.5, 1.0 and 2.5; the baseline is the same, so one arm is left: Student's paired interval.
    expected = scipy.stats.ttest_1samp(list(SHIFT.values()), 0).confidence_interval()
    assert (changed["diff"], changed["diff_n"], changed["is_found"]) == (pytest.approx(1.5), 4, True)
    assert (changed["diff_low"], changed["diff_high"]) == pytest.approx(tuple(expected))
    assert (base["is_same"], base["diff"], base["diff_low"]) == (True, 0.0, None)
    assert made["says"] == [
        "kNN top-1 differs (B - A) with norm@all: +1.5 [+0.4, +2.6] (1 of 2 arms, the others are the same, 4 seeds).",
        "The effect on kNN top-1, the difference to the baseline, differs with norm@all: +1.5 [+0.4, +2.6] "
        "(1 arm, 4 seeds).",
        "Paired by seed: the trainings are configured alike.",
    ]
    assert (arm(made, "random init")["role"], arm(made, "random init")["diff_low"]) == ("floor", None)


def test_trainings_that_are_configured_differently_have_welchs_interval(
    command: Command, fill: Fill, first: str
) -> None:
    objective = {"recipe": "dinov2_cpu", "steps": 6, "batch_size": 8}
    made = compared(command, first, str(fill("longer", shifted, objective=objective)))
    assert (made["paired"], made["differences"]) == (
        False,
        [{"kind": "configuration", "name": "objective.steps", "a": "4", "b": "6"}],
    )
    base, changed = arm(made, "none"), arm(made, "norm@all")
    assert (base["diff"], base["is_found"], base["is_same"]) == (0.0, False, False)
    assert changed["diff"] == pytest.approx(1.5)
    assert changed["diff_low"] < 0 < changed["diff_high"]  # seeds are 3 apart
    nothing, effect, pairing = made["says"]
    assert nothing.startswith("No arm is found to differ in kNN top-1 (2 arms, 4 seeds): differences under ")
    # What a seed does to both arms is in no effect: Welch's interval of the differences within seeds.
    expected = scipy.stats.ttest_ind(list(SHIFT.values()), [0.0] * 4, equal_var=False).confidence_interval()
    assert (changed["effect_diff_low"], changed["effect_diff_high"]) == pytest.approx(tuple(expected))
    assert (changed["effect_diff"], changed["effect_is_found"]) == (pytest.approx(1.5), True)
    assert effect.startswith("The effect on kNN top-1, the difference to the baseline, differs with norm@all: +1.5 [")
    assert pairing == "Not paired: the trainings are configured differently, so that a seed does not mean the same."


def test_runs_of_other_seeds_have_welchs_interval(command: Command, fill: Fill, first: str) -> None:
    def later(trial: Trial) -> dict[str, float]:
        return {"knn_top1": 90.0 + trial.seed**2, "loss": 1.0}

    made = compared(command, first, str(fill("later", later, seeds=[4, 5, 6, 7])))
    assert (made["paired"], [each["name"] for each in made["differences"]]) == (False, ["seeds"])
    assert made["says"][-1] == "Not paired: the trainings are configured alike, but have no seed in common."
    changed = arm(made, "norm@all")
    # Means of 4, 5, 6, 7 squared, and of 0, 1, 2, 3 times 3 with the noise, beside the length of the name.
    assert changed["diff"] == pytest.approx(90.0 + 126 / 4 - (50.0 + len("norm@all") + (18 + 0.1) / 4))
    assert (changed["diff_n"], changed["is_found"]) == (4, True)


def test_other_probes_leave_the_trainings_alike(command: Command, fill: Fill, first: str) -> None:
    made = compared(command, first, str(fill("probes", shifted, probes={"knn": {}, "linear": {}})))
    assert made["paired"] is True
    assert [each["name"] for each in made["differences"]] == ["probes.linear"]


def test_code_versions_device_data_and_machine_are_told_apart(command: Command, fill: Fill, first: str) -> None:
    other = replace(
        PROVENANCE, git_sha="b" * 40, code={"specvit": "2" * 64}, versions={**PROVENANCE.versions, "torch": "9.9"}
    )
    made = compared(command, first, str(fill("other", provenance=other, device="cuda NVIDIA H200", prints="2")))
    found = {(each["kind"], each["name"]): (each["a"], each["b"]) for each in made["differences"]}
    assert found == {
        ("data", "fingerprint"): ("0", "2"),
        ("code", "specvit"): ("1" * 12, "2" * 12),
        ("versions", "torch"): (PROVENANCE.versions["torch"], "9.9"),
        ("device", ""): ("cpu", "cuda NVIDIA H200"),
        ("machine", "commit"): ("a" * 12, "b" * 12),
    }
    assert made["paired"] is False  # other images


def test_what_is_the_same_is_called_so_in_the_terminal(command: Command, first: str) -> None:
    ended = command("compare", first, first)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "All 2 arms have the same kNN top-1 to the last bit." in ended.stdout
    assert "Nothing else that is recorded differs." in ended.stdout
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("norm@all"))
    assert line.split() == ["norm@all", "62.5", "±", "3.9", "n=4", "62.5", "±", "3.9", "n=4", "same"]


def test_terminal_shows_differences_by_kind_and_arms_that_one_side_has(
    command: Command, fill: Fill, second: str
) -> None:
    few = fill("few", seeds=[0, 1], ablate={"components": ["none", "norm", "qkv"]})
    ended = command("compare", str(few), second)
    assert ended.returncode == 0
    assert "No verdict on kNN top-1: it takes 4 seeds that an arm has in both; there are at most 2." in ended.stdout
    assert "Only in A: qkv@all." in ended.stdout
    lines = [line.strip() for line in ended.stdout.splitlines()]
    start = lines.index("configuration")
    components = 'ablate.components: ["none", "norm", "qkv"] -> ["none", "norm"]'
    assert lines[start + 1 : start + 3] == ["seeds: [0, 1] -> 4", components]


def test_a_pruned_arm_has_no_interval(command: Command, fill: Fill, first: str) -> None:
    folder = fill("pruned", lambda trial: None if (trial.arm, trial.seed) == ("norm@all", 3) else shifted(trial))
    made = compared(command, first, str(folder))
    pruned = arm(made, "norm@all")
    assert (pruned["is_pruned"], pruned["diff_low"], pruned["diff_n"]) == (True, None, 3)


def test_groups_are_matched_by_their_text_or_the_only_one_by_its_configuration(
    command: Command, fill: Fill, first: str
) -> None:
    scales = {"vary": {"model.scale": ["nano", "micro"]}}
    many, others = fill("many", **scales), fill("others", shifted, **scales)
    made = compared(command, str(many), str(others))
    groups = [each["group"] for each in made["arms"] if each["arm"] == "norm@all"]
    assert sorted(groups) == ["model.scale=micro", "model.scale=nano"]
    low = [each["diff_low"] for each in made["arms"] if each["arm"] == "norm@all"]
    # Bonferroni over two groups: 97.5% intervals.
    expected = scipy.stats.ttest_1samp(list(SHIFT.values()), 0).confidence_interval(0.975)
    assert low == pytest.approx([expected.low] * 2)
    made = compared(command, first, str(others))  # nano
    assert (made["paired"], arm(made, "norm@all")["group"]) == (True, "")
    third = fill("third", seeds=[0], model={"scale": "mini"})
    ended = command("compare", str(many), str(third))
    assert ended.returncode == 2
    assert "many: has the groups model.scale=nano; model.scale=micro, and none of them is configured as" in ended.stderr


def test_what_cannot_be_compared_is_refused_with_one_message(command: Command, fill: Fill, first: str) -> None:
    loss = fill("loss", lambda _: {"loss": 1.0}, seeds=[0])
    ended = command("compare", first, str(loss), "--metric", "knn_top")
    message = "specsweep: --metric: must be one that both sweeps have, loss, not 'knn_top'\n"
    assert (ended.returncode, ended.stderr) == (2, message)
    assert compared(command, first, str(loss))["metric"] == "loss"
    none = fill("nothing", lambda _: {}, seeds=[0])
    ended = command("compare", first, str(none))
    assert (ended.returncode, "have no metric in common" in ended.stderr) == (2, True)
    ended = command("compare", first, "nowhere")
    assert (ended.returncode, ended.stderr) == (2, "specsweep: nowhere: no such sweep file or results folder\n")
    other = fill("registers", seeds=[0], vary={"model.high_norm": ["vanilla", "registers:4"]})
    many = fill("scales", seeds=[0], vary={"model.scale": ["nano", "micro"]})
    ended = command("compare", str(many), str(other))
    assert (ended.returncode, "have no arm in common" in ended.stderr) == (2, True)


def test_published_studies_are_compared_by_their_files_as_their_ledgers_are(
    command: Command, fill: Fill, first: str, second: str, tmp_path: Path
) -> None:
    longer = str(fill("longer study", shifted, objective={"recipe": "dinov2_cpu", "steps": 6, "batch_size": 8}))
    published = {}
    for name, folder in (("first", first), ("second", second), ("longer", longer)):
        published[name] = str(tmp_path / name)
        ended = command("publish", folder, "--to", published[name])
        assert (ended.returncode, ended.stderr) == (0, "")

    def told(*targets: str) -> dict[str, Any]:
        made = compared(command, *targets)
        return {name: value for name, value in made.items() if name not in ("a", "b")}

    assert told(published["first"], published["second"]) == told(first, second)
    assert told(first, published["second"]) == told(first, second)
    assert told(published["first"], published["longer"]) == told(first, longer)


def test_an_environment_that_somebody_wrote_is_read_as_far_as_it_says_something(
    command: Command, first: str, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    assert command("publish", first, "--to", str(study)).returncode == 0
    odd = {"git_sha": 7, "versions": "many", "gpus": [1, None], "cpu": ["fast"], "num_cores": "2"}
    (study / "environment.json").write_text(json.dumps(odd))
    made = compared(command, str(study), str(study))
    assert (made["paired"], made["differences"]) == (True, [])
    (study / "environment.json").write_text("[]")
    ended = command("compare", str(study), first)
    assert (ended.returncode, ended.stderr) == (2, f"specsweep: {study}/environment.json: must be a JSON object\n")


def test_controls_stand_there_and_take_no_part(command: Command, fill: Fill, first: str, second: str) -> None:
    def shifted_too(trial: Trial) -> dict[str, float] | None:
        return {"knn_top1": 70.0 + trial.seed**2} if trial.role is Role.CONTROL else shifted(trial)

    sides = {"one control": plain, "another": shifted_too}
    paths = [str(fill(name, metrics, controls=["repeat"])) for name, metrics in sides.items()]
    made = compared(command, *paths)
    assert arm(made, "norm@all") == arm(compared(command, first, second), "norm@all")
    assert (arm(made, "repeat")["role"], arm(made, "repeat")["diff_low"]) == ("control", None)
