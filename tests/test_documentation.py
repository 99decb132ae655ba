"""The documentation: what the program can do is in it, and its links lead somewhere.

``make docs`` builds the site, with warnings as errors; here stands what is held without Sphinx.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import typer.main
import yaml
from pydantic import TypeAdapter

from orchestrator.cli.app import app
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds
from orchestrator.sweep.pruning_settings import AnyPruner
from orchestrator.sweep.resource_settings import Resources, ScaleResources
from orchestrator.sweep.schema import Ablation, SweepFile, sweep_json_schema
from orchestrator.trackers import TRACKERS
from specvit.comparators import COMPARATORS
from specvit.config import ExternalBackbone, ModelSettings, RungSettings
from specvit.data.sources import DATA_SOURCES
from specvit.models.scales import SCALES
from specvit.probes import PROBES
from specvit.recipes import RECIPES
from specvit.specialization import ALIASES, COMPONENTS, NAMED_ARMS

from .documentation.__main__ import DOCS, command_options, fill, loads_from_elsewhere, navigation, sweep_file_fields
from .documentation.fields import FieldReference

ROOT = DOCS.parent
PAGES = sorted(DOCS.glob("*.md"))
LINKED = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md"))]
WITH_EXAMPLES = [page for page in LINKED if "```yaml" in page.read_text(encoding="utf-8")]
PRUNERS = {pruner.pruner: pruner for pruner in get_args(get_args(AnyPruner)[0])}
COMMANDS = sorted(typer.main.get_command(app).commands)
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def terms() -> dict[str, set[str]]:
    """Return the fields of the generated reference by the heading that they stand under."""
    found: dict[str, set[str]] = {}
    for section in re.split(r"^###? ", sweep_file_fields(), flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        found[heading] = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^(`.*)\n:   ", text, re.MULTILINE))))
        base = re.search(r"^The fields of \[([^]]+)\]", text, re.MULTILINE)
        found[heading] |= found[base[1]] if base else set()
    return found


def kinds() -> Iterable[tuple[str, str, type]]:
    """Yield every kind of a section: the section, its heading, its settings."""
    tables = {"objective": RECIPES, "data": DATA_SOURCES, "ablate.comparators": COMPARATORS, "pruning": PRUNERS}
    tables |= {"trackers": TRACKERS}
    tellers = {"objective": "recipe", "data": "source", "ablate.comparators": "comparator", "pruning": "pruner"}
    tellers |= {"trackers": "tracker"}
    for section, table in tables.items():
        yield from ((section, f"`{tellers[section]}: {name}`", kind) for name, kind in table.items())
    yield from (("probes", f"`probes.{name}`", probe) for name, probe in PROBES.items())


def test_the_reference_has_every_field_of_every_kind() -> None:
    for section, heading, settings in kinds():
        known = {field.name for field in fields(settings)} - {"recipe", "source", "comparator", "pruner", "tracker"}
        missing = known - terms()[heading] - terms().get(f"Every kind of `{section}`", set())
        assert (heading, missing) == (heading, set())


@pytest.mark.parametrize(
    ("heading", "settings"),
    [
        ("The file", SweepFile),
        ("`model`", ModelSettings),
        ("`rungs`", RungSettings),
        ("`seeds` as a mapping", GrowingSeeds),
        ("`ablate`", Ablation),
        ("An entry of `external`", ExternalBackbone),
        ("`resources`", Resources),
        ("A value of `resources.by_scale`", ScaleResources),
    ],
)
def test_the_reference_has_every_field_of_a_section(heading: str, settings: type) -> None:
    assert terms()[heading] >= {field.name for field in fields(settings)}


def test_the_reference_leaves_out_no_definition_of_the_schema() -> None:
    shared = set().union(*(names for heading, names in terms().items() if heading.startswith("Every kind of")))
    for name, definition in sweep_json_schema()["$defs"].items():
        known = {field for field, node in definition["properties"].items() if "const" not in node}
        assert (name, min((known - names - shared for names in terms().values()), key=len)) == (name, set())


def test_the_reference_tells_types_ranges_and_defaults() -> None:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    schema = {
        "$defs": {"Inner": {"properties": {"steps": {"type": "integer", "exclusiveMinimum": 0, "default": 200}}}},
        "required": ["lr"],
        "properties": {
            "lr": {"type": "number", "exclusiveMinimum": 0, "description": "Peak ``rate``."},
            "betas": {"type": "array", "prefixItems": [share, share], "default": [0.9, 0.999]},
            "mode": {"anyOf": [{"enum": ["full", "gate"]}, {"type": "null"}], "default": None},
            "inner": {"$ref": "#/$defs/Inner", "description": "What is within."},
        },
    }
    assert FieldReference(schema, ["lr", "betas", "mode", "inner"]).render().split("\n\n") == [
        "## The file",
        "`lr`\n:   *number > 0, required*",
        "    Peak `rate`.",
        "`betas`\n:   *list of 2: number from 0 to 1, default `[0.9, 0.999]`*",
        "`mode`\n:   *`full` or `gate`, optional*",
        "`inner`\n:   *[section](#inner), optional*",
        "    What is within.",
        "\n## `inner`",
        "What is within.",
        "`steps`\n:   *integer ≥ 1, default `200`*",
        "",
    ]


def test_a_preset_tells_its_own_defaults_alone() -> None:
    preset = sweep_file_fields().partition("### `recipe: dinov2_short`")[2].partition("###")[0]
    assert "The fields of [`recipe: dinov2`](#recipe-dinov2), with other defaults:\n\n`batch_size: 2048`." in preset


def test_every_command_is_explained_and_has_its_options_listed() -> None:
    explained, listed = (DOCS / "commands.md").read_text(encoding="utf-8"), command_options()
    for command in COMMANDS:
        assert f"`specsweep {command}" in explained
        assert f"## `specsweep {command}`\n" in listed
    assert "* `--slots <int range>`: Trials to run at once" in listed


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("components", [*COMPONENTS, *ALIASES, *NAMED_ARMS, *COMPARATORS, *SCALES]),
        ("recipes", RECIPES),
        ("probes", PROBES),
        ("data", DATA_SOURCES),
        ("trackers", TRACKERS),
        ("ready-sweeps", [f"sweeps/{path.name}" for path in (ROOT / "sweeps").glob("*.yaml")]),
        ("sweep-file", [*(field.name for field in fields(SweepFile) if field.name not in {"name", "start_timeout_s"})]),
        ("clusters", [path.name for path in (ROOT / "orchestrator" / "clusters").iterdir()]),
    ],
)
def test_a_page_names_all_that_it_is_about(page: str, names: Iterable[str]) -> None:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert [name for name in names if not re.search(rf"(?<![\w/]){re.escape(name)}(?!\w)", text)] == []


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_examples_of_sweep_files_are_valid(page: Path) -> None:
    for example in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        rest = {"objective": {"recipe": "dinov2_cpu"}, "probes": {"knn": {}}}
        TypeAdapter(SweepFile).validate_python(rest | yaml.safe_load(example))


def slugs(path: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    generated = {f"`{field.name}`" for field in fields(SweepFile)} if path.stem == "sweep-file-reference" else set()
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in {*headings, *generated}}


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith(("http://", "https://")):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), link
            assert not anchor or anchor in slugs(target), link


def test_the_readme_is_short_and_its_commands_of_make_are_there() -> None:
    readme, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile"))
    assert len(readme.splitlines()) < 200
    targets = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", readme, re.MULTILINE))
    named = {name for pair in targets for name in pair if name}
    assert named >= {"sweep", "test", "check"}
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_the_readme_and_the_page_name_the_same_places_to_add_parts() -> None:
    readme, page = (
        path.read_text(encoding="utf-8").partition("\n| to add |")[2].partition("\n\n")[0]
        for path in (ROOT / "README.md", DOCS / "adding-parts.md")
    )
    assert "`PROBES`" in readme
    assert readme == page


@pytest.mark.parametrize("page", ["README.md", "docs/limits.md", "docs/statistics.md"])
def test_what_a_published_study_could_have_seen_is_what_its_table_says(page: str) -> None:
    table = (ROOT / "results/studies/components/table.md").read_text()
    seen = re.findall(r"Could have been seen, .* mIoU ([0-9.]+)\.\n", table)
    told = re.findall(r"(?:difference of|it is) ([0-9.]+) points of mIoU", " ".join((ROOT / page).read_text().split()))
    assert told == seen


def test_every_page_is_in_the_navigation() -> None:
    trees = "".join(navigation((DOCS / "index.md").read_text(encoding="utf-8")))
    listed = re.findall(r"^[\w-]+$", trees, re.MULTILINE)
    assert sorted(["index", *listed]) == sorted(page.stem for page in PAGES)


def test_a_page_is_filled_and_keeps_its_links_within_the_site() -> None:
    text = "[the table](../results/t.md), [`tests/plugins`](../tests/plugins), [data](data.md), ![curves](../results/c)"
    filled = "the table (`results/t.md`), `tests/plugins`, [data](data.md), ![curves](../results/c)"
    assert fill("probes", text) == filled
    assert "## `objective`" in fill("x", "<!-- generated: fields -->")


def test_a_page_that_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "fine.html").write_text('<a href="https://www.ray.io">Ray</a><script src="_static/x.js"></script>')
    (tmp_path / "cdn.html").write_text('<script async src="https://cdn.example/x.js"></script>')
    (tmp_path / "font.css").write_text("@import 'https://fonts.example/x';")
    assert loads_from_elsewhere(tmp_path) == ["cdn.html", "font.css"]
