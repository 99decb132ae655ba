"""A headless Chromium that shows a page as a reader would see it, driven through a pipe."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
"""The browser; None where there is none."""


@dataclass(frozen=True)
class Seen:
    """What a page did.

    Attributes:
        errors: What the browser's console said that is an error or a warning, refusals of the page's policy among it.
        requests: Addresses that were asked for, the page's own among them.
        scroll_width: How wide the page is, in pixels.
        width: How wide its window is.
        busy_s: CPU seconds that it took to be loaded and laid out: where nothing else runs, the wait for it.
        text: What can be read on it.
        title: Its title.
        background: Colour of its ground.
    """

    errors: tuple[str, ...]
    requests: tuple[str, ...]
    scroll_width: int
    width: int
    busy_s: float
    text: str
    title: str
    background: str


class Browser:
    """Show pages; see ``open_browser``."""

    _session: str | None = None

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, os.fdopen(read, "rb", buffering=0)
        self._buffer = b""
        self._ids = itertools.count(1)
        self._events: deque[dict[str, Any]] = deque()
        (target,) = (t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self._call(f"{domain}.enable")
        self._call("Performance.enable", timeDomain="threadTicks")

    def look_at(
        self,
        page: Path | str,
        *,
        width: int = 1400,
        height: int = 1000,
        is_dark: bool = False,
        media: str = "screen",
        shot: Path | None = None,
    ) -> Seen:
        """Load a file or an address and tell what it did; its whole length goes to ``shot``, a PNG, if given."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._events.clear()
        address = page if isinstance(page, str) else page.resolve().as_uri()
        self._call("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())
        scroll_width = self._evaluate("document.documentElement.scrollWidth")
        metrics = {each["name"]: each["value"] for each in self._call("Performance.getMetrics")["metrics"]}
        text = self._evaluate("document.body.innerText")
        if shot is not None:
            picture = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            shot.write_bytes(base64.b64decode(picture["data"]))
        return Seen(
            tuple(filter(None, map(_complaint, self._events))),
            tuple(e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"),
            scroll_width, width, metrics["TaskDuration"], text, self._evaluate("document.title"),
            self._evaluate("getComputedStyle(document.body).backgroundColor"),
        )

    def _evaluate(self, expression: str) -> Any:
        """Evaluate what the test asks, which the page's policy does not keep from being run."""
        return self._call("Runtime.evaluate", expression=expression)["result"]["value"]

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            if "method" in answer:
                self._events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = self._read.read(65536)
            assert more, "the browser has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded


def _complaint(event: dict[str, Any]) -> str | None:
    """Return what an event complains of; None if it is none."""
    params = event["params"] if event.get("params") else {}
    match event["method"]:
        case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
            return str(params["entry"]["text"])
        case "Runtime.consoleAPICalled":
            return f"console.{params['type']}"
        case "Runtime.exceptionThrown":
            return str(params["exceptionDetails"]["text"])
        case "Page.javascriptDialogOpening":
            return f"dialog: {params['message']}"
    return None


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own below ``folder``; it ends with the context."""
    assert CHROMIUM is not None
    to_browser, from_browser = os.pipe(), os.pipe()
    arguments = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe",
        "about:blank",
    ]

    def place() -> None:
        # The browser reads commands from 3 and answers on 4; first out of the way of each other.
        read, write = os.dup(to_browser[0]), os.dup(from_browser[1])
        high_read, high_write = os.dup2(read, 60), os.dup2(write, 61)
        os.dup2(high_read, 3)
        os.dup2(high_write, 4)

    process = subprocess.Popen(
        arguments, preexec_fn=place, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Browser(to_browser[1], from_browser[0])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(to_browser[1])
