"""The page: its head, its sections in their order, and what it is allowed to do in a browser: nothing."""

from __future__ import annotations

from importlib.resources import files

from orchestrator.reports.drawing.svg import colour_variables, style_sheet
from orchestrator.reports.page.across import across_section
from orchestrator.reports.page.costs import cost_section
from orchestrator.reports.page.groups import EM, group_sections
from orchestrator.reports.page.markup import text
from orchestrator.reports.page.origin import origin_section
from orchestrator.reports.page.report import SweepReport
from orchestrator.reports.page.summary import findings, header
from orchestrator.reports.page.trouble import trouble_section

PAGE_NAME = "report.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy: a browser loads nothing and runs nothing, whatever a label holds."""


def render_page(report: SweepReport) -> str:
    """Return the report as one HTML document."""
    groups = group_sections(report)
    parts = (
        ("findings", "Findings", findings(report)),
        ("results", "Results", groups),
        ("across", "Across groups", across_section(report)),
        ("cost", "Cost", cost_section(report)),
        ("trouble", "Failures and retries", trouble_section(report)),
        ("origin", "Origin", origin_section(report)),
    )
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, body in parts if body)
    body = "".join(body for _, _, body in parts)
    refresh = "" if report.refresh_s is None else f'<meta http-equiv="refresh" content="{report.refresh_s}">'
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        '<link rel="icon" href="data:,">'  # else a browser would ask for one
        f"{refresh}<title>{text(report.info.name)}</title><style>{_style()}</style></head>\n"
        f"<body>{header(report)}<nav>{links}</nav><main>{body}</main>"
        f"<footer>Made by specsweep from the sweep's ledger.</footer></body></html>\n"
    )


def _style() -> str:
    """Return the style sheet: colours by the reader's scheme, on paper those of the light."""
    light, dark = (colour_variables(dark=is_dark) for is_dark in (False, True))
    own = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    dark_rule = f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return f":root{{{light}}}{dark_rule}{own}\n{style_sheet(EM)}"
