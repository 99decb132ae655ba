"""Builds the documentation as a site, ``make docs``: Sphinx with MyST reads the pages of ``docs/``.

The pages are Markdown as GitHub shows it. While they are read, a comment ``<!-- generated: NAME -->`` is replaced by
what the program says of itself, links to files beside ``docs/`` become their paths, and the list of pages in
``index.md`` becomes the navigation. A warning is an error, and so is a page that would load anything from elsewhere.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from .fields import FieldReference

DOCS = Path(__file__).parents[2] / "docs"
BUILD = DOCS / "_build"
SETTINGS: dict[str, Any] = {
    "project": "specsweep",
    "extensions": ["myst_parser"],
    "myst_enable_extensions": ["deflist"],
    "myst_heading_anchors": 4,
    "exclude_patterns": ["_build"],
    "html_theme": "furo",
    "html_title": "specsweep",
    "html_css_files": ["site.css"],
    "html_static_path": [str(DOCS / "static")],
    "smartquotes": False,
    "html_copy_source": False,
    "html_show_copyright": False,
    "highlight_language": "text",
    "nitpicky": True,
}
_COMMENT = re.compile(r"<!-- generated: (\w+) -->")
_PAGE = re.compile(r"^- \[[^\]]+\]\(([\w-]+)\.md\)", re.MULTILINE)
_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)]+)\)")
_LOADED = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=\"(?:https?:)?//|<link\b[^>]*\bhref=\"(?:https?:)?//|@import|url\(http"
)


@cache
def sweep_file_fields() -> str:
    """Return the reference of the sweep file."""
    from orchestrator.sweep.schema import SweepFile, sweep_json_schema

    return FieldReference(sweep_json_schema(written_out=True), [field.name for field in fields(SweepFile)]).render()


@cache
def command_options() -> str:
    """Return every command with its arguments and options, as ``typer utils docs`` writes them down."""
    from orchestrator.cli.app import app

    program = typer.main.get_command(app)
    text = get_docs_for_click(obj=program, ctx=typer.Context(program), name="specsweep")
    commands = text[text.index("## `specsweep ") :]
    return re.sub(r"(?:\*\*Options\*\*:\n\n)?\* `--help`: Show this message and exit\.\n", "", commands)


GENERATED: Mapping[str, Callable[[], str]] = {"fields": sweep_file_fields, "commands": command_options}


def fill(page: str, text: str) -> str:
    """Return a page as Sphinx reads it."""
    text = _COMMENT.sub(lambda match: GENERATED[match[1]](), text)
    text = _OUTSIDE.sub(lambda match: match[1] if match[2] in match[1] else f"{match[1]} (`{match[2]}`)", text)
    return text + "".join(navigation(text)) if page == "index" else text


def navigation(index: str) -> Iterator[str]:
    """Yield the navigation that the list of pages in the index stands for: a heading, its pages."""
    for section in index.split("\n## ")[1:]:
        caption, pages = section.partition("\n")[0], "\n".join(_PAGE.findall(section))
        if pages:
            yield f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def loads_from_elsewhere(site: Path) -> list[str]:
    """Return the pages and styles of a site that would load something over the network."""
    files = (path for kind in ("*.html", "*.css") for path in site.rglob(kind))
    return sorted(str(path.relative_to(site)) for path in files if _LOADED.search(path.read_text(encoding="utf-8")))


def main() -> int:
    """Build the site anew, and return the exit code."""
    from sphinx.application import Sphinx

    site = BUILD / "html"
    shutil.rmtree(BUILD, ignore_errors=True)
    app = Sphinx(DOCS, None, site, BUILD / "doctrees", "html", SETTINGS, warningiserror=True, status=None)
    app.connect("source-read", lambda _, page, source: source.__setitem__(0, fill(page, source[0])))
    app.build()
    elsewhere = loads_from_elsewhere(site)
    if elsewhere:
        sys.stderr.write(f"loads something from elsewhere: {', '.join(elsewhere)}\n")
    if elsewhere or app.statuscode:
        return 1
    sys.stdout.write(f"{site / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
