"""In what two sweeps differ beside their numbers: configuration, data, code, versions, device, machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.ledger.registration import SweepInfo
from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.yaml_reader import parse_document
from orchestrator.trials.records import State, TrialRecord

_DIGEST_DIGITS = 12
ABSENT = "-"
"""Of a field that one file does not have."""


@dataclass(frozen=True)
class RunDifference:
    """Something in which two sweeps differ.

    Attributes:
        kind: ``configuration``, ``data``, ``code``, ``versions``, ``device`` or ``machine``.
        name: What it is, e.g. ``objective.steps``, ``specvit``, ``torch``.
        first: What it is in the first one, human-readable.
        second: The same in the second.
    """

    kind: str
    name: str
    first: str
    second: str


def find_run_differences(
    infos: tuple[SweepInfo, SweepInfo],
    records: tuple[Sequence[TrialRecord], Sequence[TrialRecord]],
    environments: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> tuple[RunDifference, ...]:
    """Return in what two sweeps differ; what is not known of one of them differs from nothing.

    Args:
        infos: The sweeps.
        records: Their trials that are compared.
        environments: Of the runs that computed their newest trials, see ``environment_of``; empty = not known.
    """
    computations = [
        list({id(each.computation): each.computation for each in of if each.state is State.DONE}.values())
        for of in records
    ]
    codes = [_united(each.code for each in of) for of in computations]
    versions = [_united(each.versions for each in of) for of in computations]
    devices = [_united({"": each.device} for each in of if each.device) for of in computations]
    fingerprints = [_fingerprints(info, of) for info, of in zip(infos, records, strict=True)]
    machines = [_machine(environment) for environment in environments]
    return (
        *(RunDifference("configuration", *each) for each in _file_differences(*infos)),
        *(RunDifference("data", *each) for each in _unequal(*fingerprints)),
        *(RunDifference("code", *each) for each in _unequal(*codes, digits=_DIGEST_DIGITS)),
        *(RunDifference("versions", *each) for each in _unequal(*versions)),
        *(RunDifference("device", *each) for each in _unequal(*devices)),
        *(RunDifference("machine", *each) for each in _unequal(*machines)),
    )


def _file_differences(first: SweepInfo, second: SweepInfo) -> Iterator[tuple[str, str, str]]:
    """Yield the fields that two sweep files give other values, as they were run; of unreadable ones their lines."""
    try:
        values = [dict(_fields(parse_document(info.text, name=info.name).value)) for info in (first, second)]
    except SweepFileError:  # of another version, or made up
        if first.text != second.text:
            yield "text", f"{len(first.text.splitlines())} lines", f"{len(second.text.splitlines())} lines"
        return
    for name in dict.fromkeys((*values[0], *values[1])):
        one, other = (of.get(name, ABSENT) for of in values)
        if one != other:
            yield name, one, other


def _fields(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the fields of a file, one below the other: ``objective.steps``, and their values as JSON."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _fields(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def _fingerprints(info: SweepInfo, records: Sequence[TrialRecord]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        if record.trial.group_id in info.data_fingerprints:
            found.setdefault(record.trial.group, set()).add(info.data_fingerprints[record.trial.group_id])
    return {"fingerprint": set().union(*found.values())} if found else {}


def _machine(environment: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return what is told of the machine and the checkout of a run; an environment may come from anybody's file."""
    sha, versions, gpus = (environment.get(name) for name in ("git_sha", "versions", "gpus"))
    values = {
        "commit": sha and str(sha)[:_DIGEST_DIGITS] + " and changes" * bool(environment.get("git_dirty")),
        "specsweep": versions.get("specsweep") if isinstance(versions, Mapping) else None,
        "platform": environment.get("platform"),
        "cpu": environment.get("cpu"),
        "cores": environment.get("num_cores"),
        "gpus": ", ".join(map(str, gpus)) if isinstance(gpus, list) else gpus,
    }
    return {name: {str(value)} for name, value in values.items() if value}


def _united(each: Iterable[Mapping[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for values in each:
        for name, value in values.items():
            found.setdefault(name, set()).add(value)
    return found


def _unequal(
    first: Mapping[str, set[str]], second: Mapping[str, set[str]], *, digits: int | None = None
) -> Iterator[tuple[str, str, str]]:
    for name in first:
        if name in second and first[name] != second[name]:
            one, other = (", ".join(sorted(value[:digits] for value in of[name])) for of in (first, second))
            yield name, one, other
