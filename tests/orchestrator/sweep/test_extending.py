"""What a sweep file is with the one that it extends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.sweep.adding import with_probes
from orchestrator.sweep.extending import KIND_FIELDS, MAX_FILES, read_sweep_file
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.naming import find_name, has_other_text
from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.schema import DISCRIMINATORS
from specvit.messages import one_line

BASE = """\
name: base
question: Which?
model: {scale: nano}
objective:
  recipe: dinov2_cpu
  steps: 150
  local_size: 16
probes:
  knn: {temperature: 0.1}
  linear:
seeds: [0, 1]
ablate:
  components: [norm, qkv]
  blocks: [all]
vary:
  model.scale: [nano, micro]
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write ``base.yaml`` and other files, and return the last one."""
    (tmp_path / "base.yaml").write_text(BASE)

    def write_files(**texts: str) -> Path:
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path / f"{name}.yaml"

    return write_files


def message_of(path: Path, *overrides: str) -> str:
    with pytest.raises(SweepFileError) as caught:
        load_sweep(path, overrides)
    return str(caught.value).replace(f"{path.parent}{os.sep}", "")


def value_of(path: Path) -> dict[str, object]:
    return dict(read_sweep_file(path).value)


def test_a_sweep_that_extends_has_the_trials_of_one_that_is_written_out(write: Write) -> None:
    path = write(
        x="extends: base.yaml\nobjective: {steps: 200, lr: 1e-3}\nseeds: [2]\nablate: {components: [norm]}\n"
        "probes: {knn: {temperature: 0.2}, segmentation: }\nvary: {objective.lr: [1, 2]}\n",
    )
    written_out = write(
        y="question: Which?\nmodel: {scale: nano}\n"
        "objective: {recipe: dinov2_cpu, steps: 200, local_size: 16, lr: 1e-3}\n"
        "probes: {knn: {temperature: 0.2}, linear: , segmentation: }\nseeds: [2]\n"
        "ablate: {components: [norm], blocks: [all]}\nvary: {model.scale: [nano, micro], objective.lr: [1, 2]}\n",
    )
    one, other = load_sweep(path), load_sweep(written_out)
    assert (one.name, other.name) == ("x", "y")
    assert (one.file, one.groups) == (other.file, other.groups)
    assert expand(one) == expand(other)


@pytest.mark.parametrize("overrides", [[], ["objective.steps=9"], ["objective.steps=9", "resources.cpus=2"]])
def test_the_text_that_is_kept_needs_no_other_file(write: Write, tmp_path: Path, overrides: list[str]) -> None:
    sweep = load_sweep(write(mid="extends: base.yaml\nseeds: 3\n", x="extends: mid.yaml\nseeds: 4\n"), overrides)
    head = "# x.yaml extending mid.yaml extending base.yaml"
    assert sweep.text.splitlines()[0] == head + " with objective.steps=9" * bool(overrides)
    alone = tmp_path / "elsewhere" / "x.yaml"
    alone.parent.mkdir()
    alone.write_text(sweep.text)
    assert not any(line.startswith("extends") for line in sweep.text.splitlines())
    assert expand(load_sweep(alone)) == expand(sweep)
    assert load_sweep(alone).name == "x"


@pytest.mark.parametrize(
    ("base", "own", "merged"),
    [
        ("a: 1\nb: 2", "b: 3\nc: 4", {"a": 1, "b": 3, "c": 4}),
        ("a: {x: {y: 1, z: 2}, w: 0}", "a: {x: {y: 3}}", {"a": {"x": {"y": 3, "z": 2}, "w": 0}}),
        ("a: [1, 2, 3]", "a: [4]", {"a": [4]}),
        ("a: {x: 1}", "a: [4]", {"a": [4]}),
        ("a: [1]", "a: {x: 1}", {"a": {"x": 1}}),
        ("a: {x: 1}", "a: {}", {"a": {"x": 1}}),
        # null takes a field away; where there is none it is what it is in any file
        ("a: {x: 1, y: 2}\nb: {z: 1}", "a: {x: }\nb: ", {"a": {"y": 2}}),
        ("a: {x: 1}", "a: {y: null}", {"a": {"x": 1, "y": None}}),
        # of another kind
        ("objective: {recipe: mae, lr: 1}", "objective: {recipe: dinov2, ema: 0.9}", {"objective": {"recipe": "dinov2", "ema": 0.9}}),  # noqa: E501
        ("objective: {recipe: mae, lr: 1}", "objective: {recipe: mae, steps: 2}", {"objective": {"recipe": "mae", "lr": 1, "steps": 2}}),  # noqa: E501
        ("objective: {lr: 1}", "objective: {recipe: mae}", {"objective": {"lr": 1, "recipe": "mae"}}),
        ("objective: {recipe: mae, lr: 1}", "objective: {recipe: }", {"objective": {"lr": 1}}),
        ("data: {source: masks, root: /a}", "data: {source: scenes}", {"data": {"source": "scenes"}}),
        ("pruning: {pruner: median, n_startup_trials: 3}", "pruning: {pruner: wilcoxon}", {"pruning": {"pruner": "wilcoxon"}}),  # noqa: E501
        ("probes: {knn: {data: {source: masks, root: /a}}}", "probes: {knn: {data: {source: scenes}}}", {"probes": {"knn": {"data": {"source": "scenes"}}}}),  # noqa: E501
        ("probes: {depth: {protocol: ridge, cs: [1]}}", "probes: {depth: {protocol: bins}}", {"probes": {"depth": {"protocol": "bins"}}}),  # noqa: E501
        # nothing behind a probe switches it on, here as everywhere
        ("probes: {knn: {temperature: 1}}", "probes: {knn: , depth: }", {"probes": {"knn": {"temperature": 1}, "depth": None}}),  # noqa: E501
        ("probes: {knn: false}", "probes: {knn: }", {"probes": {"knn": None}}),
        ("probes: {knn: {temperature: 1}, depth: }", "probes: {knn: false}", {"probes": {"knn": False, "depth": None}}),
        ("probes: {knn: {temperature: 1}}", "probes: {knn: {temperature: }}", {"probes": {"knn": {}}}),
        ("name: a\nb: 1", "c: 2", {"b": 1, "c": 2}),
        ("name: a\nb: 1", "name: d", {"b": 1, "name": "d"}),
    ],
)
def test_what_the_file_says_goes_over_what_the_other_one_says(
    write: Write, base: str, own: str, merged: dict[str, object]
) -> None:
    assert value_of(write(other=base, x=f"extends: other.yaml\n{own}\n")) == merged


def test_every_section_of_several_kinds_is_replaced_where_the_kind_differs() -> None:
    assert set(DISCRIMINATORS.values()) < set(KIND_FIELDS)


def test_a_probe_that_is_false_is_off(write: Write) -> None:
    sweep = load_sweep(write(x="extends: base.yaml\nprobes: {knn: false}\n"))
    assert [probe.name for probe in sweep.file.probes] == ["linear"]
    assert [probe.name for probe in load_sweep(write(x=BASE), ["probes.linear=false"]).file.probes] == ["knn"]
    told = message_of(write(x="extends: base.yaml\nprobes: {knn: false, linear: false}\n"))
    assert told.startswith("x.yaml:2: probes: must switch on at least one")
    assert "x.yaml:2: probes.kn: unknown field" in message_of(write(x="extends: base.yaml\nprobes: {kn: false}\n"))
    off = write(x="extends: base.yaml\nprobes: {knn: false}\n")
    assert with_probes(off, ["knn"], [])[0] == "probes.knn={}"


def test_a_path_is_taken_from_the_folder_of_the_file_that_says_it(write: Write, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "mid.yaml").write_text("extends: ../base.yaml\nseeds: 5\n")
    path = tmp_path / "a" / "b" / "x.yaml"
    path.write_text("extends: ../mid.yaml\n")
    assert load_sweep(path).file.seeds == (0, 1, 2, 3, 4)
    path.write_text(f"extends: {tmp_path / 'base.yaml'}\n")
    assert load_sweep(path).file.seeds == (0, 1)


def test_problems_stand_in_the_file_and_line_that_says_what_is_wrong(write: Write) -> None:
    base = BASE.replace("steps: 150", "steps: 0").replace("[norm, qkv]", "[norm, nrom]")
    path = write(bad=base, x="extends: bad.yaml\nmodel: {scal: nano}\nvary:\n  model.scale: [nano, mikro]\n")
    told = message_of(path).splitlines()
    assert [line.split(": ")[:2] for line in told] == [
        ["x.yaml:2", "model.scal"],
        ["x.yaml:4", "vary.model.scale[1]"],
        ["bad.yaml:6", "objective.steps"],
    ]
    path = write(bad=base, x="extends: bad.yaml\nobjective: {steps: 9}\n")
    assert message_of(path).startswith("bad.yaml:13: ablate.components[1]: specialization 'nrom'")
    # A list takes the place of a longer one with all its lines.
    path = write(x="extends: base.yaml\nablate:\n  components:\n    - nrom\n")
    assert message_of(path).startswith("x.yaml:4: ablate.components[0]: specialization 'nrom'")
    # What is missing, though the section stands in both.
    path = write(x="extends: base.yaml\nobjective: {recipe: }\n")
    assert message_of(path).startswith("x.yaml:2: objective.recipe: is required")
    assert message_of(write(only="seeds: 3\n", x="extends: only.yaml\nprobes: {knn: }\n")) == (
        "x.yaml:1: objective: is required"
    )
    override = message_of(write(x="extends: base.yaml\n"), "objective.steps=0")
    assert override.startswith("--set objective.steps=0: objective.steps: must be greater than 0")


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ("3", "extends: must be the path of a sweep file, not 3"),
        ("[base.yaml]", "extends: must be the path of a sweep file, not [\"base.yaml\"]"),
        ("", "extends: must be the path of a sweep file, not null"),
        ("''", "extends: must be the path of a sweep file, not ''"),
        ("https://example.org/base.yaml", "extends: must be the path of a file, which a URL is not: 'https://example"),
        ("S3://a/b.yaml", "extends: must be the path of a file, which a URL is not"),
        ("bse.yaml", "extends: must be the path of a sweep file, taken from "),
        (".", "extends: must be the path of a sweep file, taken from "),
        ("pipe", "extends: must be the path of a sweep file, taken from "),
        ("~/base.yaml", "extends: must be the path of a sweep file, taken from "),
        ("x" * 300, "cannot be read: File name too long"),
        ("x.yaml", "extends: must not come back to a file: x.yaml -> x.yaml"),
        ("link.yaml", "extends: must not come back to a file: x.yaml -> link.yaml"),
    ],
)
def test_what_is_no_file_to_extend_is_refused(write: Write, tmp_path: Path, given: str, rule: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "x.yaml")
    told = message_of(write(x=f"seeds: 3\nextends: {given}\n"))
    assert told.startswith("x.yaml:2: extends: ")
    assert rule in told
    assert "\n" not in told


def test_files_that_extend_each_other_in_a_circle_are_refused(write: Write) -> None:
    path = write(b="extends: c.yaml\n", c="a: 1\nextends: b.yaml\n", x="extends: b.yaml\n")
    told = message_of(path)
    assert told == "c.yaml:2: extends: must not come back to a file: x.yaml -> b.yaml -> c.yaml -> b.yaml"


def test_no_more_than_eight_files_stand_over_each_other(write: Write) -> None:
    texts = {f"f{number}": f"extends: f{number - 1}.yaml\n" for number in range(2, MAX_FILES + 2)}
    path = write(f1=BASE, **texts)
    assert message_of(path) == "f2.yaml:1: extends: must be at most 8 files over each other, but f1.yaml is one more"
    assert load_sweep(path.with_name("f8.yaml")).file.seeds == (0, 1)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: &a [1]\nb: *a\n", "other.yaml:2:4: aliases (*a) are not supported"),
        ("a: !!python/name:os.system\n", "other.yaml:1:4: tags"),
        ("a: 1\na: 2\n", "other.yaml:2: a: duplicate key"),
        ("#" * 2**20 + "\na: 1\n", "other.yaml: must be at most 1048576 bytes"),
        ("", "other.yaml:1: the file is empty"),
        ("[1]\n", "other.yaml:1: the top level must be a mapping"),
    ],
)
def test_an_extended_file_is_read_as_strictly(write: Write, text: str, rule: str) -> None:
    assert message_of(write(other=text, x=f"extends: other.yaml\n{BASE}")).startswith(rule)


def test_extends_is_not_set_on_the_command_line(write: Write) -> None:
    override = "extends=base.yaml"
    assert message_of(write(x=BASE), override) == f"--set {override}: extends: is taken from the file alone"


def test_the_results_of_a_file_are_found_whatever_has_become_of_the_other_one(write: Write) -> None:
    path = write(x="extends: base.yaml\nseeds: 2\n")
    text = load_sweep(path).text
    assert (find_name(path), has_other_text(path, (), text)) == ("x", False)
    write(base=BASE.replace("150", "151"))
    assert has_other_text(path, (), text)
    (path.parent / "base.yaml").unlink()
    assert find_name(path) == "x"
    assert has_other_text(path, (), text)


def test_a_line_break_in_a_path_does_not_end_the_comment_above_the_text(write: Write, tmp_path: Path) -> None:
    (tmp_path / "a\nseeds: 7.yaml").write_text(BASE)
    sweep = load_sweep(write(x='extends: "a\\nseeds: 7.yaml"\n'))
    assert sweep.text.startswith(f"# x.yaml extending {one_line('a seeds: 7.yaml')}\n\n")
