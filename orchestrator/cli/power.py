"""The command that says what a sweep could see, and how many seeds a difference takes, without running anything."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator.cli.arguments import DEFAULT_RESULTS, Name, Overrides, ResultsRoot, SweepPath, with_name
from orchestrator.cli.console import make_console, print_raw
from specvit.errors import SpecsweepError


def power(
    sweep_file: SweepPath,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    effect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=DIFFERENCE",
            help="A difference that is to be found, e.g. miou=2; repeatable. Default: the file's smallest_effect.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of an arm; default: those of the file.")] = None,
    sd: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=SD",
            help="Standard deviation of an arm over seeds, e.g. miou=1.5, in place of what was measured; repeatable.",
        ),
    ] = None,
    name: Name = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which differences a sweep could see, how many seeds a wanted one takes, and the core-hours."""
    from orchestrator.cli.power_view import render_power
    from orchestrator.power import measure_power
    from orchestrator.sweep.grid import expand
    from orchestrator.sweep.loading import load_sweep
    from orchestrator.sweep.pretrained import pin_checkpoints

    effects, sds = _numbers("--effect", effect or ()), _numbers("--sd", sd or ())
    sweep = load_sweep(sweep_file, with_name(overrides, name))
    trials = expand(pin_checkpoints(sweep))
    made = measure_power(sweep, trials, results_root=results, num_seeds=seeds, effects=effects, sds=sds)
    if as_json:
        print_raw(json.dumps(made.to_json(), indent=2))
    else:
        make_console().print(render_power(made, sweep.name))


def _numbers(option: str, texts: Sequence[str]) -> dict[str, float]:
    """Read ``METRIC=NUMBER``, each.

    Raises:
        SpecsweepError: If one is none, or the number is not above 0 and finite.
    """
    found = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (name and equals and 0 < value < math.inf):
            raise SpecsweepError(f"{option}: must be METRIC=NUMBER with a number above 0, not {text!r}")
        found[name] = value
    return found
