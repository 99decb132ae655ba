"""Whatever a file holds is a sweep or refused with one message."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.problems import SweepFileError

from .sweep_texts import VALID


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
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["knn", "pruner", "x"]), inner, max_size=2),  # noqa: E501
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
