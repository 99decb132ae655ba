"""The message to webhooks, with a server of this machine in their place."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.registration import SweepInfo
from orchestrator.notify import PAUSES_S, Notifier, compose
from orchestrator.storage.folder_lock import LockedError
from orchestrator.trials.events import Finished
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Trial
from specvit.errors import SpecsweepError

Record = Callable[..., TrialRecord]


class Webhook(ThreadingHTTPServer):
    """A webhook that answers with the given states, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[int] = []
        self.taken: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/SECRET"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.command, self.path))
        code = self.server.answers.pop(0) if self.server.answers else 200
        if code == 200:
            assert self.headers["Content-Type"] == "application/json"
            self.server.taken.append(json.loads(body))
        self.send_response(code)
        if code in (302, 307):
            self.send_header("Location", "file:///etc/passwd")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def notifier(webhook: Webhook, pauses: list[float], warnings: list[str]) -> Notifier:
    times = iter([100.0, 160.5])
    return Notifier(
        [webhook.address], sweep="tiny", warn=warnings.append, clock=lambda: next(times), sleep=pauses.append
    )


def run_of(ledger: Ledger, info: SweepInfo, *, finished: bool = True, pending: int = 1) -> Any:
    return SimpleNamespace(ledger=ledger, info=info, finished=finished, pending=range(pending))


def test_the_end_of_a_run_is_told_with_its_numbers(
    ledger: Ledger, trials: tuple[Trial, ...], webhook: Webhook, notifier: Notifier, warnings: list[str]
) -> None:
    for trial in trials:
        key = trial.trial_id
        ledger.record(Finished(key, ledger.begin_attempt(key), {"knn_top1": 1.0}, 1.0, 1.0))
    with notifier, notifier.watching(run_of(ledger, ledger.sweep())):
        pass
    notifier.wait()
    [message] = webhook.taken
    no_op = "norm@all is a no-op: equal to the baseline in every metric and seed."
    assert message == {
        "sweep": "tiny", "status": "done", "trials": {"done": 8}, "verdicts": [no_op], "seconds": 60.5,
        "host": socket.gethostname(), "error": None,
        "text": f"tiny: done on {socket.gethostname()} after 60 s\n8 done\n{no_op}",
    }
    assert (webhook.asked, warnings) == ([("POST", "/services/SECRET")], [])


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (SpecsweepError("the cluster is gone"), "failed", "the cluster is gone"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        (AssertionError("a defect"), "failed", "a defect"),
    ],
)
def test_what_breaks_a_run_off_is_told_once_and_goes_on_its_way(
    error: BaseException, status: str, text: str, ledger: Ledger, webhook: Webhook, notifier: Notifier
) -> None:
    with pytest.raises(type(error)), notifier, notifier.watching(run_of(ledger, ledger.sweep())):
        raise error
    notifier.wait()
    [message] = webhook.taken
    assert (message["status"], message["error"], message["trials"]) == (status, text, {"waiting": 8})


def test_a_stop_is_told_and_a_run_that_did_nothing_is_not(
    ledger: Ledger, webhook: Webhook, notifier: Notifier
) -> None:
    with notifier, notifier.watching(run_of(ledger, ledger.sweep(), pending=0)):
        pass
    with notifier, notifier.watching(run_of(ledger, ledger.sweep(), finished=False)):
        pass
    notifier.wait()
    assert [message["status"] for message in webhook.taken] == ["stopped"]


def test_a_run_that_cannot_begin_is_told_unless_another_one_holds_the_results(
    webhook: Webhook, notifier: Notifier
) -> None:
    with pytest.raises(LockedError), notifier:
        raise LockedError("held by another run")
    with pytest.raises(SpecsweepError), notifier:
        raise SpecsweepError("no images")
    notifier.wait()
    assert [message["error"] for message in webhook.taken] == ["no images"]


def test_it_is_tried_three_times(
    webhook: Webhook, notifier: Notifier, pauses: list[float], warnings: list[str]
) -> None:
    webhook.answers = [500, 429]
    with pytest.raises(SpecsweepError), notifier:
        raise SpecsweepError("x")
    notifier.wait()
    assert (len(webhook.taken), pauses, warnings) == (1, list(PAUSES_S), [])


@pytest.mark.parametrize("code", [302, 307, 404])
def test_redirects_are_not_followed_and_a_failure_is_one_warning_without_the_address(
    code: int, webhook: Webhook, notifier: Notifier, warnings: list[str]
) -> None:
    webhook.answers = [code] * 3
    with pytest.raises(SpecsweepError), notifier:
        raise SpecsweepError("x")
    notifier.wait()
    assert warnings == [f"notify: no message was taken by 127.0.0.1: HTTP status {code}, 3 tries"]
    assert webhook.asked == [("POST", "/services/SECRET")] * 3


def test_an_address_that_nobody_answers_is_one_warning(pauses: list[float], warnings: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    notifier = Notifier([f"http://127.0.0.1:{port}/SECRET"], sweep="x", warn=warnings.append, sleep=pauses.append)
    with pytest.raises(SpecsweepError), notifier:
        raise SpecsweepError("x")
    notifier.wait()
    assert len(warnings) == 1
    assert "refused" in warnings[0]
    assert "SECRET" not in warnings[0]


def test_failed_trials_make_a_sweep_failed_and_text_is_no_markup(trials: tuple[Trial, ...], record_of: Record) -> None:
    records = [record_of(trials[0], State.DONE), record_of(trials[1], State.FAILED)]
    error = SpecsweepError("<!channel> & more\nlines")
    message = compose("tiny", "done", records, None, seconds=7200.0, error=error)
    assert (message["status"], message["trials"]) == ("failed", {"done": 1, "failed": 1})
    assert message["error"] == "<!channel> & more lines"
    lines = message["text"].splitlines()
    assert lines[0].endswith("after 2 h 00 min")
    assert lines[1:] == ["1 done, 1 failed", "&lt;!channel&gt; &amp; more lines"]


def test_verdicts_are_those_above_the_tables(
    ledger: Ledger, trials: tuple[Trial, ...], record_of: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.notify.sentences_of", lambda _: ["norm@all is better."])
    records = [record_of(trial, State.DONE, metrics={"knn_top1": 1.0}) for trial in trials]
    assert compose("tiny", "done", records, ledger.sweep(), seconds=1)["verdicts"] == ["norm@all is better."]
    assert compose("tiny", "stopped", records, ledger.sweep(), seconds=1)["verdicts"] == []
