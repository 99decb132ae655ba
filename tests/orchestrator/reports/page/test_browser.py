"""The page in a real browser: nothing runs, nothing is loaded, nothing is wider than the window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.monitoring.page_server import PageServer
from orchestrator.reports.page.page import render_page
from orchestrator.reports.page.report import SweepReport

from ....browser import CHROMIUM, Browser, open_browser
from .page_records import STATES, hostile_groups, hostile_report, large_records, report_of

pytestmark = [pytest.mark.long, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]

WIDTHS = (360, 800, 1400)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Callable[[str], Path]:
    def write(page: str) -> Path:
        path = tmp_path / "report.html"
        path.write_text(page, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    "make",
    [lambda: report_of(STATES), hostile_report, hostile_groups, lambda: report_of(large_records(13))],
    ids=["states", "hostile", "hostile groups", "many groups"],
)
def test_no_error_no_request_and_no_sideways_scrolling_at_three_widths_in_the_light_and_in_the_dark(
    make: Callable[[], SweepReport], browser: Browser, show: Callable[[str], Path]
) -> None:
    report = make()
    path = show(render_page(report))
    for width in WIDTHS:
        for is_dark in (False, True):
            seen = browser.look_at(path, width=width, is_dark=is_dark)
            assert seen.errors == ()
            assert seen.requests == (path.resolve().as_uri(),)
            assert seen.scroll_width <= width
            assert seen.title == " ".join(report.info.name.split())  # what would run sets another one


def test_the_browser_of_these_tests_sees_what_it_is_to_see(browser: Browser, show: Callable[[str], Path]) -> None:
    head = "<!DOCTYPE html><title>as written</title>"
    wide = "<div style='width:3000px'>wide</div><img src=x onerror=\"document.title = 'run'\">"
    seen = browser.look_at(show(f"{head}<script>console.error('oh')</script>{wide}"), width=360)
    assert "console.error" in seen.errors
    assert len(seen.requests) == 2
    assert seen.scroll_width >= 3000
    assert seen.title == "run"


def test_the_policy_of_the_page_stops_what_an_escaping_that_failed_would_let_in(
    browser: Browser, show: Callable[[str], Path]
) -> None:
    script = "<script>document.title = 'run'</script><img src=https://example.org/x.png>"
    page = render_page(report_of(STATES))
    seen = browser.look_at(show(page.replace("<main>", f"<main>{script}")), width=800)
    assert seen.title == "components"
    assert any("inline script violates" in error for error in seen.errors)
    assert any("example.org/x.png' violates" in error for error in seen.errors)


def test_a_sweep_of_ten_thousand_trials_opens_in_under_three_seconds_and_five_megabytes(
    browser: Browser, show: Callable[[str], Path]
) -> None:
    records = large_records(200)
    assert len(records) == 10_000
    page = render_page(report_of(records))
    assert len(page.encode()) < 5_000_000
    seen = browser.look_at(show(page), width=1400)
    assert seen.busy_s < 3.0
    assert "Not finished: 50 trials of 10,000" in seen.text
    assert seen.errors == ()


def test_a_page_that_is_served_loads_nothing_beside_itself(browser: Browser) -> None:
    with PageServer(lambda: render_page(report_of(STATES, seen_at="now", refresh_s=30))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        seen = browser.look_at(server.url)
        server.shutdown()
        thread.join()
    assert (seen.errors, seen.requests) == ((), (server.url,))
    assert seen.title == "components"


@pytest.mark.parametrize("is_dark", [False, True])
def test_what_is_printed_is_dark_on_light(
    is_dark: bool, browser: Browser, show: Callable[[str], Path]
) -> None:
    page = render_page(report_of(STATES))
    seen = browser.look_at(show(page), width=800, is_dark=is_dark, media="print")
    assert seen.background == "rgb(255, 255, 255)"
