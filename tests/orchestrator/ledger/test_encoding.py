from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ledger.encoding import (
    decode_config,
    decode_metrics,
    decode_names,
    decode_provenance,
    decode_seeds,
    decode_share,
    decode_weights,
    encode_metrics,
    encode_weights,
)
from orchestrator.ledger.errors import UnfitValueError
from specvit.kept_weights import WeightsFile


@given(st.dictionaries(st.text(max_size=8), st.floats(allow_nan=True, allow_infinity=True), max_size=4))
def test_metrics_survive_being_written_and_read(metrics: dict[str, float]) -> None:
    decoded = decode_metrics(encode_metrics(metrics))
    assert list(decoded) == list(metrics)
    for name, value in metrics.items():
        assert decoded[name] == value or (math.isnan(value) and math.isnan(decoded[name]))


def test_metrics_that_are_not_finite_are_json_that_sqlite_reads() -> None:
    text = encode_metrics({"a": math.nan, "b": -math.inf, "c": 0.1})
    json.loads(text, parse_constant=pytest.fail)
    rows = sqlite3.connect(":memory:").execute("SELECT key, value FROM json_each(?)", (text,)).fetchall()
    assert rows == [("a", None), ("b", -math.inf), ("c", 0.1)]


DEEP = "[" * 100_000
UNFIT: dict[Callable[[str], object], list[str]] = {
    decode_metrics: ["[1]", '{"a": "50"}', '{"a": {}}', '{"a": true}', DEEP, '{"a": ' + "9" * 5000 + "}", "{}}"],
    decode_config: ["{", "[]", '{"rungs": 3}', '{"rungs": {"probes": [[1]]}}', '{"a": 1e999}', f'{{"a": {DEEP}'],
    decode_share: ['{"cpus": 1e999}', "3", '{"a": ' + "[" * 60 + "]" * 60 + "}", DEEP],
    decode_names: ["{}", "[1]", "[null]", DEEP],
    decode_seeds: ['["x"]', "[true]", "[1.5]", DEEP],
    decode_provenance: ["{}", "[]", '{"argv": 1}', DEEP],
}


@pytest.mark.parametrize(("decode", "text"), [(decode, text) for decode, texts in UNFIT.items() for text in texts])
def test_json_that_was_not_written_by_the_ledger_is_unfit(decode: Callable[[str], object], text: str) -> None:
    with pytest.raises(UnfitValueError):
        decode(text)


def test_files_of_weights_are_read_as_they_were_written_and_lie_below_their_folder() -> None:
    files = (WeightsFile("none-seed-0-1/teacher.safetensors", "0" * 64, is_probed=True),)
    assert decode_weights(encode_weights(files)) == files
    assert decode_weights("[]") == ()
    for path in ("../secret", "a/../../b", "/etc/passwd", ""):
        with pytest.raises(UnfitValueError, match="a list of files of weights"):
            decode_weights(encode_weights([WeightsFile(path, "0" * 64, is_probed=True)]))
    with pytest.raises(UnfitValueError):
        decode_weights('[{"path": "a"}]')
