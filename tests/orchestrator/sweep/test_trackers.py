"""``trackers`` and ``notify`` in a sweep file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestrator.secrets import PLACEHOLDER
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.naming import has_other_text
from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.resolved import Sweep
from orchestrator.sweep.schema import sweep_json_schema
from orchestrator.sweep.yaml_reader import parse_document
from orchestrator.trackers import MLflow, TensorBoard, WeightsAndBiases

Make = Callable[..., Sweep]
HOOK = "https://hooks.slack.com/services/T0/B0/SECRET"


def test_trackers_are_named_or_written_out(make_sweep: Make) -> None:
    assert make_sweep().file.trackers == ()
    found = make_sweep(trackers=["tensorboard", {"tracker": "wandb", "project": "x", "mode": "offline"}]).file.trackers
    assert found == (TensorBoard(), WeightsAndBiases(project="x", mode="offline"))
    assert make_sweep(trackers=[{"tracker": "mlflow", "uri": "http://h:5000"}]).file.trackers == (
        MLflow(uri="http://h:5000"),
    )


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        (["tensorbord"], "trackers[0]: unknown tracker; known: tensorboard, mlflow, wandb, trackio, not 'tensorbord' "
                         "(did you mean 'tensorboard'?)"),
        ([{"project": "x"}], "trackers[0]: tracker is required; known: tensorboard, mlflow, wandb, trackio"),
        ([{"tracker": "wandb", "api_key": "s"}], "trackers[0].api_key: unknown field; known: folder, tracker, project"),
        ([{"tracker": "wandb", "mode": "of"}], "trackers[0].mode: must be online or offline, not 'of'"),
        ([{"tracker": "mlflow", "uri": "http://u:pw@h"}], "trackers[0].uri: must hold no user or password; give them"),
        (["wandb", {"tracker": "wandb"}], "trackers: must hold each tracker once, but 'wandb' comes 2 times"),
        ("wandb", "trackers: must be a list, not 'wandb'"),
    ],
)
def test_a_mistake_in_trackers_is_told_by_its_place(make_sweep: Make, trackers: object, message: str) -> None:
    with pytest.raises(SweepFileError) as error:
        make_sweep(trackers=trackers)
    assert message in str(error.value)
    assert "u:pw" not in str(error.value)


@pytest.mark.parametrize("notify", [HOOK, [HOOK], [HOOK, PLACEHOLDER], PLACEHOLDER])
def test_addresses_are_read_and_not_shown(make_sweep: Make, notify: object) -> None:
    sweep = make_sweep(notify=notify)
    listed = notify if isinstance(notify, list) else [notify]
    assert sweep.file.notify == tuple(map(SecretStr, listed))
    assert "SECRET" not in repr(sweep)
    assert "SECRET" not in sweep.text
    assert parse_document(sweep.text, name="").value["notify"] == (
        [PLACEHOLDER] * len(listed) if isinstance(notify, list) else PLACEHOLDER
    )
    assert not has_other_text(sweep.path, (), sweep.text)


@pytest.mark.parametrize("notify", ["hooks.slack.com/SECRET", "ftp://SECRET", [HOOK, "SECRET"], {"url": HOOK}, 5, "$X"])
def test_what_is_no_address_is_refused_without_being_shown(make_sweep: Make, notify: object) -> None:
    with pytest.raises(SweepFileError) as error:
        make_sweep(notify=notify)
    rule = "notify: must be an http:// or https:// address, or $SPECSWEEP_NOTIFY, which is read from the environment"
    assert rule in str(error.value)
    assert "SECRET" not in str(error.value)


def test_an_override_is_not_shown_and_changes_neither_name_nor_text(
    tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    path = write_sweep(tmp_path)
    plain = load_sweep(path)
    sweep = load_sweep(path, [f"notify={HOOK}", "trackers=[tensorboard]"])
    assert (sweep.name, sweep.text) == (plain.name, plain.text)
    assert "SECRET" not in repr(sweep.file)
    with pytest.raises(SweepFileError) as error:
        load_sweep(path, ["notify=nothing/SECRET"])
    assert str(error.value).startswith("--set notify=..: notify: must be an http:// or https:// address")
    assert "SECRET" not in str(error.value)


def test_the_copy_with_overrides_holds_no_address(tmp_path: Path, write_sweep: Callable[..., Path]) -> None:
    path = write_sweep(tmp_path, notify=[HOOK])
    text = load_sweep(path, ["objective.steps=5"]).text
    assert "SECRET" not in text
    assert parse_document(text, name="").value["notify"] == PLACEHOLDER


@pytest.mark.parametrize(
    "line",
    [
        f"notify: {HOOK}  # {HOOK}",
        f"notify: '{HOOK}'",
        r'notify: "https://hooks.slack.com/services/T0/B0/\x53ECRET"',
        f"notify: [{HOOK}, {HOOK}/longer]",
        f"notify:\n- {HOOK}\n- http://b",
    ],
)
def test_a_copy_holds_no_address_however_it_is_written(
    line: str, tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    path = write_sweep(tmp_path)
    plain = path.read_text().rstrip()
    assert plain.startswith("{")
    lines = ["# a comment", *(f"{key}: {value}" for key, value in [
        ("objective", "{recipe: dinov2_cpu, steps: 4, batch_size: 8}"), ("probes", "{knn: {}}"),
    ]), line]
    path.write_text("\n".join(lines) + "\n")
    text = load_sweep(path).text
    assert "ECRET" not in text
    assert "hooks" not in text
    copy = tmp_path / "copy.yaml"
    copy.write_text(text)
    assert load_sweep(copy).text == text
    assert "# a comment" in text or "x53" in line


def test_the_copy_of_a_file_that_extends_another_one_holds_no_address_of_that(
    tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path, name="base", notify=HOOK)
    path = tmp_path / "tiny.yaml"
    path.write_text("extends: base.yaml\nseeds: 3\n")
    sweep = load_sweep(path)
    assert sweep.file.notify == (SecretStr(HOOK),)
    assert "SECRET" not in sweep.text
    assert parse_document(sweep.text, name="").value["notify"] == PLACEHOLDER


def test_neither_takes_part_in_a_trials_identity(make_sweep: Make) -> None:
    plain = [trial.trial_id for trial in expand(make_sweep())]
    assert [trial.trial_id for trial in expand(make_sweep(trackers=["trackio"], notify=HOOK))] == plain


def test_the_schema_has_both_forms() -> None:
    properties = sweep_json_schema(written_out=True)["properties"]
    names = properties["trackers"]["items"]["anyOf"][0]
    assert names == {"enum": ["tensorboard", "mlflow", "wandb", "trackio"], "type": "string"}
    kinds = [each["type"] for each in properties["notify"]["anyOf"]]
    assert kinds == ["string", "array"]
    assert "SPECSWEEP_NOTIFY" in properties["notify"]["description"]
