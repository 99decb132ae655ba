"""How metrics are named and rounded, wherever they are shown."""

from __future__ import annotations

from collections.abc import Sequence

from specvit.probes import METRICS, Metric

_ARM_WIDTH = 20


def describe(name: str) -> Metric:
    """Return what is known of a metric; one that no probe reports goes by its name."""
    return METRICS.get(name) or Metric(name, name, unit="")


def column_title(name: str) -> str:
    """Return the heading of a metric: its title, its unit, which way is up."""
    metric = describe(name)
    unit = f" ({metric.unit})" if metric.unit else ""
    arrow = (" ↑" if metric.higher_is_better else " ↓") if name in METRICS else ""
    return f"{metric.title}{unit}{arrow}"


def decimals(name: str) -> int:
    """Return how many digits after the point a metric has in a table."""
    return 1 if describe(name).unit == "%" else 3


def format_metric(name: str, value: float, *, digits: int = 1) -> str:
    """Return name and value for a line of progress.

    Args:
        name: The metric.
        value: Its value.
        digits: Digits after the point; a metric in a unit of its own, such as metres, has those of a table.
    """
    has_own_unit = name in METRICS and METRICS[name].unit != "%"
    return f"{name} {value:.{decimals(name) if has_own_unit else digits}f}"


def format_size(name: str, size: float) -> str:
    """Return the size of a difference in a metric; one that would read 0.0 has its first digit: ``2.7``, ``0.004``.

    Args:
        name: The metric.
        size: At least 0.
    """
    text = f"{size:.{decimals(name)}f}"
    return text if float(text) or not size else f"{size:.1g}"


def format_change(mean: float, low: float | None, high: float | None, digits: int, *, sign: str = "+") -> str:
    """Return a change with its interval, if it has one: ``+2.4 [+0.03, +4.7]``.

    An end that would read 0.0 in an interval that leaves 0 out has one or two digits more.

    Args:
        mean: The change.
        low: Lower end.
        high: Upper end.
        digits: Digits after the point.
        sign: ``+``, or ``-`` to write no plus.
    """
    text = f"{mean:{sign}z.{digits}f}"
    if low is None or high is None:
        return text
    leaves_zero_out = low > 0 or high < 0
    return f"{text} [{', '.join(_format_end(end, digits, sign, exact=leaves_zero_out) for end in (low, high))}]"


def _format_end(value: float, digits: int, sign: str, *, exact: bool) -> str:
    texts = [f"{value:{sign}z.{digits + more}f}" for more in (0, 1, 2)]
    return next((text for text in texts if exact and float(text)), texts[0])


def format_seconds(seconds: float | None) -> str:
    """Return a duration, human-readable: ``45 s``, ``12 min``, ``3 h 20 min``; ``?`` for None."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def list_texts(texts: Sequence[str]) -> str:
    """Return texts as one: ``a``, ``a and b``, ``a, b and c``."""
    return ", ".join(texts[:-1]) + (" and " if len(texts) > 1 else "") + texts[-1]


def fold_arm(arm: str) -> str:
    """Return a long arm with line breaks before a ``+``; what follows is indented, to be no arm of its own."""
    lines = [""]
    for term in arm.replace("+", "\n+").split("\n"):
        if lines[-1] and len(lines[-1]) + len(term) > _ARM_WIDTH:
            lines.append("  ")
        lines[-1] += term
    return "\n".join(lines)
