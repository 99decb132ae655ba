"""How values that SQLite has no type for are written in a ledger, and read: metrics, configurations, lists.

A ledger that came from others may hold JSON of another shape than was meant, which no rule in SQL can say: that is an
``UnfitValueError`` here, never a value that fails somewhere else.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from pydantic import TypeAdapter

from orchestrator.ledger.errors import UnfitValueError
from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.schema import COST_COLUMNS
from specvit.kept_weights import WeightsFile
from specvit.training.cost import TrainingCost

_METRIC_TYPES = frozenset({float, int, type(None)})
_DEEPEST = 50
_SHOWN = 60
_NAMES = TypeAdapter(tuple[str, ...])
_SEEDS = TypeAdapter(tuple[int, ...])
_PROVENANCE = TypeAdapter(Provenance)
_WEIGHTS = TypeAdapter(tuple[WeightsFile, ...])


def storable(text: str) -> str:
    """Return ``text`` without lone surrogates, which file names bring into messages and SQLite refuses."""
    return text.encode(errors="replace").decode()


def encode_metrics(metrics: Mapping[str, float]) -> str:
    """Write metrics as JSON that SQLite reads too: NaN as null, the infinities as 1e999 and -1e999."""
    values = {name: float(value) for name, value in metrics.items()}
    if all(math.isfinite(value) for value in values.values()):
        return json.dumps(values)
    pairs = (f"{json.dumps(name)}: {_encode_number(value)}" for name, value in values.items())
    return "{" + ", ".join(pairs) + "}"


def _encode_number(value: float) -> str:
    if math.isnan(value):
        return "null"
    if math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)


def decode_metrics(text: str) -> dict[str, float]:
    """Read what ``encode_metrics`` wrote.

    Raises:
        UnfitValueError: If it is anything else.
    """
    try:
        metrics = json.loads(text)
        if all(type(value) in _METRIC_TYPES for value in metrics.values()):
            return {name: math.nan if value is None else float(value) for name, value in metrics.items()}
    except (ValueError, AttributeError, OverflowError, RecursionError):
        pass
    raise UnfitValueError(f"{text[:_SHOWN]!r} is not metrics, which are numbers by name")


def decode_config(text: str) -> dict[str, Any]:
    """Read a trial's configuration as the ledger keeps it.

    Raises:
        UnfitValueError: If it is none.
    """
    with _unfit("a trial's configuration", text):
        config = _decode_plain(text)
        _NAMES.validate_python(tuple(config.get("rungs", {}).get("probes", ())), strict=True)
        return config


def decode_share(text: str) -> dict[str, Any]:
    """Read what an attempt occupied, as JSON that can be written again; likewise."""
    with _unfit("what an attempt occupies", text):
        return _decode_plain(text)


def decode_plain(text: str) -> dict[str, Any]:
    """Read a mapping of plain JSON values; likewise."""
    with _unfit("a mapping", text):
        return _decode_plain(text)


def decode_names(text: str) -> tuple[str, ...]:
    """Read a list of texts; likewise."""
    with _unfit("a list of names", text):
        return _NAMES.validate_json(text, strict=True)


def decode_seeds(text: str) -> tuple[int, ...]:
    """Read a list of whole numbers; likewise."""
    with _unfit("a list of seeds", text):
        return _SEEDS.validate_json(text, strict=True)


def decode_provenance(text: str) -> Provenance:
    """Read what a run ran on; likewise."""
    with _unfit("what a run ran on", text):
        return _PROVENANCE.validate_json(text, strict=True)


@contextmanager
def _unfit(what: str, text: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UnfitValueError(f"{text[:_SHOWN]!r} is not {what}") from error


def _decode_plain(text: str) -> dict[str, Any]:
    value = json.loads(text)
    json.dumps(value, allow_nan=False)
    if not isinstance(value, dict) or _depth(value) > _DEEPEST:
        raise ValueError("no object, or too deep")
    return value


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def encode_cost(cost: TrainingCost | None) -> dict[str, float | None]:
    """Return what a training took by the columns that hold it; nothing if that is not known."""
    return {} if cost is None else {column: getattr(cost, name) for name, column in COST_COLUMNS.items()}


def decode_cost(row: sqlite3.Row) -> TrainingCost | None:
    """Return what a training took, from a row of ``attempts``; None if it had none, or an older version wrote it."""
    if any(row[COST_COLUMNS[name]] is None for name in ("seconds", "images_per_s")):
        return None
    return TrainingCost(**{name: row[column] for name, column in COST_COLUMNS.items()})


def encode_weights(files: Iterable[WeightsFile]) -> str:
    """Write the files of kept weights as JSON."""
    return json.dumps([asdict(file) for file in files])


def decode_weights(text: str) -> tuple[WeightsFile, ...]:
    """Read what ``encode_weights`` wrote.

    Raises:
        UnfitValueError: If it is anything else, or names a file that is not below the folder of weights.
    """
    with _unfit("a list of files of weights", text):
        files = _WEIGHTS.validate_json(text, strict=True)
        for file in files:
            place = PurePosixPath(file.path)
            if place.is_absolute() or ".." in place.parts or not place.parts:
                raise ValueError(file.path)
        return files
