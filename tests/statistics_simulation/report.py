"""From rates to files: a CSV a part, and a README that says which settings miss what is asked for."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from .growing import LOOKS
from .settings import BANDS, KINDS, MOST_WRONG, MOST_WRONG_EQUIVALENT, NUM_ARMS, NUM_SEEDS

Row = dict[str, str | int | float]
"""A setting and its rates."""


def write_report(
    folder: Path,
    *,
    fixed: Sequence[Row],
    growing: Sequence[Row],
    confirmed: Sequence[Row],
    variances: Sequence[Row],
    num_sweeps: int,
    num_dropping: int,
) -> None:
    """Write the CSV files and the README."""
    for name, rows in (("fixed", fixed), ("growing", growing), ("confirmed", confirmed), ("variances", variances)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _number(value) for key, value in row.items()} for row in rows)
    missed = misses(fixed, growing, confirmed)
    lines = [
        "# Do the tables' statistics keep what they promise?",
        "",
        f"Made by `make simulate`: {num_sweeps:,} simulated sweeps a setting, standard error at most "
        f"{50 / math.sqrt(num_sweeps):.2f} points and {100 * math.sqrt(0.05 * 0.95 / num_sweeps):.2f} at a rate of 5%. "
        "All rates are in percent. Asked for is",
        "",
        "* coverage of all 95% intervals of a sweep together: 94 to 96; at least 92 where variances differ or tails "
        "are heavy;",
        f"* an arm called better or worse where none differs: in at most {100 * MOST_WRONG:g}, also with looks and "
        "after screening; where variances differ or tails are heavy in at most 8, which a coverage of 92 means;",
        f"* an arm called equivalent that differs by the smallest effect: in at most {100 * MOST_WRONG_EQUIVALENT:g}.",
        "",
        "What is simulated:",
        "",
        *(f"* `{kind}`: {what}" for kind, what in KINDS.items()),
        "",
        f"**{'Every setting keeps it.' if not missed else f'{len(missed)} settings miss it:'}**",
        "",
        *(f"* {text}" for text in missed),
        *above(fixed, growing, confirmed),
        "## Intervals of a fixed number of seeds",
        "",
        "Coverage with the pooled variance, by arms and seeds (`fixed.csv` has all rates). `one x3` and `baseline x2` "
        "are beyond what is asked for; own variances are for them.",
        "",
        *_by_design(fixed, "coverage", list(KINDS)),
        "",
        "Coverage where each arm has its own variance, moderated, and the mean width of its intervals over that of "
        "pooled ones:",
        "",
        *_by_design(fixed, "moderated", [kind for kind in KINDS if kind != "missing"]),
        "",
        *_by_design(fixed, "moderated_width", [kind for kind in KINDS if kind != "missing"], scale=1, digits=2),
        "",
        "The same without moderation:",
        "",
        *_by_design(fixed, "own", [kind for kind in KINDS if kind != "missing"]),
        "",
        *_by_design(fixed, "own_width", [kind for kind in KINDS if kind != "missing"], scale=1, digits=2),
        "",
        f"Family-wise error of joint sign flips, over {min(500, num_sweeps)} sweeps:",
        "",
        *_by_design(fixed, "flips_wrong", [kind for kind in KINDS if kind != "missing"], seeds=(6, 10)),
        "",
        "Power for the difference of which 80% is claimed:",
        "",
        *_by_design(fixed, "power", ["equal", "seeds .6", "t5", "unequal"]),
        "",
        f"## Looks at {', '.join(map(str, LOOKS))} seeds",
        "",
        "`wrong`: an arm is better or worse at some look though none differs; `equivalent`: the same of equivalence at "
        "the smallest effect. Then the share of the trials of 16 seeds that is run, where no arm differs and where two "
        "differ by 2 standard deviations of a difference; and the power for the difference that 16 fixed seeds find in "
        "80%, without and with stopping for futility. With one arm `two` are this one.",
        "",
        *_table(
            ["values", "arms", "spending", "wrong", "equivalent", "trials", "trials of two", "power", "with futility"],
            [
                [row["kind"], row["arms"], row["spending"]]
                + [
                    _percent(row[name])
                    for name in ("wrong", "wrong_equivalent", "trials", "trials_of_two", "power_fixed", "power")
                ]
                for row in growing
            ],
        ),
        "",
        f"With arms that get no more seeds once they stop, over {num_dropping:,} sweeps, `wrong` is "
        + "; ".join(
            f"{_percent(row['wrong_dropping'])} ({row['arms']} arms, {row['spending']})"
            for row in growing
            if not math.isnan(float(row["wrong_dropping"]))
        )
        + ".",
        "",
        "## Screen on 4 seeds, confirm on fresh ones",
        "",
        *_table(
            ["values", "arms", "fresh seeds", "wrong", "arms confirmed"],
            [
                [row["kind"], row["arms"], row["seeds"], _percent(row["wrong"]), f"{row['confirmed_arms']:.1f}"]
                for row in confirmed
            ],
        ),
        "",
        "## The test of unequal variances",
        "",
        f"How often it rejects at 5%, 10 arms, {num_sweeps // 10:,} sweeps:",
        "",
        *_table(
            ["values", "seeds", "rejected"],
            [[row["kind"], row["seeds"], _percent(row["rejected"])] for row in variances],
        ),
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def misses(fixed: Sequence[Row], growing: Sequence[Row], confirmed: Sequence[Row]) -> list[str]:
    """Return what is asked for and not kept, a line a setting."""
    found = []
    for row in fixed:
        if (band := BANDS.get(str(row["kind"]))) is None:
            continue
        at = f"{row['kind']}, {row['arms']} arms, {row['seeds']} seeds"
        if not band[0] <= float(row["coverage"]) <= band[1]:
            found.append(f"{at}: coverage {_percent(row['coverage'])}")
        found += _too_often(row, at, strict=band[1] < 1)
    for part, rows in (("looks", growing), ("confirmation", confirmed)):
        for row in rows:
            if (band := BANDS.get(str(row["kind"]))) is not None:
                at = f"{part}, {row['kind']}, {row['arms']} arms, {row.get('spending', row['seeds'])}"
                found += _too_often(row, at, strict=band[1] < 1)
    return found


def above(*parts: Sequence[Row]) -> list[str]:
    """Return what is to be said of errors where variances differ or tails are heavy."""
    rates = [
        float(row["wrong"]) for rows in parts for row in rows if BANDS.get(str(row["kind"]), (0.0, 0.0))[1] == 1
    ]
    over = [rate for rate in rates if rate > MOST_WRONG]
    if not over:
        return []
    return [
        f"Of {len(rates)} settings of unequal variances or heavy tails, {len(over)} call an arm better or worse "
        f"wrongly in more than {100 * MOST_WRONG:g}: in {_percent(max(over))} at most.",
        "",
    ]


def _too_often(row: Row, at: str, *, strict: bool) -> list[str]:
    """Return lines on errors above what is asked for."""
    found = []
    if float(row["wrong"]) > (MOST_WRONG if strict else 0.08):
        found.append(f"{at}: an arm is wrongly better or worse in {_percent(row['wrong'])}")
    if float(row.get("wrong_equivalent", 0)) > MOST_WRONG_EQUIVALENT:
        found.append(f"{at}: an arm is wrongly equivalent in {_percent(row['wrong_equivalent'])}")
    return found


def _by_design(
    rows: Sequence[Row],
    name: str,
    kinds: Sequence[str],
    *,
    seeds: Sequence[int] = NUM_SEEDS,
    scale: float = 100,
    digits: int = 1,
) -> list[str]:
    """Return a table with a line a kind and a column for each number of arms and seeds."""
    value = {(row["kind"], row["arms"], row["seeds"]): float(row[name]) for row in rows}
    form: Callable[[float], str] = lambda number: f"{scale * number:.{digits}f}"  # noqa: E731
    columns = [(arms, num) for arms in NUM_ARMS for num in seeds]
    return _table(
        ["values", *(f"{arms} x {num}" for arms, num in columns)],
        [[kind, *(form(value[kind, arms, num]) for arms, num in columns)] for kind in kinds],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def _percent(value: str | float) -> str:
    return f"{100 * float(value):.1f}"


def _number(value: str | float) -> str | float:
    if isinstance(value, float):
        # Rounding is the machine's, and nobody's business.
        return "" if math.isnan(value) else f"{0 if abs(value) < 1e-9 else value:.5g}"
    return value
