"""Records of sweeps in which all goes wrong that can, some of them by a stranger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.ledger.provenance import Provenance
from orchestrator.reports.environment import environment_of
from orchestrator.reports.page.report import SweepReport
from orchestrator.trials.computation import Computation
from orchestrator.trials.records import Cause, Report, State, TrialRecord, TrialUsage
from orchestrator.trials.trial import Role, TrialInfo

from ..table_records import DECIDED, INFO, METRICS, make_records, make_trial, with_costs

HOSTILE = (
    "<script>document.title = 'run'</script>",
    '"><img src=x onerror="document.title = 1">',
    "' onmouseover='document.title = 1' x='",
    "</title><script>document.title = 'run'</script>",
    "</style><script>document.title = 'run'</script>",
    "</text></svg><script>document.title = 'run'</script>",
    "</pre><iframe src=https://example.org></iframe>",
    "<svg/onload=document.title=1>",
    "<a href=javascript:document.title=1>x</a>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<style>@import 'https://example.org/x.css'</style>",
    "\u202eright to left\u202c \u2066\u200f",
    "nul\0byte \x1b[31m \x85 \u2028",
    "\ud800 alone",
    "long " * 2000,
    "w" * 10_000,
    "عربي",
    "&lt;b&gt; &#60;script&#62; --> <!-- ]]>",
)
"""Texts that a label, a message or a file of a stranger's ledger may hold."""

PROVENANCE = Provenance(
    started_at="2026-01-02T03:04:05+00:00",
    argv=("/home/somebody/.venv/bin/specsweep", "run", "/home/somebody/sweeps/x.yaml"),
    host="somebodys-machine",
    git_sha="0123456789abcdef0123456789abcdef01234567",
    git_dirty=False,
    versions={"python": "3.11.7", "torch": "2.14.0"},
    platform="Linux-6.1-x86_64",
    cpu="A processor",
    num_cores=2,
    memory_gib=8.0,
    gpus=(),
    code={"specvit": "c0de" * 16},
)


def with_history(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Give trials rungs, core seconds, what computed them, and extra parameters that differ."""
    computation = Computation({"specvit": "c0de" * 16}, {"torch": "2.14.0"}, "cpu A processor")
    return [
        replace(
            each,
            trial=replace(each.trial, extra_parameters_percent=float(len(each.trial.arm) % 7)),
            core_seconds=None if each.seconds is None else 36.0,
            computation=computation,
            reports=tuple(Report(step, {"miou": 10.0 + step + each.trial.seed}) for step in (10, 20)),
        )
        for each in with_costs(records)
    ]


STATES = [
    *with_history(DECIDED),
    *make_records("failed@all", 0.0, None, 2.0, 0.4, 1.6, error="ValueError: a\nb"),
    *make_records("pruned@all", 0.0, 2.0, None, None, 1.0),
    *(TrialRecord(make_trial("late@all", seed), State.RUNNING, 1, step=50, steps=200) for seed in (0, 1)),
    *(TrialRecord(make_trial("late@all", seed), State.WAITING) for seed in (2, 3)),
    TrialRecord(make_trial("late@all", 4), State.SKIPPED, skip_reason="time_budget_h: 1"),
    *make_records("random init", -9.0, -8.0, -7.0, -8.0, -8.0, role="floor"),
]
"""10 trials of two arms that are done, then 1 failed, 2 pruned, 4 to do and 1 left out, of 30."""

USAGE = {
    STATES[0].trial.trial_id: TrialUsage(3, 3600.0, 0.0, {"worker": 1, "lost": 1}),
    STATES[1].trial.trial_id: TrialUsage(1, 3600.0, 0.0),
}


def report_of(records: Sequence[TrialRecord], **fields: object) -> SweepReport:
    """Return the report of records as of a sweep with a smallest effect of 0.5 in the primary metric."""
    info = replace(INFO, smallest_effects={"miou": 0.5}, text="seeds: 5\n# <b>\n", data_fingerprints={"": "f00d"})
    return SweepReport(info, records, environment_of(PROVENANCE), USAGE, **fields)  # type: ignore[arg-type]


def hostile_report() -> SweepReport:
    """Return the report of a ledger in which every text is hostile."""
    records = with_history(DECIDED)
    for number, text in enumerate(HOSTILE):
        offsets = (3.0, 4.1, 5.2, 3.6, 4.6) if number % 3 else (3.0, None, None, None, None)
        arm = make_records(text, *offsets, error=text if number % 2 else None)
        records += [replace(each, trial=replace(each.trial, label=text), cause=Cause.RAISED) for each in arm]
    records.append(TrialRecord(make_trial("left out", 0), State.SKIPPED, skip_reason=HOSTILE[0]))
    usage = {each.trial.trial_id: TrialUsage(2, 1.0, 1.0, {HOSTILE[0]: 1}) for each in records}
    info = replace(
        INFO, name=HOSTILE[3], question=HOSTILE[4], text="\n".join(HOSTILE), data_fingerprints={"": HOSTILE[1]}
    )
    provenance = replace(PROVENANCE, argv=("x", *HOSTILE), cpu=HOSTILE[0], versions={HOSTILE[1]: HOSTILE[2]})
    records = [replace(r, computation=Computation({HOSTILE[0]: HOSTILE[1]}, {}, HOSTILE[2])) for r in records]
    return SweepReport(info, records, environment_of(provenance), usage)


def hostile_groups() -> SweepReport:
    """Return the report of a ledger whose groups have hostile names, and a metric too."""
    records = []
    for text in HOSTILE:
        for each in with_history(DECIDED):
            metrics = {**each.metrics, HOSTILE[0]: 1.0}
            records.append(replace(each, trial=replace(each.trial, group=text, group_id=text), metrics=metrics))
    return SweepReport(replace(INFO, metrics=(*METRICS, HOSTILE[0])), records)


def large_records(num_groups: int, num_arms: int = 10, num_seeds: int = 5) -> list[TrialRecord]:
    """Return the trials of a large sweep, some of which failed, were pruned or left out."""
    records = []
    for group in (f"model.scale=nano, objective.lr={number / 1000:g}" for number in range(num_groups)):
        for arm in range(num_arms):
            name, role = (f"norm@all+qkv@all(lora:{arm})", Role.ARM) if arm else ("none", Role.BASELINE)
            if arm == num_arms - 1:
                name, role = "random init", Role.FLOOR
            for seed in range(num_seeds):
                trial = TrialInfo(
                    f"{group} {name} {seed}", group, f"{group} {name}", group, name, role,
                    f"{group} {name} seed {seed}", seed, 1000, 2.5 * arm,
                )
                value = 50 + (arm == 1) * 3 - (arm == 2) * 3 + ((7 * seed + 3 * arm) % 5) / 10 + seed
                state = State.DONE
                if role is Role.ARM and (arm, seed) == (5, 4):
                    state = (State.FAILED, State.PRUNED, State.SKIPPED, State.WAITING)[len(records) // 50 % 4]
                records.append(
                    TrialRecord(
                        trial, state, 1, metrics=dict.fromkeys(METRICS, value) if state is State.DONE else {},
                        seconds=40.0, core_seconds=39.0, error="RuntimeError: no", skip_reason="time_budget_h: 1",
                    )
                )
    return records
