"""The section on where numbers come from: the sweep file, the code, the libraries, the machine, the data."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.reports.page.markup import block, details, section, table, text
from orchestrator.reports.page.report import SweepReport
from orchestrator.trials.computation import Computation
from orchestrator.trials.records import State


def origin_section(report: SweepReport) -> str:
    """Return what it takes to run the sweep again; what identifies a person's machine is not told."""
    parts = [details("<b>Sweep file</b>, as it was run", block(report.info.text))] if report.info.text else []
    facts: list[tuple[str, str]] = []
    for name, value in report.environment.items():
        if name == "versions" and isinstance(value, Mapping):
            facts += [(f"{package} (version)", _shown(version)) for package, version in value.items()]
        elif name != "code":  # below, of all trials
            facts.append((name.replace("_", " "), _shown(value)))
    computations = _computations(report)
    codes = {pair for each in computations for pair in each.code.items()}
    facts += [(f"digest of {name}", digest) for name, digest in sorted(codes)]
    devices = sorted({each.device for each in computations} - {""})
    facts += [("device", ", ".join(devices))] if devices else []
    fingerprints = sorted({*report.info.data_fingerprints.values()} - {""})
    facts += [("fingerprint of the data", each) for each in fingerprints[:20]]
    if facts:
        rows = [[("", text(name)), ("code", text(value))] for name, value in facts]
        inside = table([("", "what"), ("", "")], rows, classes="facts")
        parts.append(details("<b>Environment, code and data</b>", inside))
    return section("origin", "Where it comes from", *parts)


def _computations(report: SweepReport) -> list[Computation]:
    """Return what computed the trials that are done, each once."""
    return list({id(r.computation): r.computation for r in report.records if r.state is State.DONE}.values())


def _shown(value: object) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
