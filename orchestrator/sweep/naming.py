"""The name of a sweep, which is that of its results folder: the file's, and what ``--set`` makes different from it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from orchestrator.secrets import PLACEHOLDER, secrets_of
from orchestrator.sweep.extending import read_sweep_file
from orchestrator.sweep.overrides import apply_overrides
from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.yaml_reader import Document, parse_document, read_document, write_document
from specvit.config import ModelSettings
from specvit.data import DATA_SOURCES
from specvit.errors import ConfigError
from specvit.messages import one_line

MAX_LENGTH = 100
"""Characters of a name, at most."""

NEUTRAL_FIELDS = frozenset(
    {
        *("name", "question", "priority", "resources", "time_budget_h", "max_gpu_hours", "max_retries"),
        *("stall_timeout_s", "start_timeout_s", "checkpoint_every_s", "checkpoint_max_share", "keep_weights"),
        *("primary_metric", "smallest_effect", "comparison"),
        *("trackers", "notify"),
    }
)
"""Fields of a sweep file that change no number of any trial; nor do those that say where data or weights lie."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")
_DIGEST_DIGITS = 8


def check_name(name: str) -> str:
    """Return a name that can stand as a folder.

    Raises:
        ConfigError: If it cannot.
    """
    if not _NAME.fullmatch(name) or len(name) > MAX_LENGTH:
        raise ConfigError(
            f"must be at most {MAX_LENGTH} letters, digits, '-', '_' or '.', and not begin with '.', since it names a "
            f"folder, not {name!r}"
        )
    return name


def results_name(path: Path, given: str | None, overrides: Sequence[str]) -> str:
    """Return the name of a sweep.

    Args:
        path: The sweep file.
        given: Its field ``name``, or None.
        overrides: What is set on the command line, ``path=value``. A name that is set there is taken as it is; else
            what changes results is added to the name, so that they go to a folder of their own.
    """
    base = path.stem if given is None else given
    changes = [text for text in overrides if changes_results(text)]
    if not changes or any(_keys(text) == ["name"] for text in overrides):
        return base
    texts = "-".join(_OTHER.sub("-", text).strip("-") for text in changes)
    name = f"{base}-{texts}"
    if len(name) <= MAX_LENGTH:
        return name
    digest = hashlib.sha256("\0".join(changes).encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{name[: MAX_LENGTH - _DIGEST_DIGITS - 1]}-{digest}"


def changes_results(override: str) -> bool:
    """Return whether an override, ``path=value``, can change a number: not where something lies, or what it costs."""
    keys = _keys(override)
    return keys[0] not in NEUTRAL_FIELDS and keys[-1] not in _path_fields()


def resolved_text(document: Document, path: Path, overrides: Sequence[str]) -> str:
    """Return the sweep file as it is meant.

    It is the file's text; where the file extends another one, or overrides change results, a file that holds all of it.

    Addresses of webhooks, which may be secrets, are not in it.

    Raises:
        SweepFileError: If an override cannot be set.
    """
    changes = [text for text in overrides if changes_results(text)]
    if not changes and not document.extended:
        return _text_without_addresses(document)
    raw, _ = apply_overrides(document, changes, name=str(path))
    head = "".join((path.name, *(f" extending {one_line(name)}" for name in document.extended)))
    head += f" with {', '.join(changes)}" if changes else ""
    return f"# {head}\n\n{write_document(_without_addresses(raw))}"


def _text_without_addresses(document: Document) -> str:
    """Return the text of a sweep file, the environment's variable in place of each address of a webhook."""
    secrets, text = secrets_of(document.value.get("notify")), document.text
    for secret in secrets:
        text = text.replace(secret, PLACEHOLDER)
    if secrets and secrets_of(parse_document(text, name="").value.get("notify")):  # written with escapes
        return write_document(_without_addresses(document.value))
    return text


def _without_addresses(raw: Mapping[str, object]) -> dict[str, object]:
    return {**raw, "notify": PLACEHOLDER} if secrets_of(raw.get("notify")) else dict(raw)


def find_name(path: Path, overrides: Sequence[str] = ()) -> str:
    """Return the name of a sweep whose file may be broken, or lack what only a run needs, to find its results."""
    try:
        raw, _ = apply_overrides(read_document(path), overrides, name=str(path))
        given = raw.get("name")
    except SweepFileError:
        given = None
    return results_name(path, given if isinstance(given, str) else None, overrides)


def has_other_text(path: Path, overrides: Sequence[str], text: str) -> bool:
    """Return whether a sweep file, as far as it can be read, says something else than the text that was run."""
    try:
        return resolved_text(read_sweep_file(path), path, overrides) != text
    except SweepFileError:
        return True


def _keys(override: str) -> list[str]:
    return override.partition("=")[0].strip().split(".")


@cache
def _path_fields() -> frozenset[str]:
    return ModelSettings.path_fields.union(*(source.path_fields for source in DATA_SOURCES.values()))
