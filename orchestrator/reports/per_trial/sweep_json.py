"""``sweep.json``: what tables take of a sweep beside its trials, resolved.

``sweep.yaml`` beside it is the file as it was written. It does not say all: neither what ``--set`` says of the name and
of what is claimed, nor which metrics probes report, which other packages may have brought.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.ledger.registration import SweepInfo
from orchestrator.sweep.declared.comparison import read_comparison
from orchestrator.sweep.declared.growing_seeds import read_growth
from specvit.errors import SpecsweepError
from specvit.messages import one_line

JSON_NAME = "sweep.json"
FORMAT = 1
"""Version of this file; others are refused."""

_MAX_BYTES = 1 << 24
_SHOWN = 120
_ADAPTER = TypeAdapter(SweepInfo)
_KNOWN = frozenset(field.name for field in dataclasses.fields(SweepInfo)) - {"text"}


def render_sweep(info: SweepInfo) -> str:
    """Return all that is known of a sweep, but for the text of its file, as JSON."""
    values = {name: value for name, value in dataclasses.asdict(info).items() if name != "text"}
    if not info.comparison:
        del values["comparison"]  # as in files from before it could be declared
    return json.dumps({"format": FORMAT, **values}, indent=2, ensure_ascii=False) + "\n"


def read_sweep(content: bytes, text: str, name: str = JSON_NAME) -> SweepInfo:
    """Read what ``render_sweep`` wrote, or a stranger.

    Args:
        content: The file's bytes.
        text: The text of the sweep file.
        name: What messages call the file.

    Raises:
        SpecsweepError: If it is something else; the text names the field.
    """
    values = _read_object(content, name)
    if values.pop("format", None) != FORMAT:
        raise SpecsweepError(f"{name}: format: must be {FORMAT}, the one that this version of specsweep knows")
    unknown = [key for key in values if key not in _KNOWN]
    if unknown:
        raise SpecsweepError(f"{name}: {_shown(unknown[0])}: unknown field")
    with _refused(name):
        info = _ADAPTER.validate_json(json.dumps({**values, "text": text}), strict=True)
    with _refused(name, "growth"):
        read_growth(info.growth)
    with _refused(name, "comparison"):
        read_comparison(info.comparison)
    for metric, effect in info.smallest_effects.items():
        if not 0 < effect < math.inf:
            raise SpecsweepError(f"{name}: smallest_effects.{_shown(metric)}: must be above 0 and finite, not {effect}")
    return info


@contextmanager
def _refused(name: str, *place: str) -> Iterator[None]:
    """Turn what a value breaks into a message that names its field."""
    try:
        yield
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, (*place, *found["loc"])))
        raise SpecsweepError(f"{name}: {_shown(field)}: {_shown(found['msg'])}") from None
    except RecursionError:
        raise SpecsweepError(f"{name}: is nested too deep") from None


def _read_object(content: bytes, name: str) -> dict[str, Any]:
    if len(content) > _MAX_BYTES:
        raise SpecsweepError(f"{name}: must be at most {_MAX_BYTES} bytes long, not {len(content)}")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise SpecsweepError(f"{name}{line}: must be JSON ({one_line(str(error))[:_SHOWN]})") from None
    if not isinstance(values, dict):
        raise SpecsweepError(f"{name}: must be a JSON object")
    return values


def _shown(text: str) -> str:
    return one_line(text)[:_SHOWN]
