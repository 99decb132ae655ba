"""What tables take of a sweep beside its trials, as JSON, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.reports.per_trial.sweep_json import read_sweep, render_sweep
from specvit.errors import SpecsweepError

from ..table_records import INFO

FULL = replace(
    INFO,
    text="# mine\n",
    primary_metric="miou",
    smallest_effects={"miou": 0.1},
    growth={"start": 4, "most": 16, "looks": [], "method": "sequential", "first": 2},
    comparison={"model": "blocked", "variance": "moderated"},
    data_fingerprints={"a" * 64: "1+2"},
)


def test_a_sweep_reads_back_as_it_was() -> None:
    assert read_sweep(render_sweep(FULL).encode(), "# mine\n") == FULL


def test_the_text_of_the_sweep_file_is_in_a_file_of_its_own() -> None:
    assert "mine" not in render_sweep(FULL)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"format": 2}, "s.json: format: must be 1, "),
        ({"extra": 1}, "s.json: extra: unknown field"),
        ({"name": 3}, "s.json: name: Input should be a valid string"),
        ({"metrics": "miou"}, "s.json: metrics: Input should be a valid array"),
        ({"seeds": [0.5]}, "s.json: seeds.0: Input should be a valid integer"),
        ({"smallest_effects": {"miou": -1.0}}, "s.json: smallest_effects.miou: must be above 0 and finite, not -1.0"),
        ({"smallest_effects": {"miou": float("nan")}}, "s.json: smallest_effects.miou: must be above 0 and finite"),
        ({"growth": {"start": 4, "most": 10**9}}, "s.json: growth: Value error, most must be at most 1000"),
        ({"growth": {"begin": 4}}, "s.json: growth.begin: "),
        ({"comparison": {"model": "random"}}, "s.json: comparison.model: "),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(change: dict[str, Any], rule: str) -> None:
    content = json.dumps(json.loads(render_sweep(FULL)) | change).encode()
    with pytest.raises(SpecsweepError) as refused:
        read_sweep(content, "", "s.json")
    assert str(refused.value).startswith(rule)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{", b"[" * 10**6, b'{"format": ' + b"9" * 5000 + b"}"])
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(SpecsweepError, match=r"^s\.json(:\d+)?: "):
        read_sweep(content, "", "s.json")
