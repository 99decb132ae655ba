"""How a run is stopped from outside: the first signal is a wish, the second one an end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_STOPPING = b"\nspecsweep: stopping; running trials save their states (once more: stop at once)\n"


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, SIGTERM or lost terminal into a wish to stop; a second one interrupts at once.

    A SIGHUP that is ignored, as under ``nohup``, stays so.
    """
    wishes: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        wishes.append(number)
        if len(wishes) > 1:
            raise KeyboardInterrupt
        with suppress(OSError):  # at once, whatever is being printed; the terminal may be gone
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _STOPPING)

    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield lambda: bool(wishes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
