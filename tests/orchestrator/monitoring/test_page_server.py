"""The server of a page: to this machine alone, by its own name, one page and nothing else."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator

import pytest

from orchestrator.monitoring import page_server
from orchestrator.monitoring.page_server import PageServer
from specvit.errors import SpecsweepError

Ask = Callable[..., http.client.HTTPResponse]


class Pages:
    """A page with a number that counts how often it was made."""

    def __init__(self) -> None:
        self.made = 0
        self.fails = False

    def __call__(self) -> str:
        if self.fails:
            raise SpecsweepError("ledger.sqlite: gone\nfor good")
        self.made += 1
        return f"<!DOCTYPE html>page {self.made} ü"


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def server(pages: Pages) -> Iterator[PageServer]:
    with PageServer(pages) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


@pytest.fixture
def ask(server: PageServer) -> Iterator[Ask]:
    opened = []

    def request(method: str = "GET", path: str = "/", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(*server.server_address[:2])
        opened.append(connection)
        connection.request(method, path, headers=headers)
        return connection.getresponse()

    yield request
    for each in opened:
        each.close()


def test_the_page_is_served_to_this_machine_alone(server: PageServer, ask: Ask) -> None:
    assert server.server_address[0] == "127.0.0.1"
    answer = ask()
    assert (answer.status, answer.getheader("Content-Type")) == (200, "text/html; charset=utf-8")
    assert answer.read().decode() == "<!DOCTYPE html>page 1 ü"
    assert answer.getheader("Cache-Control") == "no-store"
    assert ask("HEAD").read() == b""


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_name_of_this_machine_is_answered(name: str, server: PageServer, ask: Ask) -> None:
    assert ask(Host=f"{name}:{server.server_address[1]}").status == 200
    assert ask(Host=name).status == 200


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1:1", ""])
def test_a_name_that_another_site_made_lead_here_is_refused(name: str, ask: Ask, pages: Pages) -> None:
    answer = ask(Host=name)
    assert (answer.status, answer.read()) == (403, b"this page is for this machine alone\n")
    assert pages.made == 0


@pytest.mark.parametrize("path", ["/ledger.sqlite", "/../ledger.sqlite", "/?x", "/%2e%2e/"])
def test_nothing_else_is_served(path: str, ask: Ask, pages: Pages) -> None:
    assert ask(path=path).status == 404
    assert pages.made == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_taken(method: str, ask: Ask) -> None:
    assert ask(method).status == 501


def test_a_young_page_is_shown_again_and_an_old_one_is_made_anew(
    ask: Ask, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [ask().status for _ in range(3)] == [200] * 3
    assert pages.made == 1
    now = page_server.time.monotonic()
    monkeypatch.setattr(page_server.time, "monotonic", lambda: now + 60)
    assert ask().read().decode() == "<!DOCTYPE html>page 2 ü"


def test_a_ledger_that_cannot_be_read_now_is_told_and_asked_again_later(ask: Ask, pages: Pages) -> None:
    pages.fails = True
    answer = ask()
    assert (answer.status, answer.read()) == (503, b"ledger.sqlite: gone\nfor good\n")
    pages.fails = False
    assert ask().status == 200


def test_a_port_that_is_taken_is_told(server: PageServer, pages: Pages) -> None:
    port = server.server_address[1]
    with pytest.raises(SpecsweepError, match=rf"--port {port}: cannot listen at 127.0.0.1 \("):
        PageServer(pages, port)
