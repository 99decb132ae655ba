"""The command that asks something new of what a sweep has trained."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    AcceptMixed,
    Name,
    Overrides,
    ResultsRoot,
    SweepPath,
    with_name,
)
from orchestrator.cli.console import make_console
from orchestrator.cli.run import run_and_print
from orchestrator.cli.where import Address, ExecutorName, ExecutorOption, Slots, Where


def evaluate(
    sweep_file: SweepPath,
    probe: Annotated[
        list[str], typer.Option("--probe", metavar="PROBE", help="A probe that the file does not hold; repeatable.")
    ],
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    executor: ExecutorOption = ExecutorName.RAY,
    address: Address = None,
    slots: Slots = None,
    name: Name = None,
    accept_mixed: AcceptMixed = False,
) -> None:
    """Run more probes on the weights that a sweep has kept; nothing is trained.

    Their columns are marked as added later.

    Settings of a probe are set as elsewhere: --probe depth --set probes.depth.num_train=1000.
    """
    from orchestrator.sweep.adding import with_probes

    given = with_probes(sweep_file, probe, with_name(overrides, name))
    where = Where(executor, address, slots)
    run_and_print(sweep_file, given, results, where, accept_mixed=accept_mixed, trains=False)
    lines = ", ".join(f"{each}: {{}}" for each in probe)
    make_console().print(
        f"to keep these columns in later runs of {sweep_file}, add to its probes: {lines}", markup=False, soft_wrap=True
    )
