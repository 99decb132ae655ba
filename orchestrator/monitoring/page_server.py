"""A page that is shown on this machine alone, and made anew while its sweep runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from specvit.errors import SpecsweepError

ADDRESS = "127.0.0.1"
_NAMES = ("localhost", ADDRESS)
_LEAST_AGE_S = 5.0
"""A page that is younger is shown again: several readers cost no more than one."""
_MOST_SHARE = 0.2
"""Share of a core that the making of pages may take."""


class PageServer(ThreadingHTTPServer):
    """Serve one page at ``/`` to this machine; nothing else is served, and nothing is taken."""

    daemon_threads = True

    def __init__(self, render: Callable[[], str], port: int = 0) -> None:
        """Listen.

        Args:
            render: Makes the page; called again for a reader who comes later.
            port: Where to listen; 0 = at any that is free.

        Raises:
            SpecsweepError: If the port is taken.
        """
        self._render = render
        self._lock = threading.Lock()
        self._page, self._good_until = b"", float("-inf")
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise SpecsweepError(f"--port {port}: cannot listen at {ADDRESS} ({error.strerror})") from error

    @property
    def url(self) -> str:
        """Return where the page is."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def page(self) -> bytes:
        """Return the page, made anew unless it is young.

        Raises:
            SpecsweepError: If it cannot be made now.
        """
        with self._lock:
            if time.monotonic() >= self._good_until:
                began = time.monotonic()
                self._page = self._render().encode()
                took_s = time.monotonic() - began
                self._good_until = time.monotonic() + max(_LEAST_AGE_S, took_s / _MOST_SHARE)
            return self._page


class _Handler(BaseHTTPRequestHandler):
    """Answer GET and HEAD of the page to a browser that asked for this machine by its name."""

    server: PageServer
    server_version, sys_version = "specsweep", ""
    timeout = 30

    def do_GET(self) -> None:
        """Send the page."""
        # Another site's name can be made to lead to this machine (DNS rebinding); its pages are not to read this one.
        host, _, port = self.headers.get("Host", "").partition(":")
        if host not in _NAMES or port not in ("", str(self.server.server_address[1])):
            self._answer(HTTPStatus.FORBIDDEN, b"this page is for this machine alone\n")
        elif self.path != "/":
            self._answer(HTTPStatus.NOT_FOUND, b"there is nothing here but /\n")
        else:
            try:
                self._answer(HTTPStatus.OK, self.server.page(), kind="text/html")
            except (SpecsweepError, OSError) as error:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode(errors="replace"))

    def do_HEAD(self) -> None:
        """Send the headers of the page."""
        self.do_GET()

    def _answer(self, status: HTTPStatus, body: bytes, *, kind: str = "text/plain") -> None:
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        headers |= {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}
        if status is not HTTPStatus.OK:
            headers["Retry-After"] = "5"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""
