"""Grafana's dashboard: it asks for what a run exports."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest

from .files import DASHBOARD

METRIC_TAGS = {
    "ray_specsweep_trials": {"sweep", "state"},
    "ray_specsweep_rung_metric": {"sweep", "group", "arm", "seed", "metric"},
    "ray_specsweep_images_per_second": {"sweep"},
    "ray_specsweep_retries_total": {"sweep", "cause"},
    "ray_specsweep_slots": {"sweep"},
    "ray_specsweep_slots_busy": {"sweep"},
    "ray_specsweep_seconds_left": {"sweep"},
}
"""What a run exports, as Prometheus sees it: Ray puts ``ray_`` before all names and ``_total`` after counters."""
TAGS_OF_RAY = {"SessionName"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_the_dashboard_asks_for_exactly_the_metrics_that_a_run_exports(dashboard: dict[str, Any]) -> None:
    asked = {name for expression in expressions(dashboard) for name in re.findall(r"ray_\w+", expression)}
    assert asked == set(METRIC_TAGS)


def test_the_dashboard_filters_and_groups_by_tags_that_the_metrics_have(dashboard: dict[str, Any]) -> None:
    for expression in expressions(dashboard):
        for name, filters in re.findall(r"(ray_\w+)\{([^}]*)\}", expression):
            by = [tag for tags in re.findall(r"by \(([^)]*)\)", expression) for tag in tags.split(", ")]
            used = {*re.findall(r"(\w+)=~", filters), *by}
            assert used - TAGS_OF_RAY <= METRIC_TAGS[name], expression


def test_with_all_chosen_every_panel_shows_also_a_sweep_without_groups(dashboard: dict[str, Any]) -> None:
    exported = {"SessionName": "session_1", "sweep": "components", "group": "", "metric": "miou", "state": "done"}
    chosen = {f"${variable['name']}": variable.get("allValue") for variable in dashboard["templating"]["list"]}
    filters = [pair for text in expressions(dashboard) for pair in re.findall(r'(\w+)=~"([^"]*)"', text)]
    assert {tag for tag, _ in filters} == exported.keys()
    for tag, pattern in filters:
        assert re.fullmatch(chosen.get(pattern, pattern), exported[tag]), (tag, pattern)


def test_a_mean_over_seeds_keeps_sweeps_apart(dashboard: dict[str, Any]) -> None:
    (means,) = [text for text in expressions(dashboard) if text.startswith("avg ")]
    assert means.startswith("avg by (sweep, group, arm) (ray_specsweep_rung_metric{")


def test_the_dashboards_legends_name_tags_that_the_query_keeps(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            kept = {tag for tags in re.findall(r"by \(([^)]*)\)", target["expr"]) for tag in tags.split(", ")}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_the_dashboards_variables_are_defined_before_they_are_used(dashboard: dict[str, Any]) -> None:
    defined: set[str] = set()
    for variable in dashboard["templating"]["list"]:
        used = set(re.findall(r"\$\{?(\w+)", json.dumps([variable.get("query"), variable.get("datasource")])))
        assert used <= defined, variable["name"]
        defined.add(variable["name"])
    assert {"datasource", "SessionName", "sweep", "metric"} <= defined
    built_in = {"__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"]))) <= defined | built_in


def test_every_panel_of_the_dashboard_takes_the_chosen_data_source(dashboard: dict[str, Any]) -> None:
    sources = [
        source["datasource"]
        for panel in dashboard["panels"]
        if panel["type"] != "row"
        for source in (panel, *panel["targets"])
    ]
    assert sources
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_the_dashboards_panels_lie_on_its_grid_without_overlap(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)  # the width of Grafana's grid
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_dashboard_shows_each_state_of_a_trial_in_a_colour_of_its_own(dashboard: dict[str, Any]) -> None:
    (panel,) = (panel for panel in dashboard["panels"] if panel["title"] == "Trials by state")
    assert panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    colours = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    assert set(colours) == {"waiting", "pending", "running", "done", "pruned", "failed", "left_out"}
    assert len(set(colours.values())) == len(colours)
