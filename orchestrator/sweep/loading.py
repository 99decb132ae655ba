"""Reading a sweep file: YAML and overrides in, a checked ``Sweep`` out, or every problem with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from orchestrator.sweep.checks import check_sweep
from orchestrator.sweep.extending import EXTENDS, read_sweep_file
from orchestrator.sweep.groups import is_absent, resolve_groups, with_setting
from orchestrator.sweep.naming import resolved_text
from orchestrator.sweep.overrides import apply_overrides
from orchestrator.sweep.problems import Problem
from orchestrator.sweep.resolved import Group, Sweep
from orchestrator.sweep.schema import MAX_TRIALS, SECTIONS, SweepFile
from orchestrator.sweep.validation_errors import describe
from orchestrator.sweep.varying import Setting, Varied
from specvit.config import default_rung_probes

_FILE_ADAPTER = TypeAdapter(SweepFile)


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and check everything that can be known before a trial runs.

    Args:
        path: The YAML file; with what it extends, see ``orchestrator.sweep.extending``.
        overrides: ``path=value`` texts, set in order before anything is checked; the value is YAML.

    Returns:
        The sweep, its groups resolved.

    Raises:
        SweepFileError: If the file or an override breaks a rule; the text lists every problem found, one a
            line, each with its place.
    """
    path = Path(path)
    document = read_sweep_file(path)
    raw, places = apply_overrides(document, overrides, name=str(path))
    varied = Varied.of(raw)
    problems = [*_check_file(raw, next(varied.settings())), *varied.check()]
    if EXTENDS in raw:
        problems.append(Problem((EXTENDS,), "is taken from the file alone"))
    groups: tuple[Group, ...] = ()
    settings: list[Setting] = []
    if varied.num_groups > MAX_TRIALS:
        problems.append(Problem(("vary",), f"must make at most {MAX_TRIALS} groups"))
    else:
        settings = list(varied.settings())
        groups, section_problems = resolve_groups(raw, settings, varied.paths)
        problems += section_problems
    if problems:
        raise places.error(problems)
    file = _FILE_ADAPTER.validate_python(with_setting(raw, settings[0]))
    file = replace(
        file,
        rungs=replace(file.rungs, probes=file.rungs.probes or default_rung_probes(file.probes)),
        floors=tuple(dict.fromkeys(file.floors)),
    )
    text = resolved_text(document, path, overrides)
    sweep = Sweep(file=file, groups=groups, path=path, text=text, overrides=tuple(overrides))
    problems = check_sweep(sweep, raw=raw, varied=varied, settings=settings)
    if problems:
        raise places.error(problems)
    return sweep


def _check_file(raw: Mapping[str, object], setting: Setting) -> list[Problem]:
    """Check the shape of all but the sections that can vary; those are checked group by group."""
    try:
        _FILE_ADAPTER.validate_python(with_setting(raw, setting))
    except ValidationError as error:
        found = describe(error, raw)
        return [p for p in found if p.path[0] not in SECTIONS or is_absent(p.path[0], raw)]
    return []
